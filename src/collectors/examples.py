"""Eight runnable examples of the published interfaces; `python -m collectors.examples` runs them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from collectors.enums import ErrorType, EventType
from collectors.interfaces import IDataSource
from collectors.mocks import (
    MockDataSource,
    MockErrorHandler,
    MockEventEmitter,
    MockProcessor,
    MockStorageBackend,
)
from collectors.models import CollectedData, ErrorInfo, QueryCriteria, SystemEvent

__all__ = [
    "example_basic_collection",
    "example_complete_pipeline",
    "example_custom_data_source",
    "example_data_storage",
    "example_error_handling",
    "example_event_system",
    "example_processing_pipeline",
    "example_stream_collection",
    "run_all_examples",
]


async def example_basic_collection() -> None:
    """Connect to a source, take one chunk, disconnect."""
    source = MockDataSource("greenhouse", b"humidity=61")
    await source.connect()
    try:
        chunk = await source.collect()
        print(
            f"{chunk.source_id} at {chunk.timestamp:%H:%M:%S}: {chunk.raw_data.decode()} ({chunk.data_format})"
        )
    finally:
        await source.disconnect()


async def example_stream_collection() -> None:
    """Take chunks as they come, until the source ends."""
    source = MockDataSource("greenhouse", b"humidity=61")
    await source.connect()
    try:
        async for chunk in source.collect_stream():
            print(f"chunk {chunk.metadata['stream_index']}: {len(chunk.raw_data)} bytes")
    finally:
        await source.disconnect()


async def example_processing_pipeline() -> None:
    """Run two real processors in order; the second fails on purpose and is named."""
    from collectors.processing.manager import ProcessingManager

    def fahrenheit(record: dict[str, float]) -> dict[str, float]:
        return {**record, "fahrenheit": record["celsius"] * 9 / 5 + 32}

    manager = ProcessingManager()
    await manager.create_pipeline("readings")
    await manager.add_step("readings", await manager.register_processor(fahrenheit), 1)
    failing = MockProcessor("publish", should_fail=True)
    await manager.add_step("readings", await manager.register_processor(failing), 2)
    result = await (await manager.get_pipeline("readings")).execute({"celsius": 21.5})
    print(f"first step: {result.step_results[0].processed_data}")
    print(f"failed at '{result.failed_step}': {result.step_results[-1].error}")


async def example_data_storage() -> None:
    """Store records, query them with a filter, delete one by its location."""
    from collectors.storage.backends.memory import MemoryBackend

    backend = MemoryBackend()
    await backend.connect()
    try:
        locations = [
            await backend.store({"plant": plant, "cm": cm}) for plant, cm in [("basil", 20), ("mint", 35)]
        ]
        print(await backend.query(QueryCriteria({"cm": {">": 25}}, "plant", None, None)))
        await backend.delete(locations[0].location_id)
        print(f"{len(await backend.query(QueryCriteria({}, None, None, None)))} left")
    finally:
        await backend.disconnect()


async def example_error_handling() -> None:
    """Bring a critical error to every handler that takes its type; one that fails does not stop the next."""
    from collectors.crosscutting.error_handler import ErrorHandlerRegistry

    class Pager(MockErrorHandler):
        async def handle_error(self, error: ErrorInfo) -> None:
            raise RuntimeError(f"the pager is out of reach: {error.message}")

    log = MockErrorHandler([ErrorType.CONNECTION])
    handlers = ErrorHandlerRegistry()
    handlers.register(Pager())
    handlers.register(log)
    error = ErrorInfo(
        ErrorType.CONNECTION,
        datetime.now(UTC),
        "collection",
        "connect",
        "no route",
        {"host": "192.0.2.1"},
        True,
    )
    print(f"handled by {await handlers.dispatch(error)}: {log.get_handled_errors()[0].message}")


async def example_event_system() -> None:
    """Subscribe to events; a sync function does as well as an async one."""
    emitter = MockEventEmitter()
    subscription = await emitter.subscribe(
        EventType.STORAGE_COMPLETE, lambda event: print(f"{event.source}: {event.data['rows']} rows stored")
    )
    await emitter.emit(SystemEvent(EventType.STORAGE_COMPLETE, datetime.now(UTC), "sqlite", {"rows": 42}))
    await emitter.unsubscribe(subscription)


async def example_complete_pipeline() -> None:
    """Go all the way from a source to a store, with the managers of all three layers."""
    from collectors.collection.manager import CollectionManager
    from collectors.factories import StorageLayerFactory

    source = MockDataSource("greenhouse", b"humidity=61")
    backend, marker = MockStorageBackend("notes"), MockProcessor("seen")
    storage = StorageLayerFactory().create_storage_manager()
    await storage.register_backend(backend, {"connect": True})

    async def deliver(chunk: CollectedData) -> None:
        name, _, value = chunk.raw_data.decode().partition("=")
        result = await marker.process({name: int(value)})
        await storage.store_data("notes", result.processed_data)

    collection = CollectionManager(deliver)
    await collection.register_source(source, {})
    task_id = await collection.start_collection("greenhouse")
    status = await collection.wait(task_id)
    print(f"{status.value}: {await storage.query_data('notes', QueryCriteria({}, None, 1, None))}")
    print(f"{(await storage.get_statistics('notes')).stored_count} stored")
    await storage.unregister_backend("notes")


async def example_custom_data_source() -> None:
    """Write a source of your own behind the interface, and use it like any other."""

    class Countdown(IDataSource):
        """Counts down to nothing."""

        def __init__(self, start: int) -> None:
            self._left = start

        async def connect(self) -> None:
            """Nothing to open."""

        async def disconnect(self) -> None:
            """Nothing to close."""

        async def collect(self) -> CollectedData:
            """Return the next number."""
            if self._left == 0:
                raise ValueError("the countdown is over")
            self._left -= 1
            return CollectedData(
                self.get_source_id(), datetime.now(UTC), "text", "count", str(self._left).encode(), {}
            )

        async def collect_stream(self) -> AsyncIterator[CollectedData]:
            """Yield until it is over."""
            while self._left:
                yield await self.collect()

        def get_source_id(self) -> str:
            """Return its name."""
            return "countdown"

    source = Countdown(3)
    await source.connect()
    print([chunk.raw_data.decode() async for chunk in source.collect_stream()])
    await source.disconnect()


async def run_all_examples() -> None:
    """Run all eight, each under a heading."""
    for example in (
        example_basic_collection,
        example_stream_collection,
        example_processing_pipeline,
        example_data_storage,
        example_error_handling,
        example_event_system,
        example_complete_pipeline,
        example_custom_data_source,
    ):
        print(f"\n{example.__name__.removeprefix('example_').replace('_', ' ')}")
        await example()


if __name__ == "__main__":
    asyncio.run(run_all_examples())
