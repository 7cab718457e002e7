"""Which names `rename` gives."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pydantic import ValidationError

from collectors.errors import ConfigurationError
from collectors.processing.processors.rename import Rename
from collectors.testing.processor_contract import ProcessorContract

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"], "c": [True, None, False]})


class TestRename(ProcessorContract):
    component = "rename"
    settings = {"columns": {"a": "b", "b": "a", "c": "weird name"}}

    def given(self):
        return TABLE

    def expected(self):
        return pa.table({"b": [1, 2, 3], "a": ["x", "y", "z"], "weird name": [True, None, False]})


def test_circle_of_three():
    result = Rename(columns={"a": "b", "b": "c", "c": "a"}).apply(TABLE).table
    assert result.column_names == ["b", "c", "a"]


def test_own_name_is_no_clash():
    assert Rename(columns={"a": "a"}).apply(TABLE).table.equals(TABLE)


def test_taken_name():
    with pytest.raises(ConfigurationError, match="'a' cannot be named 'b': there is such a column"):
        Rename(columns={"a": "b"}).apply(TABLE)


def test_two_to_one_name():
    with pytest.raises(ValidationError, match="both 'a' and 'b' would be named 'x'"):
        Rename(columns={"a": "x", "b": "x"})


def test_unknown_name():
    with pytest.raises(ConfigurationError, match="no column 'cc'"):
        Rename(columns={"cc": "d"}).apply(TABLE)
