"""The storage layer: where data rests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from collectors.models import QueryCriteria, StorageLocation, StorageStatistics

__all__ = ["IStorageBackend", "IStorageManager"]


class IStorageBackend(ABC):
    """A store: a database, a folder of files, a service."""

    @abstractmethod
    async def connect(self) -> None:
        """Open the store. Raises ConnectionError when it cannot be reached, ValueError for a bad configuration."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Close the store; safe at any time and twice. Raises ConnectionError when that fails."""

    @abstractmethod
    async def store(self, data: Any) -> StorageLocation:
        """Store the data durably and say where.

        Raises ConnectionError when not connected, ValueError for data that the store cannot hold, RuntimeError
        when storing fails.
        """

    @abstractmethod
    async def query(self, criteria: QueryCriteria) -> list[Any]:
        """Return the rows that match. Raises ConnectionError when not connected, ValueError for bad criteria."""

    @abstractmethod
    async def delete(self, location_id: str) -> None:
        """Delete what was stored there.

        Raises ConnectionError when not connected, KeyError for an unknown location, RuntimeError when it fails.
        """

    @abstractmethod
    def get_backend_id(self) -> str:
        """Return the name that is unique among the backends of a manager; it never changes."""


class IStorageManager(ABC):
    """Keeps the backends and their statistics."""

    @abstractmethod
    async def register_backend(self, backend: IStorageBackend, config: dict[str, Any]) -> str:
        """Check the configuration, keep the backend, return its id. Raises ValueError, RuntimeError (exists)."""

    @abstractmethod
    async def unregister_backend(self, backend_id: str) -> None:
        """Forget a backend. Raises KeyError for an unknown id, RuntimeError while it is in use."""

    @abstractmethod
    async def store_data(self, backend_id: str, data: Any) -> StorageLocation:
        """Store to a registered backend. Raises KeyError for an unknown id, else as the backend does."""

    @abstractmethod
    async def query_data(self, backend_id: str, criteria: QueryCriteria) -> list[Any]:
        """Query a registered backend. Raises KeyError for an unknown id, else as the backend does."""

    @abstractmethod
    async def get_statistics(self, backend_id: str) -> StorageStatistics:
        """Return what this manager stored there so far. Raises KeyError for an unknown id."""
