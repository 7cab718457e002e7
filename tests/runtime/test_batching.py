"""Joining what waits: in order, nothing twice, nothing lost, the end seen once."""

import asyncio
from copy import deepcopy
from datetime import UTC, datetime
from itertools import pairwise

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.models import CollectedData
from collectors.runtime.batching import End, concat, join_bytes, join_chunks, take_waiting


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 12))
def test_groups_hold_everything_in_order(sizes, limit):
    async def scenario():
        queue = asyncio.Queue()
        for size in sizes:
            queue.put_nowait(size)
        queue.put_nowait(End())
        held, seen = [], []

        def joining(first):
            total = first

            def joins(item):
                nonlocal total
                total += item
                return total <= limit

            return joins

        while group := await take_waiting(queue, held, joining):
            assert len(group) == 1 or sum(group) <= limit
            seen += group
        assert seen == sizes
        assert queue.empty()

    asyncio.run(scenario())


def test_join_adds_the_missing_newline():
    assert join_bytes([b"a\n", b"b", b"c\n"]) == b"a\nb\nc\n"
    assert join_bytes([b"a"]) == b"a"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9)), max_size=30), st.integers(1, 30))
def test_chunks_that_are_alike_become_one(kinds, most):
    chunks = [
        CollectedData("in", datetime.now(UTC), kind, "Test", b"%d" % n * (size - 1) + b"\n", {}, {"n": n})
        for n, (kind, size) in enumerate(kinds)
    ]
    before = deepcopy(chunks)
    joined = join_chunks(chunks, lambda one, other: one.data_format == other.data_format, most)
    assert chunks == before  # who could not keep them tries again with what they were
    assert b"".join(each.raw_data for each in joined) == b"".join(each.raw_data for each in chunks)
    ends = [each.position["n"] for each in joined]
    for chunk, first, end in zip(joined, [0, *(end + 1 for end in ends)], ends, strict=False):
        assert {each.data_format for each in chunks[first : end + 1]} == {chunk.data_format}
        assert chunk.timestamp == chunks[first].timestamp
        assert first == end or len(chunk.raw_data) <= most
    for one, other in pairwise(joined):
        alike = one.data_format == other.data_format
        assert not alike or len(one.raw_data) + len(chunks[one.position["n"] + 1].raw_data) > most
    assert not chunks or ends[-1] == len(chunks) - 1


def test_concat_widens():
    joined = concat([pa.table({"a": [1]}), pa.table({"a": [1.5], "b": ["x"]})])
    assert joined.to_pylist() == [{"a": 1.0, "b": None}, {"a": 1.5, "b": "x"}]


def test_a_group_waits_for_what_is_on_its_way():
    async def scenario():
        queue = asyncio.Queue()
        coming, said = [2, 3], []

        def taken():
            said.append(None)
            if coming and queue.empty():
                asyncio.get_running_loop().call_soon(queue.put_nowait, coming.pop(0))
                return True
            return False

        queue.put_nowait(1)
        group = await take_waiting(queue, [], lambda _: lambda _: True, taken)
        assert group == [1, 2, 3]
        assert len(said) == 3

    asyncio.run(scenario())
