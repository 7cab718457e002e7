"""The seven mocks do what the published specification says of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from collectors.enums import ErrorType, EventType, TaskStatus
from collectors.mocks import (
    MockDataSource,
    MockErrorHandler,
    MockEventEmitter,
    MockMetadataParser,
    MockProcessor,
    MockStorageBackend,
    MockTaskTracker,
)
from collectors.models import CollectedData, ErrorInfo, ParsedMetadata, QueryCriteria, SystemEvent

ALL = QueryCriteria({}, None, None, None)
FINAL = [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED]


def error(error_type):
    return ErrorInfo(error_type, datetime.now(UTC), "storage", "store", "no space", {"free": 0}, False)


def event(event_type):
    return SystemEvent(event_type, datetime.now(UTC), "test", {})


async def all_of(stream):
    return [chunk async for chunk in stream]


def test_source_is_connected_between_connect_and_disconnect():
    async def main():
        source = MockDataSource("s")
        states = [source.is_connected()]
        await source.connect()
        states.append(source.is_connected())
        await source.disconnect()
        await source.disconnect()
        states.append(source.is_connected())
        assert states == [False, True, False]
        assert source.get_source_id() == "s"

    asyncio.run(main())


def test_source_collects_its_data_and_counts():
    async def main():
        source = MockDataSource("s")
        await source.connect()
        first, second = await source.collect(), await source.collect()
        assert isinstance(first, CollectedData)
        assert (first.source_id, first.data_format, first.collection_method) == ("s", "mock", "mock_collect")
        assert first.raw_data == b"mock_data"
        assert (first.metadata, second.metadata) == ({"collect_count": 1}, {"collect_count": 2})
        assert first.timestamp.tzinfo is not None
        assert source.get_collect_count() == 2

    asyncio.run(main())


def test_source_streams_three_samples_which_count_as_collects():
    async def main():
        source = MockDataSource("s", b"xyz")
        await source.connect()
        await source.collect()
        chunks = await all_of(source.collect_stream())
        assert [chunk.metadata for chunk in chunks] == [
            {"collect_count": 2, "stream_index": 0},
            {"collect_count": 3, "stream_index": 1},
            {"collect_count": 4, "stream_index": 2},
        ]
        assert {(chunk.raw_data, chunk.collection_method, chunk.data_format) for chunk in chunks} == {
            (b"xyz", "mock_stream", "mock")
        }
        assert source.get_collect_count() == 4

    asyncio.run(main())


@pytest.mark.parametrize("before", [False, True])
def test_source_that_is_not_connected_gives_nothing(before):
    async def main():
        source = MockDataSource("s")
        if before:
            await source.connect()
            await source.disconnect()
        with pytest.raises(ConnectionError, match="connect"):
            await source.collect()
        with pytest.raises(ConnectionError, match="connect"):
            await all_of(source.collect_stream())
        assert source.get_collect_count() == 0

    asyncio.run(main())


@pytest.mark.parametrize("valid", [True, False])
def test_parser_finds_what_it_was_told_to(valid):
    async def main():
        source = MockDataSource("s")
        await source.connect()
        parser = MockMetadataParser(validation_result=valid)
        parsed = await parser.parse(await source.collect())
        assert isinstance(parsed, ParsedMetadata)
        assert parsed.is_valid is valid
        assert bool(parsed.validation_errors) is not valid
        assert {"completeness", "accuracy"} <= set(parsed.quality_indicators)
        assert all(0.0 <= value <= 1.0 for value in parsed.quality_indicators.values())
        assert parsed.source_attributes["source_id"] == "s"
        assert parsed.schema
        assert await parser.validate(parsed) is valid
        assert parser.get_parse_count() == 1

    asyncio.run(main())


def test_parser_finds_valid_by_default():
    chunk = CollectedData("s", datetime.now(UTC), "mock", "test", b"", {})
    assert asyncio.run(MockMetadataParser().parse(chunk)).is_valid


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"a": 1}, {"a": 1, "processed_by_p": True}),
        ({}, {"processed_by_p": True}),
        ([1], {"original": [1], "processed_by_p": True}),
        ("text", {"original": "text", "processed_by_p": True}),
        (None, {"original": None, "processed_by_p": True}),
    ],
)
def test_processor_leaves_its_mark(given, expected):
    processor = MockProcessor("p")
    before = dict(given) if isinstance(given, dict) else given
    result = asyncio.run(processor.process(given))
    assert (result.success, result.processed_data, result.error) == (True, expected, None)
    assert result.processing_time >= 0
    assert given == before
    assert processor.get_process_count() == 1
    assert processor.get_processor_name() == "p"


def test_processor_fails_when_told_to():
    processor = MockProcessor("p", should_fail=True)
    result = asyncio.run(processor.process({"a": 1}))
    assert (result.success, result.processed_data) == (False, None)
    assert "failed" in result.error
    assert processor.get_process_count() == 1


def test_processor_takes_anything_but_none():
    assert not MockProcessor("p").validate_input(None)
    assert all(MockProcessor("p").validate_input(data) for data in [0, "", {}, [], False, b""])


def test_backend_stores_and_gives_back():
    async def main():
        backend = MockStorageBackend("b")
        assert not backend.is_connected()
        await backend.connect()
        assert backend.is_connected()
        data = {"a": 1}
        location = await backend.store(data)
        other = await backend.store("text")
        assert location.backend_id == backend.get_backend_id() == "b"
        assert location.path == f"/mock/b/{location.location_id}"
        assert location.created_at.tzinfo is not None
        assert backend.get_stored_data(location.location_id) == data
        assert backend.get_all_stored_data() == {location.location_id: data, other.location_id: "text"}
        assert backend.get_store_count() == 2
        await backend.delete(location.location_id)
        assert backend.get_all_stored_data() == {other.location_id: "text"}
        assert backend.get_store_count() == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        (ALL, [3, 1, 2, 5, 4]),
        (QueryCriteria({}, None, 2, None), [3, 1]),
        (QueryCriteria({}, None, None, 2), [2, 5, 4]),
        (QueryCriteria({}, None, 2, 1), [1, 2]),
        (QueryCriteria({}, None, 0, None), []),
        (QueryCriteria({}, None, 9, 9), []),
        (QueryCriteria({}, "n", None, None), [1, 2, 3, 4, 5]),
        (QueryCriteria({}, "-n", 2, 1), [4, 3]),
        (QueryCriteria({"n": 2}, None, None, None), [2]),
        (QueryCriteria({"n": {">": 2, "!=": 4}}, "n", None, None), [3, 5]),
        (QueryCriteria({"other": 2}, None, None, None), []),
    ],
)
def test_backend_queries(criteria, expected):
    async def main():
        backend = MockStorageBackend("b")
        await backend.connect()
        for n in [3, 1, 2, 5, 4]:
            await backend.store({"n": n})
        assert [row["n"] for row in await backend.query(criteria)] == expected

    asyncio.run(main())


def test_backend_queries_what_is_no_dict():
    async def main():
        backend = MockStorageBackend("b")
        await backend.connect()
        for data in ["x", {"n": 1}, 7]:
            await backend.store(data)
        assert await backend.query(ALL) == ["x", {"n": 1}, 7]
        assert await backend.query(QueryCriteria({}, None, 1, 1)) == [{"n": 1}]
        assert await backend.query(QueryCriteria({"n": 1}, None, None, None)) == [{"n": 1}]
        with pytest.raises(ValueError, match="limit"):
            await backend.query(QueryCriteria({}, None, -1, None))

    asyncio.run(main())


def test_backend_that_is_not_connected_does_nothing():
    async def main():
        backend = MockStorageBackend("b")
        await backend.connect()
        location = await backend.store({"n": 1})
        await backend.disconnect()
        assert not backend.is_connected()
        for call in (backend.store({}), backend.query(ALL), backend.delete(location.location_id)):
            with pytest.raises(ConnectionError, match="connect"):
                await call
        assert backend.get_store_count() == 1
        await backend.connect()
        with pytest.raises(KeyError):
            await backend.delete("nowhere")

    asyncio.run(main())


def test_error_handler_keeps_errors_of_its_types():
    async def main():
        handler = MockErrorHandler([ErrorType.STORAGE])
        assert handler.can_handle(ErrorType.STORAGE)
        assert not handler.can_handle(ErrorType.VALIDATION)
        await handler.handle_error(error(ErrorType.STORAGE))
        with pytest.raises(RuntimeError, match="validation"):
            await handler.handle_error(error(ErrorType.VALIDATION))
        assert [kept.error_type for kept in handler.get_handled_errors()] == [ErrorType.STORAGE]
        assert handler.get_error_count() == 1
        handler.clear_errors()
        assert (handler.get_handled_errors(), handler.get_error_count()) == ([], 0)

    asyncio.run(main())


def test_error_handler_takes_all_types_by_default_and_none_when_told_none():
    assert all(MockErrorHandler().can_handle(kind) for kind in ErrorType)
    assert not any(MockErrorHandler([]).can_handle(kind) for kind in ErrorType)


def test_emitter_calls_sync_and_async_subscribers_of_the_type():
    async def main():
        emitter, seen = MockEventEmitter(), []

        async def later(told):
            seen.append(("async", told))

        first = await emitter.subscribe(EventType.STORAGE_START, lambda told: seen.append(("sync", told)))
        second = await emitter.subscribe(EventType.STORAGE_START, later)
        await emitter.subscribe(EventType.ERROR_OCCURRED, lambda told: seen.append(("other", told)))
        assert first != second
        assert emitter.get_subscription_count() == 3
        told = event(EventType.STORAGE_START)
        await emitter.emit(told)
        assert seen == [("sync", told), ("async", told)]
        await emitter.unsubscribe(first)
        await emitter.emit(told)
        assert seen[2:] == [("async", told)]
        with pytest.raises(KeyError):
            await emitter.unsubscribe(first)

    asyncio.run(main())


def test_emitter_tells_all_subscribers_before_it_raises_what_one_raised():
    async def main():
        emitter, seen = MockEventEmitter(), []

        async def fails(told):
            raise ValueError("no pager")

        for handler in (fails, seen.append):
            await emitter.subscribe(EventType.STORAGE_START, handler)
        told = SystemEvent(EventType.STORAGE_START, datetime.now(UTC), "db", {})
        with pytest.raises(RuntimeError, match="storage_start failed.*no pager"):
            await emitter.emit(told)
        assert seen == emitter.get_emitted_events() == [told]

    asyncio.run(main())


def test_emitter_keeps_and_counts_events():
    async def main():
        emitter = MockEventEmitter()
        await emitter.subscribe(EventType.STORAGE_START, print)
        events = [event(EventType.ERROR_OCCURRED), event(EventType.STORAGE_COMPLETE)]
        for told in events:
            await emitter.emit(told)
        assert emitter.get_emitted_events() == events
        assert emitter.get_event_count() == 2
        assert emitter.get_event_count(EventType.ERROR_OCCURRED) == 1
        assert emitter.get_event_count(EventType.STORAGE_START) == 0
        emitter.clear_events()
        assert (emitter.get_event_count(), emitter.get_subscription_count()) == (0, 1)

    asyncio.run(main())


def test_emitter_refuses_what_does_not_fit():
    async def main():
        emitter = MockEventEmitter()
        with pytest.raises(ValueError, match="EventType"):
            await emitter.subscribe("storage_start", print)
        with pytest.raises(ValueError, match="function"):
            await emitter.subscribe(EventType.STORAGE_START, "print")
        with pytest.raises(ValueError, match="SystemEvent"):
            await emitter.emit({"event_type": EventType.STORAGE_START})
        assert (emitter.get_subscription_count(), emitter.get_event_count()) == (0, 0)

    asyncio.run(main())


def test_tracker_makes_pending_tasks():
    async def main():
        tracker = MockTaskTracker()
        ids = [await tracker.create_task("export") for _ in range(3)]
        task = await tracker.get_task_info(ids[0])
        assert len(set(ids)) == 3
        assert (task.task_id, task.task_type, task.status) == (ids[0], "export", TaskStatus.PENDING)
        assert (task.progress, task.started_at, task.completed_at) == (0.0, None, None)
        assert (task.result, task.error) == (None, None)
        assert [each.task_id for each in tracker.get_all_tasks()] == ids
        with pytest.raises(ValueError, match="type"):
            await tracker.create_task("")

    asyncio.run(main())


@pytest.mark.parametrize("final", FINAL)
def test_tracker_sets_times_once(final):
    async def main():
        tracker = MockTaskTracker()
        task_id = await tracker.create_task("export")
        await tracker.update_status(task_id, TaskStatus.RUNNING)
        started = (await tracker.get_task_info(task_id)).started_at
        assert started is not None
        await tracker.update_status(task_id, TaskStatus.RUNNING)
        await tracker.update_status(task_id, final)
        task = await tracker.get_task_info(task_id)
        assert task.started_at is started
        assert task.completed_at >= started
        assert task.status is final
        with pytest.raises(ValueError, match="ended"):
            await tracker.update_status(task_id, TaskStatus.RUNNING)
        with pytest.raises(RuntimeError, match="ended"):
            await tracker.cancel_task(task_id)

    asyncio.run(main())


def test_tracker_cancels():
    async def main():
        tracker = MockTaskTracker()
        ids = [await tracker.create_task("export") for _ in range(2)]
        await tracker.cancel_task(ids[0])
        task = await tracker.get_task_info(ids[0])
        assert task.status is TaskStatus.CANCELLED
        assert task.completed_at is not None
        assert tracker.get_task_count() == 2
        assert tracker.get_task_count(TaskStatus.CANCELLED) == tracker.get_task_count(TaskStatus.PENDING) == 1
        tracker.clear_tasks()
        assert (tracker.get_all_tasks(), tracker.get_task_count()) == ([], 0)

    asyncio.run(main())


def test_tracker_refuses_what_does_not_fit():
    async def main():
        tracker = MockTaskTracker()
        task_id = await tracker.create_task("export")
        for progress in (0.0, 0.5, 1.0):
            await tracker.update_progress(task_id, progress)
            assert (await tracker.get_task_info(task_id)).progress == progress
        for progress in (-0.001, 1.001, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="progress"):
                await tracker.update_progress(task_id, progress)
        with pytest.raises(ValueError, match="TaskStatus"):
            await tracker.update_status(task_id, "running")
        for call in (
            tracker.update_status("none", TaskStatus.RUNNING),
            tracker.update_progress("none", 0.5),
            tracker.get_task_info("none"),
            tracker.cancel_task("none"),
        ):
            with pytest.raises(KeyError):
                await call

    asyncio.run(main())
