"""Small pieces of a stream gather; what comes alone, or in large ones, does not wait."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.collection.base import Source, SourceConfig
from collectors.collection.sources.socket import SocketSource
from collectors.collection.sources.stdin import StdinSource
from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError
from collectors.runtime.engine import Engine
from collectors.runtime.lingering import ENOUGH_BYTES, LINGER_SECONDS, Linger
from collectors.runtime.reading import Reader
from collectors.runtime.shutdown import Shutdown
from collectors.storage.base import Backend, BackendConfig
from collectors.testing.clock import ManualEnv


def waits(pieces, seconds=0.01, most=float("inf"), received=0):
    """Return what a source waits that takes pieces: each as (seconds since the one before came, bytes)."""
    env = ManualEnv(hurry=True)

    async def take():
        linger = Linger(seconds, env.monotonic, env.sleep, most)
        found = []
        for pause, size in pieces:
            await env.advance(pause)
            before = env.monotonic()
            await linger.wait(received)
            found.append(round(env.monotonic() - before, 6))
            linger.count(size)
        return found

    return asyncio.run(take())


def test_the_first_piece_and_what_comes_alone_go_on_at_once():
    assert waits([(0, 100), (1, 100), (0.5, 100), (0.0126, 100)]) == [0, 0, 0, 0]


def test_small_pieces_of_a_stream_gather():
    assert waits([(0, 100), (0.001, 100), (0.001, 100), (0.01, 100)]) == [0, 0.01, 0.01, 0.01]


def test_a_stream_that_pauses_is_quiet_again():
    assert waits([(0, 100), (0.001, 100), (1, 100), (0.001, 100)]) == [0, 0.01, 0, 0.01]


def test_large_pieces_do_not_wait():
    assert waits([(0, ENOUGH_BYTES), (0.001, ENOUGH_BYTES), (0.001, 100), (0.001, 100)]) == [0, 0, 0, 0.01]


def test_half_of_what_a_source_takes_at_once_is_much():
    assert waits([(0, 100), (0.001, 2048), (0.001, 2047), (0.001, 100)], most=4096) == [0, 0.01, 0, 0.01]


def test_what_was_received_counts_also_where_no_chunk_came_of_it():
    assert waits([(0, 0), (0.001, 0), (0.001, 0)], received=ENOUGH_BYTES) == [0, 0, 0]


@given(
    st.lists(st.tuples(st.floats(0, 0.05), st.integers(0, 2 * ENOUGH_BYTES)), max_size=40),
    st.sampled_from([0.0, *LINGER_SECONDS.values()]),
)
def test_no_piece_waits_longer_than_the_setting_says(pieces, seconds):
    found = waits(pieces, seconds)
    assert set(found) <= {0, seconds}
    for (pause, _), waited in zip(pieces, found, strict=True):
        assert waited == 0 or pause < 1.26 * seconds


def test_a_reader_has_its_source_linger_until_a_stop():
    env, source = ManualEnv(), SocketSource(listen="tcp://127.0.0.1:0")

    async def scenario():
        shutdown = Shutdown(env)
        Reader(source, env, shutdown, patience=lambda: None, notify=lambda _: None, linger=0.01)
        await source.linger()
        lingering = asyncio.ensure_future(source.linger())
        for _ in range(5):
            await asyncio.sleep(0)
        await env.advance(0.008)
        assert not lingering.done()
        await env.advance(0.008)
        await lingering
        lingering = asyncio.ensure_future(source.linger())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not lingering.done()
        shutdown.requested.set()
        await lingering

    asyncio.run(asyncio.wait_for(scenario(), 10))


def lingering(source, feed):
    """Return with what a source has asked to linger before each take; it goes on when it is fed the next piece."""

    async def read():
        asked, hungry = [], asyncio.Event()

        async def linger(received=None):
            asked.append(received)
            hungry.set()
            await asyncio.sleep(0)

        source.linger = linger
        await source.connect()
        feed(source, None)

        async def take():
            async for _ in source.stream(None):
                pass

        taking = asyncio.ensure_future(take())
        for piece in (b'{"n": 1}\n', b'{"n": 22}\n', b'{"n": 3}\n'):
            count = len(asked)
            feed(source, piece)
            while len(asked) == count:
                await asyncio.sleep(0.001)
        feed(source, b"")
        taking.cancel()
        await asyncio.wait([taking])
        await source.disconnect()
        return asked

    return asyncio.run(asyncio.wait_for(read(), 20))


def test_a_pipe_says_how_much_it_received():
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as file, os.fdopen(writer, "wb", buffering=0) as out:
        asked = lingering(StdinSource(file=file), lambda _, piece: piece and out.write(piece))
    assert asked[0] is None
    assert [size for size in asked[1:] if size][:2] == [9, 10]


def test_a_socket_lingers_before_it_takes_what_has_come():
    with contextlib.ExitStack() as stack:

        def feed(source, piece):
            if piece is None:
                stack.enter_context(client := socket.create_connection(source.address))
                source.client = client
            elif piece:
                source.client.sendall(piece)

        assert len(lingering(SocketSource(listen="tcp://127.0.0.1:0", format="ndjson"), feed)) >= 3


@pytest.mark.parametrize(("settings", "sizes"), [({"max_record": 64}, [31, 32, 31]), ({}, [31, 32, 31])])
def test_what_a_source_takes_at_once_is_known_from_its_settings(settings, sizes):
    env, source = ManualEnv(hurry=True), StdinSource(**settings)

    async def take():
        Reader(source, env, Shutdown(env), patience=lambda: None, notify=lambda _: None, linger=0.01)
        await source.linger()
        for size in sizes:
            await source.linger(size)

    asyncio.run(take())
    assert env.slept == [0.01] * (2 if settings else 3)


def test_a_pipeline_says_how_long(tmp_path):
    parts = {"sources": [{"type": "stdin"}], "storage": [{"type": "sqlite", "path": "out.db"}]}
    assert from_mapping(parts, folder=tmp_path).latency == "normal"
    assert from_mapping(parts | {"latency": "low"}, folder=tmp_path).latency == "low"
    with pytest.raises(ConfigurationError, match="latency"):
        from_mapping(parts | {"latency": "lowest"}, folder=tmp_path)


class Stream(Source[SourceConfig]):
    """Gives pieces that cannot be read again; where it does not linger, each when the one before is stored."""

    def __init__(self, store, size, *, lingers):
        super().__init__()
        self.store, self.size, self.lingers = store, size, lingers

    def needs_spool(self):
        return True

    async def read(self, since):
        for n in range(10):
            if self.lingers:
                await self.linger()
            while not self.lingers and len(self.store.rows) < n:
                await asyncio.sleep(0)
            yield self.chunk(b'{"n": %d, "text": "%s"}\n' % (n, b"x" * self.size), None)


class Store(Backend[BackendConfig]):
    def __init__(self):
        super().__init__()
        self.rows = []

    def write(self, table, key):
        self.rows += table["n"].to_pylist()


def slept(tmp_path, size=1, *, lingers=True, **more):
    store, env = Store(), ManualEnv(hurry=True)
    parts = {"sources": [Stream(store, size, lingers=lingers)], "storage": [store], **more}
    asyncio.run(Engine(from_mapping(parts, folder=tmp_path, name="test"), env=env).run())
    assert store.rows == list(range(10))
    return set(env.slept)


@pytest.mark.parametrize(("latency", "seconds"), LINGER_SECONDS.items())
def test_a_run_lingers_in_front_of_the_spool_or_half_as_long_behind_it(tmp_path, latency, seconds):
    assert seconds in slept(tmp_path / "front", latency=latency)
    behind = slept(tmp_path / "behind", lingers=False, latency=latency)
    assert seconds / 2 in behind
    assert seconds not in behind


def test_a_run_counts_what_its_source_gives(tmp_path):
    assert LINGER_SECONDS["normal"] not in slept(tmp_path, ENOUGH_BYTES)
