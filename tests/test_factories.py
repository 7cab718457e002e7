"""The default factories make whole layers that work, empty, and report to the emitter that they were given."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from collectors import factories, interfaces
from collectors.enums import EventType, TaskStatus
from collectors.mocks import (
    MockDataSource,
    MockErrorHandler,
    MockEventEmitter,
    MockProcessor,
    MockStorageBackend,
    MockTaskTracker,
)
from collectors.models import QueryCriteria

FACTORIES = {
    factories.CollectionLayerFactory: interfaces.ICollectionLayerFactory,
    factories.ProcessingLayerFactory: interfaces.IProcessingLayerFactory,
    factories.StorageLayerFactory: interfaces.IStorageLayerFactory,
}


@pytest.mark.parametrize("factory", FACTORIES)
def test_what_a_factory_makes_is_what_its_interface_promises(factory):
    made = factory()
    assert isinstance(made, FACTORIES[factory])
    for name in FACTORIES[factory].__abstractmethods__:
        promised = inspect.get_annotations(getattr(FACTORIES[factory], name))["return"]
        assert isinstance(getattr(made, name)(), getattr(interfaces, promised))


def test_what_is_made_is_empty_and_shares_nothing():
    async def main():
        factory = factories.CollectionLayerFactory()
        first, second = factory.create_collection_manager(), factory.create_collection_manager()
        await first.register_source(MockDataSource("s"), {})
        with pytest.raises(KeyError):
            await second.get_statistics("s")
        assert factories.ProcessingLayerFactory().create_pipeline().get_steps() == []

    asyncio.run(main())


def test_managers_report_to_the_emitter_that_was_handed_in():
    async def main():
        emitter = MockEventEmitter()
        collection = factories.CollectionLayerFactory(emitter).create_collection_manager()
        await collection.register_source(MockDataSource("s"), {})
        task_id = await collection.start_collection("s")
        await collection.wait(task_id)
        processing = factories.ProcessingLayerFactory(emitter).create_processing_manager()
        pipeline = await processing.create_pipeline("p")
        await pipeline.add_step(MockProcessor("m"), 1)
        await pipeline.execute({})
        storage = factories.StorageLayerFactory(emitter).create_storage_manager()
        await storage.register_backend(MockStorageBackend("b"), {"connect": True})
        await storage.store_data("b", {})
        assert [event.event_type for event in emitter.get_emitted_events()] == [
            kind for kind in EventType if kind is not EventType.ERROR_OCCURRED
        ]

    asyncio.run(main())


def test_managers_get_the_handler_the_tracker_and_the_deliverer_that_were_handed_in():
    async def main():
        errors, tasks = MockErrorHandler(), MockTaskTracker()

        async def deliver(chunk):
            raise OSError("disk full")

        made = factories.CollectionLayerFactory(errors=errors, tasks=tasks, deliver=deliver)
        collection = made.create_collection_manager()
        await collection.register_source(MockDataSource("s"), {})
        task_id = await collection.start_collection("s")
        await collection.wait(task_id)
        assert (await tasks.get_task_info(task_id)).status is TaskStatus.FAILED
        processing = factories.ProcessingLayerFactory(errors=errors).create_processing_manager()
        pipeline = await processing.create_pipeline("p")
        await pipeline.add_step(MockProcessor("m", should_fail=True), 1)
        await pipeline.execute({})
        storage = factories.StorageLayerFactory(errors=errors).create_storage_manager()
        await storage.register_backend(MockStorageBackend("b"), {})
        with pytest.raises(ConnectionError):
            await storage.store_data("b", {})
        with pytest.raises(ConnectionError):
            await storage.query_data("b", QueryCriteria({}, None, None, None))
        found = [(info.layer_name, info.operation) for info in errors.get_handled_errors()]
        assert found == [
            ("collection", "collect"),
            ("processing", "execute"),
            ("storage", "store"),
            ("storage", "query"),
        ]
        assert [info.details["source"] for info in errors.get_handled_errors()] == ["s", "p", "b", "b"]

    asyncio.run(main())
