"""The simulated world: machines on which processes with the real runtime live and die, and the faults around them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct

from collectors.config.load import from_mapping
from collectors.errors import TransientError
from collectors.runtime.engine import Engine
from collectors.runtime.env import Env
from collectors.runtime.ledger import RunReport
from collectors.testing._sim_loop import Call, Process, SimLoop, current
from collectors.testing._sim_plan import Life, Plan
from collectors.testing._sim_sources import Series, Sieve, make_source
from collectors.testing._sim_stores import make_backend

__all__ = ["PIPELINE", "Run", "World"]

PIPELINE = "simulated"
_START = datetime(2026, 3, 1, tzinfo=UTC)
_FALLIBLE = {"open", "claim", "stored", "commit", "write", "flush"}
_SETTING_UP = {"_open", "close"}
_SETTLING_SECONDS = 1e-3
_CALM_SECONDS = 3600.0


class Run(Struct, eq=False):
    """One process's life as it was: when it was asked to stop, until when its threads were busy, how it ended."""

    life: Life
    host: int
    process: Process
    engine: Engine
    started_at: float
    stopped_at: float | None = None
    stop_by: float = float("inf")
    ended_at: float = 0.0
    report: RunReport | None = None
    error: Exception | None = None

    @property
    def expired(self) -> bool:
        """Whether its time for draining was over before it was done."""
        return self.stopped_at is not None and self.ended_at >= self.stopped_at + self.patience

    @property
    def patience(self) -> float:
        """How long it may drain."""
        again = self.life.stop_again_after
        return self.life.drain if again is None else min(self.life.drain, again)

    @property
    def frozen_seconds(self) -> float:
        """How long it was frozen after it was asked to stop."""
        start, end = self.life.frozen or (0.0, 0.0)
        return max(0.0, end - max(start, (self.stopped_at or 0.0) - self.started_at))

    @property
    def clean(self) -> bool:
        """Whether everything that was read has been stored."""
        return (
            not self.process.dead
            and self.report is not None
            and not self.expired
            and all(flow.error is None for flow in self.report.flows)
        )


