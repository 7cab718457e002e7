"""Values in a narrower type."""

from __future__ import annotations

import time
from datetime import timedelta
from decimal import Decimal as D

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.storage.backends._duckdb_types import fit
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
        (
            [0.1, 1e300, 0.5, float("inf")],
            pa.float64(),
            pa.float32(),
            [None, None, 0.5, float("inf")],
            [0, 1],
        ),
        (
            [1.239, 0.1, 1e30, float("nan")],
            pa.float64(),
            pa.decimal128(10, 2),
            [None, D("0.1"), None, None],
            [0, 2, 3],
        ),
        ([5, 10**9, None], pa.int64(), pa.decimal128(10, 2), [D(5), None, None], [1]),
        (
            [D("1.23"), D("1.50"), D(1234)],
            pa.decimal128(9, 2),
            pa.decimal128(4, 1),
            [None, D("1.5"), None],
            [0, 2],
        ),
        ([D("1.5"), D(2), D(2**64 + 2)], pa.decimal128(38, 1), pa.int64(), [None, 2, None], [0, 2]),
        ([D("0.12345678901234567890"), D("0.5")], pa.decimal128(38, 20), pa.float64(), [None, 0.5], [0]),
        ([2**63, 2**64 - 1, 7], pa.uint64(), pa.int64(), [None, None, 7], [0, 1]),
        ([-1, 7], pa.int64(), pa.uint64(), [None, 7], [0]),
        ([2**63 - 1, 2**53], pa.int64(), pa.float64(), [None, 2.0**53], [0]),
        ([-(2.0**63), 2.0**63], pa.float64(), pa.int64(), [-(2**63), None], [1]),
        ([1.5, 2.0], pa.float16(), pa.int64(), [None, 2], [0]),
        ([1, 1000], pa.duration("ns"), pa.duration("us"), [None, timedelta(microseconds=1)], [0]),
        ([b"ab"], pa.binary(2), pa.binary(), [b"ab"], []),
        ([[1.0, 1.5], [1.0, 2.0]], pa.list_(pa.float64(), 2), pa.list_(pa.int64()), [None, [1, 2]], [0]),
        ([], pa.float64(), pa.int64(), [], []),
        ([float("inf"), None], pa.float64(), pa.float32(), [float("inf"), None], []),
        (
            [[("a", 1.0), ("b", 1.5)], None, [], [("c", 2.0)]],
            pa.map_(pa.string(), pa.float64()),
            pa.map_(pa.large_string(), pa.int64()),
            [None, None, [], [("c", 2)]],
            [0],
        ),
        (["a", None], pa.dictionary(pa.int8(), pa.string()), pa.large_string(), ["a", None], []),
        ([True], pa.bool_(), pa.int64(), [None], [0]),
        ([1], pa.int64(), pa.bool_(), [None], [0]),
        ([0], pa.timestamp("s", "UTC"), pa.timestamp("s"), [None], [0]),
        ([0], pa.timestamp("s"), pa.timestamp("s", "UTC"), [None], [0]),
        ([0], pa.date32(), pa.time32("s"), [None], [0]),
        ([0], pa.date32(), pa.timestamp("s"), [None], [0]),
    ],
)
def test_what_has_an_exact_place_is_kept(values, of, to, kept, bad):
    assert narrow(values, of, to) == (kept, bad)


def test_what_is_no_number_stays_so():
    kept, bad = narrow([float("nan"), 0.1], pa.float64(), pa.float32())
    assert (repr(kept), bad) == ("[nan, None]", [1])


def test_objects_lose_only_fields_that_are_null():
    of = pa.struct([("a", pa.float64()), ("b", pa.string())])
    values = [{"a": 1.0, "b": None}, {"a": 1.0, "b": "x"}, {"a": 1.5, "b": None}, None]
    to = pa.struct([("a", pa.int64()), ("c", pa.bool_())])
    assert narrow(values, of, to) == ([{"a": 1, "c": None}, None, None, None], [1, 2])


def test_values_behind_a_list_that_is_null_do_not_count():
    values = pa.array([1.5, 2.5, 1.0, 2.0, 3.5, 4.0])
    lists = pa.ListArray.from_arrays(
        pa.array([0, 2, 4, 6], pa.int32()), values, mask=pa.array([True, False, False])
    )
    for start, kept in [(0, [None, [1, 2], None]), (1, [[1, 2], None])]:
        column, bad = narrowed(pa.chunked_array([lists.slice(start)]), pa.list_(pa.int64()))
        assert (column.to_pylist(), bad) == (kept, [len(kept) - 1])


