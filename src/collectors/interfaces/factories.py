"""One factory a layer, so that a whole layer can be exchanged."""

from __future__ import annotations

from abc import ABC, abstractmethod

from collectors.interfaces.collection import ICollectionManager, IMetadataParser
from collectors.interfaces.processing import IPipeline, IProcessingManager
from collectors.interfaces.storage import IStorageManager

__all__ = ["ICollectionLayerFactory", "IProcessingLayerFactory", "IStorageLayerFactory"]


class ICollectionLayerFactory(ABC):
    """Makes the parts of the collection layer."""

    @abstractmethod
    def create_collection_manager(self) -> ICollectionManager:
        """Return a new manager without sources."""

    @abstractmethod
    def create_metadata_parser(self) -> IMetadataParser:
        """Return a new parser."""


class IProcessingLayerFactory(ABC):
    """Makes the parts of the processing layer."""

    @abstractmethod
    def create_processing_manager(self) -> IProcessingManager:
        """Return a new manager without processors and pipelines."""

    @abstractmethod
    def create_pipeline(self) -> IPipeline:
        """Return a new pipeline without steps."""


class IStorageLayerFactory(ABC):
    """Makes the parts of the storage layer."""

    @abstractmethod
    def create_storage_manager(self) -> IStorageManager:
        """Return a new manager without backends."""
