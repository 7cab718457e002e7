"""What becomes of rows when requests fail, answers are lost, stores go away, and owners of a flow do not know of another."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import obstore
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from obstore.exceptions import GenericError

from collectors.chunks import Checkpoint, Counts
from collectors.errors import FatalError, FencedError, TransientError
from collectors.models import QueryCriteria
from collectors.storage.backends import _object_store_log
from collectors.storage.backends._object_store_client import Objects
from collectors.storage.backends._object_store_log import ObjectLog
from collectors.storage.backends.object_store import ObjectStoreBackend
from collectors.testing.deliveries import delivery, everything
from collectors.testing.proxy import Proxy
from collectors.testing.s3_server import S3Server

FLOW = "contract/source"
CALLS = ("put", "get", "list", "delete")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Any]:
    return {"url": f"file://{tmp_path}/lake"}


def run(
    place: dict[str, Any],
    scenario: Callable[[ObjectStoreBackend], Coroutine[Any, Any, None]],
    **settings: Any,
) -> None:
    async def main() -> None:
        backend = ObjectStoreBackend(**place, **settings)
        await backend.connect()
        try:
            await scenario(backend)
        finally:
            await backend.disconnect()

    asyncio.run(main())


def names(backend: ObjectStoreBackend) -> list[str]:
    objects: Objects = backend._objects
    return objects.names("")


def data(backend: ObjectStoreBackend) -> list[str]:
    return [name for name in names(backend) if name.endswith(".parquet")]


async def deliver(backend: ObjectStoreBackend, what: Any) -> None:
    """Commit and flush as the runtime does: after a failure, what is stored is asked for first."""
    for tries in range(10):
        try:
            if tries:
                checkpoint = await backend.call(backend.stored, FLOW)
                assert checkpoint.epoch == what.key.epoch
                if checkpoint.seq >= what.key.seq:
                    return
            await backend.call(backend.commit, what)
            await backend.call(backend.flush)
        except TransientError:
            continue
        return
    raise AssertionError("it never works")


async def claimed(backend: ObjectStoreBackend) -> Checkpoint:
    while True:
        try:
            checkpoint: Checkpoint = await backend.call(backend.claim, FLOW)
        except TransientError:
            continue
        return checkpoint


async def see(backend: ObjectStoreBackend, chunks: int) -> None:
    """See that each row and letter is there once, that all is counted, and that no other object was left."""
    assert [row["n"] for row in await backend.query(everything())] == list(range(chunks * 3))
    letters = await backend.call(lambda: [letter.seq for letter in backend.dead_letters("contract")])
    assert letters == list(range(1, chunks + 1))
    counts = await backend.call(backend.ledger, "run-1")
    assert counts == {FLOW: Counts(read=4 * chunks, stored=3 * chunks, set_aside=chunks)}
    committed = {
        name
        for log in _object_store_log.object_logs(backend._objects)
        for each in log.entries()
        for name in each.objects
    }
    there = {name for name in names(backend) if name.endswith(".parquet") or "/letters/" in name}
    assert there == committed


class Failing:
    """Calls of the library that fail when their number is one of these, before or behind what they do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: set[int] = set()
        self.behind = False
        self.calls: list[str] = []
        for name in CALLS:
            monkeypatch.setattr(obstore, name, self._wrapped(name, getattr(obstore, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            fails = len(self.calls) in self.at
            result = real(*args, **kwargs) if not fails or self.behind else None
            if fails:
                raise GenericError("error sending request")
            return result

        return wrapped


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("times", [1, 2])
def test_whichever_request_fails_each_row_is_stored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: bool, times: int
) -> None:
    """Each request in turn, and each with the next one; an answer that is lost is one that fails behind."""
    failing = Failing(monkeypatch)
    failing.behind = behind
    ends = count = 0
    while not ends:
        count += 1
        failing.calls.clear()
        failing.at = set(range(count, count + times))

        async def scenario(backend: ObjectStoreBackend, count: int = count) -> None:
            checkpoint = await claimed(backend)
            for seq in range(1, 4):
                await deliver(backend, delivery(seq, seq, checkpoint.epoch))
            failing.at = set()
            nonlocal ends
            ends = len(failing.calls) < count
            # A swept intent may be what failed: the next owner finds it.
            await backend.call(backend.claim, FLOW)
            await see(backend, 3)

        run({"url": f"file://{tmp_path}/{count}"}, scenario)
    assert count > 15


@pytest.mark.parametrize("moment", ["before", "with", "answered"])
@pytest.mark.timeout(200)
def test_a_connection_that_is_cut_at_any_write_loses_and_doubles_nothing(
    server: S3Server, tmp_path: Path, moment: Any
) -> None:
    """So often that what the library tries again by itself fails, too."""
    with Proxy("127.0.0.1", server.port) as proxy:
        number, seen = 1, 10**9
        while number <= seen:
            place = server.settings(f"{tmp_path.name}/{moment}-{number}", proxy.port)

            async def scenario(backend: ObjectStoreBackend, number: int = number) -> None:
                proxy.cuts(b"PUT /", moment, range(number, number + 4))
                checkpoint = await claimed(backend)
                for seq in range(1, 3):
                    await deliver(backend, delivery(seq, seq, checkpoint.epoch))
                nonlocal seen
                seen = proxy.seen
                assert proxy.cut > 0 or seen < number
                proxy.cuts(b"", "before", ())
                await backend.call(backend.claim, FLOW)
                await see(backend, 2)

            run(place, scenario)
            number += 2
    assert number > 6


def test_an_entry_that_arrives_late_is_the_same_entry(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put that failed and is done by the store only later: before the next try, or behind it."""
    real, late = obstore.put, []

    def put(store: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        if "/log/" in path and not late:
            late.append((store, path, args, kwargs))
            raise GenericError("error sending request")
        return real(store, path, *args, **kwargs)

    async def scenario(backend: ObjectStoreBackend) -> None:
        for before in (True, False):
            checkpoint = await backend.call(backend.claim, FLOW)
            seq = checkpoint.seq + 1
            late.clear()
            with monkeypatch.context() as patch:
                patch.setattr(obstore, "put", put)
                await backend.call(backend.commit, delivery(seq, seq, checkpoint.epoch))
                with pytest.raises(TransientError):
                    await backend.call(backend.flush)
            ((store, path, args, kwargs),) = late
            if before:
                real(store, path, *args, **kwargs)
            await backend.call(backend.flush)
            if not before:
                with pytest.raises(obstore.exceptions.AlreadyExistsError):
                    real(store, path, *args, **kwargs)
            assert (await backend.call(backend.stored, FLOW)).seq == seq
        await see(backend, 2)

    run(place, scenario)


def test_an_entry_that_arrives_behind_a_claim_is_refused(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner has put its objects and stops; another one claims and sweeps; the first one wakes up."""
    real = ObjectLog.put

    async def scenario(first: ObjectStoreBackend) -> None:
        await first.call(first.claim, FLOW)
        await first.call(first.commit, delivery(1, 1))
        second = ObjectStoreBackend(**place)
        await second.connect()

        def claimed_before(*args: Any) -> Any:
            monkeypatch.undo()
            assert second.claim(FLOW).epoch == 2
            assert data(second) == []
            return real(*args)

        monkeypatch.setattr(ObjectLog, "put", claimed_before)
        with pytest.raises(FencedError, match="epoch 2, ours is 1"):
            await first.call(first.flush)
        await first.call(first.flush)
        assert data(first) == []
        await second.call(second.commit, delivery(1, 1, 2))
        await second.call(second.flush)
        await first.call(first.commit, delivery(1, 1))
        with pytest.raises(FencedError):
            await first.call(first.flush)
        await see(second, 1)
        await second.disconnect()

    run(place, scenario)


def test_a_claim_deletes_what_was_left_and_nothing_else(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left by a crash before the entry; beside it what is committed, of other flows, and of an owner that is alive."""

    async def scenario(backend: ObjectStoreBackend) -> None:
        backend.claim(FLOW)
        await deliver(backend, delivery(1, 1))
        others = ["contract/other", f"{FLOW}-000000000001", f"{FLOW}/a"]
        for flow in others:
            backend.claim(flow)
            backend.commit(delivery(1, 1, flow=flow, letters=0))
        with monkeypatch.context() as patch:
            patch.setattr(ObjectLog, "put", lambda *_: (_ for _ in ()).throw(TransientError("away")))
            backend.commit(delivery(2, 2))
            with pytest.raises(TransientError):
                backend._flows[FLOW].publish()
            for flow in others:  # alive: its objects are there, its entry is not
                with pytest.raises(TransientError):
                    backend._flows[flow].publish()
        assert len(data(backend)) == 5
        next_one = ObjectStoreBackend(**place)
        next_one.open()
        assert next_one.claim(FLOW) == Checkpoint(2, 1, {"offset": 100}, delivery(1, 1).schema)
        assert len(data(backend)) == 4
        del backend._flows[FLOW]
        backend.flush()
        assert len(await backend.query(everything())) == 12
        next_one.close()

    run(place, scenario)


def test_what_a_claim_could_not_delete_the_next_one_does(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(backend: ObjectStoreBackend) -> None:
        backend.claim(FLOW)
        with monkeypatch.context() as patch:
            patch.setattr(ObjectLog, "put", lambda *_: (_ for _ in ()).throw(TransientError("away")))
            backend.commit(delivery(1, 1))
            with pytest.raises(TransientError):
                backend.flush()
        with monkeypatch.context() as patch:
            patch.setattr(Objects, "delete", lambda *_: (_ for _ in ()).throw(TransientError("away")))
            with pytest.raises(TransientError):
                backend.claim(FLOW)
        assert len(data(backend)) == 1
        assert backend.claim(FLOW).epoch == 3
        assert data(backend) == []
        assert [name for name in names(backend) if "/intent/" in name] == []

    run(place, scenario)


def test_a_store_that_ignores_the_condition_is_refused(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = obstore.put
    monkeypatch.setattr(obstore, "put", lambda *args, mode=None, **kwargs: real(*args, **kwargs))

    async def scenario(backend: ObjectStoreBackend) -> None:
        for _ in range(2):
            with pytest.raises(
                FatalError, match=r"file://.*lake.*If-None-Match.*nothing was stored; use a newer"
            ):
                await backend.call(backend.claim, FLOW)
            with pytest.raises(FatalError, match="If-None-Match"):
                await backend.store({"n": 1})
        assert data(backend) == []

    run(place, scenario)


@pytest.mark.parametrize("block", [2, 3, 64])
def test_many_entries_are_read_in_blocks_that_are_never_needed(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(_object_store_log, "BLOCK", block)
    read: list[str] = []
    real = Objects.get
    monkeypatch.setattr(Objects, "get", lambda self, name: read.append(name) or real(self, name))

    async def scenario(backend: ObjectStoreBackend) -> None:
        await backend.call(backend.claim, FLOW)
        for seq in range(1, 12):
            await deliver(backend, delivery(seq, seq))
        read.clear()
        await see(backend, 11)
        assert any("/blocks/" in name for name in read) is (block < 64)
        for damage in (b"", gzip.compress(b"[]"), gzip.compress(b"{"), b"\x1f\x8bx"):
            for name in names(backend):
                if "/blocks/" in name:
                    backend._objects.put(name, damage)
            await see(backend, 11)
        for name in names(backend):
            if "/blocks/" in name:
                backend._objects.delete([name])
        await see(backend, 11)
        fresh = ObjectStoreBackend(**place)
        fresh.open()
        assert fresh.claim(FLOW).seq == 11

    run(place, scenario)


def test_the_counts_of_a_run_need_no_entries_from_before_it(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new run asks for its counts when it begins; it must not read all that was ever stored for it."""
    monkeypatch.setattr(_object_store_log, "BLOCK", 2)
    times = iter(f"2026-01-{day:02}T00:00:00+00:00" for day in range(1, 30))
    monkeypatch.setattr("collectors.storage.backends._object_store_flow._now", lambda: next(times))

    async def scenario(backend: ObjectStoreBackend) -> None:
        backend.claim(FLOW)
        for seq in range(1, 21):
            run_of = msgspec.structs.replace(delivery(seq, seq), run=f"202601{seq + 1:02}T000000-abc")
            await deliver(backend, run_of)
        calls = Failing(monkeypatch).calls
        assert backend.ledger("20260120T000000-abc") == {FLOW: Counts(read=4, stored=3, set_aside=1)}
        assert backend.ledger("20260128T000000-abc") == {}
        assert len(calls) < 15
        assert backend.ledger("20260102T000000-abc") == {FLOW: Counts(read=4, stored=3, set_aside=1)}

    run(place, scenario)


def test_the_newest_entry_of_a_long_log_is_found_with_two_requests(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thousand entries are more than a store lists at once."""
    entries = 2000

    async def scenario(backend: ObjectStoreBackend) -> None:
        backend.claim(FLOW)
        await deliver(backend, delivery(1, 1))
        log = ObjectLog(backend._objects, _object_store_log.file_name(FLOW))
        newest = log.last()
        assert newest is not None
        for number in range(3, entries + 1):
            made = msgspec.structs.replace(newest, number=number, seq=number - 1)
            name = f"{tmp_path.name}/{log._path(number)}"
            server.put(name, msgspec.json.encode(made.checked()))
        calls = Failing(monkeypatch).calls
        found = log.last()
        assert found is not None
        assert found.seq == entries - 1
        assert calls == ["list", "get"]

    run(server.settings(tmp_path.name), scenario)


def test_what_is_missing_or_damaged_is_named(place: dict[str, Any]) -> None:
    async def scenario(backend: ObjectStoreBackend) -> None:
        backend.claim(FLOW)
        for seq in (1, 2):
            await deliver(backend, delivery(seq, seq))
        log = [name for name in names(backend) if "/log/" in name]
        cases = [
            (log[1], b"{}", "is damaged", everything_of),
            (log[1], None, "is missing", everything_of),
            (data(backend)[0], b"PAR1", "cannot be read .*it holds 3 rows", everything_of),
            (data(backend)[0], None, "it holds 3 rows", everything_of),
            (
                next(name for name in names(backend) if "/letters/" in name),
                b"x",
                "dead letters in .* cannot be read",
                letters_of,
            ),
        ]
        for name, damage, message, ask in cases:
            whole = backend._objects.get(name)
            assert whole
            backend._objects.delete([name])
            if damage is not None:
                backend._objects.put(name, damage)
            with pytest.raises(FatalError, match=message) as caught:
                await ask(backend)
            assert backend._objects.url(name) in str(caught.value)
            backend._objects.delete([name])
            backend._objects.put(name, whole)
        await see(backend, 2)

    run(place, scenario)


async def everything_of(backend: ObjectStoreBackend) -> Any:
    return await backend.query(everything())


async def letters_of(backend: ObjectStoreBackend) -> Any:
    return await backend.call(lambda: list(backend.dead_letters("contract")))


@pytest.mark.parametrize("call", [(ObjectLog, "put"), (os, "pwrite")], ids=lambda call: call[1])
def test_a_flush_of_one_flow_that_fails_at_another_loses_nothing_of_it(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch, call: tuple[Any, str]
) -> None:
    """What comes behind a publication that has begun, if only to close its files, waits for the next one."""
    flows = ["contract/a", "contract/b"]

    async def scenario(backend: ObjectStoreBackend) -> None:
        for flow in flows:
            backend.claim(flow)
            backend.commit(delivery(1, 1, flow=flow))
        with monkeypatch.context() as patch:
            patch.setattr(*call, lambda *_: (_ for _ in ()).throw(TransientError("away")))
            with pytest.raises(TransientError):
                backend.flush()
        for flow in flows:
            backend.commit(delivery(2, 2, flow=flow))
        backend.flush()
        found = sorted(row["n"] for row in await backend.query(everything()))
        assert found == sorted([*range(6)] * 2)

    run(place, scenario)


def test_one_flow_that_is_another_s_does_not_hold_up_the_others(place: dict[str, Any]) -> None:
    flows = [f"contract/{number:02}" for number in range(30)]

    async def scenario(backend: ObjectStoreBackend) -> None:
        for flow in flows:
            backend.claim(flow)
            backend.commit(delivery(1, 1, flow=flow, letters=0))
        other = ObjectStoreBackend(**place)
        other.open()
        other.claim(flows[7])
        with pytest.raises(FencedError, match=flows[7]):
            backend.flush()
        assert len(await backend.query(everything())) == 3 * 29
        backend.flush()
        assert [backend.stored(flow).seq for flow in flows] == [int(flow != flows[7]) for flow in flows]
        other.close()

    run(place, scenario)


@hypothesis_settings(max_examples=100, deadline=None, database=None)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 1), st.sampled_from(["claim", "commit", "flush", "lost flush", "lost claim"])
        ),
        max_size=25,
    )
)
def test_two_owners_that_take_turns_store_each_row_once(steps: list[tuple[int, str]]) -> None:
    """Whatever they do in whatever order, what is stored is what the log says, without a gap and once."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        place = {"url": f"file://{folder}/lake", "max_rows": 6}
        owners = [ObjectStoreBackend(**place), ObjectStoreBackend(**place)]
        at = [Checkpoint(0), Checkpoint(0)]
        for owner in owners:
            owner.open()
        real = ObjectLog.put
        try:
            for who, what in steps:
                owner = owners[who]
                if what.startswith("lost"):
                    ObjectLog.put = _loses_its_answer(real)  # type: ignore[method-assign]
                try:
                    if what.endswith("claim"):
                        at[who] = owner.claim(FLOW)
                    elif at[who].epoch and what == "commit":
                        seq = at[who].seq + 1
                        owner.commit(delivery(seq, seq, at[who].epoch))
                        at[who] = Checkpoint(at[who].epoch, seq)
                    else:
                        owner.flush()
                except FencedError:
                    at[who] = Checkpoint(0)
                except TransientError:
                    pass
                finally:
                    ObjectLog.put = real  # type: ignore[method-assign]
            last = owners[0].claim(FLOW)
            rows = [row["n"] for row in owners[0].select(everything())]
            assert rows == list(range(last.seq * 3))
            assert [letter.seq for letter in owners[0].dead_letters("contract")] == list(
                range(1, last.seq + 1)
            )
        finally:
            for owner in owners:
                owner.close()


def _loses_its_answer(real: Callable[..., bool]) -> Callable[..., bool]:
    def put(*args: Any) -> bool:
        real(*args)
        raise TransientError("the answer was lost")

    return put


def test_a_large_object_goes_in_parts(server: S3Server, tmp_path: Path) -> None:
    table = pa.table({"text": [os.urandom(32).hex() for _ in range(400_000)]})

    async def scenario(backend: ObjectStoreBackend) -> None:
        await backend.store(table)
        (name,) = data(backend)
        assert (backend._objects.size(name) or 0) > 12 * 2**20
        found = await backend.query(QueryCriteria({}, None, 2, 399_998))
        assert [row["text"] for row in found] == table["text"].to_pylist()[-2:]

    run(server.settings(tmp_path.name), scenario)


def test_a_read_that_fails_in_a_query_is_no_damage(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(backend: ObjectStoreBackend) -> None:
        await backend.store({"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(Objects, "range", lambda *_: (_ for _ in ()).throw(TransientError("away")))
            with pytest.raises(TransientError, match="away"):
                await backend.query(everything())

    run(place, scenario)


def test_scratch_files_of_processes_that_died_are_deleted(
    place: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    left = tmp_path / "scratch" / "collectors-objects-dead"
    left.mkdir()
    (left / "1.parquet").touch()

    async def scenario(backend: ObjectStoreBackend) -> None:
        backend.claim(FLOW)
        assert left.exists()
        backend.commit(delivery(1, 1))
        assert not left.exists()
        (mine,) = (tmp_path / "scratch").iterdir()
        other = ObjectStoreBackend(**place)
        other.open()
        other.commit(delivery(1, 1))
        assert mine.exists()
        other.close()
        assert list((tmp_path / "scratch").iterdir()) == [mine]

    run(place, scenario)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_scratch_files_that_somebody_deleted_are_told(
    place: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def scenario(backend: ObjectStoreBackend) -> None:
        backend.claim(FLOW)
        backend.commit(delivery(1, 1))
        for path in tmp_path.rglob("*.parquet"):
            path.unlink()
        with pytest.raises(FatalError, match="chunks 1 to 1 are not stored; start again"):
            backend.flush()
        backend.commit(delivery(1, 1))
        backend.flush()
        await see(backend, 1)

    run(place, scenario)


PIPELINE = """
name: p
sources:
  - {{type: file, id: lines, path: {path}, chunk_size: 16 KiB, {more}}}
storage:
  - {storage}
"""


@contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "collectors", "run", "p.yaml"],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def fill(folder: Path, place: dict[str, Any], rows: int = 30_000, more: str = "") -> None:
    folder.mkdir(exist_ok=True)
    path = folder.parent / "in.ndjson"
    if not path.exists():
        path.write_text("".join(f'{{"n": {number}, "text": "{number * 7}"}}\n' for number in range(rows)))
    storage = json.dumps({"type": "object_store", "max_rows": 1000, **place})
    (folder / "p.yaml").write_text(PIPELINE.format(path=path, storage=storage, more=more))


def stored(place: dict[str, Any]) -> list[int]:
    found: list[int] = []

    async def scenario(backend: ObjectStoreBackend) -> None:
        found.extend(row["n"] for row in await backend.query(everything()))

    run(place, scenario)
    return found


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.02)


def entries(server: S3Server, tmp_path: Path) -> int:
    log = server.folder / tmp_path.name / "_collectors" / "log" / "p~lines"
    return sum(path.suffix == ".json" for path in log.iterdir()) if log.is_dir() else 0


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    "fault", ["restart", *(pytest.param(each, marks=pytest.mark.slow) for each in ("drops", "resets"))]
)
def test_a_store_that_fails_under_load_loses_and_doubles_nothing(tmp_path: Path, fault: str) -> None:
    with S3Server() as server, Proxy("127.0.0.1", server.port) as proxy:
        fill(tmp_path / "a", server.settings(tmp_path.name, proxy.port))
        with running(tmp_path / "a") as process:
            for step in range(1, 5):
                goal = step * 6
                wait_for(lambda: process.poll() is not None or entries(server, tmp_path) >= goal)  # noqa: B023
                if fault == "restart":
                    server.kill()
                    server.start()
                else:
                    getattr(proxy, fault)()
                    proxy.passes()
            assert process.wait(timeout=100) == 0, (tmp_path / "a" / "log").read_text()
        assert "a-secret" not in (tmp_path / "a" / "log").read_text()
        assert Counter(stored(server.settings(tmp_path.name))) == Counter(range(30_000))


@pytest.mark.timeout(200)
@pytest.mark.slow
def test_two_writers_of_one_flow_store_each_row_once(server: S3Server, tmp_path: Path) -> None:
    """On two machines, as it were: each has a folder of its own. Who comes later fences the other, in turns."""
    place = server.settings(tmp_path.name)
    for name in ("a", "b"):
        fill(tmp_path / name, place | {"max_rows": 100, "max_age": "500ms"}, rows=0, more="follow: true")
    path, rows, fenced = tmp_path / "in.ndjson", iter(range(30_000)), 0

    def append(count: int) -> None:
        with path.open("a") as file:
            file.writelines(f'{{"n": {number}}}\n' for number in islice(rows, count))

    path.write_text("")
    append(1000)
    for turn in range(4):
        with running(tmp_path / "ab"[turn % 2]) as first:
            before = entries(server, tmp_path)
            append(2000)
            wait_for(lambda: entries(server, tmp_path) >= before + 3)  # noqa: B023
            with running(tmp_path / "ba"[turn % 2]) as second:
                while first.poll() is None:
                    append(20)
                    time.sleep(0.05)
                fenced += first.returncode == 75
                before = entries(server, tmp_path)
                append(2000)
                wait_for(lambda: entries(server, tmp_path) >= before + 2)  # noqa: B023
                second.send_signal(signal.SIGKILL)
    done = 30_000 - len(list(rows))
    with running(tmp_path / "a"):
        wait_for(lambda: len(stored(place)) >= done)
    assert fenced == 4
    assert Counter(stored(place)) == Counter(range(done))
