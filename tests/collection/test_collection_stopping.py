"""Pausing and stopping: nothing is lost, nothing is left running, and the source is disconnected first."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from collectors.collection.manager import CollectionManager
from collectors.enums import CollectionStatus
from collectors.interfaces import IDataSource
from collectors.mocks import MockErrorHandler, MockEventEmitter, MockTaskTracker
from collectors.models import CollectedData

STOPPED, ERROR, PAUSED = CollectionStatus.STOPPED, CollectionStatus.ERROR, CollectionStatus.PAUSED


class Numbers(IDataSource):
    """Gives numbers without an end and notes what is done with it."""

    def __init__(self, source_id="numbers", **fail):
        self.source_id, self.fail, self.log = source_id, fail, []

    async def connect(self):
        self._note("connect")

    async def disconnect(self):
        self._note("disconnect")

    async def collect(self):
        return self.chunk(0)

    async def collect_stream(self):
        number = 0
        try:
            while True:
                self._note(number)
                yield self.chunk(number)
                number += 1
        finally:
            self.log.append("closed")

    def chunk(self, number):
        return CollectedData(self.source_id, datetime.now(UTC), "lines", "count", b"%d" % number, {})

    def get_source_id(self):
        return self.source_id

    def _note(self, what):
        self.log.append(what)
        if str(what) in self.fail:
            raise self.fail[str(what)]


async def started(manager, source, config=None):
    await manager.register_source(source, config or {})
    return await manager.start_collection(source.get_source_id())


def test_pause_holds_the_next_chunk_back_until_resume():
    async def main():
        got = asyncio.Queue()
        manager = CollectionManager(got.put)
        source = Numbers()
        task_id = await started(manager, source, {"max_chunks": 3})
        await manager.pause_collection(task_id)
        assert await manager.get_task_status(task_id) is PAUSED
        while "connect" not in source.log:
            await asyncio.sleep(0)
        assert got.empty()
        await manager.resume_collection(task_id)
        assert await manager.get_task_status(task_id) is CollectionStatus.RUNNING
        assert await manager.wait(task_id) is STOPPED
        assert [got.get_nowait().raw_data for _ in range(3)] == [b"0", b"1", b"2"]

    asyncio.run(main())


def test_pause_in_the_middle_loses_nothing():
    async def main():
        got, source = [], Numbers()

        async def deliver(chunk):
            got.append(chunk.raw_data)
            if len(got) == 2:
                await manager.pause_collection(task_id)
                paused.set()

        manager, paused = CollectionManager(deliver), asyncio.Event()
        task_id = await started(manager, source, {"max_chunks": 4})
        await paused.wait()
        await asyncio.sleep(0)
        assert (source.log[-1], len(got)) == (1, 2)
        await manager.resume_collection(task_id)
        await manager.wait(task_id)
        assert got == [b"0", b"1", b"2", b"3"]

    asyncio.run(main())


@pytest.mark.parametrize("paused", [False, True])
def test_stop_disconnects_before_it_returns(paused):
    async def main():
        one, never = asyncio.Event(), asyncio.Event()

        async def deliver(chunk):
            one.set()
            if not paused:
                await never.wait()

        manager, source = CollectionManager(deliver, patience=0), Numbers()
        task_id = await started(manager, source)
        if paused:
            await manager.pause_collection(task_id)
        else:
            await one.wait()
        while "connect" not in source.log:
            await asyncio.sleep(0)
        await manager.stop_collection(task_id)
        assert source.log[-1] == "disconnect"
        assert await manager.get_task_status(task_id) is STOPPED
        assert manager.get_task(task_id).stopped_at is not None
        await manager.stop_collection(task_id)
        for call in (manager.pause_collection, manager.resume_collection):
            with pytest.raises(RuntimeError, match="ended already: stopped"):
                await call(task_id)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_stop_before_the_first_step_never_touches_the_source():
    async def main():
        emitter = MockEventEmitter()
        manager, source = CollectionManager(events=emitter), Numbers()
        task_id = await started(manager, source)
        await manager.stop_collection(task_id)
        assert (source.log, emitter.get_event_count()) == ([], 0)
        assert await manager.get_task_status(task_id) is STOPPED
        second = await manager.start_collection("numbers")
        assert second != task_id
        await manager.stop_collection(second)

    asyncio.run(main())


@pytest.mark.parametrize("patience", [10, 0])
def test_stop_waits_for_the_delivery_under_way_and_one_that_is_cancelled_is_a_failure(patience):
    async def main():
        one, may_go_on, got = asyncio.Event(), asyncio.Event(), []

        async def deliver(chunk):
            one.set()
            await may_go_on.wait()
            got.append(chunk.raw_data)

        errors = MockErrorHandler()
        manager, source = CollectionManager(deliver, errors=errors, patience=patience), Numbers()
        task_id = await started(manager, source)
        await one.wait()
        stopping = asyncio.create_task(manager.stop_collection(task_id))
        if patience:
            await asyncio.sleep(0)
            may_go_on.set()
        await stopping
        found = await manager.get_statistics("numbers")
        if patience:
            assert (got, found.success_count, found.failure_count) == ([b"0"], 1, 0)
        else:
            assert (got, found.success_count, found.failure_count) == ([], 0, 1)
            assert "whether the chunk has arrived is unknown" in errors.get_handled_errors()[0].message
        assert source.log == ["connect", 0, "closed", "disconnect"]

    asyncio.run(main())


def test_a_pause_holds_a_chunk_back_that_the_source_was_waited_for():
    class Waits(Numbers):
        async def collect_stream(self):
            asked.set()
            await may_give.wait()
            yield self.chunk(0)

    async def main():
        got = asyncio.Queue()
        manager = CollectionManager(got.put)
        task_id = await started(manager, Waits())
        await asked.wait()
        await manager.pause_collection(task_id)
        may_give.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert got.empty()
        await manager.resume_collection(task_id)
        await manager.wait(task_id)
        assert got.qsize() == 1

    asked, may_give = asyncio.Event(), asyncio.Event()
    asyncio.run(main())


def test_a_deliverer_may_stop_its_own_collection():
    async def main():
        async def deliver(chunk):
            await manager.stop_collection(task_id)

        manager, source = CollectionManager(deliver), Numbers()
        task_id = await started(manager, source)
        async with asyncio.timeout(10):
            assert await manager.wait(task_id) is STOPPED
        assert source.log == ["connect", 0, "closed", "disconnect"]

    asyncio.run(main())


def test_unregistering_stops_and_the_task_stays_known():
    async def main():
        manager, source = CollectionManager(), Numbers()
        task_id = await started(manager, source)
        while 0 not in source.log:
            await asyncio.sleep(0)
        await manager.unregister_source("numbers")
        assert source.log[-1] == "disconnect"
        assert await manager.get_task_status(task_id) is STOPPED
        for call in (manager.unregister_source, manager.start_collection, manager.get_statistics):
            with pytest.raises(KeyError):
                await call("numbers")

    asyncio.run(main())


def test_stop_does_not_cut_a_disconnect_off():
    class Slow(Numbers):
        async def disconnect(self):
            leaving.set()
            await may_leave.wait()
            await super().disconnect()

    async def main():
        manager, source = CollectionManager(), Slow()
        task_id = await started(manager, source, {"max_chunks": 1})
        await leaving.wait()
        stops = [asyncio.create_task(manager.stop_collection(task_id)) for _ in range(2)]
        for _ in range(5):
            await asyncio.sleep(0)
        may_leave.set()
        await asyncio.gather(*stops)
        assert source.log == ["connect", 0, "closed", "disconnect"]
        assert await manager.get_task_status(task_id) is STOPPED

    leaving, may_leave = asyncio.Event(), asyncio.Event()
    asyncio.run(main())


def test_of_two_starts_at_the_same_time_one_is_refused():
    class SlowTracker(MockTaskTracker):
        async def create_task(self, task_type):
            await asyncio.sleep(0)
            return await super().create_task(task_type)

    async def main():
        tasks = SlowTracker()
        manager, source = CollectionManager(tasks=tasks), Numbers()
        await manager.register_source(source, {})
        starts = [manager.start_collection("numbers") for _ in range(3)]
        came = await asyncio.gather(*starts, return_exceptions=True)
        (task_id,) = [each for each in came if isinstance(each, str)]
        assert sum(isinstance(each, RuntimeError) for each in came) == 2
        await manager.stop_collection(task_id)
        assert tasks.get_task_count() == 1
        assert source.log.count("connect") <= 1

    asyncio.run(main())


def test_what_goes_wrong_when_it_is_disconnected_does_not_hide_what_went_wrong_before():
    async def main():
        errors = MockErrorHandler()
        manager = CollectionManager(errors=errors)
        source = Numbers(**{"1": ValueError("torn"), "disconnect": ConnectionError("half closed")})
        assert await manager.wait(await started(manager, source)) is ERROR
        assert [info.message for info in errors.get_handled_errors()] == ["torn", "half closed"]
        found = await manager.get_statistics("numbers")
        assert (found.success_count, found.failure_count) == (1, 1)

    asyncio.run(main())


def test_without_a_handler_an_error_is_logged(caplog):
    async def main():
        manager = CollectionManager()
        assert await manager.wait(await started(manager, Numbers(connect=OSError("no route")))) is ERROR

    asyncio.run(main())
    assert "collecting from 'numbers' failed: no route" in caplog.text
