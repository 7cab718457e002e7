"""Stores that buffer: flows of one store that is flushed as a whole, and what goes wrong while nothing comes."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from collectors.chunks import Checkpoint
from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.errors import FatalError, FencedError
from collectors.runtime.engine import Engine
from collectors.testing._sim_sources import Lines
from collectors.testing._sim_stores import Store, make_backend
from collectors.testing.clock import ManualEnv


class Numbers(Source[SourceConfig]):
    data_format = f"{Lines.__module__}:Lines"

    def __init__(self, name, ends=None, stored=None):
        super().__init__(SourceConfig(id=name))
        self.ends = ends
        self.stored = stored

    async def read(self, since):
        first = since["n"] if since else 0
        for n in range(first, 5):
            yield self.chunk(b"%s %d\n" % (self.config.id.encode(), n), {"n": n + 1})
        if self.ends is not None:
            await self.ends.wait()

    async def commit(self, position):
        if self.stored is not None:
            self.stored.set()


def run(folder, sources, backend):
    config = from_mapping(
        {"sources": sources, "storage": [backend], "state": str(folder)}, folder=folder, name="test"
    )
    engine = Engine(config, env=ManualEnv(hurry=True), patience=60.0)
    report = asyncio.run(asyncio.wait_for(engine.run(), 10))
    return {flow.source: flow for flow in report.flows}


def test_a_flow_that_was_taken_over_does_not_stop_its_neighbours(tmp_path):
    store = Store("buffer", "buffering", 0, 1000)
    backend = make_backend(store)
    flush = backend.flush

    def taken_over():
        mine = store.positions["test/a"]
        if mine.epoch == 1:
            store.positions["test/a"] = replace(mine, epoch=2, seq=9, position={"n": 5})
        return flush()

    backend.flush = taken_over
    backend.flush_interval = lambda: None
    stored = asyncio.Event()
    flows = run(tmp_path, [Numbers("a", ends=stored), Numbers("b", stored=stored)], backend)
    assert flows["b"].error is None
    assert flows["b"].balanced
    assert store.numbers("b") == [0, 1, 2, 3, 4]
    assert isinstance(flows["a"].error, FencedError)
    assert flows["a"].edges[0].counts.stored == 0, "another process has stored that"
    assert store.positions["test/a"] == Checkpoint(2, 9, {"n": 5})


def test_a_flush_that_fails_while_nothing_comes_stops_the_flow(tmp_path):
    store = Store("buffer", "buffering", 0, 1000)
    backend = make_backend(store)

    def broken():
        raise FatalError("the disk is gone")

    backend.flush = broken
    flows = run(tmp_path, [Numbers("a", ends=asyncio.Event())], backend)
    assert str(flows["a"].error) == "the disk is gone"
