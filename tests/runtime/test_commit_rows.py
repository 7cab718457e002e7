"""Storages for which a small commit is dear: it waits for what was read already, and for nothing else."""

from __future__ import annotations

import asyncio
import threading

from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.runtime.engine import Engine
from collectors.runtime.preparing import Prepared, Preparer
from collectors.testing._sim_sources import Lines
from collectors.testing._sim_stores import Store, make_backend

CHUNKS = 40


class Numbers(Source[SourceConfig]):
    data_format = f"{Lines.__module__}:Lines"

    def __init__(self, quiet=None):
        super().__init__(SourceConfig(id="numbers"))
        self.quiet = quiet

    async def read(self, since):
        for n in range(since["n"] if since else 0, CHUNKS):
            if self.quiet is not None and n:
                await asyncio.wait_for(self.quiet(n), 10)
            yield self.chunk(b"numbers %d\n" % n, {"n": n + 1})


def commits(tmp_path, monkeypatch, source, commit_rows, **more):
    """Run and return the rows of each commit."""
    monkeypatch.setattr(
        Preparer, "joining", lambda *_: lambda _: False
    )  # so that each chunk is prepared by itself
    store = Store("one", "lettered", more.pop("refuses", 0), commit_rows)
    backend, sizes = make_backend(store), []
    commit = backend.commit

    def counted(delivery):
        seq = commit(delivery)
        sizes.append(delivery.table.num_rows)
        return seq

    backend.commit = counted
    config = from_mapping(
        {"sources": [source], "storage": [backend], "state": str(tmp_path), **more},
        folder=tmp_path,
        name="test",
    )
    report = asyncio.run(asyncio.wait_for(Engine(config).run(), 30))
    return sizes, store, report.flows[0]


def test_a_commit_waits_for_what_was_read(tmp_path, monkeypatch):
    all_read = threading.Event()
    prepare = Preparer.prepare

    def slow(self, group):
        assert all_read.wait(10)
        return prepare(self, group)

    class Noted(Numbers):
        async def read(self, since):
            async for chunk in super().read(since):
                yield chunk
            all_read.set()

    monkeypatch.setattr(Preparer, "prepare", slow)
    sizes, store, flow = commits(tmp_path, monkeypatch, Noted(), 10)
    assert store.numbers("numbers") == list(range(CHUNKS))
    assert flow.balanced
    assert sizes == [10] * (CHUNKS // 10)


def test_nothing_waits_for_what_nobody_has_read(tmp_path, monkeypatch):
    stored = Store("seen", "plain", 0, 1)

    async def quiet(n):
        while len(stored.rows) < n:  # the next record comes when this one is stored
            await asyncio.sleep(0)

    publish = Store.publish

    def seen(self, delivery):
        publish(self, delivery)
        stored.rows = self.rows

    monkeypatch.setattr(Store, "publish", seen)
    sizes, _, _ = commits(tmp_path, monkeypatch, Numbers(quiet), 1000)
    assert sizes == [1] * CHUNKS


def test_a_spent_budget_ends_the_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(Prepared, "held", 4096)
    sizes, store, _ = commits(tmp_path, monkeypatch, Numbers(), 1000, memory="16KiB")
    assert store.numbers("numbers") == list(range(CHUNKS))
    assert len(sizes) > 1


def test_too_many_letters_end_the_waiting(tmp_path, monkeypatch):
    source = Numbers()
    _, store, flow = commits(tmp_path, monkeypatch, source, 5, refuses=2, stop_above="10%")
    assert flow.error is not None
    assert len(store.rows) < CHUNKS
