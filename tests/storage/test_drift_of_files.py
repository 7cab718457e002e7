"""`schema:` of storages that are folders of files."""

from __future__ import annotations

import json
import uuid

import pyarrow as pa
import pytest
from _tables import asking, committing, committing_what_it_can, opened, stored, tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.errors import DataError, FatalError

FIRST = [pa.table({"id": [1, 2], "v": [1, 2]})]
LATER = pa.table({"id": [3, 4, 5], "v": [1.5, 2.0, None], "note": ["x", None, None]})


@pytest.fixture(params=["parquet", "object_store"])
def where(request, tmp_path):
    def place():
        folder = tmp_path / uuid.uuid4().hex[:12]
        if request.param == "parquet":
            return {"type": "parquet", "path": str(folder)}
        return {"type": "object_store", "url": folder.as_uri()}

    return place


def history(place):
    backend = opened(place)
    return [(drift.column, drift.action, drift.rows) for drift in asking(backend, backend.schema_history)]


def kept(place):
    rows = sorted(stored(opened(place)), key=lambda row: row["id"])
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


MADE = [("id", "made", 0), ("v", "made", 0)]


def test_what_evolves_is_told_and_in_the_log(where):
    place = where()
    found = committing(opened(place), [*FIRST, LATER])
    assert [(drift.column, drift.action) for drift in found[2:]] == [("v", "widened"), ("note", "added")]
    assert json.loads(found[3].samples[0]) == {"id": 3, "v": 1.5, "note": "x"}
    assert history(place) == [*MADE, ("v", "widened", 2), ("note", "added", 1)]
    committing(opened(place), [LATER], first_seq=3)
    assert len(history(place)) == 4


def test_another_type_is_told_and_files_have_both(where):
    place = where()
    committing(opened(place), [*FIRST, pa.table({"id": [3], "v": ["x"]})])
    assert history(place)[2:] == [("v", "changed", 1)]


def test_a_narrower_type_is_nothing_new(where):
    place = where()
    committing(opened(place), [LATER, *FIRST])
    assert [action for _, action, _ in history(place)] == ["made"] * 3


@pytest.mark.parametrize("mode", ["freeze", "discard-column", "set-aside"])
def test_a_later_process_knows_the_columns(where, mode):
    place = where()
    committing(opened(place), FIRST)
    backend = opened(place, schema=mode)
    if mode == "freeze":
        with pytest.raises(FatalError, match=r"'v'.*1\.5.*contract/source:2"):
            committing(backend, [LATER], first_seq=2)
        assert kept(place) == [{"id": 1, "v": 1}, {"id": 2, "v": 2}]
    elif mode == "set-aside":
        with pytest.raises(DataError) as raised:
            committing(backend, [LATER], first_seq=2)
        assert set(raised.value.rows) == {0}
    else:
        committing(backend, [LATER, LATER], first_seq=2)
        assert kept(place)[2:4] == [{"id": 3}, {"id": 3}]
        assert history(place)[2:] == [("v", "left out", 1), ("note", "left out", 1)]


def test_commits_without_rows_forget_nothing(where):
    place = where()
    committing(opened(place), FIRST)
    committing(opened(place), [pa.table({})], first_seq=2)
    with pytest.raises(FatalError, match="'note'"):
        committing(opened(place, schema="freeze"), [LATER.select(["id", "note"])], first_seq=3)


def test_check_says_what_each_mode_would_do(where):
    place = where()
    committing(opened(place), FIRST)

    def lines(mode):
        return [line[:6] for line in opened(place, schema=mode).preview(LATER, "contract/source")]

    assert lines("evolve") == ["= id i", "~ v: f", "+ note"]
    assert lines("freeze") == ["= id i", "! v: t", "! note"]
    assert lines("discard-column") == lines("set-aside") == ["= id i", "~ v: t", "~ note"]


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    mode=st.sampled_from(["freeze", "discard-column", "set-aside"]),
    brought=st.lists(tables(), min_size=1, max_size=3),
)
def test_every_value_is_stored_or_accounted_for(where, mode, brought):
    place = where()
    expected, left_out = {}, 0
    for seq, table in enumerate(brought, 1):
        rows = table.set_column(0, "id", pa.array(range(seq * 10, seq * 10 + table.num_rows), pa.int64()))
        try:
            found, taken = committing_what_it_can(opened(place, schema=mode), rows, seq)
        except FatalError:
            assert mode == "freeze"
            break
        left_out += sum(drift.rows for drift in found if drift.action == "left out")
        expected |= {row["id"]: row for row in taken.to_pylist()}
    rows = {row["id"]: row for row in kept(place)}
    assert set(rows) == set(expected)
    missing = sum(
        value is not None and name not in rows[n]
        for n, row in expected.items()
        for name, value in row.items()
    )
    assert missing == left_out
    for n, row in rows.items():
        for name, value in row.items():
            assert expected[n][name] == value
            assert isinstance(value, str) == isinstance(expected[n][name], str)
