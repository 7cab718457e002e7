"""The collection layer: where bytes arrive."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any

from collectors.enums import CollectionStatus
from collectors.models import CollectedData, CollectionStatistics, ParsedMetadata

__all__ = ["ICollectionManager", "IDataSource", "IMetadataParser"]


class IDataSource(ABC):
    """Something that data comes from: a file, a sensor, an API, a broker.

    The owner calls `connect` once, then reads with `collect` or `collect_stream`, then `disconnect`, which is safe
    at any time and twice.
    """

    @abstractmethod
    async def connect(self) -> None:
        """Open what reading needs. Raises ConnectionError when the source cannot be reached."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Release everything that `connect` opened. Raises ConnectionError when that fails."""

    @abstractmethod
    async def collect(self) -> CollectedData:
        """Return the next chunk. Raises ConnectionError when not connected, ValueError for invalid data."""

    @abstractmethod
    def collect_stream(self) -> AsyncIterator[CollectedData]:
        """Return an async iterator over the chunks, in order, until the source ends.

        Implementations are `async def` with `yield`. Errors as in `collect`, raised by the iteration.
        """

    @abstractmethod
    def get_source_id(self) -> str:
        """Return the name that is unique among the sources of a manager; it never changes."""


class IMetadataParser(ABC):
    """Looks at a chunk and says what is in it and how good it is."""

    @abstractmethod
    async def parse(self, collected_data: CollectedData) -> ParsedMetadata:
        """Return schema, quality and attributes of the chunk. Raises ValueError when it cannot be read at all."""

    @abstractmethod
    async def validate(self, metadata: ParsedMetadata) -> bool:
        """Return whether the metadata is complete and consistent in itself."""


class ICollectionManager(ABC):
    """Keeps the sources and runs their collection as tasks."""

    @abstractmethod
    async def register_source(self, source: IDataSource, config: dict[str, Any]) -> str:
        """Check the configuration, keep the source, return its id. Raises ValueError for what does not fit."""

    @abstractmethod
    async def unregister_source(self, source_id: str) -> None:
        """Stop the source if it runs and forget it. Raises KeyError for an unknown id."""

    @abstractmethod
    async def start_collection(self, source_id: str) -> str:
        """Start collecting in the background and return the task id at once.

        Raises KeyError for an unknown id and RuntimeError when the source is being collected already.
        """

    @abstractmethod
    async def stop_collection(self, task_id: str) -> None:
        """Stop the task and wait until it has stopped. Raises KeyError for an unknown id."""

    @abstractmethod
    async def get_task_status(self, task_id: str) -> CollectionStatus:
        """Return what the task is doing. Raises KeyError for an unknown id."""

    @abstractmethod
    async def get_statistics(self, source_id: str) -> CollectionStatistics:
        """Return what happened at this source so far. Raises KeyError for an unknown id."""
