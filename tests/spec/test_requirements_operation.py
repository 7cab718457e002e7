"""Requirements 5 to 7 of the specification (errors, monitoring, dependency inversion), one test each."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

import collectors
from collectors import factories, interfaces, mocks
from collectors.collection.manager import CollectionManager
from collectors.crosscutting.error_handler import ErrorHandlerRegistry
from collectors.enums import CollectionStatus, ErrorType, EventType
from collectors.errors import ConfigurationError, DataError, FatalError, TransientError, to_info
from collectors.mocks import (
    MockDataSource,
    MockErrorHandler,
    MockEventEmitter,
    MockMetadataParser,
    MockProcessor,
    MockStorageBackend,
)
from collectors.models import ErrorInfo, QueryCriteria, SystemEvent
from collectors.processing.manager import ProcessingManager
from collectors.storage.manager import StorageManager

ALL = QueryCriteria({}, None, None, None)


def info(error_type, critical=False):
    return ErrorInfo(error_type, datetime.now(UTC), "storage", "store", "no space", {"free": 0}, critical)


async def drained(emitter):
    if hasattr(emitter, "drain"):
        await emitter.drain()


async def failed_collection(source):
    """Collect from a source that fails, with a deliverer that fails if it does not; return what was reported."""

    async def refuse(chunk):
        raise ValueError("no room for it")

    handler = MockErrorHandler()
    manager = CollectionManager(refuse, errors=handler)
    await manager.register_source(source, {})
    status = await manager.wait(await manager.start_collection(source.get_source_id()))
    assert status is CollectionStatus.ERROR
    (error,) = handler.get_handled_errors()
    return error


def test_r5_1_errors_are_structured(make_source):
    """5.1 Structured."""
    error = asyncio.run(failed_collection(make_source("s")))
    assert isinstance(error, ErrorInfo)
    assert error.message == "no room for it"
    assert error.details == {"exception": "ValueError", "source": "s"}


@pytest.mark.parametrize(
    ("error", "kind", "critical"),
    [
        (ConfigurationError("x"), ErrorType.CONFIGURATION, True),
        (TransientError("x"), ErrorType.CONNECTION, False),
        (DataError("x"), ErrorType.VALIDATION, False),
        (FatalError("x"), ErrorType.PROCESSING, True),
        (FatalError("x", error_type=ErrorType.STORAGE), ErrorType.STORAGE, True),
        (ConnectionError("x"), ErrorType.CONNECTION, True),
        (TimeoutError("x"), ErrorType.CONNECTION, True),
        (ValueError("x"), ErrorType.VALIDATION, True),
        (KeyError("x"), ErrorType.PROCESSING, True),
    ],
)
def test_r5_2_errors_have_a_type(error, kind, critical):
    """5.2 By type."""
    made = to_info(error, layer="a", operation="b")
    assert (made.error_type, made.is_critical) == (kind, critical)


def test_r5_3_errors_have_time_layer_operation_and_details(letters):
    """5.3 With time, layer, operation and details."""
    before = datetime.now(UTC)
    error = asyncio.run(failed_collection(letters("s", fail_at=0)))
    assert before <= error.timestamp <= datetime.now(UTC)
    assert (error.layer_name, error.operation) == ("collection", "collect")
    assert error.message == "letter 0 is torn"
    assert error.details["source"] == "s"


def test_r5_4_handlers_can_be_registered(make_handler):
    """5.4 Handlers can be registered."""

    async def main():
        registry, handler = ErrorHandlerRegistry(), make_handler([ErrorType.STORAGE])
        handler_id = registry.register(handler)
        assert await registry.dispatch(info(ErrorType.STORAGE)) == 1
        assert await registry.dispatch(info(ErrorType.VALIDATION)) == 0
        assert handler.get_error_count() == 1
        registry.unregister(handler_id)
        assert await registry.dispatch(info(ErrorType.STORAGE)) == 0
        with pytest.raises(ValueError, match="error handler"):
            registry.register(print)

    asyncio.run(main())


def test_r5_5_a_critical_error_invokes_every_handler_for_its_type(make_handler):
    """5.5 A critical error invokes every handler that can handle its type."""

    async def main():
        registry = ErrorHandlerRegistry()
        able = [make_handler([ErrorType.STORAGE]), make_handler(None)]
        unable = make_handler([ErrorType.CONNECTION])
        for handler in (able[0], unable, able[1]):
            registry.register(handler)
        assert await registry.dispatch(info(ErrorType.STORAGE, critical=True)) == 2
        assert [handler.get_error_count() for handler in (*able, unable)] == [1, 1, 0]
        assert await registry.dispatch(info(ErrorType.STORAGE)) == 1
        assert [handler.get_error_count() for handler in (*able, unable)] == [2, 1, 0]

    asyncio.run(main())


def test_r6_1_collection_statistics(letters):
    """6.1 Collection statistics (success, failure, mean time)."""

    async def main():
        manager, source = CollectionManager(), letters("s", fail_at=2)
        await manager.register_source(source, {})
        await manager.wait(await manager.start_collection("s"))
        first = await manager.get_statistics("s")
        source.fail_at = None
        await manager.wait(await manager.start_collection("s"))
        second = await manager.get_statistics("s")
        assert [(each.success_count, each.failure_count) for each in (first, second)] == [(2, 1), (5, 1)]
        assert first.average_processing_time > 0
        assert first.last_collection_time < second.last_collection_time
        with pytest.raises(KeyError):
            await manager.get_statistics("other")

    asyncio.run(main())


def test_r6_2_processing_statistics_for_each_step(make_processor):
    """6.2 Processing statistics for each step."""

    async def main():
        manager = ProcessingManager()
        pipeline = await manager.create_pipeline("p")
        for order, processor in enumerate(
            [make_processor("a"), MockProcessor("b", True), make_processor("c")]
        ):
            await pipeline.add_step(processor, order)
        for _ in range(4):
            await pipeline.execute({})
        found = await manager.get_statistics("p")
        assert [
            (each.step_name, each.execution_count, each.success_count, each.failure_count) for each in found
        ] == [("a", 4, 4, 0), ("b", 4, 0, 4), ("c", 0, 0, 0)]
        assert all(each.average_time >= 0 for each in found)
        with pytest.raises(KeyError):
            await manager.get_statistics("q")

    asyncio.run(main())


def test_r6_3_storage_statistics(make_backend):
    """6.3 Storage statistics (count, bytes)."""

    async def main():
        manager = StorageManager()
        await manager.register_backend(make_backend("b"), {"connect": True})
        empty = await manager.get_statistics("b")
        assert (empty.stored_count, empty.storage_usage_bytes, empty.last_storage_time) == (0, 0, None)
        await manager.store_data("b", {"n": 1})
        await manager.store_data("b", {"n": 23})
        found = await manager.get_statistics("b")
        assert (found.backend_id, found.stored_count) == ("b", 2)
        assert found.storage_usage_bytes == len('{"n":1}') + len('{"n":23}')
        assert found.last_storage_time <= datetime.now(UTC)
        await manager.unregister_backend("b")
        with pytest.raises(KeyError):
            await manager.get_statistics("b")

    asyncio.run(main())


def test_r6_4_events_of_collection_processing_and_storage(make_emitter, make_source, make_backend):
    """6.4 Events for collection start/complete, processing complete, storage complete."""

    async def main():
        emitter, seen = make_emitter(), []
        for kind in EventType:
            await emitter.subscribe(kind, lambda event: seen.append((event.event_type, event.source)))
        collection = CollectionManager(events=emitter)
        await collection.register_source(make_source("s"), {})
        await collection.wait(await collection.start_collection("s"))
        await drained(emitter)
        processing = ProcessingManager(events=emitter)
        await (await processing.create_pipeline("p")).execute({})
        await drained(emitter)
        storage = StorageManager(events=emitter)
        await storage.register_backend(make_backend("b"), {"connect": True})
        await storage.store_data("b", {"n": 1})
        await storage.unregister_backend("b")
        await drained(emitter)
        assert set(seen) == {
            (EventType.COLLECTION_START, "s"),
            (EventType.COLLECTION_COMPLETE, "s"),
            (EventType.PROCESSING_START, "p"),
            (EventType.PROCESSING_COMPLETE, "p"),
            (EventType.STORAGE_START, "b"),
            (EventType.STORAGE_COMPLETE, "b"),
        }
        assert len(seen) == 6

    asyncio.run(main())


def test_r6_5_events_can_be_subscribed_to(make_emitter):
    """6.5 Subscribing."""

    async def main():
        emitter, seen = make_emitter(), []

        async def later(event):
            seen.append(event)

        subscriptions = [
            await emitter.subscribe(EventType.ERROR_OCCURRED, handler) for handler in (seen.append, later)
        ]
        event = SystemEvent(EventType.ERROR_OCCURRED, datetime.now(UTC), "test", {})
        await emitter.emit(event)
        await drained(emitter)
        assert seen == [event, event]
        for subscription in subscriptions:
            await emitter.unsubscribe(subscription)
        await emitter.emit(event)
        await drained(emitter)
        assert len(seen) == 2
        with pytest.raises(KeyError):
            await emitter.unsubscribe(subscriptions[0])

    asyncio.run(main())


def imports_of(layer):
    """Return the modules of this package that a layer imports, anywhere in its files."""
    found = set()
    for path in (Path(collectors.__file__).parent / layer).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("collectors."):
                found.add(node.module)
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names if alias.name.startswith("collectors.")}
    assert found
    return found


def check_depends_on_interfaces_alone(layer):
    layers = {"collection", "processing", "storage", "crosscutting", "codecs", "runtime", "cli", "config"}
    used = {module.split(".")[1] for module in imports_of(layer)}
    assert "interfaces" in used
    assert used & (layers | {"mocks", "factories", "registry"}) <= {layer}


def test_r7_1_the_collection_layer_depends_on_interfaces_alone():
    """7.1 The collection layer depends on abstract interfaces alone."""
    check_depends_on_interfaces_alone("collection")


def test_r7_2_the_processing_layer_depends_on_interfaces_alone():
    """7.2 The processing layer depends on abstract interfaces alone."""
    check_depends_on_interfaces_alone("processing")


def test_r7_3_the_storage_layer_depends_on_interfaces_alone():
    """7.3 The storage layer depends on abstract interfaces alone."""
    check_depends_on_interfaces_alone("storage")


def test_r7_4_mocks_can_stand_in_for_any():
    """7.4 Mocks can stand in for any."""

    async def main():
        emitter, errors, parser = MockEventEmitter(), MockErrorHandler(), MockMetadataParser()
        storage, processing = StorageManager(events=emitter), ProcessingManager(events=emitter)
        await storage.register_backend(MockStorageBackend("b"), {"connect": True})
        await processing.register_processor(MockProcessor("m"))
        pipeline = await processing.create_pipeline("p")
        await processing.add_step("p", "m", 1)

        async def deliver(chunk):
            assert await parser.validate(await parser.parse(chunk))
            result = await pipeline.execute({"raw": chunk.raw_data})
            await storage.store_data("b", result.final_data)

        collection = CollectionManager(deliver, events=emitter, errors=errors)
        await collection.register_source(MockDataSource("s", b"x"), {})
        status = await collection.wait(await collection.start_collection("s"))
        assert status is CollectionStatus.STOPPED
        assert await storage.query_data("b", ALL) == [{"raw": b"x", "processed_by_m": True}] * 3
        assert (parser.get_parse_count(), errors.get_error_count()) == (3, 0)
        assert emitter.get_event_count() == 2 + 3 * 4

    asyncio.run(main())
    stand_ins = {base for name in mocks.__all__ for base in inspect.getmro(getattr(mocks, name))}
    external = {name for name in interfaces.__all__ if not re.search("Manager|Factory|Pipeline", name)}
    assert {getattr(interfaces, name) for name in external} <= stand_ins


@pytest.mark.parametrize(
    ("factory", "made"),
    [
        (factories.CollectionLayerFactory, {"collection_manager": "ICollectionManager"}),
        (factories.CollectionLayerFactory, {"metadata_parser": "IMetadataParser"}),
        (factories.ProcessingLayerFactory, {"processing_manager": "IProcessingManager"}),
        (factories.ProcessingLayerFactory, {"pipeline": "IPipeline"}),
        (factories.StorageLayerFactory, {"storage_manager": "IStorageManager"}),
    ],
)
def test_r7_5_factories_create_each_layer(factory, made):
    """7.5 Factories create each layer."""
    ((name, interface),) = made.items()
    first, second = getattr(factory(), f"create_{name}")(), getattr(factory(), f"create_{name}")()
    assert isinstance(first, getattr(interfaces, interface))
    assert first is not second


def test_there_is_a_test_for_each_requirement():
    text = "".join(
        path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_requirements*.py")
    )
    found = re.findall(r'^def test_r(\d)_(\d)_\w+\([^)]*\):\n    """(\d)\.(\d) ', text, re.MULTILINE)
    assert sorted(found) == [(a, b, a, b) for a in "1234567" for b in "12345"]
