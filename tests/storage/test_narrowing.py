"""Values in a narrower type."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.storage.narrowing import narrowed


def narrow(values, of, to):
    column, bad = narrowed(pa.chunked_array([pa.array(values, of)]), to)
    if to is not None:
        column.validate(full=True)
        assert column.type == to
    return column.to_pylist(), bad


@pytest.mark.parametrize(
    ("values", "of", "to", "kept", "bad"),
    [
        ([1.0, 1.5, None, -3.0], pa.float64(), pa.int64(), [1, None, None, -3], [1]),
        ([float("nan"), float("inf"), 2.0], pa.float64(), pa.int64(), [None, None, 2], [0, 1]),
        ([1e300, 1.0], pa.float64(), pa.int64(), [None, 1], [0]),
        ([1, 300, None], pa.int64(), pa.int8(), [1, None, None], [1]),
        ([2**53, 2**53 + 1], pa.int64(), pa.float64(), [2.0**53, None], [1]),
        (["7", None], pa.string(), pa.int64(), [None, None], [0]),
        ([7], pa.int64(), pa.string(), [None], [0]),
        (["a"], pa.large_string(), pa.string(), ["a"], []),
        ([None], pa.null(), pa.int64(), [None], []),
        (
            [[1, 2], [3, 400], None, []],
            pa.list_(pa.int64()),
            pa.list_(pa.int8()),
            [[1, 2], None, None, []],
            [1],
        ),
        ([1], pa.int64(), pa.list_(pa.int64()), [None], [0]),
        ([], pa.float64(), pa.int64(), [], []),
    ],
)
def test_what_has_an_exact_place_is_kept(values, of, to, kept, bad):
    assert narrow(values, of, to) == (kept, bad)


def test_objects_lose_only_fields_that_are_null():
    of = pa.struct([("a", pa.float64()), ("b", pa.string())])
    values = [{"a": 1.0, "b": None}, {"a": 1.0, "b": "x"}, {"a": 1.5, "b": None}, None]
    to = pa.struct([("a", pa.int64()), ("c", pa.bool_())])
    assert narrow(values, of, to) == ([{"a": 1, "c": None}, None, None, None], [1, 2])


def test_nothing_has_a_place_where_there_is_none():
    _, bad = narrowed(pa.chunked_array([["a", None], ["b"]]), None)
    assert bad == [0, 2]


def test_rows_are_counted_over_all_chunks():
    column, bad = narrowed(pa.chunked_array([[1.0, 1.5], [], [2.5, 2.0]]), pa.int64())
    assert (column.to_pylist(), bad) == ([1, None, None, 2], [1, 2])


NUMBERS = {pa.int64(): st.integers(-(2**63), 2**63 - 1), pa.float64(): st.floats()}


@settings(max_examples=200)
@given(data=st.data(), of=st.sampled_from(sorted(NUMBERS, key=str)))
def test_a_number_is_the_same_or_told(data, of):
    values = data.draw(st.lists(st.none() | NUMBERS[of], max_size=8))
    to = data.draw(st.sampled_from([pa.int8(), pa.int32(), pa.int64(), pa.float64(), pa.uint64()]))
    nested = data.draw(st.booleans())
    given = [None if value is None else [value] for value in values] if nested else values
    kept, bad = narrow(given, pa.list_(of) if nested else of, pa.list_(to) if nested else to)
    for row, (one, other) in enumerate(zip(given, kept, strict=True)):
        if row in bad:
            assert one is not None
            assert other is None
        else:
            assert repr(one) == repr(other) or one == other
