"""An event loop for simulations: seeded order, a clock that jumps, threads that are none, processes that die.

Everything runs in one thread and draws from one seed, so the same seed is the same run, bit for bit. After a 45-line
probe of ours; the idea is FoundationDB's (Zhou et al., SIGMOD 2021, section 4).
"""

# ruff: noqa: SLF001  # who takes asyncio's steps for it has to reach into it

from __future__ import annotations

import asyncio
import contextlib
import heapq
import inspect
import random
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, ContextVar, copy_context
from typing import Any
from weakref import WeakKeyDictionary

from msgspec import Struct, field

from collectors.workers import Workers

__all__ = ["Call", "Process", "SimLoop", "StuckError", "current"]

_STEP_SECONDS = 1e-6
_MOST_STEPS = 400_000
_CLOSINGS = 50


class StuckError(Exception):
    """Nothing is left to do and nobody is done, or there is no end of doing."""


class Process(Struct, eq=False):
    """A simulated process: what its tasks and threads are told by; `kill`, `pause` and `signal` act on all of them.

    `kill_at` and `signal_at` are numbers of steps. `ended` is done when it is dead or its main coroutine has ended.
    """

    name: str
    kill_at: int | None = None
    signal_at: int | None = None
    paused_until: float = 0.0
    dead: bool = False
    gone: bool = False
    steps: int = 0
    on_signal: Callable[[], None] = lambda: None
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    futures: list[asyncio.Future[Any]] = field(default_factory=list)
    generators: list[Any] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    context: Context = field(default_factory=copy_context)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


_process: ContextVar[Process | None] = ContextVar("simulated process", default=None)


def current() -> Process | None:
    """Return the process whose code runs now; None for the simulation itself."""
    return _process.get()


class Call(Struct):
    """A function that a simulated thread is to run: on whose behalf, and what goes wrong.

    `wait` and `work` are the seconds before it runs and before its result is known; `before` is raised instead of
    running it, `behind` after it has run.
    """

    thread: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    future: asyncio.Future[Any]
    wait: float = 0.0
    work: float = 0.0
    before: Exception | None = None
    behind: Exception | None = None


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    def __init__(self, coroutine: Any, serial: int, **options: Any) -> None:
        self.serial = serial
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self.serial


