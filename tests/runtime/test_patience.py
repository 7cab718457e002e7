"""How long a pipeline waits for a storage: for ever while more can come in, a minute when it could have ended."""

from __future__ import annotations

import asyncio

import pytest

from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.errors import TransientError
from collectors.runtime.engine import Engine
from collectors.storage.base import Backend, BackendConfig
from collectors.testing.clock import ManualEnv

HOUR = 3600.0


class Slowly(Source[SourceConfig]):
    """One record, an hour of nothing, a second record, the end; in the spool when it cannot be read again."""

    def __init__(self, env, *, again):
        super().__init__(SourceConfig(id="in"))
        self.env = env
        self.again = again

    def needs_spool(self):
        return not self.again

    async def read(self, since):
        if since is None:
            yield self.chunk(b'{"n": 1}\n', {"n": 1})
            end = self.env.monotonic() + HOUR
            while self.env.monotonic() < end:  # the clock moves as others wait for the storage
                await asyncio.to_thread(int)
        yield self.chunk(b'{"n": 2}\n', {"n": 2})


class Listens(Slowly):
    endless = True


class Away(Backend[BackendConfig]):
    """Is away until a moment."""

    def __init__(self, env, until):
        super().__init__(BackendConfig(id="store"))
        self.env = env
        self.until = until
        self.rows = []

    def write(self, table, key):
        if self.env.monotonic() < self.until:
            raise TransientError("away")
        self.rows += table["n"].to_pylist()


def run(tmp_path, make, until, **options):
    env = ManualEnv(hurry=True)
    store = Away(env, env.monotonic() + until)
    config = from_mapping(
        {"sources": [make(env)], "storage": [store], "state": str(tmp_path / "state")},
        folder=tmp_path,
        name="test",
    )
    started = env.monotonic()
    report = asyncio.run(Engine(config, env=env, **options).run())
    return store.rows, report, env.monotonic() - started


def test_what_is_in_the_spool_waits_while_the_source_goes_on(tmp_path):
    rows, report, _ = run(tmp_path, lambda env: Slowly(env, again=False), HOUR - 1)
    assert rows == [1, 2]
    assert report.balanced


def test_when_the_source_has_ended_a_minute_is_waited(tmp_path):
    rows, report, took = run(tmp_path, lambda env: Slowly(env, again=False), 10 * HOUR)
    assert rows == []
    assert report.failed
    assert HOUR + 60 <= took < HOUR + 300
    again, report, _ = run(tmp_path, lambda env: Ended(env, again=False), 0)
    assert again == [1, 2], "it stays in the spool for the next run"
    assert report.balanced


class Ended(Slowly):
    async def read(self, since):
        for nothing in ():
            yield nothing


def test_a_source_that_can_be_read_again_gives_up_after_a_minute(tmp_path):
    rows, report, took = run(tmp_path, lambda env: Slowly(env, again=True), HOUR / 2)
    assert rows == []
    assert report.failed
    assert took < HOUR + 200


@pytest.mark.parametrize("again", [True, False])
def test_one_that_listens_waits_for_ever(tmp_path, again):
    rows, report, _ = run(tmp_path, lambda env: Listens(env, again=again), 5 * HOUR)
    assert rows == [1, 2]
    assert report.balanced


@pytest.mark.parametrize("kind", [Slowly, Listens])
def test_what_the_user_asks_for_holds_everywhere(tmp_path, kind):
    rows, report, _ = run(tmp_path, lambda env: kind(env, again=False), HOUR / 2, patience=600.0)
    assert rows == []
    assert report.failed
