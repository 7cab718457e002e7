"""Error handlers: one that logs and counts, and the registry that brings each error to those who can handle it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Iterable

from collectors.enums import ErrorType
from collectors.errors import ConfigurationError, FatalError
from collectors.interfaces.crosscutting import IErrorHandler
from collectors.models import ErrorInfo

__all__ = ["ErrorHandler", "ErrorHandlerRegistry"]

logger = logging.getLogger("collectors.errors")


class ErrorHandler(IErrorHandler):
    """Logs errors with all that is known about them and counts them by type; handles all types unless told which."""

    def __init__(self, handled_types: Iterable[ErrorType] | None = None) -> None:
        self._types = frozenset(ErrorType) if handled_types is None else frozenset(handled_types)
        self._counts: Counter[ErrorType] = Counter()

    async def handle_error(self, error: ErrorInfo) -> None:
        """Log and count. Raises RuntimeError for a type that this handler was not made for."""
        if not self.can_handle(error.error_type):
            raise FatalError(f"this handler does not take {error.error_type.value} errors")
        self._counts[error.error_type] += 1
        logger.log(
            logging.CRITICAL if error.is_critical else logging.ERROR,
            "%s error in %s (%s): %s",
            error.error_type.value,
            error.layer_name,
            error.operation,
            error.message,
            extra={"details": error.details},
        )

    def can_handle(self, error_type: ErrorType) -> bool:
        """Return whether this type is among those that it was made for."""
        return error_type in self._types

    def get_error_count(self, error_type: ErrorType | None = None) -> int:
        """Return how many errors were handled, of one type or of all."""
        return self._counts.total() if error_type is None else self._counts[error_type]


class ErrorHandlerRegistry(IErrorHandler):
    """Handlers in the order of their registration; is a handler itself, so that it fits where one is expected.

    A critical error goes to every handler that can handle its type, another one to the first that does. A handler
    that raises, or takes longer than `patience` seconds, is logged and never stops the next.
    """

    def __init__(self, patience: float = 10.0) -> None:
        self._patience = patience
        self._handlers: dict[str, IErrorHandler] = {}

    def register(self, handler: IErrorHandler) -> str:
        """Keep a handler and return its registration id. Raises ValueError when it is none."""
        if not isinstance(handler, IErrorHandler):
            raise ConfigurationError(f"expected an error handler, got {type(handler).__name__}")
        handler_id = uuid.uuid4().hex
        self._handlers[handler_id] = handler
        return handler_id

    def unregister(self, handler_id: str) -> None:
        """Forget a handler. Raises KeyError for an unknown id."""
        del self._handlers[handler_id]

    async def dispatch(self, error: ErrorInfo) -> int:
        """Bring the error to its handlers and return how many handled it."""
        handled = 0
        for handler in list(self._handlers.values()):
            if await self._handle(handler, error):
                handled += 1
                if not error.is_critical:
                    break
        return handled

    async def handle_error(self, error: ErrorInfo) -> None:
        """Dispatch. Raises RuntimeError when nobody handled it."""
        if not await self.dispatch(error):
            raise FatalError(f"no handler took the {error.error_type.value} error: {error.message}")

    def can_handle(self, error_type: ErrorType) -> bool:
        """Return whether some handler can."""
        return any(handler.can_handle(error_type) for handler in self._handlers.values())

    async def _handle(self, handler: IErrorHandler, error: ErrorInfo) -> bool:
        try:
            if not handler.can_handle(error.error_type):
                return False
            async with asyncio.timeout(self._patience):
                await handler.handle_error(error)
        except Exception as failure:  # noqa: BLE001  # whatever a handler does, the next one has its turn
            logger.error("%s failed on '%s': %r", type(handler).__name__, error.message, failure)
            return False
        return True
