"""Requirements 1 to 4 of the specification (layers, asynchrony), one test each, for implementations and mocks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from collectors.collection.manager import CollectionManager
from collectors.enums import CollectionStatus, TaskStatus
from collectors.mocks import MockProcessor
from collectors.models import QueryCriteria
from collectors.processing.manager import ProcessingManager
from collectors.processing.pipeline import Pipeline
from collectors.storage.manager import StorageManager

ALL = QueryCriteria({}, None, None, None)


async def collected(source, config=None):
    """Return what a manager delivered of a source, the manager and the task."""
    chunks = []

    async def deliver(chunk):
        chunks.append(chunk)

    manager = CollectionManager(deliver)
    source_id = await manager.register_source(source, config or {})
    task_id = await manager.start_collection(source_id)
    await manager.wait(task_id)
    return chunks, manager, task_id


def double(record):
    return {**record, "n": record["n"] * 2}


def test_r1_1_new_kinds_of_source_can_be_registered(make_source):
    """1.1 Register new kinds of source."""
    chunks, manager, task_id = asyncio.run(collected(make_source("new")))
    assert len(chunks) == 3
    assert manager.get_task(task_id).source_id == "new"


@pytest.mark.parametrize(
    "config",
    [
        {"max_chunk": 1},
        {"max_chunks": 0},
        {"max_chunks": "many"},
        {"max_chunks": True},
        {"max_chunks": "3"},
        {"max_chunks": 3.0},
        None,
        [],
    ],
)
def test_r1_2_registering_a_source_validates_the_configuration(make_source, config):
    """1.2 Registering validates the configuration."""

    async def main():
        manager = CollectionManager()
        with pytest.raises(ValueError, match="max_chunk|dict"):
            await manager.register_source(make_source("s"), config)
        with pytest.raises(KeyError):
            await manager.start_collection("s")
        assert await manager.register_source(make_source("s"), {"max_chunks": 1}) == "s"
        with pytest.raises(ValueError, match="'s' is registered"):
            await manager.register_source(make_source("s"), {})

    asyncio.run(main())


def test_r1_3_collection_can_be_started(make_source):
    """1.3 Start."""

    async def main():
        manager = CollectionManager()
        await manager.register_source(make_source("s"), {})
        task_id = await manager.start_collection("s")
        with pytest.raises(RuntimeError, match="already"):
            await manager.start_collection("s")
        assert await manager.wait(task_id) is CollectionStatus.STOPPED
        assert (await manager.get_statistics("s")).success_count == 3
        with pytest.raises(KeyError):
            await manager.start_collection("other")

    asyncio.run(main())


def test_r1_4_collection_can_be_stopped(make_source):
    """1.4 Stop."""

    async def main():
        got_one, never = asyncio.Event(), asyncio.Event()

        async def deliver(chunk):
            got_one.set()
            await never.wait()

        manager = CollectionManager(deliver, patience=0)
        await manager.register_source(make_source("s"), {})
        task_id = await manager.start_collection("s")
        await got_one.wait()
        assert await manager.get_task_status(task_id) is CollectionStatus.RUNNING
        await manager.stop_collection(task_id)
        assert await manager.get_task_status(task_id) is CollectionStatus.STOPPED
        with pytest.raises(KeyError):
            await manager.stop_collection("other")

    asyncio.run(main())


def test_r1_5_data_carries_source_id_and_timestamp(make_source):
    """1.5 Data carries source id and timestamp."""
    before = datetime.now(UTC)
    chunks, _, _ = asyncio.run(collected(make_source("s")))
    assert {chunk.source_id for chunk in chunks} == {"s"}
    assert all(before <= chunk.timestamp <= datetime.now(UTC) for chunk in chunks)


def test_r2_1_functions_can_be_registered():
    """2.1 Register processing functions too."""

    async def slow(record):
        return record

    async def main():
        manager = ProcessingManager()
        assert [await manager.register_processor(each) for each in (double, slow)] == ["double", "slow"]
        assert await manager.register_processor(MockProcessor("mock")) == "mock"

    asyncio.run(main())


@pytest.mark.parametrize("function", [lambda: None, lambda a, b: a, lambda *, a: a, 7, "double", None, dict])
def test_r2_2_registering_a_function_validates_the_signature(function):
    """2.2 Registering validates the signature."""

    async def main():
        manager = ProcessingManager()
        with pytest.raises(ValueError, match="function of one argument"):
            await manager.register_processor(function)

    asyncio.run(main())


def test_r2_3_pipelines_are_made_of_registered_processors(make_processor):
    """2.3 Pipelines from registered ones."""

    async def main():
        manager = ProcessingManager()
        pipeline = await manager.create_pipeline("p")
        for order, name in [(2, "second"), (1, "first")]:
            await manager.add_step("p", await manager.register_processor(make_processor(name)), order)
        assert [step.processor.get_processor_name() for step in pipeline.get_steps()] == ["first", "second"]
        with pytest.raises(KeyError):
            await manager.add_step("p", "unregistered", 3)

    asyncio.run(main())


def test_r2_4_executing_returns_the_processed_data(make_processor):
    """2.4 Executing returns the processed data."""

    async def main():
        pipeline = Pipeline()
        await pipeline.add_step(make_processor("a"), 1)
        await pipeline.add_step(make_processor("b"), 2)
        result = await pipeline.execute({"n": 1})
        assert result.success
        assert result.final_data == {"n": 1, "processed_by_a": True, "processed_by_b": True}
        assert [step.success for step in result.step_results] == [True, True]
        assert result.total_time >= sum(step.processing_time for step in result.step_results)

    asyncio.run(main())


def test_r2_5_a_failure_names_the_step_and_the_details(make_processor):
    """2.5 A failure names the failed step and the details."""

    async def main():
        pipeline = Pipeline()
        for order, processor in enumerate(
            [make_processor("a"), MockProcessor("b", True), make_processor("c")]
        ):
            await pipeline.add_step(processor, order)
        result = await pipeline.execute({"n": 1})
        assert (result.success, result.failed_step, result.final_data) == (False, "b", None)
        assert [step.success for step in result.step_results] == [True, False]
        assert "failed" in result.step_results[-1].error

    asyncio.run(main())


def test_r3_1_backends_can_be_registered(make_backend):
    """3.1 Register backends."""

    async def main():
        manager = StorageManager()
        assert await manager.register_backend(make_backend("b"), {}) == "b"
        assert await manager.register_backend(make_backend("c"), {}) == "c"
        with pytest.raises(RuntimeError, match="'b' is registered"):
            await manager.register_backend(make_backend("b"), {})

    asyncio.run(main())


@pytest.mark.parametrize(
    "config",
    [
        {"conect": True},
        {"connect": "perhaps"},
        {"connect": "yes"},
        {"connect": 1},
        {"connect": None},
        {"tags": [1]},
        None,
        "connect",
    ],
)
def test_r3_2_registering_a_backend_validates_the_configuration(make_backend, config):
    """3.2 Registering validates the configuration."""

    async def main():
        manager = StorageManager()
        with pytest.raises(ValueError, match="conect|connect|tags|dict"):
            await manager.register_backend(make_backend("b"), config)
        with pytest.raises(KeyError):
            await manager.get_statistics("b")

    asyncio.run(main())


async def with_backend(backend, use):
    manager = StorageManager()
    backend_id = await manager.register_backend(backend, {"connect": True})
    try:
        return await use(manager)
    finally:
        await manager.unregister_backend(backend_id)


def test_r3_3_data_are_stored_to_a_registered_backend(make_backend):
    """3.3 Store to a registered backend."""

    async def use(manager):
        await manager.store_data("b", {"n": 1})
        with pytest.raises(KeyError):
            await manager.store_data("other", {"n": 1})
        return await manager.query_data("b", ALL)

    assert asyncio.run(with_backend(make_backend("b"), use)) == [{"n": 1}]


def test_r3_4_data_are_queried_by_criteria(make_backend):
    """3.4 Query by criteria."""

    async def use(manager):
        for n in [4, 1, 3, 2]:
            await manager.store_data("b", {"n": n, "even": n % 2 == 0})
        return [
            [row["n"] for row in await manager.query_data("b", criteria)]
            for criteria in (
                QueryCriteria({"n": {">": 1}}, "n", 2, 1),
                QueryCriteria({"n": 3}, None, None, None),
                QueryCriteria({}, "-n", None, None),
            )
        ]

    assert asyncio.run(with_backend(make_backend("b"), use)) == [[3, 4], [3], [4, 3, 2, 1]]


def test_r3_5_storing_returns_a_location_id(make_backend):
    """3.5 Storing returns a location id."""

    async def main():
        backend = make_backend("b")
        await backend.connect()
        locations = [await backend.store({"n": n}) for n in range(3)]
        assert {location.backend_id for location in locations} == {"b"}
        await backend.delete(locations[1].location_id)
        assert [row["n"] for row in await backend.query(ALL)] == [0, 2]
        with pytest.raises(KeyError):
            await backend.delete(locations[1].location_id)
        await backend.disconnect()

    asyncio.run(main())


async def others_run_during(operation):
    """Return whether the event loop went on with something else before the operation had ended."""
    went_on = asyncio.Event()
    task = asyncio.create_task(operation(went_on))
    await asyncio.wait_for(went_on.wait(), 10)
    return not task.done(), await task


def test_r4_1_collection_is_asynchronous(make_source):
    """4.1 The collection layer is asynchronous: two sources are read at the same time."""

    async def main():
        both, waiting = asyncio.Barrier(2), asyncio.timeout(10)

        async def deliver(chunk):
            await both.wait()

        manager = CollectionManager(deliver)
        async with waiting:
            ids = [await manager.register_source(make_source(name), {}) for name in "ab"]
            tasks = [await manager.start_collection(source_id) for source_id in ids]
            assert [await manager.wait(task) for task in tasks] == [CollectionStatus.STOPPED] * 2

    asyncio.run(main())


def test_r4_2_processing_is_asynchronous():
    """4.2 The processing layer is asynchronous: a function that blocks does not block the loop."""

    async def main():
        loop, manager = asyncio.get_running_loop(), ProcessingManager()

        def blocks(went_on):
            return asyncio.run_coroutine_threadsafe(set_it(went_on), loop).result(10)

        async def set_it(went_on):
            went_on.set()
            return True

        await manager.create_pipeline("p")
        await manager.add_step("p", await manager.register_processor(blocks), 1)
        pipeline = await manager.get_pipeline("p")
        during, result = await others_run_during(pipeline.execute)
        assert during
        assert result.final_data is True

    asyncio.run(main())


def test_r4_3_storage_is_asynchronous(make_backend):
    """4.3 The storage layer is asynchronous: many operations can be under way."""

    async def use(manager):
        locations = await asyncio.gather(*(manager.store_data("b", {"n": n}) for n in range(20)))
        rows = await asyncio.gather(*(manager.query_data("b", ALL) for _ in range(3)))
        return len({location.location_id for location in locations}), [len(found) for found in rows]

    assert asyncio.run(with_backend(make_backend("b"), use)) == (20, [20, 20, 20])


def test_r4_4_starting_an_operation_returns_a_task_id(make_source, tracker):
    """4.4 Starting an asynchronous operation returns a task id."""

    async def main():
        manager = CollectionManager()
        ids = []
        for name in "abc":
            await manager.register_source(make_source(name), {})
            ids += [await manager.start_collection(name), await tracker.create_task(name)]
        assert len(set(ids)) == 6
        assert all(isinstance(task_id, str) and task_id for task_id in ids)
        for task_id in ids[::2]:
            await manager.wait(task_id)

    asyncio.run(main())


def test_r4_5_the_status_of_a_task_can_be_asked_for(make_source, tracker):
    """4.5 Its status can be asked for."""

    async def main():
        manager = CollectionManager()
        await manager.register_source(make_source("s"), {})
        task_id = await manager.start_collection("s")
        assert await manager.get_task_status(task_id) in {CollectionStatus.IDLE, CollectionStatus.RUNNING}
        await manager.wait(task_id)
        assert await manager.get_task_status(task_id) is CollectionStatus.STOPPED
        tracked = await tracker.create_task("export")
        seen = [(await tracker.get_task_info(tracked)).status]
        for status in (TaskStatus.RUNNING, TaskStatus.COMPLETED):
            await tracker.update_status(tracked, status)
            seen.append((await tracker.get_task_info(tracked)).status)
        assert seen == [TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.COMPLETED]
        for ask in (manager.get_task_status, tracker.get_task_info):
            with pytest.raises(KeyError):
                await ask("none")

    asyncio.run(main())