class World:
    """Runs a plan. `on_run` looks at each process that has ended, `on_commit` at what sources were told."""

    def __init__(
        self,
        plan: Plan,
        seed: str,
        folder: Path,
        *,
        on_run: Callable[[Run], None],
        on_commit: Callable[[Series, int], None],
    ) -> None:
        self.plan = plan
        self.calm = False
        self.loop = SimLoop(seed, self._plan_call)
        self.runs: list[Run] = []
        self.story: list[str] = []
        self.locks: dict[Path, Process] = {}
        self._folder = folder
        self._on_run = on_run
        self._on_commit = on_commit
        self._busy: dict[Process, float] = {}

    def play(self) -> None:
        """Let everything happen, to the end. Raises StuckError."""
        try:
            self.loop.run_until_complete(self._play())
        finally:
            for run in self.runs:
                self.loop.bury(run.process)
            self.loop.close()

    def busy(self, run: Run) -> float:
        """Return until when threads of a process were busy with what was begun in time."""
        return self._busy.get(run.process, 0.0)

    def state(self, host: int) -> Path:
        """Return the folder in which a machine keeps the state of the pipeline."""
        return self._folder / f"host{host}"

    def spool(self, source: str) -> Path:
        """Return the folder in which the process that is at work keeps what a source has pushed."""
        process = current()
        host = next(run.host for run in self.runs if run.process is process)
        return self.state(host) / "spool" / source

    def tell(self, text: str) -> None:
        """Add a line to the story."""
        process = current()
        self.story.append(f"{self.loop.time():12.6f} {process.name if process else 'world':8} {text}")

    def hits(self, rate: float) -> bool:
        """Return whether something with this probability happens now."""
        return not self.calm and self.loop.chance.random() < rate

    def below(self, limit: int) -> int:
        """Return a number from 0 up to the limit."""
        return int(self.loop.chance.random() * limit)

    def seconds(self) -> float:
        """Return how long something takes."""
        chance = self.loop.chance.random()
        if chance < 0.6:
            return 0.0
        return self.loop.chance.expovariate(200.0 if chance < 0.97 else 2.0)

    def elapsed(self) -> float:
        """Return the simulated seconds since the start."""
        return self.loop.time()

    def now(self) -> datetime:
        """Return the time of day, which jumps now and then."""
        jumped = sum(by for at, by in self.plan.jumps if at <= self.loop.time())
        return _START + timedelta(seconds=self.loop.time() + jumped)

    async def _play(self) -> None:
        await asyncio.gather(*(self._host(number, lives) for number, lives in enumerate(self.plan.hosts)))
        self.calm = True
        await asyncio.wait_for(self._live(0, Life()), _CALM_SECONDS)

    async def _host(self, host: int, lives: list[Life]) -> None:
        for life in lives:
            await asyncio.sleep(self.seconds() * 10)
            await self._live(host, life)

    async def _live(self, host: int, life: Life) -> None:
        process = Process(f"{host}.{len(self.runs)}", kill_at=life.kill_at, signal_at=life.stop_at)
        run = Run(life, host, process, self._engine(process, host, life), self.loop.time())
        self.runs.append(run)
        self.tell(f"process {process.name} starts: {life}")
        self.loop.start(process, self._main(run))
        if life.frozen is not None:
            begin, end = (self.loop.time() + moment for moment in life.frozen)
            self.loop.call_at(begin, setattr, process, "paused_until", end)
        await process.ended.wait()
        run.ended_at = self.loop.time()
        await asyncio.sleep(_SETTLING_SECONDS)
        self.tell(f"process {process.name} " + ("is dead" if process.dead else "has ended"))
        self.locks = {path: owner for path, owner in self.locks.items() if owner is not process}
        self._on_run(run)
        self.loop.bury(process)

    async def _main(self, run: Run) -> None:
        try:
            run.report = await run.engine.run()
        except Exception as error:  # noqa: BLE001  # judged later
            run.error = error

    def _engine(self, process: Process, host: int, life: Life) -> Engine:
        config = from_mapping(
            {
                "sources": [make_source(series, self, self._told) for series in self.plan.series],
                "processors": [Sieve({series.id: series for series in self.plan.series})],
                "storage": [make_backend(store) for store in self.plan.stores],
                "state": str(self.state(host)),
                "memory": self.plan.memory,
            },
            folder=self._folder,
            name=PIPELINE,
        )
        return Engine(
            config,
            env=_SimEnv(self, process),
            drain=life.drain,
            patience=life.patience,
            on_notice=self.tell,
        )

    def _told(self, series: Series, position: int) -> None:
        self.tell(f"{series.id} is told that it is stored up to {position}")
        self._on_commit(series, position)

    def stop(self, process: Process, handler: Callable[[], None]) -> None:
        """SIGTERM has arrived."""
        run = next(run for run in self.runs if run.process is process)
        self.tell("is asked to stop")
        handler()
        if run.stopped_at is None:
            run.stopped_at = self.loop.time()
            again = run.life.stop_again_after
            run.stop_by = run.stopped_at + run.patience
            if again is not None:
                self.loop.call_later(again, self.loop.signal, process)

    def _plan_call(self, call: Call) -> None:
        call.wait, call.work = self.seconds(), self.seconds()
        name = getattr(call.function, "__name__", "")
        if not self.calm and call.thread.startswith("backend-") and name in _FALLIBLE:
            self._disturb(call, name)
        elif call.thread == "collectors-state" and name not in _SETTING_UP and self.hits(self.plan.full):
            call.before = TransientError(f"the disk is full (state: {name})")
        elif name == "append" and self.hits(self.plan.full):
            call.before = TransientError("the disk is full (spool)")
        process = current()
        if process is not None:
            run = next(run for run in self.runs if run.process is process)
            now = self.loop.time()
            if now <= run.stop_by:
                self._busy[process] = max(self._busy.get(process, 0.0), now + call.wait + call.work)
            else:
                call.wait = call.work = 0.0

    def _disturb(self, call: Call, name: str) -> None:
        store = call.thread.removeprefix("backend-")
        weather = self.plan.weather[store]
        now = self.loop.time()
        chance = self.loop.chance.random()
        if any(start <= now < end for start, end in weather.outages):
            call.before = TransientError(f"{store} is away ({name})")
        elif chance < weather.before:
            call.before = TransientError(f"{store} is not reached ({name})")
        elif chance < weather.before + weather.behind:
            call.behind = TransientError(f"{store} does not answer ({name})")
        elif chance < weather.before + weather.behind + weather.slow:
            call.work = 10 ** (self.loop.chance.random() * 5 - 1)
        self.tell(f"{store}.{name}: {call.before or call.behind or 'works'}")


class _Lock:
    def __init__(self, locks: dict[Path, Process], path: Path) -> None:
        self._locks, self._path = locks, path

    def __enter__(self) -> _Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self._locks.pop(self._path, None)


class _SimEnv(Env):
    """The simulated world as the runtime sees it."""

    def __init__(self, world: World, process: Process) -> None:
        super().__init__()
        self._world = world
        self._process = process

    def monotonic(self) -> float:
        return self._world.loop.time()

    def now(self) -> datetime:
        return self._world.now()

    def random(self) -> float:
        return self._world.loop.chance.random()

    def new_id(self) -> str:
        return f"run-{self._process.name}"

    def peak_memory(self) -> int:
        return 0

    def memory(self) -> int:
        return 0

    def lock(self, path: Path) -> Any:
        if path in self._world.locks:
            return f"process {self._world.locks[path].name}"
        self._world.locks[path] = self._process
        return _Lock(self._world.locks, path)

    def on_signals(self, handler: Callable[[], None], *names: str) -> Callable[[], None]:
        if names:
            return lambda: None
        self._process.on_signal = lambda: self._world.stop(self._process, handler)
        return lambda: setattr(self._process, "on_signal", lambda: None)
