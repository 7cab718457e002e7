"""The default layer factories; a program that wants another layer implements the interface and hands in its own."""

from __future__ import annotations

from collectors.collection.manager import CollectionManager, Deliver
from collectors.collection.metadata import MetadataParser
from collectors.interfaces.collection import ICollectionManager, IMetadataParser
from collectors.interfaces.crosscutting import IErrorHandler, IEventEmitter, ITaskTracker
from collectors.interfaces.factories import (
    ICollectionLayerFactory,
    IProcessingLayerFactory,
    IStorageLayerFactory,
)
from collectors.interfaces.processing import IPipeline, IProcessingManager
from collectors.interfaces.storage import IStorageManager
from collectors.processing.manager import ProcessingManager
from collectors.processing.pipeline import Pipeline
from collectors.storage.manager import StorageManager

__all__ = ["CollectionLayerFactory", "ProcessingLayerFactory", "StorageLayerFactory"]


class CollectionLayerFactory(ICollectionLayerFactory):
    """Makes the collection layer. What is handed in goes to each manager, see `CollectionManager`."""

    def __init__(
        self,
        events: IEventEmitter | None = None,
        *,
        errors: IErrorHandler | None = None,
        tasks: ITaskTracker | None = None,
        deliver: Deliver | None = None,
    ) -> None:
        self._events = events
        self._errors = errors
        self._tasks = tasks
        self._deliver = deliver

    def create_collection_manager(self) -> ICollectionManager:
        """Return a new manager without sources."""
        return CollectionManager(self._deliver, events=self._events, errors=self._errors, tasks=self._tasks)

    def create_metadata_parser(self) -> IMetadataParser:
        """Return a new parser."""
        return MetadataParser()


class ProcessingLayerFactory(IProcessingLayerFactory):
    """Makes the processing layer; its managers report to `events` and `errors` when there are such."""

    def __init__(self, events: IEventEmitter | None = None, *, errors: IErrorHandler | None = None) -> None:
        self._events = events
        self._errors = errors

    def create_processing_manager(self) -> IProcessingManager:
        """Return a new manager without processors and pipelines."""
        return ProcessingManager(events=self._events, errors=self._errors)

    def create_pipeline(self) -> IPipeline:
        """Return a new pipeline without steps."""
        return Pipeline()


class StorageLayerFactory(IStorageLayerFactory):
    """Makes the storage layer; its managers report to `events` and `errors` when there are such."""

    def __init__(self, events: IEventEmitter | None = None, *, errors: IErrorHandler | None = None) -> None:
        self._events = events
        self._errors = errors

    def create_storage_manager(self) -> IStorageManager:
        """Return a new manager without backends."""
        return StorageManager(events=self._events, errors=self._errors)
