"""The dataclasses of the published specification; fields and their order are fixed.

A field that the specification does not have stands at the end and has a default. Times are `datetime`
objects, timezone-aware UTC where this package makes them; a naive one is read as local time. Durations are
seconds as float.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from collectors.enums import CollectionStatus, ErrorType, EventType, TaskStatus

__all__ = [
    "CollectedData",
    "CollectionStatistics",
    "CollectionTask",
    "ErrorInfo",
    "ParsedMetadata",
    "PipelineResult",
    "PipelineStep",
    "Position",
    "ProcessingResult",
    "ProcessingStatistics",
    "QueryCriteria",
    "StorageLocation",
    "StorageStatistics",
    "SystemEvent",
    "TaskInfo",
]

Position = dict[str, Any]
"""Where a source stands: a JSON object that only the source itself understands (an offset, a cursor)."""


@dataclass
class CollectedData:
    """A chunk: the bytes of one or many records as they came from a source.

    `data_format` names the codec that reads `raw_data`; `metadata` is about the chunk, never about one record.
    `position` is the place *behind* the chunk: reading from it gives the next one. None where a source has none.
    """

    source_id: str
    timestamp: datetime
    data_format: str
    collection_method: str
    raw_data: bytes
    metadata: dict[str, Any]
    position: Position | None = None


@dataclass
class ParsedMetadata:
    """What a metadata parser found: column → type name, indicator → 0.0–1.0, and what is wrong if anything is."""

    schema: dict[str, Any]
    quality_indicators: dict[str, float]
    source_attributes: dict[str, Any]
    is_valid: bool
    validation_errors: list[str]


@dataclass
class CollectionTask:
    """One run of one source, from `start_collection` to its end."""

    task_id: str
    source_id: str
    status: CollectionStatus
    created_at: datetime
    started_at: datetime | None
    stopped_at: datetime | None


@dataclass
class CollectionStatistics:
    """What became of the attempts to collect from one source; the mean time is in seconds a chunk."""

    success_count: int
    failure_count: int
    average_processing_time: float
    last_collection_time: datetime | None


@dataclass
class ProcessingResult:
    """What one step made of its input: data or an error text, and the seconds it took."""

    success: bool
    processed_data: Any | None
    error: str | None
    processing_time: float


@dataclass
class PipelineStep:
    """A processor at its place in a pipeline; steps run in ascending `order`."""

    step_id: str
    processor: Any
    order: int


@dataclass
class PipelineResult:
    """What a pipeline made of its input: the results of the steps that ran, and which step failed if one did."""

    success: bool
    final_data: Any | None
    step_results: list[ProcessingResult]
    failed_step: str | None
    total_time: float


@dataclass
class ProcessingStatistics:
    """What happened at one step of a pipeline so far; the mean time is in seconds an execution."""

    step_name: str
    execution_count: int
    success_count: int
    failure_count: int
    average_time: float


@dataclass
class StorageLocation:
    """Where something was stored; `location_id` is what `IStorageBackend.delete` takes."""

    backend_id: str
    location_id: str
    path: str
    created_at: datetime


@dataclass
class QueryCriteria:
    """Which rows to return.

    `filters` maps a column to a value (equal to it; None: is null) or to `{operator: value}` with the operators
    `=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`, `like`; all must hold. `sort_by` names a column, ascending,
    or descending with a leading `-`. `offset` rows are skipped before `limit` rows are taken.
    """

    filters: dict[str, Any]
    sort_by: str | None
    limit: int | None
    offset: int | None


@dataclass
class StorageStatistics:
    """What one backend holds from this manager: how many calls stored something, and bytes."""

    backend_id: str
    stored_count: int
    storage_usage_bytes: int
    last_storage_time: datetime | None


@dataclass
class ErrorInfo:
    """A structured error: what, when, in which layer and operation, and the details of it."""

    error_type: ErrorType
    timestamp: datetime
    layer_name: str
    operation: str
    message: str
    details: dict[str, Any]
    is_critical: bool


@dataclass
class SystemEvent:
    """Something that happened, for subscribers; `source` is the component that reports it."""

    event_type: EventType
    timestamp: datetime
    source: str
    data: dict[str, Any]


@dataclass
class TaskInfo:
    """An asynchronous operation; `progress` runs from 0.0 to 1.0."""

    task_id: str
    task_type: str
    status: TaskStatus
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    progress: float
    result: Any | None
    error: str | None
