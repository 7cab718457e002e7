"""What every layer may use: errors, events, tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from collectors.enums import ErrorType, EventType, TaskStatus
from collectors.models import ErrorInfo, SystemEvent, TaskInfo

__all__ = ["IErrorHandler", "IEventEmitter", "ITaskTracker"]


class IErrorHandler(ABC):
    """Does something about errors: logs them, alerts somebody."""

    @abstractmethod
    async def handle_error(self, error: ErrorInfo) -> None:
        """Handle the error. Raises RuntimeError when it cannot."""

    @abstractmethod
    def can_handle(self, error_type: ErrorType) -> bool:
        """Return whether errors of this type are for this handler."""


class IEventEmitter(ABC):
    """Tells subscribers what happens."""

    @abstractmethod
    async def emit(self, event: SystemEvent) -> None:
        """Hand the event to every subscriber of its type. Raises ValueError for no event, RuntimeError if it fails."""

    @abstractmethod
    async def subscribe(self, event_type: EventType, handler: Callable[[SystemEvent], Any]) -> str:
        """Call `handler`, sync or async, for each event of the type; return a subscription id.

        Raises ValueError for a bad type or a handler that cannot be called.
        """

    @abstractmethod
    async def unsubscribe(self, subscription_id: str) -> None:
        """End a subscription. Raises KeyError for an unknown id."""


class ITaskTracker(ABC):
    """Keeps the state of asynchronous operations."""

    @abstractmethod
    async def create_task(self, task_type: str) -> str:
        """Make a pending task and return its unique id. Raises ValueError for an empty type."""

    @abstractmethod
    async def update_status(self, task_id: str, status: TaskStatus) -> None:
        """Move the task on. Raises KeyError for an unknown id, ValueError when there is no such transition."""

    @abstractmethod
    async def update_progress(self, task_id: str, progress: float) -> None:
        """Set the progress. Raises KeyError for an unknown id, ValueError outside 0.0–1.0."""

    @abstractmethod
    async def get_task_info(self, task_id: str) -> TaskInfo:
        """Return the task. Raises KeyError for an unknown id."""

    @abstractmethod
    async def cancel_task(self, task_id: str) -> None:
        """Cancel the task. Raises KeyError for an unknown id, RuntimeError when it has ended."""
