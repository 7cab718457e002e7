"""Nested rows cut into tables, against what goes through them record by record."""

from __future__ import annotations

import pyarrow as pa
import pytest
from _nested import Oracle, nested_tables
from hypothesis import example, given, settings

from collectors.storage.nesting import MOST_LEVELS, split


@given(nested_tables())
@example(pa.table({"a": [[[1, None], [], None], None, []]}))
@example(pa.table({"a": [{"b": [{"c": 1}, None]}, None, {"b": None}], "a__b": [None, "x", None]}))
@example(pa.table({"b": [[{"c": [1]}], [{"c": []}], []], "b__c": [[2], [3], []]}))
@settings(max_examples=120, deadline=None)
def test_rows_of_all_tables(table):
    oracle, cut = Oracle(table), split(table, "t")
    assert set(cut.refused) == oracle.refused
    found = {part.name: (number, part) for number, part in enumerate(cut.parts) if len(part.records)}
    assert set(found) == {name for name, rows in oracle.rows.items() if rows}
    for name, (number, part) in found.items():
        expected = oracle.rows[name]
        assert part.records.to_pylist() == [record for record, *_ in expected]
        if part.above is not None:
            links = list(zip(part.parents.to_pylist(), part.places.to_pylist(), strict=True))
            assert links == [link for _, link, *_ in expected]
            assert cut.parts[part.above].name == name[: -len(f"__{part.column}")]
            paths = [cut.where(number, row) for row in range(len(expected))]
            assert paths == [path for _, _, path, _ in expected]
        columns = [row for *_, row in expected]
        if any(columns):
            assert part.table.to_pylist() == columns
        else:
            assert part.table.to_pylist() == [{"value": None}] * len(expected)


def test_paths():
    table = pa.table({"a": [None, {"b": [{"c": [[1], [2, 3]]}]}]})
    cut = split(table, "t")
    assert [part.name for part in cut.parts] == ["t", "t__a__b", "t__a__b__c", "t__a__b__c__value"]
    assert cut.where(3, 2) == "a.b[0].c[1][1]"
    assert cut.where(0, 1) == ""


def test_what_a_null_list_hides_is_not_there():
    inner = pa.array([[1, 2], [3], [4, 5]])
    hidden = pa.StructArray.from_arrays([inner], ["l"], mask=pa.array([True, False, False]))
    part = split(pa.table({"a": hidden}), "t").parts[1]
    assert part.table.to_pylist() == [{"value": 3}, {"value": 4}, {"value": 5}]
    assert part.parents.to_pylist() == [1, 2, 2]


def test_slices_and_chunks():
    table = pa.table({"a": [[1, 2], [3], None, [4, 5]]}).slice(1)
    part = split(pa.concat_tables([table, table.slice(2)]), "t").parts[1]
    assert part.table.to_pylist() == [{"value": value} for value in (3, 4, 5, 4, 5)]
    assert part.parents.to_pylist() == [0, 2, 2, 3, 3]
    assert part.places.to_pylist() == [0, 0, 1, 0, 1]


def test_a_field_that_another_has_the_name_of():
    table = pa.table({"a": [{"b": 1}, {"b": None}, None], "a__b": [None, 2, 3]})
    cut = split(table, "t")
    assert cut.refused == {
        0: "the field 'a.b' would be the column 'a__b', as another field is; rename it in a processor, or leave it out"
    }
    assert cut.parts[0].table.to_pylist() == [{"a__b": None}, {"a__b": 2}, {"a__b": 3}]


@pytest.mark.parametrize("levels", [MOST_LEVELS, MOST_LEVELS + 2])
def test_lists_that_are_deeper(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    parts = split(pa.table({"a": [value]}), "t").parts
    assert len(parts) == MOST_LEVELS + 1
    rest = levels - MOST_LEVELS
    assert parts[-1].table.column("value")[0].as_py() == ([[1]] if rest else 1)


def test_dictionaries_and_columns_of_another_encoding():
    table = pa.table({"a": pa.array(["x", "y", "x"]).dictionary_encode(), "b": [[1], [], None]})
    assert split(table, "t").parts[0].table.to_pylist() == [{"a": "x"}, {"a": "y"}, {"a": "x"}]
