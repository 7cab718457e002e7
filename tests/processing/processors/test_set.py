"""What `set` adds and replaces."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pydantic import ValidationError

from collectors.errors import ConfigurationError
from collectors.processing.processors.set import Set
from collectors.testing.processor_contract import ProcessorContract

TABLE = pa.table({"a": [1, 2, None, 4], "b": ["x", "y", "z", None]})


class TestSet(ProcessorContract):
    component = "set"
    settings = {"columns": {"half": "a / 2", "a": "a + 1", "key": "b || '-' || a"}}
    poison = {"a": 2**63 - 1, "b": "x"}

    def given(self):
        return TABLE

    def expected(self):
        return pa.table(
            {
                "a": [2, 3, None, 5],
                "b": ["x", "y", "z", None],
                "half": [0.5, 1.0, None, 2.0],
                "key": ["x-1", "y-2", None, None],
            }
        )


def test_expressions_see_the_row_as_it_came():
    result = Set(columns={"a": "b", "b": "a"}).apply(TABLE).table
    assert result.to_pydict() == {"a": ["x", "y", "z", None], "b": [1, 2, None, 4]}


def test_reason_names_column_and_value():
    outcome = Set(columns={"n": "cast(b as int)", "m": "cast(b as float)"}).apply(TABLE)
    assert [item.reason for item in outcome.rejected] == [
        "column 'n': 'x' is not an int",
        "column 'n': 'y' is not an int",
        "column 'n': 'z' is not an int",
    ]
    assert outcome.table.to_pylist() == [{"a": 4, "b": None, "n": None, "m": None}]


def test_rows_fail_for_whichever_column():
    outcome = Set(
        columns={"n": "case when a = 1 then b::int end", "m": "case when a = 2 then b::int end"}
    ).apply(TABLE)
    assert [(item.record, item.reason) for item in outcome.rejected] == [
        (0, "column 'n': 'x' is not an int"),
        (1, "column 'm': 'y' is not an int"),
    ]
    assert outcome.table["a"].to_pylist() == [None, 4]


def test_plain_values_of_yaml():
    result = (
        Set(columns={"i": 5, "f": 1.5, "t": True, "s": "'text'", "n": "null"}).apply(TABLE.slice(0, 1)).table
    )
    assert result.to_pylist() == [{"a": 1, "b": "x", "i": 5, "f": 1.5, "t": True, "s": "text", "n": None}]


def test_error_names_the_column():
    with pytest.raises(ConfigurationError, match=r"^columns\.site: no column 'berlin' \(line 1, column 1\)"):
        Set(columns={"site": "berlin"}).apply(TABLE)
    with pytest.raises(ValidationError) as caught:
        Set(columns={"fine": "a", "wrong": "a +"})
    assert [error["loc"] for error in caught.value.errors()] == [("columns", "wrong")]


def test_needs_a_column():
    with pytest.raises(ValidationError, match="columns"):
        Set(columns={})


def test_name_of_two_columns_is_refused():
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(ConfigurationError, match="several columns"):
        Set(columns={"a": "1"}).apply(table)
    with pytest.raises(ConfigurationError, match="2 columns named 'a'"):
        Set(columns={"b": "a"}).apply(table)