class SimLoop(asyncio.BaseEventLoop):
    """Runs one callback a step, any of those that are ready; when none is, the clock jumps to the next timer.

    `plan` is told of every function for a thread before it runs and may delay or fail it.
    """

    def __init__(self, seed: str, plan: Callable[[Call], None]) -> None:
        super().__init__()
        self.chance = random.Random(seed)  # noqa: S311  # chance that can be repeated is the point
        self.steps = 0
        self.digest = 0
        self._plan = plan
        self._now = 0.0
        self._tasks = 0
        self._lanes: WeakKeyDictionary[Workers, deque[Call]] = WeakKeyDictionary()
        self.set_task_factory(self._make_task)
        self.set_exception_handler(_note)

    def time(self) -> float:
        """Return the simulated seconds since the start."""
        return self._now

    def start(self, process: Process, main: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine as the main task of a process."""

        def begin() -> None:
            _process.set(process)
            self.create_task(main).add_done_callback(lambda _: process.ended.set())

        process.context.run(begin)

    def kill(self, process: Process) -> None:
        """End a process as SIGKILL does: nothing of it runs any more, not even what stands behind `finally`."""
        process.dead = process.gone = True
        process.ended.set()

    def signal(self, process: Process) -> None:
        """Send SIGTERM."""
        self.call_soon(lambda: process.on_signal(), context=process.context)

    def bury(self, process: Process) -> None:
        """Drop what is left of a dead process; its coroutines are closed while the loop no longer runs for them."""
        process.gone = True
        for task in process.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
        for generator in process.generators:
            if inspect.iscoroutine(generator.ag_await):
                _close(generator.ag_await)
        process.tasks.clear()
        process.generators.clear()

    def leftovers(self, process: Process) -> list[str]:
        """Return what a process that has ended by itself left behind: tasks that run, errors that nobody looked at."""
        found = list(process.problems)
        found += [f"task {task.get_coro()!r} still runs" for task in process.tasks if not task.done()]
        found += [f"{each!r} was not closed" for each in process.generators if each.ag_frame is not None]
        found += [
            f"nobody looked at {future.exception()!r}"
            for future in (*process.tasks, *process.futures)
            if future.done() and future._log_traceback
        ]
        return found

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function some time from now, in this thread."""
        call = Call("asyncio", func, args, self.create_future())
        self._begin(call, None)
        return call.future

    def run_in_workers(
        self, workers: Workers, function: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Do the same for them; one after the other where there is one thread."""
        call = Call(workers.name, function, args, self.create_future())
        if workers.most != 1:
            self._begin(call, None)
            return call.future
        lane = self._lanes.setdefault(workers, deque())
        lane.append(call)
        if len(lane) == 1:
            self._begin(call, lane)
        return call.future

    def create_future(self) -> asyncio.Future[Any]:
        """Return a new future, remembered for the process that wants it."""
        future = super().create_future()
        if (process := _process.get()) is not None:
            process.futures.append(future)
        return future

    def _begin(self, call: Call, lane: deque[Call] | None) -> None:
        self._plan(call)
        self._after(call.wait, self._work, call, lane)

    def _work(self, call: Call, lane: deque[Call] | None) -> None:
        result, error = None, call.before
        if call.future.cancelled():
            call.work = 0.0
        elif error is None:
            try:
                result = call.function(*call.args)
                error = call.behind
            except Exception as raised:  # noqa: BLE001  # handed on to who called
                error = raised
        self._after(call.work, self._finish, call, lane, result, error)

    def _after(self, seconds: float, callback: Callable[..., None], *args: Any) -> None:
        if seconds:
            self.call_later(seconds, callback, *args)
        else:
            self.call_soon(callback, *args)

    def _finish(self, call: Call, lane: deque[Call] | None, result: Any, error: Exception | None) -> None:
        if lane is not None:
            lane.popleft()
            if lane:
                self._begin(lane[0], lane)
        if call.future.done():
            return
        if error is not None:
            call.future.set_exception(error)
        else:
            call.future.set_result(result)

    def _make_task(self, _: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        self._tasks += 1
        task = _Task(coroutine, self._tasks, loop=self, **options)
        if (process := _process.get()) is not None:
            process.tasks.append(task)
        return task

    def _run_once(self) -> None:
        """Take one step."""
        ready, timers = self._ready, self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        if not ready:
            if not timers:
                raise StuckError("nothing is left to do, and not everything is done")
            self._now = max(self._now, timers[0]._when)
        while timers and timers[0]._when <= self._now:
            handle = heapq.heappop(timers)
            handle._scheduled = False
            ready.append(handle)
        if len(ready) > 1:
            chosen = int(self.chance.random() * len(ready))
            self.digest = hash((self.digest, chosen, len(ready)))
            ready.rotate(-chosen)
        handle = ready.popleft()
        self._now += _STEP_SECONDS
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise StuckError(f"after {_MOST_STEPS} steps there is no end in sight")
        if not handle._cancelled and self._may_run(handle):
            handle._run()

    def _may_run(self, handle: Any) -> bool:
        process = handle._context.get(_process)
        if process is None:
            return True
        if process.gone:
            return False
        if process.paused_until > self._now:
            self.call_at(process.paused_until, self._ready.append, handle)  # type: ignore[attr-defined]
            return False
        process.steps += 1
        if process.steps == process.kill_at:
            self.kill(process)
            return False
        if process.steps == process.signal_at:
            self.signal(process)
        return True

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        super()._asyncgen_firstiter_hook(agen)  # type: ignore[misc]
        if (process := _process.get()) is not None:
            process.generators.append(agen)

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """Let a generator go that nobody has closed: `leftovers` tells of it, or its process is dead."""

    def _process_events(self, event_list: Any) -> None:
        """There are no sockets."""

    def _write_to_self(self) -> None:
        """There is nothing to wake up."""


def _close(coroutine: Any) -> None:
    """Close a coroutine from the inside out, so that nothing in it takes what the closing raises for its own error."""
    for _ in range(_CLOSINGS):
        inner = coroutine
        while inspect.iscoroutine(inner) and _is_open(inner.cr_await):
            inner = inner.cr_await
        with contextlib.suppress(BaseException):
            inner.close()
            if inner is coroutine:
                return


def _is_open(awaited: Any) -> bool:
    return inspect.iscoroutine(awaited) and inspect.getcoroutinestate(awaited) != inspect.CORO_CLOSED


def _note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keep what asyncio would only have logged."""
    process = _process.get()
    if process is not None and not process.gone:
        process.problems.append(f"{context['message']}: {context.get('exception')!r}")
