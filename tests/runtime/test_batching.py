"""Joining what waits: in order, nothing twice, nothing lost, the end seen once."""

import asyncio

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.runtime.batching import End, concat, join_bytes, take_waiting


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


def test_concat_widens():
    joined = concat([pa.table({"a": [1]}), pa.table({"a": [1.5], "b": ["x"]})])
    assert joined.to_pylist() == [{"a": 1.0, "b": None}, {"a": 1.5, "b": "x"}]
