"""The contract: abstract classes only. They import nothing but models and enums, and everything else imports them."""

from collectors.interfaces.collection import ICollectionManager, IDataSource, IMetadataParser
from collectors.interfaces.crosscutting import IErrorHandler, IEventEmitter, ITaskTracker
from collectors.interfaces.factories import (
    ICollectionLayerFactory,
    IProcessingLayerFactory,
    IStorageLayerFactory,
)
from collectors.interfaces.processing import IPipeline, IProcessingManager, IProcessor
from collectors.interfaces.storage import IStorageBackend, IStorageManager

__all__ = [
    "ICollectionLayerFactory",
    "ICollectionManager",
    "IDataSource",
    "IErrorHandler",
    "IEventEmitter",
    "IMetadataParser",
    "IPipeline",
    "IProcessingLayerFactory",
    "IProcessingManager",
    "IProcessor",
    "IStorageBackend",
    "IStorageLayerFactory",
    "IStorageManager",
    "ITaskTracker",
]
