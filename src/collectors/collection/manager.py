"""Keeps sources and collects from them as tasks; no policy: retries, schedules and batches are the runtime's."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import Field, ValidationError

from collectors.enums import CollectionStatus, EventType
from collectors.errors import ConfigurationError, DataError, FatalError, to_info
from collectors.interfaces.collection import ICollectionManager, IDataSource
from collectors.interfaces.crosscutting import IErrorHandler, IEventEmitter
from collectors.models import CollectedData, CollectionStatistics, CollectionTask, SystemEvent
from collectors.settings import Settings

__all__ = ["CollectionManager", "RegistrationConfig"]

logger = logging.getLogger("collectors.collection")

Deliver = Callable[[CollectedData], Awaitable[Any]]
_ENDED = frozenset({CollectionStatus.STOPPED, CollectionStatus.ERROR})


class RegistrationConfig(Settings):
    """What `register_source` takes as configuration."""

    max_chunks: int | None = Field(default=None, ge=1, strict=True)
    """Stop a collection after this many chunks."""
    tags: dict[str, str] = {}
    """Free labels; they come along in events."""


@dataclass
class _Registered:
    source: IDataSource
    config: RegistrationConfig
    successes: int = 0
    failures: int = 0
    seconds: float = 0.0
    last: datetime | None = None
    task_id: str | None = None


@dataclass
class _Running:
    task: CollectionTask
    registered: _Registered
    may_go_on: asyncio.Event
    work: asyncio.Task[None] | None = None


class CollectionManager(ICollectionManager):
    """Sources by id, collections by task id.

    Each chunk of a source is handed to `deliver` before the next one is asked for; without it chunks are only
    counted. `events` is told of start, end and errors, `errors` gets the errors as `ErrorInfo`.
    """

    def __init__(
        self,
        deliver: Deliver | None = None,
        *,
        events: IEventEmitter | None = None,
        errors: IErrorHandler | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._deliver = deliver
        self._events = events
        self._errors = errors
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
        registered = self._sources[source_id]
        if registered.task_id is not None:
            await self.stop_collection(registered.task_id)
        del self._sources[source_id]

    async def start_collection(self, source_id: str) -> str:
        """Start collecting in the background and return the task id at once. Raises KeyError, RuntimeError."""
        registered = self._sources[source_id]
        current = self._tasks.get(registered.task_id or "")
        if current is not None and current.task.status not in _ENDED:
            raise FatalError(
                f"the source '{source_id}' is being collected already, by task {current.task.task_id}"
            )
        task = CollectionTask(uuid.uuid4().hex, source_id, CollectionStatus.IDLE, self._now(), None, None)
        running = _Running(task, registered, asyncio.Event())
        running.may_go_on.set()
        self._tasks[task.task_id] = running
        registered.task_id = task.task_id
        running.work = asyncio.create_task(self._run(running), name=f"collect {source_id}")
        return task.task_id

    async def stop_collection(self, task_id: str) -> None:
        """Stop the task and wait until its source is disconnected; one that has ended stays so. Raises KeyError."""
        running = self._tasks[task_id]
        if running.work is not None and not running.work.done():
            running.work.cancel()
            await asyncio.wait([running.work])
        if running.task.status not in _ENDED:  # cancelled before its first step
            self._end(running, CollectionStatus.STOPPED)

    async def pause_collection(self, task_id: str) -> None:
        """Let the task wait before its next chunk. Raises KeyError, RuntimeError when it does not run."""
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
        """Return chunks delivered, failures, mean seconds a delivered chunk, and when the last one was."""
        registered = self._sources[source_id]
        mean = registered.seconds / registered.successes if registered.successes else 0.0
        return CollectionStatistics(registered.successes, registered.failures, mean, registered.last)

    def _running(self, task_id: str) -> _Running:
        running = self._tasks[task_id]
        if running.task.status in _ENDED:
            raise FatalError(f"task {task_id} has ended already: {running.task.status.value}")
        return running

    async def _run(self, running: _Running) -> None:
        source = running.registered.source
        running.task.started_at = self._now()
        if running.task.status is CollectionStatus.IDLE:
            running.task.status = CollectionStatus.RUNNING
        status = CollectionStatus.STOPPED
        try:
            await self._emit(EventType.COLLECTION_START, running, {})
            try:
                await source.connect()
                await self._collect(running)
            finally:
                await source.disconnect()
        except Exception as error:  # noqa: BLE001  # a source may raise anything; it ends this task alone
            status = CollectionStatus.ERROR
            await self._report(running, error)
        finally:
            self._end(running, status)
            await self._emit(EventType.COLLECTION_COMPLETE, running, {"status": status.value})

    async def _collect(self, running: _Running) -> None:
        registered = running.registered
        left = registered.config.max_chunks
        await running.may_go_on.wait()
        started = time.perf_counter()
        async with _closing(registered.source.collect_stream()) as stream:
            async for data in stream:
                _check_labels(data, registered.source.get_source_id())
                if self._deliver is not None:
                    await self._deliver(data)
                registered.successes += 1
                registered.seconds += time.perf_counter() - started
                registered.last = self._now()
                left = None if left is None else left - 1
                if left == 0:
                    return
                await asyncio.sleep(0)  # a source that never waits would keep everything else from running
                await running.may_go_on.wait()
                started = time.perf_counter()

    def _end(self, running: _Running, status: CollectionStatus) -> None:
        running.task.status = status
        running.task.stopped_at = self._now()

    async def _report(self, running: _Running, error: Exception) -> None:
        running.registered.failures += 1
        await self._emit(EventType.ERROR_OCCURRED, running, {"message": str(error)})
        if self._errors is not None:
            info = to_info(error, layer="collection", operation="collect", source=running.task.source_id)
            try:
                await self._errors.handle_error(info)
            except Exception:  # the task has failed already, with the error that is told here
                logger.exception("no handler for: %s", info.message)

    async def _emit(self, event_type: EventType, running: _Running, data: dict[str, Any]) -> None:
        if self._events is not None:
            details = {"task_id": running.task.task_id, "tags": running.registered.config.tags, **data}
            source_id = running.task.source_id
            try:
                await self._events.emit(SystemEvent(event_type, self._now(), source_id, details))
            except Exception:  # an emitter that fails must not break what it reports
                logger.exception("cannot report %s of '%s'", event_type.value, source_id)


@asynccontextmanager
async def _closing(stream: AsyncIterator[CollectedData]) -> AsyncIterator[AsyncIterator[CollectedData]]:
    """Close the stream before its source is disconnected, not whenever the collector of garbage comes along."""
    try:
        yield stream
    finally:
        if inspect.isasyncgen(stream):
            await stream.aclose()


def _check(source: object, config: object) -> RegistrationConfig:
    problems: list[str] = []
    if not isinstance(source, IDataSource):
        problems.append(f"expected a source (an IDataSource), got {type(source).__name__}")
    elif not isinstance(source.get_source_id(), str) or not source.get_source_id().strip():
        problems.append(f"the source's id must be a text that is not empty, got {source.get_source_id()!r}")
    settings: RegistrationConfig | None = None
    if isinstance(config, dict):
        try:
            settings = RegistrationConfig(**config)
        except (ValidationError, TypeError) as error:
            problems.append(f"configuration: {error}")
    else:
        problems.append(f"expected the configuration as a dict, got {type(config).__name__}")
    if problems or settings is None:
        raise ConfigurationError("; ".join(problems))
    return settings


def _check_labels(data: CollectedData, source_id: str) -> None:
    if data.source_id != source_id:
        raise DataError(f"the source '{source_id}' gave a chunk with the source id {data.source_id!r}")
    if not isinstance(data.timestamp, datetime):
        raise DataError(f"the source '{source_id}' gave a chunk without a time: {data.timestamp!r}")
