"""Keeps backends and counts what is stored through them; no policy: retries and batches are the runtime's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pyarrow as pa
from msgspec import Struct
from pydantic import Field

from collectors.enums import ErrorType, EventType
from collectors.errors import ConfigurationError, FatalError
from collectors.interfaces.crosscutting import IErrorHandler, IEventEmitter
from collectors.interfaces.storage import IStorageBackend, IStorageManager
from collectors.models import QueryCriteria, StorageLocation, StorageStatistics
from collectors.reporting import Reporter
from collectors.settings import Settings, check_settings

__all__ = ["RegistrationConfig", "StorageManager"]


class RegistrationConfig(Settings):
    """What `register_backend` takes as configuration."""

    connect: bool = Field(default=False, strict=True)
    """Connect the backend when it is registered, disconnect it when it is taken out."""
    tags: dict[str, str] = {}
    """Free labels; they come along in events."""


class _Registered(Struct):
    backend: IStorageBackend
    config: RegistrationConfig
    stored: int = 0
    size: int = 0
    last: datetime | None = None
    busy: int = 0


class StorageManager(IStorageManager):
    """Backends by id. `events` is told of each store and of errors, `errors` gets the errors as `ErrorInfo`."""

    def __init__(
        self,
        *,
        events: IEventEmitter | None = None,
        errors: IErrorHandler | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._reporter = Reporter("storage", events, errors, now)
        self._now = now
        self._backends: dict[str, _Registered] = {}

    async def register_backend(self, backend: IStorageBackend, config: dict[str, Any]) -> str:
        """Check the configuration (`RegistrationConfig`), keep the backend, return its id.

        Raises ValueError for what does not fit, RuntimeError when the id exists, ConnectionError when it was to be
        connected and cannot be.
        """
        settings = _check(backend, config)
        backend_id = backend.get_backend_id()
        if backend_id in self._backends:
            raise FatalError(f"a backend '{backend_id}' is registered already", error_type=ErrorType.STORAGE)
        if settings.connect:
            await backend.connect()
        self._backends[backend_id] = _Registered(backend, settings)
        return backend_id

    async def unregister_backend(self, backend_id: str) -> None:
        """Forget a backend. Raises KeyError for an unknown id, RuntimeError while it stores or is queried."""
        registered = self._backends[backend_id]
        if registered.busy:
            raise FatalError(
                f"the backend '{backend_id}' is in use by {registered.busy} operation(s)",
                error_type=ErrorType.STORAGE,
            )
        del self._backends[backend_id]
        if registered.config.connect:
            await registered.backend.disconnect()

    async def store_data(self, backend_id: str, data: Any) -> StorageLocation:
        """Store to a registered backend. Raises KeyError for an unknown id, else as the backend does."""
        registered = self._backends[backend_id]
        tags = {"tags": registered.config.tags}
        await self._reporter.event(EventType.STORAGE_START, backend_id, tags)
        with _use(registered):
            try:
                location = await registered.backend.store(data)
            except Exception as error:
                await self._reporter.error(error, "store", backend_id, tags)
                raise
        registered.stored += 1
        registered.size += _size(data)
        registered.last = self._now()
        done = {**tags, "location_id": location.location_id}
        await self._reporter.event(EventType.STORAGE_COMPLETE, backend_id, done)
        return location

    async def query_data(self, backend_id: str, criteria: QueryCriteria) -> list[Any]:
        """Query a registered backend. Raises KeyError for an unknown id, else as the backend does."""
        registered = self._backends[backend_id]
        with _use(registered):
            try:
                return await registered.backend.query(criteria)
            except Exception as error:
                await self._reporter.error(error, "query", backend_id, {"tags": registered.config.tags})
                raise

    async def get_statistics(self, backend_id: str) -> StorageStatistics:
        """Return how many calls of `store_data` succeeded, and the bytes that they handed over.

        Bytes are those of the data as handed over: of an Arrow table's buffers, of other data as JSON,
        or as Python prints them where JSON cannot.
        """
        registered = self._backends[backend_id]
        return StorageStatistics(backend_id, registered.stored, registered.size, registered.last)


@contextmanager
def _use(registered: _Registered) -> Any:
    registered.busy += 1
    try:
        yield
    finally:
        registered.busy -= 1


def _check(backend: object, config: object) -> RegistrationConfig:
    problems: list[str] = []
    if not isinstance(backend, IStorageBackend):
        problems.append(f"expected a backend (an IStorageBackend), got {type(backend).__name__}")
    elif not isinstance(backend.get_backend_id(), str) or not backend.get_backend_id().strip():
        problems.append(
            f"the backend's id must be a text that is not empty, got {backend.get_backend_id()!r}"
        )
    settings: RegistrationConfig | None = None
    try:
        settings = check_settings(RegistrationConfig, config)
    except ConfigurationError as error:
        problems.append(f"configuration: {error}")
    if problems or settings is None:
        raise ConfigurationError("; ".join(problems))
    return settings


def _size(data: Any) -> int:
    if isinstance(data, (pa.Table, pa.RecordBatch)):
        return cast("int", data.nbytes)
    if isinstance(data, (bytes, str)):
        return len(data.encode(errors="surrogatepass") if isinstance(data, str) else data)
    try:
        return len(msgspec.json.encode(data, enc_hook=str))
    except (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError):
        return len(repr(data).encode(errors="surrogatepass"))
