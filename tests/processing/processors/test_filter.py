"""Which rows `filter` keeps."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pydantic import ValidationError

from collectors.errors import ConfigurationError
from collectors.processing.processors.filter import Filter
from collectors.testing.processor_contract import ProcessorContract

TABLE = pa.table(
    {
        "status": ["ok", "fail", None, "ok", "ok"],
        "temperature": [20.5, 21.0, 22.0, None, 99.0],
        "n": pa.array([1, 2, 3, 4, 5], pa.int32()),
    }
)


class TestFilter(ProcessorContract):
    component = "filter"
    settings = {"where": "status <> 'fail' and temperature between -50 and 60"}
    one_to_one = False

    def given(self):
        return TABLE

    def expected(self):
        return TABLE.slice(0, 1)


class TestFailingFilter(TestFilter):
    """A condition that cannot be computed for some rows."""

    settings = {"where": "cast(status as int) > 1"}
    poison = {"status": "many", "temperature": 1.0, "n": 9}

    def given(self):
        return TABLE.set_column(0, "status", pa.array(["1", "2", None, "3", "0"]))

    def expected(self):
        return self.given().take([1, 3])


def test_null_is_not_true():
    assert Filter(where="null").apply(TABLE).table.num_rows == 0
    assert Filter(where="n = null or n = 1").apply(TABLE).table["n"].to_pylist() == [1]


def test_refuses_what_is_no_condition():
    with pytest.raises(ConfigurationError, match=r"where: expected a condition.*got int: compare it"):
        Filter(where="n").apply(TABLE)


def test_syntax_error_has_a_place():
    with pytest.raises(ValidationError) as caught:
        Filter(where="status = 'ok' and\n  n <>")
    (error,) = caught.value.errors()
    assert error["type"] == "sql"
    assert (error["ctx"]["line"], error["ctx"]["column"]) == (2, 5)
    assert error["loc"] == ("where",)


def test_missing_column_names_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'status'"):
        Filter(where="stauts = 'ok'").apply(TABLE)


def test_all_rows_of_a_column_may_be_null():
    table = pa.table({"x": pa.nulls(3), "n": [1, 2, 3]})
    assert Filter(where="x > 5 or n = 2").apply(table).table["n"].to_pylist() == [2]
