"""Backends by id: connected when asked to be, not taken out while in use, and counted whatever they are given."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from collectors.enums import EventType
from collectors.mocks import MockEventEmitter, MockStorageBackend
from collectors.models import QueryCriteria
from collectors.storage.backends.memory import MemoryBackend
from collectors.storage.manager import StorageManager

ALL = QueryCriteria({}, None, None, None)


class Slow(MockStorageBackend):
    """Waits in the middle of each operation until it may go on."""

    def __init__(self, backend_id):
        super().__init__(backend_id)
        self.began, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def store(self, data):
        await self._wait()
        return await super().store(data)

    async def query(self, criteria):
        await self._wait()
        return await super().query(criteria)

    async def _wait(self):
        self.began.set()
        await self.may_go_on.wait()


def test_a_backend_is_connected_and_disconnected_when_the_configuration_says_so():
    async def main():
        manager, mine, its = StorageManager(), MockStorageBackend("mine"), MockStorageBackend("its")
        await mine.connect()
        await manager.register_backend(mine, {})
        await manager.register_backend(its, {"connect": True})
        assert its.is_connected()
        await manager.unregister_backend("mine")
        await manager.unregister_backend("its")
        assert (mine.is_connected(), its.is_connected()) == (True, False)

    asyncio.run(main())


def test_a_backend_that_cannot_be_connected_is_not_registered():
    class Away(MockStorageBackend):
        async def connect(self):
            raise ConnectionError("no route")

    async def main():
        manager = StorageManager()
        with pytest.raises(ConnectionError, match="no route"):
            await manager.register_backend(Away("b"), {"connect": True})
        assert await manager.register_backend(MockStorageBackend("b"), {}) == "b"

    asyncio.run(main())


@pytest.mark.parametrize("operation", ["store", "query"])
def test_a_backend_in_use_cannot_be_taken_out(operation):
    async def main():
        manager, backend = StorageManager(), Slow("b")
        await manager.register_backend(backend, {"connect": True})
        call = manager.store_data("b", {}) if operation == "store" else manager.query_data("b", ALL)
        task = asyncio.create_task(call)
        await backend.began.wait()
        with pytest.raises(RuntimeError, match=r"'b' is in use by 1 operation"):
            await manager.unregister_backend("b")
        backend.may_go_on.set()
        await task
        await manager.unregister_backend("b")
        assert not backend.is_connected()

    asyncio.run(main())


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_an_operation_that_did_not_end_well_does_not_keep_a_backend_in_use(end):
    async def main():
        emitter, backend = MockEventEmitter(), Slow("b")
        manager = StorageManager(events=emitter)
        await manager.register_backend(backend, {"connect": end == "cancelled"})
        task = asyncio.create_task(manager.store_data("b", {}))
        await backend.began.wait()
        if end == "cancelled":
            task.cancel()
        backend.may_go_on.set()
        with pytest.raises(asyncio.CancelledError if end == "cancelled" else ConnectionError):
            await task
        assert (await manager.get_statistics("b")).stored_count == 0
        assert emitter.get_event_count(EventType.STORAGE_COMPLETE) == 0
        await manager.unregister_backend("b")

    asyncio.run(main())


def test_an_unknown_backend_is_a_key_error_everywhere():
    async def main():
        manager = StorageManager()
        for call in (
            manager.unregister_backend("b"),
            manager.store_data("b", {}),
            manager.query_data("b", ALL),
            manager.get_statistics("b"),
        ):
            with pytest.raises(KeyError):
                await call

    asyncio.run(main())


CIRCLE = {}
CIRCLE["self"] = CIRCLE


@pytest.mark.parametrize(
    ("data", "size"),
    [
        ({"n": 1, "t": "ä"}, len('{"n":1,"t":"ä"}'.encode())),
        ([{"n": 1}, {"n": 2}], len('[{"n":1},{"n":2}]')),
        ({"at": datetime(2024, 1, 1, tzinfo=UTC)}, len('{"at":"2024-01-01T00:00:00Z"}')),
        (b"12345", 5),
        ("ä", 2),
        ("", 0),
        ("\ud800", 3),
        (pa.table({"n": pa.array([1, 2], pa.int64())}), 16),
        (pa.record_batch({"n": pa.array([1, 2, 3], pa.int64())}), 24),
        (None, 4),
        ({(1, 2): "\ud800"}, None),
        ({"x": 10**400}, None),
        (CIRCLE, None),
    ],
)
def test_what_is_stored_is_counted_in_bytes_whatever_it_is(data, size):
    async def main():
        manager = StorageManager()
        await manager.register_backend(MockStorageBackend("b"), {"connect": True})
        await manager.store_data("b", data)
        found = await manager.get_statistics("b")
        assert found.stored_count == 1
        assert found.storage_usage_bytes == size if size is not None else found.storage_usage_bytes > 0

    asyncio.run(main())


def test_data_that_a_backend_refuses_are_not_counted():
    async def main():
        manager = StorageManager()
        await manager.register_backend(MemoryBackend(), {"connect": True})
        for bad in (None, "text", [], [1], {"a": object()}):
            with pytest.raises(ValueError, match="expected|do not fit"):
                await manager.store_data("memory", bad)
        await manager.store_data("memory", {"a": 1})
        with pytest.raises(ValueError, match="no column 'b'"):
            await manager.query_data("memory", QueryCriteria({"b": 1}, None, None, None))
        found = await manager.get_statistics("memory")
        assert (found.stored_count, found.storage_usage_bytes) == (1, len('{"a":1}'))
        await manager.unregister_backend("memory")

    asyncio.run(main())


def test_events_carry_the_location_and_the_tags():
    async def main():
        emitter, moment = MockEventEmitter(), datetime(2024, 1, 1, tzinfo=UTC)
        manager = StorageManager(events=emitter, now=lambda: moment)
        await manager.register_backend(MockStorageBackend("b"), {"connect": True, "tags": {"room": "1"}})
        location = await manager.store_data("b", {})
        start, complete = emitter.get_emitted_events()
        assert (start.source, start.data) == ("b", {"tags": {"room": "1"}})
        assert complete.data == {"location_id": location.location_id, "tags": {"room": "1"}}
        assert (await manager.get_statistics("b")).last_storage_time == complete.timestamp == moment

    asyncio.run(main())


def test_an_emitter_that_fails_is_logged_and_what_is_stored_is_counted(caplog):
    class Broken(MockEventEmitter):
        async def emit(self, event):
            raise RuntimeError("the emitter is closed")

    async def main():
        manager = StorageManager(events=Broken())
        await manager.register_backend(MockStorageBackend("b"), {"connect": True})
        assert (await manager.store_data("b", {})).backend_id == "b"
        assert (await manager.get_statistics("b")).stored_count == 1

    asyncio.run(main())
    assert "cannot report storage_complete of 'b'" in caplog.text


@pytest.mark.parametrize("backend", [None, "b", MockStorageBackend])
def test_a_refusal_names_everything_that_is_wrong(backend):
    async def main():
        with pytest.raises(ValueError, match=r"expected a backend \(an IStorageBackend\).*conect"):
            await StorageManager().register_backend(backend, {"conect": 1})

    asyncio.run(main())