@pytest.mark.parametrize(
    ("good", "of", "to"),
    [(1, pa.int64(), pa.int32()), (1000, pa.timestamp("ns"), pa.timestamp("us"))],
    ids=["numbers", "times"],
)
def test_many_that_do_not_fit_cost_little(good, of, to):
    values = pa.array([good, 2**40 + 1] * 100_000, pa.int64()).cast(of)
    began = time.process_time()
    _, bad = narrowed(pa.chunked_array([values]), to)
    assert len(bad) == 100_000
    assert time.process_time() - began < 5  # asked one by one they take half a minute


def test_nothing_has_a_place_where_there_is_none():
    _, bad = narrowed(pa.chunked_array([["a", None], ["b"]]), None)
    assert bad == [0, 2]


def test_rows_are_counted_over_all_chunks():
    column, bad = narrowed(pa.chunked_array([[1.0, 1.5], [], [2.5, 2.0]]), pa.int64())
    assert (column.to_pylist(), bad) == ([1, None, None, 2], [1, 2])


NUMBERS = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float64(): st.floats() | st.integers(-(2**66), 2**66).map(float),
    pa.decimal128(21, 2): st.decimals(-(10**19) + 1, 10**19 - 1, places=2),
}
TO = [
    pa.int8(),
    pa.int64(),
    pa.uint64(),
    pa.float32(),
    pa.float64(),
    pa.decimal128(5, 1),
    pa.decimal128(38, 9),
]


@settings(max_examples=200)
@given(data=st.data(), of=st.sampled_from(sorted(NUMBERS, key=str)))
def test_a_number_is_the_same_or_told(data, of):
    values = data.draw(st.lists(st.none() | NUMBERS[of], max_size=8))
    to = data.draw(st.sampled_from(TO))
    nested = data.draw(st.booleans())
    given = [None if value is None else [value] for value in values] if nested else values
    kept, bad = narrow(given, pa.list_(of) if nested else of, pa.list_(to) if nested else to)
    for row, (one, other) in enumerate(zip(given, kept, strict=True)):
        if row in bad:
            assert one is not None
            assert other is None
        else:
            assert same(one, other)


FITTING = {
    pa.uint64(): (pa.int64(), NUMBERS[pa.uint64()]),
    pa.int64(): (pa.float64(), NUMBERS[pa.int64()]),
    pa.decimal128(21, 2): (pa.decimal128(20, 2), NUMBERS[pa.decimal128(21, 2)]),
    pa.timestamp("s"): (pa.timestamp("ns"), st.integers(-(2**40), 2**40)),
    pa.duration("s"): (pa.month_day_nano_interval(), st.sampled_from([0, 2**40, 2**50, -(2**50)])),
}


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(), of=st.sampled_from(sorted(FITTING, key=str)), inside=st.sampled_from(["", "list", "map"])
)
def test_what_duckdb_cannot_take_is_what_arrow_casts_in_no_way(data, of, inside):
    to, values = FITTING[of]
    given = data.draw(st.lists(st.none() | values, max_size=6))
    if inside and not pa.types.is_duration(of):
        of, to = (pa.list_(kind) if inside == "list" else pa.map_(pa.string(), kind) for kind in (of, to))
        given = [[value] if inside == "list" else [("k", value)] for value in given]
    column = pa.chunked_array([pa.array(given, of)])
    kept, reasons = fit(column, to)
    assert kept.type == to
    for row in range(len(column)):
        alone = column.take([row])  # a slice of lists is cast with what is around it
        between = pa.duration("us") if pa.types.is_duration(of) else to
        try:
            expected = alone.cast(between)
        except pa.ArrowException:
            assert row in reasons
            assert not kept[row].is_valid
        else:
            assert row not in reasons
            assert pa.types.is_duration(of) or expected[0] == kept[row]


def same(one, other):
    """Whether two values are the same number: a decimal that a float stands for in its shortest form counts as that."""
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, D):
        return one == float(other)
    if isinstance(one, D) and isinstance(other, float):
        return one == D(other).quantize(one)
    return repr(one) == repr(other) or one == other


def test_a_list_that_duckdb_cannot_take_costs_its_own_row():
    lists = pa.array([[1], [2**63], [], None], pa.list_(pa.uint64()))
    kept, reasons = fit(pa.chunked_array([lists]), pa.list_(pa.int64()))
    assert (kept.to_pylist(), set(reasons)) == ([[1], None, [], None], {1})


def test_a_time_that_python_does_not_have_is_refused_like_others():
    column = pa.chunked_array([pa.array([2**50, 1], pa.duration("s"))])
    _, reasons = fit(column, pa.month_day_nano_interval())
    assert reasons == {0: "a duration[s] does not fit into INTERVAL"}
