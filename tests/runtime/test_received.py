"""What a source has received when a stop is asked for is stored, and what goes on coming does not hold the end up."""

from __future__ import annotations

import asyncio

import pytest

from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.errors import TransientError
from collectors.runtime.engine import Engine
from collectors.storage.base import Backend, BackendConfig
from collectors.testing.clock import ManualEnv


class Receiver(Source[SourceConfig]):
    """Has received more than it has handed on when a stop is asked for behind the first record."""

    endless = True

    def __init__(self, config=None, **settings):
        super().__init__(config, **settings)
        self.stop = lambda: None
        self.number = 0

    def needs_spool(self):
        return True

    def record(self):
        self.number += 1
        return self.chunk(b'{"n": %d}\n' % self.number, {"n": self.number})

    async def read(self, since):
        yield self.record()
        self.stop()
        await asyncio.Event().wait()

    async def rest(self):
        for _ in range(3):
            yield self.record()


class Flooded(Receiver):
    """Never waits for the next record."""

    async def read(self, since):
        while True:
            yield self.record()
            self.stop()


class Silent(Receiver):
    """Is away, and then does not answer."""

    async def open(self):
        self.number += 1
        if self.number == 1:
            raise TransientError("away")
        self.stop()
        await asyncio.Event().wait()

    async def rest(self):
        for nothing in ():
            yield nothing


class Store(Backend[BackendConfig]):
    def __init__(self):
        super().__init__()
        self.rows = []

    def write(self, table, key):
        self.rows += table["n"].to_pylist()


def run(folder, source):
    """Run until the stop that the source asks for, of which nothing is cancelled; return the numbers that are stored."""
    store = Store()
    config = from_mapping({"sources": [source], "storage": [store]}, folder=folder, name="test")
    engine = Engine(config, env=ManualEnv())
    asked = []
    source.stop = lambda: asked or asked.append(engine.stop())

    async def main():
        return await asyncio.wait_for(engine.run(), 10)

    report = asyncio.run(main())
    assert report.flows[0].status == "stopped"
    assert report.balanced
    return store.rows


@pytest.mark.parametrize("every", [None, 60.0])
def test_what_is_received_and_not_handed_on_is_stored(tmp_path, every):
    assert run(tmp_path, Receiver(every=every)) == [1, 2, 3, 4]


def test_a_source_that_does_not_answer_any_more_does_not_hold_up_the_end(tmp_path):
    assert run(tmp_path, Silent()) == []


def test_a_source_that_never_waits_does_not_hold_up_the_end(tmp_path):
    rows = run(tmp_path, Flooded())
    assert rows == [*range(1, len(rows) + 1)]
    assert len(rows) <= 5
