"""Rows made from columns are those that pairs of names and values would give, whatever the names are, and back."""

from __future__ import annotations

import os
import struct
import sys
from unittest.mock import patch

import msgspec
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collectors import rows
from collectors.rows import batches, dicts_of, dicts_or_reasons, encodable, python_rows, take_apart, to_dicts

compiled = pytest.mark.skipif(
    os.environ.get("COLLECTORS_NATIVE") == "0" or not rows._LIBRARY.exists(),
    reason="there is no C compiler or no Python.h, or it is switched off",
)

NAMES = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["id", "class", "__init__", "__x", "_y", "a b", 'a"b', "a\\b", "é", "ﬁ", "f0", "self", "1", "\n"]
    ),
)
TABLES = st.integers(0, 5).flatmap(
    lambda count: st.lists(
        st.tuples(
            NAMES, st.lists(st.one_of(st.none(), st.integers(), st.text()), min_size=count, max_size=count)
        ),
        max_size=5,
    ).map(lambda columns: ([name for name, _ in columns], [values for _, values in columns], count))
)


class Text(str):
    __slots__ = ()


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1]),
    st.floats(),
    st.text(st.characters(), max_size=40),
    st.sampled_from(["\ud800", "a\0b", Text("own"), b"bytes", [1], {"a": 1}, (), 1j]),
)
KINDS = [
    st.none() | st.booleans(),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(),
    VALUES,
]


@st.composite
def records(draw):
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    kinds = {name: draw(st.sampled_from(KINDS)) for name in names}
    found = draw(st.lists(st.fixed_dictionaries(kinds), max_size=20))
    odd = draw(st.sampled_from([[]] * 5 + [[{}], [{"other": 1}], [{**dict.fromkeys(names), "more": 1}]]))
    return names, found + odd


def exactly(values):
    """Return values so that only equal ones of one type are equal, floats by their bits."""
    return [
        (type(value), struct.pack("<d", value) if isinstance(value, float) else value) for value in values
    ]


@compiled
def test_it_was_built():
    assert rows._functions() is not None


@given(TABLES)
def test_dicts(table):
    names, columns, count = table
    made = to_dicts(names, columns, count)
    assert made == [
        dict(zip(names, (column[row] for column in columns), strict=True)) for row in range(count)
    ]
    assert [list(row) for row in made] == [list(dict.fromkeys(names))] * count


TYPES = {
    pa.null(): st.none(),
    pa.bool_(): st.booleans(),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(),
    pa.string(): st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    pa.int8(): st.integers(-5, 5),
    pa.timestamp("us", "UTC"): st.datetimes(),
    pa.list_(pa.int64()): st.lists(st.integers(0, 3), max_size=2),
}


