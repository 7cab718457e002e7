"""Stores of different speed behind one source, and what a full memory and a stop do meanwhile."""

from __future__ import annotations

import asyncio
import contextlib

from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.errors import TransientError
from collectors.runtime.engine import Engine
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


async def until(condition, env=None, rounds=20_000):
    """Let other tasks and threads work, and time pass where there is an `env`, until the condition holds."""
    for _ in range(rounds):
        if condition():
            return
        await asyncio.to_thread(int)
        if env is not None:
            await env.advance(1)
    raise AssertionError("it never came to that")


async def end(running, work):
    running.stop()
    running.stop()
    await work


def test_the_source_is_told_only_what_every_store_has(tmp_path):
    async def scenario():
        env, source = ManualEnv(), Numbers(endless=True)
        away, ready = Store("away", away=True), Store("ready")
        running = engine(tmp_path, source, away, ready, env=env)
        work = asyncio.ensure_future(running.run())
        await until(lambda: ready.rows == list(range(30)) and away.tries)
        assert source.committed == []
        away.away = False
        await until(lambda: source.committed[-1:] == [30], env)
        assert away.rows == list(range(30))
        await end(running, work)

    asyncio.run(scenario())


def test_a_store_that_is_away_does_not_hold_up_the_other(tmp_path):
    async def scenario():
        away, ready = Store("away", away=True), Store("ready")
        running = engine(tmp_path, Numbers(endless=True), away, ready, env=ManualEnv())
        work = asyncio.ensure_future(running.run())
        with contextlib.suppress(AssertionError):
            await until(lambda: len(ready.rows) == 30)
        assert ready.rows == list(range(30))
        await end(running, work)

    asyncio.run(scenario())


def test_a_stop_is_heard_while_a_store_is_being_retried(tmp_path):
    async def scenario():
        env, away = ManualEnv(), Store("away", away=True)
        running = engine(tmp_path, Numbers(endless=True), away, env=env, drain=30, patience=10**9)
        work = asyncio.ensure_future(running.run())
        await until(lambda: away.tries and running.report.flows[0].read == 30)
        running.stop()
        await until(work.done, env)
        assert running.report.flows[0].in_flight == 30

    asyncio.run(scenario())


def test_a_full_memory_makes_the_source_wait_and_drops_nothing(tmp_path):
    async def scenario():
        env, store = ManualEnv(), Store("slow", away=True)
        running = engine(tmp_path, Numbers(limit=300, endless=True), store, env=env)
        running.budget.limit = 500
        work = asyncio.ensure_future(running.run())
        await until(lambda: store.tries)
        for _ in range(500):
            await asyncio.to_thread(int)
        store.away = False
        await until(lambda: store.rows[-1:] == [299], env)
        assert store.rows == list(range(300))
        await end(running, work)

    asyncio.run(scenario())
