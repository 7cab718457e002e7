"""Storages without positions that acknowledge rows later, and those that send them again under the same keys."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from contextlib import aclosing, closing
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest

from collectors.chunks import Attempt, Checkpoint, ChunkKey, Counts, Delivery
from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.errors import DataError, FatalError, TransientError
from collectors.runtime.engine import Engine
from collectors.runtime.preparing import Part, Prepared
from collectors.runtime.state import State
from collectors.runtime.state_side import StateSide
from collectors.storage.backends.stdout import StdoutBackend
from collectors.storage.base import Backend, BackendConfig
from collectors.storage.criteria import select_rows
from collectors.testing.clock import ManualEnv
from collectors.testing.simulation import simulate


class NumbersConfig(SourceConfig):
    limit: int = 20
    per_chunk: int = 3
    hangs_at: int | None = None


class Numbers(Source[NumbersConfig]):
    """Counts; the numbers that end in 7 are no records. With a `backend` each chunk waits until that has the one before.

    A `slow` one gives the others the time to take each chunk by itself.
    """

    backend = None
    slow = False

    async def read(self, since):
        first, chunks = since["n"] if since else 0, 0
        while first < self.config.limit:
            if first == self.config.hangs_at:
                await asyncio.Event().wait()
            last = min(first + self.config.per_chunk, self.config.limit)
            lines = [b"broken\n" if n % 10 == 7 else b'{"n": %d}\n' % n for n in range(first, last)]
            yield self.chunk(b"".join(lines), {"n": last})
            first, chunks = last, chunks + 1
            for _ in range(10 if self.slow else 0):
                await asyncio.sleep(0.001)
            while self.backend is not None and self.backend.writes < chunks:
                await asyncio.sleep(0)


def run(folder, source, backend):
    config = from_mapping(
        {"sources": [source], "storage": [backend], "state": str(folder / "state")},
        folder=folder,
        name="test",
    )
    engine = Engine(config, env=ManualEnv(hurry=True), patience=1e9)
    report = asyncio.run(asyncio.wait_for(engine.run(), 20))
    return report.flows[0]


def positions(folder):
    """Return what the state file has: the seq, the position, how many rows are stored, and how many letters there are."""
    with closing(sqlite3.connect(folder / "state" / "state.db")) as database:
        seq, position = database.execute("select seq, position from _collectors_checkpoint").fetchone()
        stored = database.execute("select sum(stored) from _collectors_ledger").fetchone()[0]
        letters = database.execute("select count(*) from _collectors_dead_letters").fetchone()[0]
    return seq, position and json.loads(position)["n"], stored or 0, letters


class Later(Backend[BackendConfig]):
    """Holds rows until `most` are held, or `flush`; those that are stored are in a list."""

    def __init__(self, most=10**9, stored=None):
        super().__init__(BackendConfig(id="later"))
        self.most = most
        self.stored_rows = stored if stored is not None else []
        self.held = []
        self.taken = {}
        self.writes = 0
        self.breaks = False

    def write(self, table, key):
        if self.taken.get(key.flow, (0, 0)) >= (key.epoch, key.seq):
            return 0
        self.taken[key.flow] = (key.epoch, key.seq)
        self.writes += 1
        self.held.append((key, table.column("n").to_pylist()))
        if sum(len(rows) for _, rows in self.held) >= self.most:
            self.store_held()
        return table.num_rows

    def store_held(self):
        if self.breaks:
            raise FatalError("the store is gone")
        self.stored_rows += [n for _, rows in self.held for n in rows]
        self.held = []

    def pending(self, flow):
        return min((key.seq for key, _ in self.held if key.flow == flow), default=None)

    def flush(self):
        self.store_held()

    def flush_interval(self):
        return 10.0


GOOD = [n for n in range(20) if n % 10 != 7]


def test_the_position_moves_on_once_rows_are_acknowledged(tmp_path):
    """Rows that were taken and not acknowledged come again; letters are there once."""
    backend = Later()
    backend.breaks = True
    flow = run(tmp_path, Numbers(), backend)
    assert str(flow.error) == "the store is gone"
    assert flow.edges[0].counts.stored == 0
    assert positions(tmp_path) == (0, None, 0, 2)
    again = Later(most=5)
    flow = run(tmp_path, Numbers(), again)
    assert flow.error is None
    assert flow.balanced
    assert again.stored_rows == GOOD
    assert positions(tmp_path) == (7, 20, len(GOOD), 2)
    assert run(tmp_path, Numbers(), Later()).edges[0].counts.stored == 0


def test_letters_of_what_comes_again_are_not_kept_beside_it(tmp_path):
    """The records were broken, and are fine when they are read again: no letter is left of them."""

    class Mended(Numbers):
        async def read(self, since):
            async for chunk in super().read(since):
                chunk.raw_data = chunk.raw_data.replace(b"broken", b'{"n": 7}')
                yield chunk

    backend = Later()
    backend.breaks = True
    run(tmp_path, Numbers(), backend)
    assert positions(tmp_path) == (0, None, 0, 2)
    assert run(tmp_path, Mended(), Later()).balanced
    assert positions(tmp_path) == (7, 20, 20, 0)


def test_part_of_the_rows_is_acknowledged(tmp_path):
    """The next run begins behind them."""

    class Half(Later):
        def store_held(self):
            if self.stored_rows:
                raise FatalError("the store is gone")
            super().store_held()

    first = Half(most=1)
    slow = Numbers(per_chunk=4)
    slow.backend = first
    flow = run(tmp_path, slow, first)
    assert str(flow.error) == "the store is gone"
    seq, position, stored, _ = positions(tmp_path)
    assert first.stored_rows == GOOD[:stored]
    assert (seq, position) == (-(-position // 4), position)
    again = Later()
    run(tmp_path, Numbers(per_chunk=4), again)
    assert first.stored_rows + again.stored_rows == GOOD


@pytest.mark.parametrize("moment", ["before", "behind"])
def test_a_state_file_that_fails_while_it_learns_of_it(tmp_path, monkeypatch, moment):
    """Its outcome is asked for, and what is in it is not put there once more."""
    failures = [1, 2]
    commit = State.commit

    async def failing(self, delivery):
        if moment == "behind":
            result = await commit(self, delivery)
        if failures:
            failures.pop()
            raise TransientError("the disk is full")
        return await commit(self, delivery) if moment == "before" else result

    monkeypatch.setattr(State, "commit", failing)
    backend = Later(most=5)
    flow = run(tmp_path, Numbers(), backend)
    assert flow.error is None
    assert flow.balanced
    assert backend.stored_rows == GOOD
    assert positions(tmp_path) == (7, 20, len(GOOD), 2)


@pytest.mark.parametrize("per_chunk", [1, 4, 20])
@pytest.mark.parametrize("moment", ["before", "behind"])
def test_what_the_state_file_did_not_get_it_gets_from_the_next_owner(
    tmp_path, monkeypatch, capfd, moment, per_chunk
):
    """The flow ends behind a `write`, and is started anew in this process with other chunks: each row is printed once."""
    commits = []
    commit = State.commit

    async def failing(self, delivery):
        commits.append(delivery)
        if moment == "behind":
            await commit(self, delivery)
        if len(commits) == 2:
            raise FatalError("the disk is gone")
        return delivery.key.seq if moment == "behind" else await commit(self, delivery)

    monkeypatch.setattr(State, "commit", failing)
    backend = StdoutBackend()
    slow = Numbers()
    slow.slow = True
    assert str(run(tmp_path, slow, backend).error) == "the disk is gone"
    assert run(tmp_path, Numbers(per_chunk=per_chunk), backend).error is None
    printed = [json.loads(line)["n"] for line in capfd.readouterr().out.splitlines()]
    assert printed == GOOD
    assert positions(tmp_path)[1:] == (20, len(GOOD), 2)
    assert backend.unnoted == {}


def test_what_the_state_file_did_not_get_is_dropped_when_another_owner_was_there(
    tmp_path, monkeypatch, capfd
):
    """That one has read the rows itself, and cut them otherwise."""
    failing = ["once"]
    commit = State.commit

    async def fails(self, delivery):
        if failing and delivery.first_seq > 1:
            failing.pop()
            raise FatalError("the disk is gone")
        return await commit(self, delivery)

    monkeypatch.setattr(State, "commit", fails)
    here, elsewhere = StdoutBackend(), StdoutBackend()
    slow = Numbers()
    slow.slow = True
    assert str(run(tmp_path, slow, here).error) == "the disk is gone"
    own = [json.loads(line)["n"] for line in capfd.readouterr().out.splitlines()]
    run(tmp_path, Numbers(limit=15, per_chunk=1), elsewhere)
    others = [json.loads(line)["n"] for line in capfd.readouterr().out.splitlines()]
    assert run(tmp_path, Numbers(), here).error is None
    last = [json.loads(line)["n"] for line in capfd.readouterr().out.splitlines()]
    assert last == [n for n in range(15, 20) if n != 17]
    assert set(own + others + last) == set(GOOD)
    assert here.unnoted == {}


class Numbered(Backend[BackendConfig]):
    """Sends three rows at a time under keys, until `breaks_at` requests were sent; `known` outlives it."""

    def __init__(self, known=None, breaks_at=10**9, refuses=()):
        super().__init__(BackendConfig(id="numbered"))
        self.known = {} if known is None else known
        self.breaks_at = breaks_at
        self.refuses = refuses
        self.attempts = []
        self.again = 0
        self.done = None

    def expect(self, key, attempt):
        self.attempts.append(attempt)

    def write(self, table, key):
        if self.done == (key.epoch, key.seq):
            return 0
        rows = table.column("n").to_pylist()
        token, ends = self.attempts[-1].token, self.attempts[-1].ends
        assert ends[-1] >= len(rows) or len(rows) in ends
        start = 0
        while start < len(rows):
            border = next((end for end in ends if end > start), len(rows))
            part = rows[start : min(start + 3, border)]
            self.send((token, start, *part), part)
            start += len(part)
        self.done = (key.epoch, key.seq)
        bad = {row: "no" for row, n in enumerate(rows) if n in self.refuses}
        if bad:
            raise DataError("refused", rows=bad)
        return len(rows)

    def send(self, key, part):
        self.again += key in self.known
        self.known[key] = [n for n in part if n not in self.refuses]
        self.breaks_at -= 1
        if not self.breaks_at:
            raise FatalError("the process dies")

    @property
    def rows(self):
        return Counter(n for rows in self.known.values() for n in rows)


@pytest.mark.parametrize("breaks_at", [1, 4, 6, 7])
@pytest.mark.parametrize("per_chunk", [1, 4, 20])
def test_rows_that_were_under_way_come_again_with_the_same_keys(tmp_path, breaks_at, per_chunk):
    """Whatever the chunks are then, and though there are more rows by now; twice in a row."""
    known = {}
    for limit, at in ((21, breaks_at), (25, breaks_at + 1)):
        flow = run(tmp_path, Numbers(limit=limit), Numbered(known, at))
        assert str(flow.error) == "the process dies"
    source, last = Numbers(limit=30, per_chunk=per_chunk), Numbered(known)
    source.slow = True
    flow = run(tmp_path, source, last)
    assert flow.error is None
    assert last.rows == Counter(n for n in range(30) if n % 10 != 7)
    assert last.again == breaks_at + 1


class Noted:
    """A state file in which a flow is stored up to chunk 2, and had some rows under way."""

    def __init__(self, rows=4):
        self.rows = rows

    async def claim(self, flow):
        return Checkpoint(1, 2)

    async def call(self, function):
        return 2, Attempt("9f2b6e4e-4a43-4d39-8b30-5b9a0a0c4a11", [self.rows])


def prepared(seq, rows):
    part = Part(pa.table({"n": list(range(rows))}), [], Counts(read=rows))
    return Prepared(
        first_seq=seq, seq=seq, position=None, schema=None, size=1, read=rows, letters=[], parts=[part]
    )


def test_what_another_storage_lacks_is_not_what_was_under_way():
    """Chunks that come again for its sake, and are stored here, pass at once, and their rows are not counted."""

    async def work():
        coming = [[prepared(seq, rows)] for seq, rows in enumerate([3, 3, 2, 2, 1], 1)]

        async def take():
            return coming.pop(0) if coming else []

        side = StateSide(Numbered(), Noted())
        await side.claim("test/s@numbered")
        return [[item.seq for item in group] async for group in side.groups(take, 0)]

    assert asyncio.run(work()) == [[1], [2], [3, 4], [5]]


def test_rows_that_come_one_by_one_are_not_held_for_ever(monkeypatch):
    """The source may give others than those that were under way, each in time, and never as many."""
    monkeypatch.setattr("collectors.runtime.state_side.LONGEST_SECONDS", 0.05)

    async def work():
        numbers = count(3)

        async def take():
            await asyncio.to_thread(lambda: None)
            return [prepared(next(numbers), 1)]

        side = StateSide(Numbered(), Noted(rows=10**6))
        await side.claim("test/s@numbered")
        async with asyncio.timeout(20), aclosing(side.groups(take, 0)) as groups:
            return len(await anext(groups)), len(await anext(groups))

    first, second = asyncio.run(work())
    assert first > second == 1


def attempts(folder):
    with closing(sqlite3.connect(folder / "state" / "state.db")) as database:
        return database.execute("select count(*) from _collectors_attempts").fetchone()[0]


def test_what_was_under_way_is_noted_only_as_long_as_it_is(tmp_path):
    run(tmp_path, Numbers(), Numbered(breaks_at=2))
    assert attempts(tmp_path) == 1
    assert run(tmp_path, Numbers(limit=0), Numbered()).error is None
    assert attempts(tmp_path) == 1, "it may come yet"
    assert run(tmp_path, Numbers(), Numbered()).error is None
    assert attempts(tmp_path) == 0


def test_each_delivery_has_a_token_of_its_own(tmp_path):
    backend = Numbered()
    run(tmp_path, Numbers(limit=10), backend)
    run(tmp_path, Numbers(limit=30), again := Numbered(backend.known))
    assert len({each.token for each in backend.attempts + again.attempts}) == len(backend.attempts) + len(
        again.attempts
    )
    assert again.again == 0


def test_rows_that_are_refused_change_no_numbers(tmp_path):
    known = {}
    run(tmp_path, Numbers(), Numbered(known, 4, refuses={2, 5}))
    last = Numbered(known, refuses={2, 5})
    flow = run(tmp_path, Numbers(), last)
    assert flow.error is None
    assert flow.edges[0].counts.set_aside == 4
    assert last.rows == Counter(n for n in GOOD if n not in {2, 5})
    assert last.again == 4


def test_rows_that_do_not_come_again_are_not_waited_for_for_ever(tmp_path, monkeypatch):
    """The source waits for something else now: after a while what is there is stored."""
    monkeypatch.setattr("collectors.runtime.state_side.PATIENCE_SECONDS", 0.05)
    known = {}
    run(tmp_path, Numbers(), Numbered(known, 3))

    backend = Numbered(known)
    settings = {"sources": [Numbers(hangs_at=9)], "storage": [backend], "state": str(tmp_path / "state")}
    engine = Engine(
        from_mapping(settings, folder=tmp_path, name="test"), env=ManualEnv(hurry=True), patience=1e9
    )

    async def work():
        running = asyncio.ensure_future(engine.run())
        async with asyncio.timeout(20):
            while backend.done is None:
                await asyncio.sleep(0.01)
            engine.stop()
            return await running

    report = asyncio.run(work())
    assert report.flows[0].error is None
    assert set(backend.rows) >= {n for n in range(9) if n != 7}
    run(tmp_path, Numbers(), last := Numbered(known))
    assert set(last.rows) == set(GOOD)


class Outside(Backend[BackendConfig]):
    """Keeps rows in a file of its own; its methods are plain ones, for simulations."""

    def __init__(self, name, folder: Path):
        super().__init__(BackendConfig(id=name))
        self.path = folder
        self.held = []
        self.taken = {}

    def keep(self, rows):
        with self.path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def select(self, criteria):
        rows = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
        return select_rows(rows, criteria)


class OutsideLater(Outside):
    def write(self, table, key):
        if self.taken.get(key.flow, (0, 0)) < (key.epoch, key.seq):
            self.taken[key.flow] = (key.epoch, key.seq)
            self.held.append((key, table.select(["s", "n"]).to_pylist()))
            if sum(len(rows) for _, rows in self.held) > 5:
                self.flush()
        return table.num_rows

    def pending(self, flow):
        return min((key.seq for key, _ in self.held if key.flow == flow), default=None)

    def flush(self):
        while self.held:
            self.keep(self.held[0][1])
            del self.held[0]

    def flush_interval(self):
        return 10.0


class OutsideNumbered(Outside):
    def expect(self, key, attempt):
        self.attempt = attempt

    def write(self, table, key):
        rows = table.select(["s", "n"]).to_pylist()
        assert len(rows) <= self.attempt.ends[-1]
        if self.taken.get(key.flow) != (key.epoch, key.seq):
            self.keep(rows)
            self.taken[key.flow] = (key.epoch, key.seq)
        return len(rows)


@pytest.mark.parametrize("kind", [OutsideLater, OutsideNumbered])
def test_in_a_simulated_world(full, kind):
    """Kills, outages, full disks: nothing is lost, and nothing comes more often than processes died."""
    for seed in range(3000 if full else 60):
        simulate(seed, kind)


def test_the_state_file_is_asked_for_letters_where_there_may_be_some():
    class Letters:
        asked = []

        async def replace_letters(self, owner, delivery):
            self.asked.append((delivery.key.epoch, delivery.key.seq))

    def delivery(epoch, seq, letters):
        key = ChunkKey("test/s", epoch, seq)
        return Delivery(
            key, seq, pa.table({}), None, None, "run", Counts(), dead_letters=[object()] * letters
        )

    async def work():
        side = StateSide(Numbered(), Letters())
        for each in [(1, 1, 0), (1, 2, 0), (1, 3, 2), (1, 3, 2), (1, 4, 0), (2, 4, 0), (2, 5, 0)]:
            await side.keep_letters("test/s@numbered", delivery(*each))

    asyncio.run(work())
    assert Letters.asked == [(1, 1), (1, 3), (1, 3), (2, 4)]
