"""A second signal ends a run at once; what was being committed just then is counted all the same."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing

import pytest

from collectors.config.load import from_mapping
from collectors.runtime.engine import Engine
from collectors.runtime.runs import read_runs
from collectors.storage.backends.sqlite import SqliteBackend
from collectors.testing.clock import ManualEnv


class Held(SqliteBackend):
    """Is within its commit until it is let go."""

    inside = threading.Event()
    go = threading.Event()

    def commit(self, delivery):
        type(self).inside.set()
        assert type(self).go.wait(30)
        return super().commit(delivery)


@pytest.fixture
def config(tmp_path):
    Held.inside.clear()
    Held.go.clear()
    (tmp_path / "in.ndjson").write_text("".join(f'{{"n":{n}}}\n' for n in range(100)))
    store = Held(path=str(tmp_path / "out.db"), table="t", id="store")
    yield from_mapping(
        {"sources": [{"type": "file", "id": "in", "path": "in.ndjson"}], "storage": [store]},
        folder=tmp_path,
        name="test",
    )
    Held.go.set()


async def stopped_twice(config, env=None):
    """Return the run of an engine that was stopped twice while its store was committing."""
    engine = Engine(config, env=env)
    work = asyncio.ensure_future(engine.run())
    await asyncio.to_thread(Held.inside.wait, 30)
    engine.stop()
    engine.stop()
    for _ in range(20):  # the flow is over, and the store is asked
        await asyncio.sleep(0)
    return engine, work


def test_a_commit_under_way_counts(tmp_path, config):
    async def main():
        _, work = await stopped_twice(config)
        Held.go.set()
        return await work

    report = asyncio.run(main())
    with closing(sqlite3.connect(tmp_path / "out.db")) as connection:
        ((there,),) = connection.execute("SELECT count(*) FROM t")
    assert there == 100
    (counts,) = report.totals().values()
    assert counts.stored == there
    assert report.balanced
    (run,) = asyncio.run(read_runs(config))
    assert run.as_dict()["flows"][0]["storage"][0]["stored"] == there


def test_a_store_that_is_not_done_in_five_seconds_is_told_of(config):
    async def main():
        engine, work = await stopped_twice(config, ManualEnv(hurry=True))
        while not engine.report.flows[0].notices:
            await asyncio.to_thread(int)
        Held.go.set()
        return await work

    report = asyncio.run(main())
    assert report.flows[0].notices == [
        "storage store was not asked to the end; it may have more than is counted here"
    ]
