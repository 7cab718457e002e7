"""Collections as tasks: what a source or a deliverer may do, and that it is always disconnected and counted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from collectors.collection.base import Source
from collectors.collection.manager import CollectionManager
from collectors.crosscutting.task_tracker import TaskTracker
from collectors.enums import CollectionStatus, EventType, TaskStatus
from collectors.interfaces import IDataSource
from collectors.mocks import MockDataSource, MockErrorHandler, MockEventEmitter
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


def test_a_source_is_connected_read_closed_and_disconnected_in_this_order():
    async def main():
        manager, source = CollectionManager(), Numbers()
        assert await manager.wait(await started(manager, source, {"max_chunks": 2})) is STOPPED
        assert source.log == ["connect", 0, 1, "closed", "disconnect"]

    asyncio.run(main())


def test_each_chunk_is_delivered_before_the_next_is_asked_for():
    async def main():
        source = Numbers()

        async def deliver(chunk):
            source.log.append(f"delivered {chunk.raw_data.decode()}")

        manager = CollectionManager(deliver)
        await manager.wait(await started(manager, source, {"max_chunks": 2}))
        assert source.log[1:5] == [0, "delivered 0", 1, "delivered 1"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fail", "status", "error"),
    [({}, TaskStatus.COMPLETED, None), ({"1": ValueError("torn")}, TaskStatus.FAILED, "torn")],
)
def test_a_tracker_shows_the_collection_under_its_task_id(fail, status, error):
    async def main():
        tracker = TaskTracker()
        manager = CollectionManager(tasks=tracker)
        task_id = await started(manager, Numbers(**fail), {"max_chunks": 2})
        assert (await tracker.get_task_info(task_id)).status is TaskStatus.PENDING
        await manager.wait(task_id)
        task = await tracker.get_task_info(task_id)
        assert (task.status, task.error) == (status, error)
        await manager.stop_collection(task_id)
        assert (await tracker.get_task_info(task_id)).status is status

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fail", "delivered"),
    [
        ({"connect": ConnectionError("no route")}, 0),
        ({"1": ValueError("torn")}, 1),
        ({"0": OSError("gone")}, 0),
        ({"disconnect": ConnectionError("half closed")}, 2),
    ],
)
def test_a_source_that_fails_ends_its_task_alone(fail, delivered):
    async def main():
        emitter, errors, other = MockEventEmitter(), MockErrorHandler(), Numbers("other")
        manager, source = CollectionManager(events=emitter, errors=errors), Numbers(**fail)
        good = await started(manager, other, {"max_chunks": 2})
        bad = await started(manager, source, {"max_chunks": 2})
        assert (await manager.wait(bad), await manager.wait(good)) == (ERROR, STOPPED)
        assert source.log[-1] == "disconnect"
        ((_, error),) = fail.items()
        (info,) = errors.get_handled_errors()
        assert (info.message, info.details["source"]) == (str(error), "numbers")
        found = await manager.get_statistics("numbers")
        assert (found.success_count, found.failure_count) == (delivered, 1)
        mine = [each for each in emitter.get_emitted_events() if each.source == "numbers"]
        assert [each.event_type for each in mine] == [
            EventType.COLLECTION_START,
            EventType.ERROR_OCCURRED,
            EventType.COLLECTION_COMPLETE,
        ]
        assert (mine[1].data["message"], mine[2].data["status"]) == (str(error), "error")
        source.fail = {}
        assert await manager.wait(await manager.start_collection("numbers")) is STOPPED

    asyncio.run(main())


def test_a_chunk_that_could_not_be_delivered_is_a_failure():
    async def main():
        async def deliver(chunk):
            if chunk.raw_data == b"2":
                raise OSError(28, "No space left on device")

        manager, source = CollectionManager(deliver), Numbers()
        assert await manager.wait(await started(manager, source)) is ERROR
        found = await manager.get_statistics("numbers")
        assert (found.success_count, found.failure_count) == (2, 1)
        assert source.log[-2:] == ["closed", "disconnect"]

    asyncio.run(main())


@pytest.mark.parametrize("label", ["source_id", "timestamp"])
def test_a_chunk_with_wrong_labels_is_refused(label):
    class Wrong(MockDataSource):
        async def collect_stream(self):
            chunk = await self.collect()
            setattr(chunk, label, None)
            yield chunk

    async def main():
        errors = MockErrorHandler()
        manager = CollectionManager(errors=errors)
        assert await manager.wait(await started(manager, Wrong("s"))) is ERROR
        assert "'s' gave a chunk" in errors.get_handled_errors()[0].message
        assert (await manager.get_statistics("s")).success_count == 0

    asyncio.run(main())


class Broken(MockEventEmitter, MockErrorHandler):
    """Raises whatever it is told."""

    async def emit(self, event):
        raise RuntimeError("the emitter is closed")

    async def handle_error(self, error):
        raise RuntimeError("the pager is out of reach")


@pytest.mark.parametrize(("fail", "status"), [({}, STOPPED), ({"1": ValueError("torn")}, ERROR)])
def test_emitters_and_handlers_that_fail_are_logged_and_break_nothing(caplog, fail, status):
    async def main():
        broken = Broken()
        manager, source = CollectionManager(events=broken, errors=broken), Numbers(**fail)
        assert await manager.wait(await started(manager, source, {"max_chunks": 2})) is status
        assert source.log[-1] == "disconnect"
        found = await manager.get_statistics("numbers")
        assert (found.success_count, found.failure_count) == ((1, 1) if fail else (2, 0))

    asyncio.run(main())
    assert "cannot report collection_complete of 'numbers'" in caplog.text
    assert ("no handler for: torn" in caplog.text) is bool(fail)


def test_a_task_has_its_times_and_is_handed_out_as_a_copy():
    async def main():
        moments = iter(datetime(2024, 1, 1, second=n, tzinfo=UTC) for n in range(10))
        manager = CollectionManager(now=lambda: next(moments))
        task_id = await started(manager, Numbers(), {"max_chunks": 1})
        await manager.wait(task_id)
        task = manager.get_task(task_id)
        times = (task.created_at, task.started_at, task.stopped_at)
        assert [each.second for each in times] == [0, 1, 3]
        assert (await manager.get_statistics("numbers")).last_collection_time.second == 2
        task.status = ERROR
        assert manager.get_task(task_id).status is STOPPED

    asyncio.run(main())


def test_events_carry_the_task_and_the_tags():
    async def main():
        emitter = MockEventEmitter()
        manager = CollectionManager(events=emitter)
        task_id = await started(manager, Numbers(), {"max_chunks": 1, "tags": {"site": "north"}})
        await manager.wait(task_id)
        for event in emitter.get_emitted_events():
            assert (event.data["task_id"], event.data["tags"]) == (task_id, {"site": "north"})

    asyncio.run(main())


@pytest.mark.parametrize(
    ("source", "config"), [("s", {}), (MockDataSource, {}), (None, {}), (object(), None)]
)
def test_a_refusal_names_what_was_expected_and_what_came(source, config):
    async def main():
        with pytest.raises(ValueError, match=r"expected a source \(an IDataSource\), got \w+"):
            await CollectionManager().register_source(source, config)

    asyncio.run(main())


def test_a_source_of_this_package_that_blocks_in_a_thread_is_stopped():
    class Plain(Source):
        def read(self, since):
            try:
                yield self.chunk(b"1", {"n": 1})
                yield self.chunk(b"2", {"n": 2})
            finally:
                log.append("closed")

    async def main():
        one, never = asyncio.Event(), asyncio.Event()

        async def deliver(chunk):
            one.set()
            await never.wait()

        manager = CollectionManager(deliver, patience=0)
        task_id = await started(manager, Plain(id="plain"))
        await one.wait()
        await manager.stop_collection(task_id)
        assert log == ["closed"]

    log = []
    asyncio.run(main())
