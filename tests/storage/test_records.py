from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from collectors.storage.records import json_text, non_finite, to_records, to_values


def test_times_are_utc_and_cut_at_the_microsecond_also_inside_of_others() -> None:
    moment = pa.timestamp("ns", "Asia/Tokyo")
    table = pa.table(
        {
            "plain": pa.array([1_999], moment),
            "list": pa.array([[1_999, None]], pa.list_(moment)),
            "object": pa.array([{"t": 1_999}], pa.struct([("t", moment)])),
            "map": pa.array([[("k", 1_999)]], pa.map_(pa.string(), moment)),
            "took": pa.array([1_999], pa.duration("ns")),
            "code": pa.array([1_999], moment).dictionary_encode(),
        }
    )
    (row,) = to_records(table)
    expected = datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    assert row == {
        "plain": expected,
        "list": [expected, None],
        "object": {"t": expected},
        "map": [("k", expected)],
        "took": timedelta(microseconds=1),
        "code": expected,
    }


def test_a_time_outside_of_the_calendar_is_text_and_its_neighbours_are_not() -> None:
    first, second, third = to_values(pa.chunked_array([pa.array([0, 2**62, None], pa.timestamp("us"))]))
    assert first == datetime(1970, 1, 1)
    assert "out of range" in second
    assert third is None


def test_rows_without_columns_are_rows() -> None:
    assert to_records(pa.table({"n": [1, 2]}).select([])) == [{}, {}]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1.0, None]), False),
        (pa.array([1.0, float("nan")]), True),
        (pa.array([1.0]).cast(pa.float16()), False),
        (pa.array([{"a": [float("inf")]}, None]), True),
        (pa.array([[{"a": 1.0}], None, []]), False),
        (pa.array([[("k", float("nan"))]], pa.map_(pa.string(), pa.float64())), True),
        (pa.array([[float("nan")], [1.0]]).slice(1), False),
        (pa.array(["NaN"]), False),
    ],
)
def test_non_finite_floats_are_found_at_any_depth(column: pa.Array, expected: bool) -> None:
    assert non_finite(pa.chunked_array([column])) is expected


def test_json_has_every_digit_and_refuses_what_it_cannot_have() -> None:
    assert json_text(
        {"d": Decimal("1.10"), "t": datetime(2026, 1, 2, tzinfo=UTC), "b": b"\xff", "n": 2**63}
    ) == ('{"d":"1.10","t":"2026-01-02T00:00:00Z","b":"/w==","n":9223372036854775808}')
    for value in (float("nan"), [{"a": float("inf")}]):
        with pytest.raises(ValueError, match="JSON has no NaN"):
            json_text(value)
