"""`schema:` of a storage: what happens when rows bring other columns, or other types, than their table has."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from _tables import asking, committing, committing_what_it_can, opened, stored, tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors.errors import DataError, FatalError

NARROW = [pa.table({"id": [1, 2], "v": [1, 2]})]
WIDER = pa.table({"id": [3, 4, 5], "v": [1.5, 2.0, None], "note": ["x", None, None]})


def history(backend):
    """Return what was written down about columns, without the first commit."""
    found = [
        drift for drift in asking(backend, backend.schema_history) if drift.table == backend.config.table
    ]
    return [(drift.column, drift.action, drift.rows) for drift in found if drift.action != "made"]


def names(rows):
    return {name for row in rows for name in row}


def test_a_table_is_made_as_its_first_rows_are_whatever_the_mode(where):
    place = where()
    backend = opened(place, schema="freeze")
    committing(backend, NARROW)
    found = [drift for drift in asking(backend, backend.schema_history) if drift.table == place["table"]]
    assert [(drift.column, drift.existing, drift.action) for drift in found] == [
        ("id", None, "made"),
        ("v", None, "made"),
    ]
    assert {drift.location for drift in found} == {"contract/source:1"}


def test_a_new_column_evolves(where):
    place = where()
    found = committing(opened(place), [*NARROW, pa.table({"id": [3, 4], "note": ["x", None]})])
    assert [(drift.column, drift.action, drift.rows) for drift in found] == [("note", "added", 1)]
    assert json.loads(found[0].samples[0]) == {"id": 3, "note": "x"}
    assert "new column 'note'" in found[0].text()
    assert names(stored(opened(place))) == {"id", "v", "note"}
    assert history(opened(place)) == [("note", "added", 1)]


def test_a_type_is_widened_and_written_down(where):
    place = where()
    if place["type"] == "sqlite":
        pytest.skip("SQLite has no types to widen: an INTEGER column takes fractions")
    committing(opened(place), [*NARROW, WIDER])
    assert history(opened(place)) == [("v", "widened", 2), ("note", "added", 1)]
    assert sorted(row["v"] for row in stored(opened(place)) if row["v"] is not None) == [1.0, 1.5, 2.0, 2.0]


def test_a_frozen_table_stops_at_the_first_value_that_does_not_fit(where):
    place = where()
    frozen = opened(place, schema="freeze")
    committing(frozen, NARROW)
    with pytest.raises(FatalError) as raised:
        committing(frozen, [WIDER.select(["id", "note"])], first_seq=2)
    for part in ("'note'", place["table"], '"x"', "(contract/source:2)", "discard-column"):
        assert part in str(raised.value)
    with pytest.raises(FatalError, match="'v'"):
        committing(frozen, [WIDER.select(["id", "v"])], first_seq=2)
    committing(frozen, [WIDER.slice(1, 1).select(["id", "v"]), WIDER.slice(2, 1)], first_seq=2)
    assert sorted(row["id"] for row in stored(opened(place))) == [1, 2, 4, 5]
    assert names(stored(opened(place))) == {"id", "v"}
    assert history(frozen) == []


def test_values_that_do_not_fit_are_left_out_and_told(where):
    place = where()
    backend = opened(place, schema="discard-column")
    found = committing(backend, [*NARROW, WIDER])
    assert {(drift.column, drift.action, drift.rows) for drift in found} == {
        ("v", "left out", 1),
        ("note", "left out", 1),
    }
    rows = sorted(stored(opened(place)), key=lambda row: row["id"])
    assert rows == [{"id": n, "v": v} for n, v in [(1, 1), (2, 2), (3, None), (4, 2), (5, None)]]
    committing(backend, [WIDER], first_seq=3)
    assert len(history(backend)) == 2  # once for each kind of them


def test_rows_that_do_not_fit_are_set_aside(where):
    backend = opened(where(), schema="set-aside")
    committing(backend, NARROW)
    with pytest.raises(DataError) as raised:
        committing(backend, [pa.concat_tables([WIDER.slice(1), WIDER.slice(0, 1)])], first_seq=2)
    assert set(raised.value.rows) == {2}
    assert "schema: set-aside" in raised.value.rows[2]
    assert [drift.action for drift in backend.drifts["contract/source"]] == ["set aside", "set aside"]


def test_a_text_never_becomes_a_number(where):
    place = where()
    committing(opened(place), NARROW)
    committing(opened(place, schema="discard-column"), [pa.table({"id": [3], "v": ["7"]})], first_seq=2)
    assert {"id": 3, "v": None} in stored(opened(place))


def test_each_column_has_its_own_mode(where):
    place = where()
    rules = {"note": "discard-column", "more": "evolve", "*": "freeze"}
    committing(opened(place), NARROW)
    backend = opened(place, schema=rules)
    committing(backend, [pa.table({"id": [3], "note": ["x"], "more": [1]})], first_seq=2)
    assert names(stored(opened(place))) == {"id", "v", "more"}
    with pytest.raises(FatalError, match="'other'"):
        committing(backend, [pa.table({"id": [3], "other": ["x"]})], first_seq=3)


def test_a_key_is_never_left_out(where):
    backend = opened(where(), schema="discard-column", write="upsert", key=["id"])
    committing(backend, NARROW)
    with pytest.raises(FatalError, match="column 'id'"):
        committing(backend, [pa.table({"id": ["x"], "v": [1]})], first_seq=2)


def test_check_says_what_each_mode_would_do(where):
    place = where()
    committing(opened(place), NARROW)

    def lines(mode):
        backend = opened(place, schema=mode)
        return [line for line in backend.preview(WIDER, "contract/source") if "note" in line or " v" in line]

    assert [line[0] for line in lines("discard-column")] == (
        ["=", "~"] if place["type"] == "sqlite" else ["~", "~"]
    )
    assert "stops" in lines("freeze")[0] or place["type"] == "sqlite"
    assert lines("freeze")[-1].startswith("! note")
    assert "set aside" in lines("set-aside")[-1]
    assert lines("evolve")[-1].startswith("+ note")


def test_a_mode_that_there_is_not(where):
    with pytest.raises(ValidationError, match="freeze"):
        opened(where(), schema="thaw")


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    mode=st.sampled_from(["evolve", "freeze", "discard-column", "set-aside"]),
    brought=st.lists(tables(), min_size=1, max_size=4),
)
def test_every_value_is_stored_or_accounted_for(where, mode, brought):
    """Over any history of columns: no value is changed, and none is missing that nobody was told of."""
    place = where()
    backend = opened(place, schema=mode)
    expected, first, left_out = {}, None, 0
    for seq, table in enumerate(brought, 1):
        rows = table.set_column(0, "n", pa.array(range(seq * 10, seq * 10 + table.num_rows), pa.int64()))
        try:
            found, kept = committing_what_it_can(backend, rows, seq)
        except FatalError:
            assert mode in {"evolve", "freeze"}
            break
        first = first or set(table.column_names)
        left_out += sum(drift.rows for drift in found if drift.action == "left out")
        expected |= {row["n"]: row for row in kept.to_pylist()}
    rows = {row["n"]: row for row in stored(opened(place))}
    assert set(rows) == set(expected)
    missing = 0
    for n, row in expected.items():
        for name, value in row.items():
            if value is not None and rows[n].get(name) is None:
                missing += 1
            elif value is not None:
                assert rows[n][name] == value
    assert missing == left_out
    assert mode == "discard-column" or not missing
    if mode != "evolve":
        assert names(rows.values()) <= (first or set())
