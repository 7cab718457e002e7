"""Collect data from anything, process it at column speed, store it anywhere, and prove that nothing was lost.

The names of the published specification, `run` and `RunFailedError` are importable from here; each is loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "collectors.enums": ("CollectionStatus", "ErrorType", "EventType", "TaskStatus"),
    "collectors.models": (
        "CollectedData",
        "CollectionStatistics",
        "CollectionTask",
        "ErrorInfo",
        "ParsedMetadata",
        "PipelineResult",
        "PipelineStep",
        "ProcessingResult",
        "ProcessingStatistics",
        "QueryCriteria",
        "StorageLocation",
        "StorageStatistics",
        "SystemEvent",
        "TaskInfo",
    ),
    "collectors.interfaces": (
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
    ),
    "collectors.mocks": (
        "MockDataSource",
        "MockErrorHandler",
        "MockEventEmitter",
        "MockMetadataParser",
        "MockProcessor",
        "MockStorageBackend",
        "MockTaskTracker",
    ),
    "collectors.examples": (
        "example_basic_collection",
        "example_complete_pipeline",
        "example_custom_data_source",
        "example_data_storage",
        "example_error_handling",
        "example_event_system",
        "example_processing_pipeline",
        "example_stream_collection",
        "run_all_examples",
    ),
    "collectors.runtime.engine": ("run",),
    "collectors.runtime.ledger": ("RunFailedError",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  # a list of strings, computed


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'collectors' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
