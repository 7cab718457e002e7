"""Records as a table: in whatever portions they come, and whichever are left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import rows
from collectors.processing.base import row_bytes, rows_bytes
from collectors.processing.records import Columns, to_table
from collectors.rows import BATCH_ROWS

VALUES = st.one_of(
    st.none(),
    st.integers(-5, 5),
    st.floats(-2, 2),
    st.text(max_size=2),
    st.dictionaries(st.text(max_size=1), st.integers(0, 3)),
)
ALIKE = st.lists(
    st.fixed_dictionaries({"a": st.integers(), "b": st.one_of(st.none(), st.text())}), max_size=6
)
MIXED = st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), max_size=6)


@given(st.lists(st.one_of(ALIKE, MIXED), max_size=4))
def test_portions_make_no_difference(portions):
    columns = Columns()
    for portion in portions:
        columns.add(portion)
    table, misfits = columns.table()
    expected, told = to_table([record for portion in portions for record in portion])
    assert misfits == told
    assert table.equals(expected)
    assert table.num_rows == sum(map(len, portions)) - len(misfits)


@given(MIXED, st.sets(st.integers(0, 5)))
def test_what_is_left_out_leaves_nothing(records, numbers):
    columns = Columns()
    columns.add(records)
    table, _ = columns.table(None, numbers)
    kept = [record for number, record in enumerate(records) if number not in numbers]
    expected, told = to_table(kept)
    assert set(table.column_names) == set(expected.column_names)
    assert table.select(expected.column_names).equals(expected)
    assert table.num_rows == len(kept) - len(told)


def test_a_key_that_only_a_refused_record_has_is_no_column():
    table, misfits = to_table([{"a": 1}, {"a": "x", "b": 2}])
    assert table.to_pylist() == [{"a": 1}]
    assert misfits == {1: "column 'a': 'x' is of the type string, and the records before it have int"}


def test_records_that_are_alike():
    columns = Columns()
    assert columns.add_alike([{"a": 1, "b": 2}])
    assert columns.add_alike([{"b": 3, "a": 4}])
    assert not columns.add_alike([{"a": 5}])
    assert not columns.add_alike([{"a": 5, "b": 6, "c": 7}])
    assert not columns.add_alike([{"a": 5, "c": 7}])
    assert columns.table()[0].to_pylist() == [{"a": 1, "b": 2}, {"a": 4, "b": 3}]
    assert not Columns().add_alike([{1: 5}])


TYPES = [
    *(pa.null(), pa.bool_(), pa.int8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.string()),
    *(
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.timestamp("us", "UTC"),
        pa.decimal128(5, 1),
    ),
]
PLAIN = [st.none(), st.integers(-300, 300), st.integers(), st.booleans(), st.floats(), st.text(max_size=3)]


@st.composite
def portions_of_one_shape(draw):
    """Return portions whose columns are mostly of one kind, and what the columns were."""
    kinds = {name: st.none() | draw(st.sampled_from(PLAIN)) for name in "abc"}
    other = {name: draw(st.sampled_from([kind, *PLAIN])) for name, kind in kinds.items()}
    portions = draw(st.lists(st.lists(st.fixed_dictionaries(kinds), max_size=5), max_size=3))
    portions += draw(st.sampled_from([[], [draw(st.lists(st.fixed_dictionaries(other), max_size=3))]]))
    return portions, draw(
        st.none() | st.just(pa.schema([(name, draw(st.sampled_from(TYPES))) for name in "abd"]))
    )


@given(portions_of_one_shape(), st.sampled_from([set(), set(), {0, 2}]))
@settings(max_examples=400, deadline=None)
def test_compiled_code_makes_no_difference(given, without):
    portions, like = given
    found = []
    for functions in (rows._functions, lambda: None):
        with patch.object(rows, "_functions", functions):
            columns = Columns()
            for portion in portions:
                columns.add(portion)
            found.append(columns.table(like, without))
    (table, misfits), (expected, told) = found
    assert misfits == told
    assert table.schema == expected.schema
    assert str(table.to_pylist()) == str(expected.to_pylist())  # NaN is no other NaN


def test_ints_beside_decimals_are_decimals():
    table, misfits = to_table([{"a": Decimal("1.5")}, {"a": 1}, {"a": 1000}, {"a": None}, {"a": 10**30}])
    assert misfits == {}
    assert table["a"].to_pylist() == [Decimal("1.5"), Decimal(1), Decimal(1000), None, Decimal(10) ** 30]


def test_a_value_that_is_no_column_with_those_before_it_is_named():
    table, misfits = to_table([{"a": Decimal("1e-70")}, {"a": Decimal("1e70")}, {"a": 1}])
    assert list(misfits) == [1]
    assert "1E+70" in misfits[1]
    assert table.num_rows == 2


@pytest.mark.parametrize("functions", [rows._functions, lambda: None], ids=["compiled", "python"])
def test_what_dicts_of_other_kinds_make_up_is_not_taken(functions):
    records = [Counter(a=1, b=2), Counter(a=5), defaultdict(int, b=3)]
    with patch.object(rows, "_functions", functions):
        table, misfits = to_table(records)
    assert misfits == {}
    assert table.to_pylist() == [{"a": 1, "b": 2}, {"a": 5, "b": None}, {"a": None, "b": 3}]


def test_a_value_that_contains_itself_is_set_aside():
    """In Arrow it would end the process."""
    endless = []
    endless += [endless, endless]
    table, misfits = to_table([{"a": [1]}, {"a": endless}, {"a": [2]}])
    assert table["a"].to_pylist() == [[1], [2]]
    assert misfits == {1: "column 'a': [[...], [...]] is nested more than 100 deep"}


def test_a_value_may_be_nested_deep():
    deep = 1
    for _ in range(100):
        deep = [deep]
    assert to_table([{"a": deep}])[1] == {}
    assert list(to_table([{"a": [deep]}])[1]) == [0]


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"x": value, "n": 1}])
def test_ints_beside_decimals_inside_of_values(wrap):
    numbers = [1, Decimal("1.5"), 1000, 2**63 - 1]
    table, misfits = to_table([{"a": wrap(value)} for value in numbers])
    assert misfits == {}
    assert table["a"].to_pylist() == [wrap(Decimal(value)) for value in numbers]


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (Decimal("NaN"), "NaN is no number that a decimal can be"),
        (Decimal("-Infinity"), "-Infinity is no number that a decimal can be"),
        (Decimal("1E+80"), "Decimal('1E+80') has more than 76 digits"),
        (Decimal("1E-80"), "Decimal('1E-80') has more than 76 digits"),
    ],
)
def test_what_no_decimal_column_holds_is_said(odd, reason):
    table, misfits = to_table([{"a": Decimal("1.5")}, {"a": odd}, {"a": 100}])
    assert misfits == {1: f"column 'a': {reason}"}
    assert table["a"].to_pylist() == [Decimal("1.5"), Decimal(100)]


@pytest.mark.parametrize("key", [1, "\ud800", b"k", None])
def test_a_key_that_is_no_text_costs_its_record(key):
    table, misfits = to_table([{"a": 1}, {"a": 2, key: 3}, {"a": 4}])
    assert table.to_pylist() == [{"a": 1}, {"a": 4}]
    assert misfits == {1: f"the key {key!r} is no text"}


def test_a_schema_with_one_name_twice_or_times_in_a_dictionary():
    twice = pa.schema([("a", pa.string()), ("a", pa.int8())])
    assert to_table([{"a": 1}], twice)[0].schema == pa.schema([("a", pa.int8())])
    times = pa.schema([("a", pa.dictionary(pa.int32(), pa.timestamp("us", "UTC")))])
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    assert to_table([{"a": noon}], times)[0]["a"].to_pylist() == [noon]


def test_many_rows_for_dead_letters_are_those_of_one_each():
    count = 3 * BATCH_ROWS
    far = pa.array([2**62, *([0] * (count - 1))], pa.timestamp("s"))
    table = pa.table({"n": pa.array(range(count)), "far": far, "b": [b"x"] * count})
    rows = [0, 5, BATCH_ROWS, count - 1, *range(10, 10 + BATCH_ROWS)]
    assert rows_bytes(table, rows) == [row_bytes(table, row) for row in rows]
    assert rows_bytes(table, []) == []
