"""A source with a spool: its senders are answered behind the fsync, and nothing is removed before it is stored."""

from __future__ import annotations

import asyncio
import os

import pytest

from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError, TransientError
from collectors.runtime import spool as spool_module
from collectors.runtime.engine import Engine
from collectors.storage.base import Backend, BackendConfig
from collectors.testing.clock import ManualEnv


class Pushed(Source[SourceConfig]):
    """What senders push: it cannot be read again, and they wait for an answer."""

    def __init__(self, count, happened, mistake=None):
        super().__init__()
        self.count = count
        self.happened = happened
        self.mistake = mistake

    async def open(self):
        if self.mistake:
            raise ConfigurationError(self.mistake)

    def needs_spool(self):
        return True

    async def read(self, since):
        for n in range(self.count):
            yield self.chunk(b'{"n": %d}\n' % n, {"n": n})
            while ("answer", n) not in self.happened:  # one sender, who waits before sending more
                await asyncio.sleep(0)

    async def commit(self, position):
        self.happened.append(("answer", position["n"]))


class Store(Backend[BackendConfig]):
    def __init__(self, *, away=False):
        super().__init__()
        self.rows = []
        self.away = away

    def write(self, table, key):
        if self.away:
            raise TransientError("away")
        self.rows += table["n"].to_pylist()


def run(tmp_path, source, store):
    config = from_mapping(
        {"sources": [source], "storage": [store], "state": str(tmp_path / "state")},
        folder=tmp_path,
        name="test",
    )

    async def main():
        running = Engine(config, env=ManualEnv(hurry=True))
        work = asyncio.ensure_future(running.run())
        if store.away:
            while ("answer", source.count - 1) not in source.happened:
                await asyncio.to_thread(int)
            running.stop()
            running.stop()
        return await work

    return asyncio.run(main())


def test_senders_are_answered_behind_the_fsync(tmp_path, monkeypatch):
    happened = []
    real = os.fdatasync

    def fdatasync(descriptor):
        real(descriptor)
        happened.append(("on disk", os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    report = run(tmp_path, Pushed(5, happened), Store())
    assert report.balanced
    answers = [number for number, (what, _) in enumerate(happened) if what == "answer"]
    assert happened[answers[-1]] == ("answer", 4)
    on_disk = at_the_answer_before = 0
    for what, size in happened:
        if what == "on disk":
            on_disk = size
        else:
            assert on_disk > at_the_answer_before
            at_the_answer_before = on_disk


def test_what_no_store_has_yet_stays_in_the_spool(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 200)
    happened = []
    store = Store(away=True)
    run(tmp_path, Pushed(20, happened), store)
    assert happened[-1] == ("answer", 19)
    store.away = False
    run(tmp_path, Pushed(0, happened), store)
    assert store.rows == list(range(20))


def test_a_bad_configuration_leaves_the_spool_as_it_is(tmp_path):
    happened = []
    run(tmp_path, Pushed(20, happened), Store(away=True))
    with pytest.raises(ConfigurationError, match="no such port"):
        run(tmp_path, Pushed(0, happened, mistake="no such port"), Store())
    store = Store()
    run(tmp_path, Pushed(0, happened), store)
    assert store.rows == list(range(20))
