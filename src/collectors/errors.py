"""Every exception of the package, by what to do next.

    CollectorsError
    ├── ConfigurationError   stop before the start; the message says file, line, key and the nearest valid value
    ├── TransientError       try again, after `retry_after` or a back-off (network, lock, 429, 5xx)
    ├── DataError            set the bad records aside, go on with the rest; `rows` names them
    └── FatalError           stop this flow, keep the others (401, disk full, not our file)
        ├── FencedError      another process owns this flow now; exit code 75
        └── ErrorBudgetError more was set aside than `stop_above` allows; exit code 3

`runtime.ledger.RunFailedError` is what `collectors.run` raises for all of these that a run came to.
The class says what to do next; `error_type`, from the specification, says in which kind of work it happened.
An exception that is none of these counts as fatal. Each is also the built-in exception that the specification
promises to callers (ValueError, ConnectionError, RuntimeError). All can be pickled, so they cross processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from collectors.enums import ErrorType
from collectors.models import ErrorInfo

__all__ = [
    "CollectorsError",
    "ConfigurationError",
    "DataError",
    "ErrorBudgetError",
    "FatalError",
    "FencedError",
    "TransientError",
    "to_info",
]


class CollectorsError(Exception):
    """What all exceptions of the package have: a message for people, and the kind of work it happened in."""

    error_type = ErrorType.PROCESSING

    def __init__(self, message: str, *, error_type: ErrorType | None = None) -> None:
        super().__init__(message)
        self.message = message
        if error_type is not None:
            self.error_type = error_type

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.__dict__.copy())


class ConfigurationError(CollectorsError, ValueError):
    """The settings do not fit; nothing was started."""

    error_type = ErrorType.CONFIGURATION


class TransientError(CollectorsError, ConnectionError):
    """It may work later; `retry_after` is what the other side asked for, in seconds."""

    error_type = ErrorType.CONNECTION

    def __init__(
        self, message: str, *, retry_after: float | None = None, error_type: ErrorType | None = None
    ) -> None:
        super().__init__(message, error_type=error_type)
        self.retry_after = retry_after


class DataError(CollectorsError, ValueError):
    """Some records cannot be used: `rows` maps their row number in the table at hand to the reason.

    Empty `rows` means that the culprits are not known; whoever catches it has to find them.
    """

    error_type = ErrorType.VALIDATION

    def __init__(
        self, message: str, *, rows: Mapping[int, str] | None = None, error_type: ErrorType | None = None
    ) -> None:
        super().__init__(message, error_type=error_type)
        self.rows = dict(rows or {})


class FatalError(CollectorsError, RuntimeError):
    """This flow cannot go on; trying again would not help."""


class FencedError(FatalError):
    """The store has a newer epoch: another process has taken this flow over."""

    error_type = ErrorType.STORAGE


class ErrorBudgetError(FatalError):
    """More records of a flow were set aside than its pipeline allows."""

    error_type = ErrorType.VALIDATION


def _rebuild(cls: type[CollectorsError], message: str, state: dict[str, Any]) -> CollectorsError:
    error = cls(message)
    error.__dict__.update(state)
    return error


def to_info(
    error: BaseException, *, layer: str, operation: str, critical: bool | None = None, **details: Any
) -> ErrorInfo:
    """Return the error as the specification's structured `ErrorInfo`.

    Unless told otherwise an error is critical when it stops something: everything but TransientError and DataError.
    """
    kind = error.error_type if isinstance(error, CollectorsError) else _kind_of(error)
    if critical is None:
        critical = not isinstance(error, (TransientError, DataError))
    return ErrorInfo(
        error_type=kind,
        timestamp=datetime.now(UTC),
        layer_name=layer,
        operation=operation,
        message=str(error) or type(error).__name__,
        details={"exception": type(error).__name__, **details},
        is_critical=critical,
    )


def _kind_of(error: BaseException) -> ErrorType:
    if isinstance(error, (ConnectionError, TimeoutError)):
        return ErrorType.CONNECTION
    if isinstance(error, ValueError):
        return ErrorType.VALIDATION
    return ErrorType.PROCESSING
