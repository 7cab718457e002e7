"""The mocks of the published specification: every interface without a world behind it, for tests of your own code."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from collectors.enums import ErrorType, EventType, TaskStatus
from collectors.interfaces import (
    IDataSource,
    IErrorHandler,
    IEventEmitter,
    IMetadataParser,
    IProcessor,
    IStorageBackend,
    ITaskTracker,
)
from collectors.models import (
    CollectedData,
    ErrorInfo,
    ParsedMetadata,
    ProcessingResult,
    QueryCriteria,
    StorageLocation,
    SystemEvent,
    TaskInfo,
)
from collectors.storage.criteria import parse, select_rows

__all__ = [
    "MockDataSource",
    "MockErrorHandler",
    "MockEventEmitter",
    "MockMetadataParser",
    "MockProcessor",
    "MockStorageBackend",
    "MockTaskTracker",
]

STREAM_LENGTH = 3
_FINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})


def _now() -> datetime:
    return datetime.now(UTC)


class MockDataSource(IDataSource):
    """Gives the same bytes again and again; a stream has three chunks."""

    def __init__(self, source_id: str, data: bytes = b"mock_data") -> None:
        self._source_id = source_id
        self._data = data
        self._connected = False
        self._collect_count = 0

    async def connect(self) -> None:
        """Note that it is connected."""
        self._connected = True

    async def disconnect(self) -> None:
        """Note that it is not connected."""
        self._connected = False

    async def collect(self) -> CollectedData:
        """Return a chunk. Raises ConnectionError when not connected."""
        return self._next("mock_collect", {})

    async def collect_stream(self) -> AsyncIterator[CollectedData]:
        """Yield three chunks, numbered by `stream_index`. Raises ConnectionError when not connected."""
        for index in range(STREAM_LENGTH):
            yield self._next("mock_stream", {"stream_index": index})

    def get_source_id(self) -> str:
        """Return the id given."""
        return self._source_id

    def is_connected(self) -> bool:
        """Return whether it is connected."""
        return self._connected

    def get_collect_count(self) -> int:
        """Return how many chunks it has given, streamed ones too."""
        return self._collect_count

    def _next(self, method: str, metadata: dict[str, Any]) -> CollectedData:
        if not self._connected:
            raise ConnectionError(
                f"the mock source '{self._source_id}' is not connected; call connect() first"
            )
        self._collect_count += 1
        return CollectedData(
            source_id=self._source_id,
            timestamp=_now(),
            data_format="mock",
            collection_method=method,
            raw_data=self._data,
            metadata={"collect_count": self._collect_count, **metadata},
        )


class MockMetadataParser(IMetadataParser):
    """Finds what it was told to find: valid, or not."""

    def __init__(self, validation_result: bool = True) -> None:
        self._valid = validation_result
        self._parse_count = 0

    async def parse(self, collected_data: CollectedData) -> ParsedMetadata:
        """Return metadata about the chunk, valid or with one error."""
        self._parse_count += 1
        return ParsedMetadata(
            schema={"format": collected_data.data_format, "type": "bytes"},
            quality_indicators={"completeness": 1.0, "accuracy": 1.0 if self._valid else 0.0},
            source_attributes={"source_id": collected_data.source_id},
            is_valid=self._valid,
            validation_errors=[] if self._valid else ["this mock was told to find the data invalid"],
        )

    async def validate(self, metadata: ParsedMetadata) -> bool:
        """Return what it was told."""
        return self._valid and metadata.is_valid

    def get_parse_count(self) -> int:
        """Return how many chunks it has parsed."""
        return self._parse_count


class MockProcessor(IProcessor):
    """Leaves its mark on the data, or fails if told to."""

    def __init__(self, name: str, should_fail: bool = False) -> None:
        self._name = name
        self._should_fail = should_fail
        self._process_count = 0

    async def process(self, data: Any) -> ProcessingResult:
        """Return a dict with `processed_by_{name}: True`; what is no dict goes under `original`."""
        self._process_count += 1
        if self._should_fail:
            return ProcessingResult(False, None, f"the mock processor '{self._name}' failed as told", 0.0)
        marked = dict(data) if isinstance(data, dict) else {"original": data}
        marked[f"processed_by_{self._name}"] = True
        return ProcessingResult(True, marked, None, 0.0)

    def get_processor_name(self) -> str:
        """Return the name given."""
        return self._name

    def validate_input(self, data: Any) -> bool:
        """Return whether there is any."""
        return data is not None

    def get_process_count(self) -> int:
        """Return how often it was called."""
        return self._process_count


class MockStorageBackend(IStorageBackend):
    """Keeps what it is given in a dict."""

    def __init__(self, backend_id: str) -> None:
        self._backend_id = backend_id
        self._connected = False
        self._stored: dict[str, Any] = {}
        self._store_count = 0

    async def connect(self) -> None:
        """Note that it is connected."""
        self._connected = True

    async def disconnect(self) -> None:
        """Note that it is not connected; what it keeps stays."""
        self._connected = False

    async def store(self, data: Any) -> StorageLocation:
        """Keep the data. Raises ConnectionError when not connected."""
        self._check_connected()
        location_id = uuid.uuid4().hex
        self._stored[location_id] = data
        self._store_count += 1
        return StorageLocation(
            self._backend_id, location_id, f"/mock/{self._backend_id}/{location_id}", _now()
        )

    async def query(self, criteria: QueryCriteria) -> list[Any]:
        """Return what matches; data that are no dict match when nothing is filtered, and are not sorted.

        Raises ConnectionError when not connected, ValueError for criteria that make no sense.
        """
        self._check_connected()
        kept = list(self._stored.values())
        if all(isinstance(data, dict) for data in kept) or criteria.filters:
            return list(select_rows([data for data in kept if isinstance(data, dict)], criteria))
        parse(criteria)
        start = criteria.offset or 0
        return kept[start:] if criteria.limit is None else kept[start : start + criteria.limit]

    async def delete(self, location_id: str) -> None:
        """Forget one. Raises ConnectionError when not connected, KeyError for an unknown location."""
        self._check_connected()
        del self._stored[location_id]

    def get_backend_id(self) -> str:
        """Return the id given."""
        return self._backend_id

    def is_connected(self) -> bool:
        """Return whether it is connected."""
        return self._connected

    def get_store_count(self) -> int:
        """Return how often something was stored."""
        return self._store_count

    def get_stored_data(self, location_id: str) -> Any:
        """Return what is kept there; None when there is nothing."""
        return self._stored.get(location_id)

    def get_all_stored_data(self) -> dict[str, Any]:
        """Return everything it keeps, by location."""
        return dict(self._stored)

    def _check_connected(self) -> None:
        if not self._connected:
            raise ConnectionError(
                f"the mock backend '{self._backend_id}' is not connected; call connect() first"
            )


class MockErrorHandler(IErrorHandler):
    """Keeps the errors that it is given; handles all types unless told which."""

    def __init__(self, handled_types: Iterable[ErrorType] | None = None) -> None:
        self._types = set(ErrorType) if handled_types is None else set(handled_types)
        self._errors: list[ErrorInfo] = []

    async def handle_error(self, error: ErrorInfo) -> None:
        """Keep the error. Raises RuntimeError for a type that it does not handle."""
        if not self.can_handle(error.error_type):
            raise RuntimeError(f"this mock does not handle {error.error_type.value} errors")
        self._errors.append(error)

    def can_handle(self, error_type: ErrorType) -> bool:
        """Return whether the type is among those given."""
        return error_type in self._types

    def get_handled_errors(self) -> list[ErrorInfo]:
        """Return the errors in the order in which they came."""
        return list(self._errors)

    def get_error_count(self) -> int:
        """Return how many came."""
        return len(self._errors)

    def clear_errors(self) -> None:
        """Forget them."""
        self._errors.clear()


class MockEventEmitter(IEventEmitter):
    """Keeps the events and calls the subscribers at once."""

    def __init__(self) -> None:
        self._events: list[SystemEvent] = []
        self._subscriptions: dict[str, tuple[EventType, Callable[[SystemEvent], Any]]] = {}

    async def emit(self, event: SystemEvent) -> None:
        """Keep the event and call each subscriber of its type.

        Raises ValueError when it is no event, and RuntimeError at the end when a subscriber raised.
        """
        if not isinstance(event, SystemEvent):
            raise ValueError(f"expected a SystemEvent, got {type(event).__name__}")
        self._events.append(event)
        problem: Exception | None = None
        for event_type, handler in list(self._subscriptions.values()):
            if event_type is event.event_type:
                try:
                    result = handler(event)
                    if inspect.isawaitable(result):
                        await result
                except Exception as error:  # noqa: BLE001  # the other subscribers have their turn
                    problem = problem or error
        if problem is not None:
            raise RuntimeError(f"a subscriber of {event.event_type.value} failed: {problem!r}") from problem

    async def subscribe(self, event_type: EventType, handler: Callable[[SystemEvent], Any]) -> str:
        """Keep a subscription and return its id. Raises ValueError for a bad type or handler."""
        if not isinstance(event_type, EventType):
            raise ValueError(f"expected an EventType, got {event_type!r}")
        if not callable(handler):
            raise ValueError(f"expected a function that takes an event, got {type(handler).__name__}")
        subscription_id = uuid.uuid4().hex
        self._subscriptions[subscription_id] = (event_type, handler)
        return subscription_id

    async def unsubscribe(self, subscription_id: str) -> None:
        """End a subscription. Raises KeyError for an unknown id."""
        del self._subscriptions[subscription_id]

    def get_emitted_events(self) -> list[SystemEvent]:
        """Return the events in the order in which they came."""
        return list(self._events)

    def get_event_count(self, event_type: EventType | None = None) -> int:
        """Return how many came, of one type or of all."""
        return sum(event_type is None or event.event_type is event_type for event in self._events)

    def clear_events(self) -> None:
        """Forget the events; subscriptions stay."""
        self._events.clear()

    def get_subscription_count(self) -> int:
        """Return how many subscriptions there are."""
        return len(self._subscriptions)


class MockTaskTracker(ITaskTracker):
    """Keeps tasks in a dict."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskInfo] = {}

    async def create_task(self, task_type: str) -> str:
        """Make a pending task and return its id. Raises ValueError for an empty type."""
        if not isinstance(task_type, str) or not task_type:
            raise ValueError(f"a task's type must be a text that is not empty, got {task_type!r}")
        task_id = uuid.uuid4().hex
        self._tasks[task_id] = TaskInfo(
            task_id, task_type, TaskStatus.PENDING, _now(), None, None, 0.0, None, None
        )
        return task_id

    async def update_status(self, task_id: str, status: TaskStatus) -> None:
        """Set the status: RUNNING sets started_at once, a final one completed_at. Raises KeyError, ValueError."""
        task = self._tasks[task_id]
        if not isinstance(status, TaskStatus):
            raise ValueError(f"expected a TaskStatus, got {status!r}")
        if task.status in _FINAL and status is not task.status:
            raise ValueError(f"task {task_id} has ended: {task.status.value} cannot become {status.value}")
        task.status = status
        if status is TaskStatus.RUNNING and task.started_at is None:
            task.started_at = _now()
        if status in _FINAL and task.completed_at is None:
            task.completed_at = _now()

    async def update_progress(self, task_id: str, progress: float) -> None:
        """Set the progress. Raises KeyError for an unknown id, ValueError outside 0.0–1.0."""
        task = self._tasks[task_id]
        if not 0.0 <= progress <= 1.0:
            raise ValueError(f"progress must be from 0.0 to 1.0, got {progress!r}")
        task.progress = progress

    async def get_task_info(self, task_id: str) -> TaskInfo:
        """Return the task. Raises KeyError for an unknown id."""
        return self._tasks[task_id]

    async def cancel_task(self, task_id: str) -> None:
        """Cancel the task. Raises KeyError for an unknown id, RuntimeError when it has ended."""
        if self._tasks[task_id].status in _FINAL:
            raise RuntimeError(f"task {task_id} has ended already")
        await self.update_status(task_id, TaskStatus.CANCELLED)

    def get_all_tasks(self) -> list[TaskInfo]:
        """Return all tasks, oldest first."""
        return list(self._tasks.values())

    def get_task_count(self, status: TaskStatus | None = None) -> int:
        """Return how many there are, with one status or in all."""
        return sum(status is None or task.status is status for task in self._tasks.values())

    def clear_tasks(self) -> None:
        """Forget all tasks."""
        self._tasks.clear()
