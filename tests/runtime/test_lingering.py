"""Small pieces of a stream gather; what comes alone, or in large ones, does not wait."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.collection.sources.socket import SocketSource
from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError
from collectors.runtime.lingering import ENOUGH_BYTES, LINGER_SECONDS, Linger
from collectors.runtime.reading import Reader
from collectors.runtime.shutdown import Shutdown
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


def test_a_pipeline_says_how_long(tmp_path):
    parts = {"sources": [{"type": "stdin"}], "storage": [{"type": "sqlite", "path": "out.db"}]}
    assert from_mapping(parts, folder=tmp_path).latency == "normal"
    assert from_mapping(parts | {"latency": "low"}, folder=tmp_path).latency == "low"
    with pytest.raises(ConfigurationError, match="latency"):
        from_mapping(parts | {"latency": "lowest"}, folder=tmp_path)
