"""Keeps sources and collects from them as tasks; no policy: retries, schedules and batches are the runtime's."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct, field
from pydantic import Field

from collectors.enums import CollectionStatus, EventType, TaskStatus
from collectors.errors import ConfigurationError, DataError, FatalError
from collectors.interfaces.collection import ICollectionManager, IDataSource
from collectors.interfaces.crosscutting import IErrorHandler, IEventEmitter, ITaskTracker
from collectors.models import CollectedData, CollectionStatistics, CollectionTask
from collectors.reporting import Reporter
from collectors.settings import Settings, check_settings

__all__ = ["CollectionManager", "Deliver", "RegistrationConfig"]

logger = logging.getLogger("collectors.collection")

Deliver = Callable[[CollectedData], Awaitable[Any]]
"""What takes a chunk: it returns when the chunk is safe, and raises when it is not."""

_ENDED = frozenset({CollectionStatus.STOPPED, CollectionStatus.ERROR})


class RegistrationConfig(Settings):
    """What `register_source` takes as configuration."""

    max_chunks: int | None = Field(default=None, ge=1, strict=True)
    """Stop a collection after this many chunks."""
    tags: dict[str, str] = {}
    """Free labels; they come along in events."""


class _Registered(Struct):
    source: IDataSource
    config: RegistrationConfig
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    successes: int = 0
    failures: int = 0
    seconds: float = 0.0
    last: datetime | None = None
    task_id: str | None = None


class _Running(Struct):
    """A collection: `hands_free` while no chunk is being delivered, `closing` once it only has to disconnect."""

    task: CollectionTask
    registered: _Registered
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)
    hands_free: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False
    closing: bool = False
    problems: list[Exception] = field(default_factory=list)
    work: asyncio.Task[None] | None = None


class CollectionManager(ICollectionManager):
    """Sources by id, collections by task id.

    Each chunk of a source is handed to `deliver` before the next one is asked for; without it chunks are only
    counted. `events` is told of start, end and errors, `errors` gets the errors as `ErrorInfo` (without it they are
    logged), and `tasks` shows each collection under its task id. `patience` is how long `stop_collection` waits for
    the delivery under way, in seconds.
    """

    def __init__(
        self,
        deliver: Deliver | None = None,
        *,
        events: IEventEmitter | None = None,
        errors: IErrorHandler | None = None,
        tasks: ITaskTracker | None = None,
        patience: float = 10.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._deliver = deliver
        self._reporter = Reporter("collection", events, errors, now)
        self._log_errors = errors is None
        self._tracker = tasks
        self._patience = patience
        self._now = now
        self._sources: dict[str, _Registered] = {}
        self._tasks: dict[str, _Running] = {}

    async def register_source(self, source: IDataSource, config: dict[str, Any]) -> str:
        """Check the configuration (`RegistrationConfig`), keep the source, return its id. Raises ValueError."""
        settings = _check(source, config)
        source_id = source.get_source_id()
        if source_id in self._sources:
            raise ConfigurationError(f"a source '{source_id}' is registered already")
        self._sources[source_id] = _Registered(source, settings)
        return source_id

    async def unregister_source(self, source_id: str) -> None:
        """Stop the source if it runs and forget it, its tasks stay known. Raises KeyError for an unknown id."""
        registered = self._sources.pop(source_id)
        async with registered.starting:
            if registered.task_id is not None:
                await self.stop_collection(registered.task_id)

    async def start_collection(self, source_id: str) -> str:
        """Start collecting in the background and return the task id at once. Raises KeyError, RuntimeError."""
        registered = self._sources[source_id]
        async with registered.starting:
            current = self._tasks.get(registered.task_id or "")
            if current is not None and current.task.status not in _ENDED:
                raise FatalError(
                    f"the source '{source_id}' is being collected already, by task {current.task.task_id}"
                )
            task_id = await self._tracker.create_task("collection") if self._tracker else uuid.uuid4().hex
            task = CollectionTask(task_id, source_id, CollectionStatus.IDLE, self._now(), None, None)
            running = self._tasks[task_id] = _Running(task, registered)
            running.may_go_on.set()
            running.hands_free.set()
            registered.task_id = task_id
            running.work = asyncio.create_task(self._run(running), name=f"collect {source_id}")
            return task_id

    async def stop_collection(self, task_id: str) -> None:
        """Stop the task and wait until its source is disconnected; one that has ended stays so. Raises KeyError.

        A chunk that is there is delivered first; a delivery that takes longer than `patience` is cancelled and counts
        as a failure. Called by `deliver` itself, it only says that this chunk is the last one.
        """
        running = self._tasks[task_id]
        running.stopping = True
        running.may_go_on.set()
        if running.work is None or running.work is asyncio.current_task():
            return
        if not running.hands_free.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(running.hands_free.wait(), self._patience)
        if not running.closing:
            running.work.cancel()
        await asyncio.wait([running.work])
        if running.task.status not in _ENDED:  # cancelled before its first step
            await self._end(running, CollectionStatus.STOPPED)

    async def pause_collection(self, task_id: str) -> None:
        """Let the task deliver nothing until it is resumed. Raises KeyError, RuntimeError when it has ended."""
        running = self._running(task_id)
        running.may_go_on.clear()
        running.task.status = CollectionStatus.PAUSED

    async def resume_collection(self, task_id: str) -> None:
        """Let a paused task go on. Raises KeyError, RuntimeError when it has ended."""
        running = self._running(task_id)
        running.task.status = CollectionStatus.RUNNING
        running.may_go_on.set()

    async def wait(self, task_id: str) -> CollectionStatus:
        """Wait until the task has ended and return its status. Raises KeyError."""
        running = self._tasks[task_id]
        if running.work is not None:
            await asyncio.wait([running.work])
        return running.task.status

    async def get_task_status(self, task_id: str) -> CollectionStatus:
        """Return what the task is doing. Raises KeyError for an unknown id."""
        return self._tasks[task_id].task.status

    def get_task(self, task_id: str) -> CollectionTask:
        """Return the task as it is now. Raises KeyError for an unknown id."""
        return replace(self._tasks[task_id].task)

    async def get_statistics(self, source_id: str) -> CollectionStatistics:
        """Return chunks delivered, collections that failed, mean seconds a delivered chunk, and when the last one was."""
        registered = self._sources[source_id]
        mean = registered.seconds / registered.successes if registered.successes else 0.0
        return CollectionStatistics(registered.successes, registered.failures, mean, registered.last)

    def _running(self, task_id: str) -> _Running:
        running = self._tasks[task_id]
        if running.task.status in _ENDED or running.stopping:
            raise FatalError(f"task {task_id} has ended already: {running.task.status.value}")
        return running

    async def _run(self, running: _Running) -> None:
        source = running.registered.source
        running.task.started_at = self._now()
        if running.task.status is CollectionStatus.IDLE:
            running.task.status = CollectionStatus.RUNNING
        try:
            await self._track(running, TaskStatus.RUNNING)
            await self._reporter.event(EventType.COLLECTION_START, source.get_source_id(), _about(running))
            await source.connect()
            await self._collect(running)
        except Exception as error:  # noqa: BLE001  # a source may raise anything; it ends this task alone
            running.problems.append(error)
        finally:
            running.closing = True
            try:
                await source.disconnect()
            except Exception as error:  # noqa: BLE001  # reported beside what went wrong before
                running.problems.append(error)
            failed = running.problems and not running.stopping
            await self._end(running, CollectionStatus.ERROR if failed else CollectionStatus.STOPPED)

    async def _collect(self, running: _Running) -> None:
        source, left = running.registered.source, running.registered.config.max_chunks
        await running.may_go_on.wait()
        stream = source.collect_stream()
        started = time.perf_counter()
        try:
            async for data in stream:
                _check_labels(data, source.get_source_id())
                await self._hand_over(running, data, started)
                left = None if left is None else left - 1
                if left == 0 or running.stopping:
                    return
                await asyncio.sleep(0)  # a source that never waits must not keep all others from running
                await running.may_go_on.wait()
                started = time.perf_counter()
        finally:
            running.closing = True
            if inspect.isasyncgen(stream):
                await stream.aclose()

    async def _hand_over(self, running: _Running, data: CollectedData, started: float) -> None:
        registered = running.registered
        running.hands_free.clear()
        try:
            await running.may_go_on.wait()  # a pause may have begun while the source was waited for
            if self._deliver is not None:
                await self._deliver(data)
        except asyncio.CancelledError:
            message = "a delivery was cancelled; whether the chunk has arrived is unknown"
            running.problems.append(FatalError(message))
            raise
        finally:
            running.hands_free.set()
        registered.successes += 1
        registered.seconds += time.perf_counter() - started
        registered.last = self._now()

    async def _end(self, running: _Running, status: CollectionStatus) -> None:
        """Set the final status and report it; a collection that never began reports nothing."""
        source_id = running.task.source_id
        running.task.status, running.task.stopped_at = status, self._now()
        running.registered.failures += bool(running.problems)
        for error in running.problems:
            await self._reporter.error(error, "collect", source_id, _about(running))
            if self._log_errors:
                logger.error("collecting from '%s' failed: %s", source_id, error, exc_info=error)
        if status is CollectionStatus.ERROR:
            await self._track(running, TaskStatus.FAILED)
        else:
            await self._track(running, TaskStatus.CANCELLED if running.stopping else TaskStatus.COMPLETED)
        if running.task.started_at is not None:
            data = {**_about(running), "status": status.value}
            await self._reporter.event(EventType.COLLECTION_COMPLETE, source_id, data)

    async def _track(self, running: _Running, status: TaskStatus) -> None:
        if self._tracker is None:
            return
        try:
            if running.problems and isinstance(self._tracker, _KeepsError):
                await self._tracker.set_error(running.task.task_id, str(running.problems[0]))
            await self._tracker.update_status(running.task.task_id, status)
        except (
            Exception
        ):  # the tracker only shows the collection; it was cancelled there, or its file is gone
            logger.exception("cannot show task %s as %s", running.task.task_id, status.value)


@runtime_checkable
class _KeepsError(Protocol):
    """A task tracker that also keeps why an operation failed."""

    async def set_error(self, task_id: str, error: str) -> None: ...


def _about(running: _Running) -> dict[str, Any]:
    return {"task_id": running.task.task_id, "tags": running.registered.config.tags}


def _check(source: object, config: object) -> RegistrationConfig:
    problems: list[str] = []
    if not isinstance(source, IDataSource):
        problems.append(f"expected a source (an IDataSource), got {type(source).__name__}")
    elif not isinstance(source.get_source_id(), str) or not source.get_source_id().strip():
        problems.append(f"the source's id must be a text that is not empty, got {source.get_source_id()!r}")
    settings: RegistrationConfig | None = None
    try:
        settings = check_settings(RegistrationConfig, config)
    except ConfigurationError as error:
        problems.append(f"configuration: {error}")
    if problems or settings is None:
        raise ConfigurationError("; ".join(problems))
    return settings


def _check_labels(data: CollectedData, source_id: str) -> None:
    if not isinstance(data, CollectedData):
        raise DataError(f"the source '{source_id}' gave {type(data).__name__}, not CollectedData")
    if data.source_id != source_id:
        raise DataError(f"the source '{source_id}' gave a chunk with the source id {data.source_id!r}")
    if not isinstance(data.timestamp, datetime):
        raise DataError(f"the source '{source_id}' gave a chunk without a time: {data.timestamp!r}")
