"""The enumerations of the published specification; members and values are fixed."""

from __future__ import annotations

from enum import Enum

__all__ = ["CollectionStatus", "ErrorType", "EventType", "TaskStatus"]


class CollectionStatus(Enum):
    """What a collection task is doing."""

    IDLE = "idle"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    ERROR = "error"


class TaskStatus(Enum):
    """Where an asynchronous operation stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class EventType(Enum):
    """What a `SystemEvent` reports."""

    COLLECTION_START = "collection_start"
    COLLECTION_COMPLETE = "collection_complete"
    PROCESSING_START = "processing_start"
    PROCESSING_COMPLETE = "processing_complete"
    STORAGE_START = "storage_start"
    STORAGE_COMPLETE = "storage_complete"
    ERROR_OCCURRED = "error_occurred"


class ErrorType(Enum):
    """In which kind of work an error arose; what to do about it is the class of the exception, see `errors`."""

    CONFIGURATION = "configuration"
    CONNECTION = "connection"
    VALIDATION = "validation"
    PROCESSING = "processing"
    STORAGE = "storage"
