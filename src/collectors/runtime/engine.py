"""A loaded pipeline becomes running flows and comes to a clean end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from collectors.chunks import Counts, Drift, drift_lines
from collectors.collection.base import Source
from collectors.config.load import from_mapping, load
from collectors.config.model import PipelineConfig
from collectors.enums import EventType
from collectors.errors import CollectorsError, ConfigurationError, TransientError, to_info
from collectors.interfaces.crosscutting import IErrorHandler, IEventEmitter
from collectors.models import SystemEvent
from collectors.runtime.assembly import make_sources
from collectors.runtime.budget import Budget
from collectors.runtime.building import Builder
from collectors.runtime.env import Env
from collectors.runtime.flow import Flow
from collectors.runtime.ledger import FlowReport, RunFailedError, RunReport
from collectors.runtime.memory import give_memory_back, has_much_free, trim_heap
from collectors.runtime.reading import race
from collectors.runtime.reload import Reloader
from collectors.runtime.runs import Runs, ledger_of
from collectors.runtime.scheduler import check_schedule, is_endless
from collectors.runtime.shutdown import Shutdown
from collectors.runtime.state import STATE_HINT, State
from collectors.runtime.supervisor import Supervisor
from collectors.storage.base import Backend
from collectors.storage.files import translated
from collectors.workers import Workers

__all__ = ["Engine", "run"]

CONNECT_SECONDS = 1.0
"""For which the start waits for storages; one that needs longer connects beside the flows that need it not."""

NOTE_SECONDS = 2.0
"""So often a run writes down how far it is."""

TRIM_NOTES = 15
"""With every so many-th note it gives memory back, and earlier when much is free."""

DISK_THREADS = 8

LAST_SECONDS = 5.0
"""For which stores are asked what they have after a second signal."""

Notice = Callable[[str], None]


class Engine:
    """Runs one pipeline, once.

    `report` can be looked at while it runs. `on_notice` gets one line for people whenever something changes that
    they should know: a source that is waiting, a flow that failed. `limit` stops intake after so many seconds, `drain`
    is the time for storing what was read then. `patience` is how long, in seconds, a source or storage that is away
    is put up with; when it is None, a minute for a pipeline that comes to an end by itself, and for ever for others.
    """

    def __init__(
        self,
        config: PipelineConfig,
        *,
        env: Env | None = None,
        events: IEventEmitter | None = None,
        errors: IErrorHandler | None = None,
        on_notice: Notice | None = None,
        limit: float | None = None,
        drain: float = 30.0,
        patience: float | None = None,
    ) -> None:
        self.config = config
        self.env = env or Env()
        self.report = RunReport(config.name, self.env.new_id(), self.env.now(), [])
        self.budget = Budget(config.memory * 7 // 8)
        self._intake_budget = Budget(config.memory // 8)
        self._events = events
        self._errors = errors
        self._on_notice = on_notice or (lambda _: None)
        self._patience = patience
        self._shutdown = Shutdown(self.env, deadline=drain, limit=limit)
        self._telling: set[asyncio.Task[None]] = set()
        self._at_end: Callable[..., Any] = lambda _: None
        self._reloader: Reloader | None = None

    def stop(self) -> None:
        """Stop intake, drain, end, also before the run has begun; a second time: end at once.

        For callers in the same event loop.
        """
        self._shutdown.request()

    async def run(self) -> RunReport:
        """Run until every source has ended or a stop is asked for, and return what happened.

        Raises ConfigurationError when the pipeline cannot start (nothing was read or written then). What goes wrong
        in a flow later is in its report.
        """
        started = self.env.monotonic()
        give_memory_back()
        async with AsyncExitStack() as stack:
            stack.callback(self.env.close)
            self._at_end = stack.callback
            self._lock(stack)
            state = State(self.config.state / "state.db", self.env)
            stack.push_async_callback(state.close)
            await state.open()
            shutdown = stack.enter_context(self._shutdown)
            sources = make_sources(self.config)
            batch = not any(is_endless(source) for source in sources.values())
            await self._connect_sources(sources, stack, shutdown)
            backends = await self._connect_backends(stack, shutdown)
            flows = await self._flows(sources, backends, state, shutdown, batch=batch)
            async with self._noted(Runs(state, self.env), backends, started):
                await self._run(flows, Supervisor(shutdown, self._on_failure))
                await self._finish(backends, state)
        return self.report

    async def _run(self, flows: list[Flow], supervisor: Supervisor) -> None:
        reloading: asyncio.Future[Any] = asyncio.Future()
        if self._reloader is not None:
            reloading = asyncio.ensure_future(self._reloader.run(supervisor))
        try:
            await supervisor.run(flows)
        finally:
            await _end([reloading])
        await asyncio.gather(*self._telling)

    @asynccontextmanager
    async def _noted(
        self, runs: Runs, backends: Mapping[str, Backend[Any]], started: float
    ) -> AsyncIterator[None]:
        """Keep the record of this run in the state file, and its memory small. A state file that is away stops no run."""

        async def note() -> None:
            for number in count(1):
                await self.env.sleep(NOTE_SECONDS)
                if number % TRIM_NOTES == 0 or has_much_free():
                    trim_heap()
                with suppress(TransientError):
                    await runs.update(self._measured(started))

        with suppress(TransientError):
            await runs.begin(self.report, self.config.version, backends)
        noting = asyncio.create_task(note())
        try:
            yield
        finally:
            await _end([noting])
            with suppress(TransientError):
                await runs.end(self._measured(started))

    def _measured(self, started: float) -> RunReport:
        self.report.seconds = self.env.monotonic() - started
        self.report.peak_memory = self.env.peak_memory()
        return self.report

    async def _finish(self, backends: dict[str, Backend[Any]], state: State) -> None:
        """Compare with the ledgers of the stores; of a flow that broke off, those are the truth."""
        by_id = {backend.get_backend_id(): backend for backend in backends.values()}
        ledgers: dict[str, Callable[[str], Counts | None] | None] = {}
        too_late = asyncio.Event()
        timer = asyncio.create_task(self._wait_a_little(too_late))
        try:
            for flow in self.report.flows:
                whole = flow.error is None and not flow.in_flight
                for edge in flow.edges:
                    if (
                        flow.reloaded or edge.before is None
                    ):  # it may be another store by now; nothing was stored
                        continue
                    if edge.backend not in ledgers:
                        ledgers[edge.backend] = None
                        with suppress(CollectorsError):  # a store that is away says nothing
                            asking = ledger_of(by_id[edge.backend], self.report.run, state)
                            ledgers[edge.backend] = await race(asking, too_late)
                    ledger = ledgers[edge.backend]
                    counts = None if ledger is None else ledger(edge.flow)
                    if counts is not None and whole:
                        edge.ledger = counts - edge.before
                    elif counts is not None:
                        edge.counts = counts - edge.before
                    elif too_late.is_set():
                        flow.notices.append(
                            f"storage {edge.backend} was not asked to the end; it may have more than is counted here"
                        )
        finally:
            await _end([timer])

    async def _wait_a_little(self, too_late: asyncio.Event) -> None:
        """Set the event some seconds after a second signal: a commit that is under way then still counts."""
        await self._shutdown.expired.wait()
        await self.env.sleep(LAST_SECONDS)
        too_late.set()

    def _lock(self, stack: AsyncExitStack) -> None:
        path = self.config.state / "lock"
        with translated(path, "cannot lock", STATE_HINT):
            lock = self.env.lock(path)
        if isinstance(lock, str):
            raise ConfigurationError(
                f"the pipeline '{self.config.name}' is running already ({lock}); stop that run first, "
                "or give this pipeline another name"
            )
        stack.enter_context(lock)

    async def _connect_sources(
        self, sources: Mapping[str, Source[Any]], stack: AsyncExitStack, shutdown: Shutdown
    ) -> None:
        """Find out what cannot start. A source that is only away for now is left to its reader."""
        problems: list[str] = []
        for name, source in sources.items():
            stack.push_async_callback(source.disconnect)
            try:
                check_schedule(source)
                await race(source.connect(), shutdown.requested)
            except ConfigurationError as error:
                problems.append(f"{self.config.sources[name].where}: {error}")
            except CollectorsError as error:
                self._on_notice(f"source '{name}': {error}")
        if problems:
            raise ConfigurationError("\n".join(problems))

    async def _connect_backends(self, stack: AsyncExitStack, shutdown: Shutdown) -> dict[str, Backend[Any]]:
        """Find out what cannot start. A storage that is only away, or slow, is left to its flows: intake goes on."""
        backends = {name: component.make() for name, component in self.config.backends.items()}
        stack.push_async_callback(_disconnect, backends)
        connecting = {name: asyncio.create_task(backend.connect()) for name, backend in backends.items()}
        timer = asyncio.ensure_future(self.env.sleep(CONNECT_SECONDS))
        stack.push_async_callback(_end, [timer, *connecting.values()])
        waited_for: set[asyncio.Future[Any]] = {
            timer,
            asyncio.gather(*connecting.values(), return_exceptions=True),
        }
        await race(asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED), shutdown.requested)
        problems: list[str] = []
        for name, task in connecting.items():
            error = task.exception() if task.done() else TransientError("has not answered yet")
            if isinstance(error, ConfigurationError):
                problems.append(f"{self.config.backends[name].where}: {error}")
            elif isinstance(error, TransientError):
                self._on_notice(f"storage '{name}': {error}")
            elif error is not None:
                raise error
        if problems:
            raise ConfigurationError("\n".join(problems))
        return backends

    async def _flows(
        self,
        sources: Mapping[str, Source[Any]],
        backends: dict[str, Backend[Any]],
        state: State,
        shutdown: Shutdown,
        *,
        batch: bool,
    ) -> list[Flow]:
        builder = Builder(
            env=self.env,
            report=self.report,
            state=state,
            budget=self.budget,
            intake_budget=self._intake_budget,
            disk=self._disk_threads(),
            patience=self._patience,
            batch=batch,
            on_notice=self._on_notice,
            on_event=self._on_event,
            on_drifts=self._on_drifts,
            at_end=self._at_end,
        )
        stops = {name: shutdown.part() for name in sources}
        if self.config.file is not None:
            self._reloader = Reloader(self.config, builder, backends, stops, shutdown)
        return [builder.flow(self.config, source, backends, stops[name]) for name, source in sources.items()]

    def _disk_threads(self) -> Workers:
        disk = self.env.own_threads("collectors-disk", DISK_THREADS)
        self._at_end(disk.close)
        return disk

    def _on_failure(self, flow: Flow, error: Exception) -> None:
        self._on_notice(f"source '{flow.report.source}' stopped: {error}")
        if self._errors is not None:
            info = to_info(error, layer="runtime", operation=flow.name, source=flow.report.source)
            self._tell(self._errors.handle_error(info))
        self._emit(EventType.ERROR_OCCURRED, flow.report, message=str(error))

    def _on_event(self, what: str, report: FlowReport) -> None:
        kinds = {
            "start": EventType.COLLECTION_START,
            "read": EventType.COLLECTION_COMPLETE,
            "stored": EventType.STORAGE_COMPLETE,
        }
        self._emit(kinds[what], report)

    def _on_drifts(self, report: FlowReport, drifts: Sequence[Drift]) -> None:
        for line in drift_lines(drifts):
            self._on_notice(f"source '{report.source}': {line}")
        for drift in drifts:
            self._emit(EventType.STORAGE_COMPLETE, report, drift=asdict(drift))

    def _emit(self, event_type: EventType, report: FlowReport, **data: Any) -> None:
        if self._events is None:
            return
        event = SystemEvent(
            event_type, self.env.now(), report.source, {"run": self.report.run, "read": report.read, **data}
        )
        self._tell(self._events.emit(event))

    def _tell(self, telling: Any) -> None:
        task = asyncio.ensure_future(telling)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


async def _disconnect(backends: Mapping[str, Backend[Any]]) -> None:
    """Close what there is by then: a reload closes some and opens others."""
    for backend in backends.values():
        await backend.disconnect()


async def _end(tasks: Sequence[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def run(
    pipeline: str | Path | PipelineConfig | None = None,
    *,
    name: str | None = None,
    sources: Sequence[Any] = (),
    processors: Sequence[Any] = (),
    storage: Sequence[Any] = (),
    limit: float | None = None,
    **settings: Any,
) -> RunReport:
    """Run a pipeline to its end and return what happened.

    Either a pipeline file, or the same in Python: `sources`, `processors` and `storage` are lists of mappings as in
    the file; a source may also be a generator function, a processor a plain function of a record. `limit` stops it
    after so many seconds. Raises ConfigurationError when it cannot start, and RunFailedError, with the report of all
    sources in it, when a source or storage failed or a record is unaccounted for.
    """
    if isinstance(pipeline, PipelineConfig):
        config = pipeline
    elif pipeline is not None:
        config = load(Path(pipeline))
    else:
        mapping = {"sources": sources, "processors": processors, "storage": storage, **settings}
        config = from_mapping(mapping, name=name)
    report = asyncio.run(Engine(config, limit=limit).run())
    if report.failed or not report.balanced:
        raise RunFailedError(report) from next((flow.error for flow in report.failed), None)
    return report
