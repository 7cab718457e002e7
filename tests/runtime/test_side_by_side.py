"""Stores of different speed behind one source, and what a full memory and a stop do meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time

from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.errors import TransientError
from collectors.runtime.engine import Engine
from collectors.runtime.preparing import Preparer
from collectors.storage.backends.sqlite import SqliteBackend
from collectors.storage.base import Backend, BackendConfig
from collectors.testing.clock import ManualEnv


class NumbersConfig(SourceConfig):
    limit: int = 30
    per_chunk: int = 3
    endless: bool = False


class Numbers(Source[NumbersConfig]):
    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.committed = []

    async def read(self, since):
        for first in range(since["n"] if since else 0, self.config.limit, self.config.per_chunk):
            last = min(first + self.config.per_chunk, self.config.limit)
            yield self.chunk(b"".join(b'{"n": %d}\n' % n for n in range(first, last)), {"n": last})
        if self.config.endless:
            await asyncio.Event().wait()

    async def commit(self, position):
        self.committed.append(position["n"])


class Store(Backend[BackendConfig]):
    """Keeps rows in a list, but not while it is away."""

    def __init__(self, name, *, away=False):
        super().__init__(id=name)
        self.rows = []
        self.away = away
        self.tries = 0

    def write(self, table, key):
        self.tries += 1
        if self.away:
            raise TransientError(f"{self.config.id} is away")
        self.rows += table["n"].to_pylist()


def engine(tmp_path, source, *stores, env, **options):
    config = from_mapping(
        {"sources": [source], "storage": list(stores), "state": str(tmp_path / "state")},
        folder=tmp_path,
        name="test",
    )
    return Engine(config, env=env, **options)


async def until(condition, env=None, seconds=60.0):
    """Let other tasks and threads work, and time pass where there is an `env`, until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it never came to that")
        await asyncio.sleep(0.001)
        if env is not None:
            await env.advance(1)


async def end(running, work):
    running.stop()
    running.stop()
    await work


def stored_by(running, backend):
    """Return how many rows a store has acknowledged, and the source been told of if it was to be."""
    edges = running.report.flows[0].edges if running.report.flows else []
    return sum(edge.counts.stored for edge in edges if edge.backend == backend)


def test_the_source_is_told_only_what_every_store_has(tmp_path):
    async def scenario():
        env, source = ManualEnv(), Numbers(endless=True)
        away, ready = Store("away", away=True), Store("ready")
        running = engine(tmp_path, source, away, ready, env=env)
        work = asyncio.ensure_future(running.run())
        await until(lambda: stored_by(running, "ready") == 30 and away.tries)
        assert source.committed == []
        away.away = False
        await until(lambda: source.committed[-1:] == [30], env)
        assert away.rows == list(range(30))
        await end(running, work)

    asyncio.run(scenario())


def test_a_store_that_is_away_does_not_hold_up_the_other(tmp_path):
    async def scenario():
        away, ready = Store("away", away=True), Store("ready")
        running = engine(
            tmp_path, Numbers(limit=900, per_chunk=1, endless=True), away, ready, env=ManualEnv()
        )
        work = asyncio.ensure_future(running.run())
        with contextlib.suppress(AssertionError):
            await until(lambda: len(ready.rows) == 900, seconds=20)
        assert ready.rows == list(range(900))
        await end(running, work)

    asyncio.run(scenario())


def test_a_store_that_lags_gets_the_rest_and_the_other_nothing_twice(tmp_path, monkeypatch):
    """What was read before is waiting together with what is new when the second run begins to decode."""
    commit, prepare, path = SqliteBackend.commit, Preparer.prepare, tmp_path / "in.ndjson"
    storage = [
        {"type": "sqlite", "id": name, "path": f"{name}.db", "table": "t"} for name in ("ahead", "lags")
    ]

    def stored(name):
        with contextlib.closing(sqlite3.connect(tmp_path / f"{name}.db")) as database:
            return [n for (n,) in database.execute("select n from t order by n")]

    def commit_of_one(backend, delivery):
        if backend.config.id == "lags":
            raise TransientError("away")
        return commit(backend, delivery)

    async def run(until_stored):
        source = {"type": "file", "path": str(path), "chunk_size": 10}
        running = engine(tmp_path, source, *storage, env=ManualEnv())
        flows = running.report.flows

        def prepare_late(preparer, group):
            end = time.monotonic() + 20
            while not until_stored and flows[0].chunks < 30 and time.monotonic() < end:
                os.sched_yield()
            return prepare(preparer, group)

        monkeypatch.setattr(Preparer, "prepare", prepare_late)
        work = asyncio.ensure_future(running.run())
        if until_stored:
            await until(lambda: flows and flows[0].edges[0].counts.stored == 20)
            await end(running, work)
        return await work

    path.write_text("".join(f'{{"n": {n}}}\n' for n in range(20)))
    with monkeypatch.context() as patch:
        patch.setattr(SqliteBackend, "commit", commit_of_one)
        asyncio.run(run(until_stored=True))
    assert stored("ahead") == list(range(20))
    path.write_text("".join(f'{{"n": {n}}}\n' for n in range(40)))
    report = asyncio.run(run(until_stored=False))
    assert report.balanced
    assert (stored("ahead"), stored("lags")) == (list(range(40)), list(range(40)))


def test_a_stop_is_heard_while_a_store_is_being_retried(tmp_path):
    async def scenario():
        env, away = ManualEnv(), Store("away", away=True)
        running = engine(tmp_path, Numbers(endless=True), away, env=env, drain=30, patience=10**9)
        work = asyncio.ensure_future(running.run())
        await until(lambda: away.tries and running.report.flows[0].read)
        running.stop()
        with contextlib.suppress(AssertionError):
            await until(work.done, env, 10)
        heard = work.done()
        away.away = False  # so that it ends in any case
        await until(work.done, env)
        assert heard
        assert running.report.flows[0].in_flight == running.report.flows[0].read > 0

    asyncio.run(scenario())


def test_many_small_chunks_that_wait_for_a_storage_are_decoded_together(tmp_path, monkeypatch):
    """Each by itself would cost a decode, and a table to be joined, while nobody else has a turn."""
    groups, prepare = [], Preparer.prepare
    monkeypatch.setattr(
        Preparer, "prepare", lambda self, group: groups.append(len(group)) or prepare(self, group)
    )

    async def scenario():
        env, store = ManualEnv(), Store("slow", away=True)
        running = engine(tmp_path, Numbers(limit=3000, per_chunk=1), store, env=env, patience=10**9)
        work = asyncio.ensure_future(running.run())
        await until(lambda: store.tries > 3 and running.report.flows[0].chunks == 3000, env)
        store.away = False
        await until(work.done, env)
        assert store.rows == list(range(3000))
        return store.tries

    tries = asyncio.run(scenario())
    assert sum(groups) == 3000
    assert len(groups) < 1000
    assert tries < 100


def test_a_full_memory_makes_the_source_wait_and_drops_nothing(tmp_path):
    async def scenario():
        env, store = ManualEnv(), Store("slow", away=True)
        running = engine(tmp_path, Numbers(limit=300), store, env=env, patience=10**9)
        running.budget.limit = 500
        work = asyncio.ensure_future(running.run())
        await until(lambda: store.tries > 3, env)
        store.away = False
        await until(work.done, env)
        assert store.rows == list(range(300))

    asyncio.run(scenario())