@st.composite
def tables(draw):
    """Return a part of a table that may be in several chunks, with names that may be there twice."""
    count = draw(st.integers(0, 20))
    columns = []
    for kind in draw(st.lists(st.sampled_from(list(TYPES)), max_size=5)):
        values = draw(st.lists(st.none() | TYPES[kind], min_size=count, max_size=count))
        cut = draw(st.sampled_from([0, 0, count // 2]))
        columns.append(pa.chunked_array([values[:cut], values[cut:]] if cut else [values], kind))
    names = draw(st.lists(NAMES, min_size=len(columns), max_size=len(columns)))
    return pa.table(columns, names=names).slice(draw(st.integers(0, 5)), draw(st.integers(0, 20)))


@compiled
@given(table=tables())
@example(table=pa.table({}))
@example(table=pa.table({"a": pa.nulls(3)}).select([]))
@example(table=pa.table({"s": pa.array(["", ""])}))
@settings(max_examples=300, deadline=None)
def test_dicts_of_a_table(table):
    made = dicts_of(table)
    with patch.object(rows, "_functions", lambda: None):
        expected = dicts_of(table)
    assert [list(row) for row in made] == [list(row) for row in expected]
    assert [exactly(row.values()) for row in made] == [exactly(row.values()) for row in expected]


@compiled
@given(given=records())
@example(given=(["a"], [{"a": None}] * 9 + [{"a": "x" * 5000}] * 9))
@example(given=(["a", "b"], [{"b": 1, "a": True}, {"a": None, "b": 2}]))
@settings(max_examples=500, deadline=None)
def test_taken_apart_are_the_values_themselves(given):
    names, found = given
    columns = take_apart(names, found)
    with patch.object(rows, "_functions", lambda: None):
        expected = take_apart(names, found)
    if expected is None or columns is None:
        assert columns is expected
        return
    for values, wanted in zip(columns, expected, strict=True):
        if isinstance(values, pa.Array):
            values.validate(full=True)
        assert exactly(values if isinstance(values, list) else values.to_pylist()) == exactly(wanted)


@compiled
def test_simple_columns_are_arrays():
    given = [
        {"b": True, "i": 1, "f": 1.5, "s": "é", "n": None},
        {"n": None, "b": None, "i": None, "f": None, "s": None},
    ]
    columns = take_apart(list("bifsn"), given)
    assert [column.type for column in columns] == [
        pa.bool_(),
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.null(),
    ]


@compiled
def test_nothing_is_kept():
    given = [{"a": object(), "b": "text that is no constant " + str(row)} for row in range(3)]
    table = pa.table({"a": [b"", b"x"], "b": [None, "text"]})
    before = [sys.getrefcount(value) for record in given for value in record.values()]
    for _ in range(100):
        take_apart(["a", "b"], given)
        take_apart(["a", "c"], given)
        dicts_of(table)
    assert [sys.getrefcount(value) for record in given for value in record.values()] == before


@given(TABLES)
def test_json(table):
    dicts = [msgspec.json.decode(msgspec.json.encode(row)) for row in to_dicts(*table)]
    made = [msgspec.json.decode(msgspec.json.encode(row)) for row in encodable(*table)]
    assert made == dicts
    assert [list(row) for row in made] == [list(row) for row in dicts]


@given(st.integers(0, 20_000))
def test_batches(count):
    covered = [row for start, size in batches(count) for row in (start, start + size)]
    assert covered == sorted(covered)
    assert covered[:1] + covered[-1:] == ([0, count] if count else [])
    assert sum(size for _, size in batches(count)) == count


NO_PYTHON = [
    (pa.array([-720000], pa.int32()).cast(pa.date32()), "-0002-09-16"),
    (pa.array([2**62], pa.timestamp("s", "UTC")), str(2**62)),
    (pa.array([2**62], pa.timestamp("s")), str(2**62)),
    (pa.array([2**62], pa.duration("s")), str(2**62)),
    (pa.array([-(2**60)], pa.date64()), str(-(2**60))),
    (pa.array([[-720000]], pa.list_(pa.int32())).cast(pa.list_(pa.date32())), "-0002-09-16"),
    (pa.array([1001], pa.timestamp("ns")), "00:00:00.000001001"),
    (pa.array([1001], pa.time64("ns")), "00:00:00.000001001"),
    (pa.array([1001], pa.duration("ns")), "1001"),
]


@pytest.mark.parametrize(("column", "text"), NO_PYTHON, ids=lambda it: str(getattr(it, "type", it)))
def test_a_value_that_python_has_no_type_for_costs_its_row_alone(column, text):
    table = pa.table({"n": [1, 2], "c": pa.concat_arrays([column, pa.nulls(1, column.type)])})
    rows, problems = dicts_or_reasons(table)
    assert rows[1] == {"n": 2, "c": None}
    assert list(problems) == [0]
    assert text in problems[0]
    shown = python_rows(table)
    assert (shown[0]["n"], shown[1]) == (1, {"n": 2, "c": None})
    assert text in shown[0]["c"]


@pytest.mark.parametrize("functions", [rows._functions, lambda: None], ids=["compiled", "python"])
@pytest.mark.parametrize("values", [[1, 2**60, 3], [1, None, 2**60]])
def test_times_in_a_dictionary_cost_their_row_alone(functions, values):
    column = pa.array(values, pa.int64()).view(pa.timestamp("us")).dictionary_encode()
    with patch.object(rows, "_functions", functions):
        found, problems = dicts_or_reasons(pa.table([[7, 8, 9], column, [0, 0, 0]], names=["n", "t", "n"]))
    (row,) = problems
    assert values[row] == 2**60
    assert "column 't': Python has no value for " in problems[row]
    assert [record["n"] for record in found] == [0, 0, 0]
