"""Rows as messages: what names with columns become, and that nothing of a row is lost on its way into a payload."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.errors import DataError
from collectors.storage.messages import MessageSettings, Template, bytes_of, headers_of, payloads, texts_of

_VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=5)
    | st.floats()
    | st.lists(st.integers(0, 9), max_size=2)
)


def as_json_has_it(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


@settings(max_examples=200, deadline=None, database=None)
@given(st.data())
def test_each_row_is_one_payload_and_comes_back(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 5))
    columns: dict[str, list[Any]] = {}
    for name in data.draw(st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3, unique=True)):
        kind = data.draw(st.sampled_from(["int", "text", "float", "flag", "list"]))
        wanted = {"int": int, "text": str, "float": float, "flag": bool, "list": list}[kind]
        fits = _VALUES.filter(lambda value, wanted=wanted: value is None or type(value) is wanted)
        columns[name] = data.draw(st.lists(fits, min_size=rows, max_size=rows))
    left_out = data.draw(st.lists(st.sampled_from(sorted(columns)), max_size=2))
    found = payloads(pa.table(columns), MessageSettings(exclude=left_out))
    assert [json.loads(each or b"") for each in found] == [
        {name: as_json_has_it(values[row]) for name, values in columns.items() if name not in left_out}
        for row in range(rows)
    ]


def test_text_of_a_column_is_what_json_has() -> None:
    table = pa.table(
        {
            "text": ["a", None],
            "coded": pa.array(["a", None]).dictionary_encode(),
            "int": [2**53 + 1, None],
            "float": [0.1, float("inf")],
            "flag": [True, False],
            "time": pa.array([datetime(2026, 1, 2, tzinfo=UTC), None]),
            "day": [date(2026, 1, 2), None],
            "took": [timedelta(seconds=90), None],
            "decimal": [Decimal("1.10"), None],
            "bytes": [b"\xff", None],
            "nested": [{"a": [1]}, None],
        }
    )
    texts = {name: texts_of(table, name)[0] for name in table.column_names}
    assert texts == {
        "text": "a",
        "coded": "a",
        "int": "9007199254740993",
        "float": "0.1",
        "flag": "true",
        "time": "2026-01-02T00:00:00Z",
        "day": "2026-01-02",
        "took": "PT90S",
        "decimal": "1.10",
        "bytes": "/w==",
        "nested": '{"a":[1]}',
    }
    assert texts_of(table, "float")[1] == "inf"
    assert texts_of(table, "no such column") == [None, None]
    assert bytes_of(table, "bytes") == [b"\xff", None]
    assert bytes_of(table, "int") == [b"9007199254740993", None]
    headers = headers_of(table, {"A": "text", "B": "flag"})
    assert headers == [[("A", "a"), ("B", "true")], [("B", "false")]]


@pytest.mark.parametrize("text", ["{", "}", "a{b", "a}b", "{}", "{{a}}", "{a}{"])
def test_templates_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected columns in braces"):
        Template.parse(text)


@settings(max_examples=100, deadline=None, database=None)
@given(
    st.lists(st.text("ab.-", max_size=3), min_size=3, max_size=3),
    st.lists(st.text("xy", max_size=2), max_size=4),
)
def test_templates_are_filled(between: list[str], values: list[str]) -> None:
    bad: dict[int, str] = {}
    template = Template.parse(f"{between[0]}{{a b}}{between[1]}{{n}}{between[2]}")
    table = pa.table({"a b": pa.array(values, pa.string()), "n": pa.array(range(len(values)), pa.int64())})
    assert template.fill(table, bad) == [
        f"{between[0]}{value}{between[1]}{n}{between[2]}" for n, value in enumerate(values)
    ]
    assert sorted(bad) == [n for n, value in enumerate(values) if not value]
    assert Template.parse("plain").fill(table, bad) == ["plain"] * len(values)


def test_a_payload_needs_its_column() -> None:
    with pytest.raises(
        DataError, match="2 rows cannot be sent; the first is row 0: value: there is no column 'v'"
    ):
        payloads(pa.table({"w": [1, 2]}), MessageSettings(value="v"))
