"""Which columns `select` keeps."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pydantic import ValidationError

from collectors.errors import ConfigurationError
from collectors.processing.processors.select import Select
from collectors.testing.processor_contract import ProcessorContract

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"], "c": [[1], [], None]})


class TestSelect(ProcessorContract):
    component = "select"
    settings = {"columns": ["c", "a"]}
    keeps_other_columns = False

    def given(self):
        return TABLE

    def expected(self):
        return pa.table({"c": [[1], [], None], "a": [1, 2, 3]})


class TestDrop(ProcessorContract):
    component = "select"
    settings = {"drop": ["b"]}

    def given(self):
        return TABLE

    def expected(self):
        return pa.table({"a": [1, 2, 3], "c": [[1], [], None]})


@pytest.mark.parametrize("settings", [{"columns": ["aa"]}, {"drop": ["aa"]}])
def test_unknown_name(settings):
    with pytest.raises(ConfigurationError, match=r"no column 'aa': .*There are: a, b, c"):
        Select(**settings).apply(TABLE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of"),
        ({"columns": ["a"], "drop": ["b"]}, "exactly one of"),
        ({"columns": []}, "at least 1"),
        ({"drop": []}, "at least 1"),
        ({"columns": ["a", "b", "a"]}, "'a' stands here twice"),
    ],
)
def test_settings(settings, message):
    with pytest.raises(ValidationError, match=message):
        Select(**settings)


def test_no_column_left():
    with pytest.raises(ConfigurationError, match="no column would be left"):
        Select(drop=["a", "b", "c"]).apply(TABLE)
