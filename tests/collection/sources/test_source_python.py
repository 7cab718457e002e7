"""Functions as sources: every form of them, batching, positions, and what goes wrong in them."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import itertools
import json
import threading
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pyarrow as pa
import pytest
from _stopping import stored_when_stopped
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.collection.sources.python import PythonSource
from collectors.errors import FatalError, TransientError
from collectors.testing.faults import Census, leaks
from collectors.testing.source_contract import SourceContract


class TestWithPositions(SourceContract):
    component = "python"

    @asynccontextmanager
    async def rig(self, ids):
        def numbers(since):
            for each in ids[since["n"] if since else 0 :]:
                yield {"id": each}, {"n": each}

        yield {"function": numbers, "chunk_size": 64}


class TestAsyncWithPositions(SourceContract):
    component = "python"

    @asynccontextmanager
    async def rig(self, ids):
        async def numbers(since=None):
            for each in ids[since["n"] if since else 0 :]:
                await asyncio.sleep(0)
                yield [{"id": each}], {"n": each}

        yield {"function": numbers, "chunk_size": 64}


class TestWithoutPositions(SourceContract):
    component = "python"
    waive = dict.fromkeys(
        [
            "position_survives_json",
            "resume_from_every_position",
            "read_again_from_earlier_position",
            "nothing_twice_at_the_end",
        ],
        "a function without `since` cannot be asked again",
    )

    @asynccontextmanager
    async def rig(self, ids):
        yield {"function": lambda: ({"id": each} for each in ids), "chunk_size": 64}


async def read(source, since=None):
    await source.connect()
    chunks = []
    try:
        async for chunk in source.stream(since):
            chunks.append(chunk)
    except Exception as error:
        return chunks, error
    finally:
        await source.disconnect()
    return chunks, None


def run(function, since=None, **options):
    async def main():
        before = Census.take()
        found = await read(PythonSource(function=function, **options), since)
        assert await leaks(before) == []
        return found

    return asyncio.run(main())


def records(chunks):
    return [
        json.loads(line)
        for chunk in chunks
        if chunk.data_format == "ndjson"
        for line in chunk.raw_data.splitlines()
    ]


async def _async_list():
    return [{"n": 1}, {"n": 2}]


async def _async_generator():
    yield {"n": 1}
    yield [{"n": 2}]


def _generator():
    yield {"n": 1}
    yield {"n": 2}


@pytest.mark.parametrize(
    "function",
    [
        lambda: [{"n": 1}, {"n": 2}],
        lambda: iter([{"n": 1}, {"n": 2}]),
        _generator,
        _async_list,
        _async_generator,
        lambda: b'{"n": 1}\n{"n": 2}\n',
    ],
)
def test_every_form_of_function_gives_its_records(function):
    chunks, error = run(function)
    assert (records(chunks), error) == ([{"n": 1}, {"n": 2}], None)


@pytest.mark.parametrize("give", [lambda: None, list, lambda: iter(())])
def test_nothing_is_nothing(give):
    assert run(give) == ([], None)


def test_tables_are_handed_on_as_arrow_in_slices():
    table = pa.table({"n": list(range(1000))})
    chunks, _ = run(lambda: table, chunk_size="1 KiB")
    assert len(chunks) > 4
    assert {chunk.data_format for chunk in chunks} == {"arrow"}
    tables = [pa.ipc.open_stream(chunk.raw_data).read_all() for chunk in chunks]
    assert pa.concat_tables(tables).equals(table)


def test_bytes_are_in_the_format_of_the_settings():
    chunks, _ = run(lambda: iter([b"a,b\n1,2\n", b"a,b\n3,4\n"]), format={"type": "csv"})
    assert [(chunk.data_format, chunk.raw_data) for chunk in chunks] == [
        ("csv", b"a,b\n1,2\n"),
        ("csv", b"a,b\n3,4\n"),
    ]


def test_values_keep_every_digit():
    @dataclass
    class Reading:
        at: dt.datetime
        price: decimal.Decimal
        count: int

    at = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
    chunks, _ = run(lambda: iter([Reading(at, decimal.Decimal("1.10"), 2**70)]))
    assert chunks[0].raw_data == (
        b'{"at":"2026-01-02T03:04:05.678901Z","price":"1.10","count":1180591620717411303424}\n'
    )


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"n": 1, "x": float("nan")}, "the field 'x' is nan, which JSON cannot hold"),
        ({"n": {"deep": [0.0, float("inf")]}}, "the field 'n.deep.1' is inf"),
        ({"n": object()}, "there is no JSON for object"),
        ({"text": "\ud800"}, "cannot be written as JSON"),
        (5, "expected a dict, a list of dicts, an Arrow table or bytes, got int"),
        (({"n": 1}, {"n": 1}), "got tuple"),
    ],
)
def test_what_is_not_a_record_is_set_aside_alone(item, reason):
    chunks, error = run(lambda: iter([{"n": 0}, item, [{"n": 1}, item, {"n": None}]]))
    refused = [chunk for chunk in chunks if chunk.data_format == "rejected"]
    assert error is None
    assert records(chunks) == [{"n": 0}, {"n": 1}, {"n": None}]
    assert len(refused) == 2
    assert all(reason in chunk.metadata["reason"] and chunk.raw_data for chunk in refused)


def test_a_slow_generator_is_handed_on_record_by_record_and_a_fast_one_in_chunks():
    async def main():
        go = threading.Semaphore(0)

        def slow():
            for n in range(3):
                go.acquire()
                yield {"n": n}

        source = PythonSource(function=slow)
        await source.connect()
        for n in range(3):
            go.release()
            assert records([await source.collect()]) == [{"n": n}]
        await source.disconnect()

        def fast():
            for n in range(3000):
                yield {"n": n}

        source = PythonSource(function=fast)
        await source.connect()
        chunks = [chunk async for chunk in source.collect_stream()]
        assert records(chunks) == [{"n": n} for n in range(3000)]
        assert len(chunks) < 300
        await source.disconnect()

    asyncio.run(main())


def test_a_generator_is_not_run_ahead_of_its_reader_without_bound():
    async def main():
        made = 0

        def endless():
            nonlocal made
            while True:
                made += 1
                yield {"text": "x" * 1000}

        source = PythonSource(function=endless, chunk_size="64 KiB")
        await source.connect()
        before = -1
        await source.collect()
        while made != before:  # until it waits
            before = made
            await asyncio.sleep(0.05)
        assert made < 300
        await source.disconnect()

    asyncio.run(main())


def test_records_before_a_failure_are_handed_on_and_the_line_of_the_failure_is_named():
    def failing():
        yield {"n": 1}
        raise KeyError("colour")

    chunks, error = run(failing)
    assert records(chunks) == [{"n": 1}]
    assert isinstance(error, FatalError)
    line = failing.__code__.co_firstlineno + 2
    assert f"failing' failed: KeyError: 'colour' ({__file__}:{line})" in str(error)


def test_an_async_failure_is_told_the_same_way():
    async def failing():
        yield {"n": 1}
        raise ValueError("no such city")

    chunks, error = run(failing)
    assert records(chunks) == [{"n": 1}]
    assert "ValueError: no such city" in str(error)
    assert f"{__file__}:" in str(error)


def test_an_error_that_says_what_to_do_next_is_passed_on_as_it_is():
    def away():
        raise TransientError("the station is away", retry_after=5)

    _, error = run(away)
    assert isinstance(error, TransientError)
    assert error.retry_after == 5


def test_a_chunk_ends_only_behind_a_position():
    def pairs(since):
        yield {"n": 1}
        yield {"n": 2}
        yield {"n": 3}, {"at": 3}
        yield {"n": 4}

    chunks, _ = run(pairs)
    assert [(records([chunk])[-1]["n"], chunk.position) for chunk in chunks] in (
        [(3, {"at": 3}), (4, {"at": 3})],
        [(4, {"at": 3})],
    )


def test_a_position_alone_moves_on():
    def quiet(since):
        yield [], {"at": 7}

    chunks, _ = run(quiet)
    assert [(chunk.raw_data, chunk.position) for chunk in chunks] == [(b"", {"at": 7})]


@pytest.mark.parametrize("position", [7, {"at": (1, 2)}, {"at": object()}])
def test_a_position_that_is_no_json_object_stops_the_source(position):
    def pairs(since):
        yield {"n": 1}, position

    _, error = run(pairs)
    assert isinstance(error, FatalError)
    assert "a position must be a dict" in str(error)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=30),
    st.integers(1, 200),
)
def test_resumed_at_any_position_everything_comes_once(groups, chunk_size):
    items, total = [], 0
    for size, positioned in groups:
        total += size
        items.append((list(range(total - size, total)), total if positioned else None))

    def source(since):
        begin = since["n"] if since else 0
        for numbers, position in items:
            if numbers[0] >= begin:
                batch = [{"n": n} for n in numbers]
                yield (batch, {"n": position}) if position is not None else batch

    # what follows the last position is given again on every reading: only what lies before it can be resumed
    last = max((position for _, position in items if position is not None), default=0)
    chunks, _ = run(source, chunk_size=chunk_size)
    assert [record["n"] for record in records(chunks)] == list(range(total))
    for number, chunk in enumerate(chunks):
        if chunk.position is not None and chunk.position != (chunks[number - 1].position if number else None):
            before = [record["n"] for record in records(chunks[: number + 1]) if record["n"] < last]
            after, _ = run(source, since=chunk.position, chunk_size=chunk_size)
            resumed = [record["n"] for record in records(after) if record["n"] < last]
            assert [n for n in before if n < chunk.position["n"]] + resumed == list(range(last))


def test_cancelling_closes_generators_and_ends_their_threads_and_tasks():
    async def main():
        closed = []

        def plain():
            try:
                while True:
                    yield {"n": 1}
            finally:
                closed.append("plain")

        async def asynchronous():
            try:
                while True:
                    yield {"n": 1}
                    await asyncio.sleep(0)
            finally:
                closed.append("async")

        before = Census.take()
        for function in (plain, asynchronous):
            source = PythonSource(function=function, chunk_size=1000)
            await source.connect()
            await source.collect()
            await source.disconnect()
        assert await leaks(before) == []
        assert closed == ["plain", "async"]

    asyncio.run(main())


def numbers(given, item):
    """Give numbers as fast as they are taken, a few at a time or one, and note them."""
    for first in itertools.count(0, item):
        given += range(first, first + item)
        yield [{"id": n, "text": 1000 * "x"} for n in range(first, first + item)]


@pytest.mark.parametrize("item", [1, 5])
def test_what_a_generator_has_given_is_stored_when_it_stops(tmp_path, item):
    """Also what waits for room; a function without positions cannot be asked again."""
    given = []
    source = PythonSource(function=lambda: numbers(given, item), chunk_size="8 KiB")
    assert stored_when_stopped(source, tmp_path, lambda: len(given) > 5) == Counter(given)


@pytest.mark.parametrize("item", [1, 5])
def test_what_an_async_generator_has_given_is_stored_when_it_stops(tmp_path, item):
    given = []

    async def function():
        for each in numbers(given, item):
            yield each

    source = PythonSource(function=function, chunk_size="8 KiB")
    assert stored_when_stopped(source, tmp_path) == Counter(given)


def test_a_function_that_hangs_does_not_hold_up_the_end():
    called, hang = threading.Event(), threading.Event()

    def hanging():
        called.set()
        hang.wait(30)

    async def main():
        source = PythonSource(function=hanging)
        await source.connect()
        waiting = asyncio.ensure_future(source.collect())
        await asyncio.to_thread(called.wait, 10)
        waiting.cancel()
        await asyncio.wait([waiting])
        await source.disconnect()

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 5
    hang.set()


def test_it_is_called_again_on_a_schedule_only():
    assert PythonSource(function=list).poll_interval() is None
    assert PythonSource(function=list, every="1m").poll_interval() == 60.0
