"""`schema:` of storages that are folders of files."""

from __future__ import annotations

import json
import uuid

import pyarrow as pa
import pytest
from _tables import asking, committing, committing_what_it_can, opened, stored, tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from collectors.errors import DataError, FatalError, FencedError
from collectors.storage.backends._object_store_log import object_logs
from collectors.storage.backends._parquet_log import flow_logs
from collectors.testing.deliveries import delivery

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


def delivery_of(backend, table, seq, flow="contract/source"):
    """Return a delivery of a flow that is claimed for it."""
    epoch = backend.claim(flow).epoch
    return replace(delivery(seq, seq, epoch, letters=0, flow=flow), table=table)


def logs(place):
    backend = opened(place)
    backend.open()
    return list(flow_logs(backend._root) if place["type"] == "parquet" else object_logs(backend._objects))


MADE = [("id", "made", 0), ("v", "made", 0)]


def test_what_evolves_is_told_and_in_the_log(where):
    place = where()
    found = committing(opened(place), [*FIRST, LATER])
    assert [(drift.column, drift.action) for drift in found] == [("v", "widened"), ("note", "added")]
    assert json.loads(found[1].samples[0]) == {"id": 3, "v": 1.5, "note": "x"}
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


def test_rows_that_were_not_stored_leave_nothing_known(where):
    """Another owner has published meanwhile; the rows are read and taken again, and told again."""
    place = where()
    committing(opened(place), FIRST)
    backend, other = opened(place), opened(place)

    def losing():
        backend.commit(delivery_of(backend, LATER, 2))
        other.open()
        other.claim("contract/source")
        with pytest.raises(FencedError):
            backend.flush()
        backend.commit(delivery_of(backend, LATER, 2))
        backend.flush()

    asking(backend, losing)
    other.close()
    assert history(place) == [*MADE, ("v", "widened", 2), ("note", "added", 1)]


def test_rows_that_files_cannot_have_leave_nothing_known(where):
    place = where()
    backend = opened(place, partition_by=["day"])

    def following():
        with pytest.raises(FatalError):
            backend.commit(delivery_of(backend, pa.table({"id": [1], "day": [1.5], "note": ["x"]}), 1))
        backend.commit(delivery_of(backend, pa.table({"id": [1], "day": ["x"]}), 1))
        backend.flush()

    asking(backend, following)
    assert history(place) == [("id", "made", 0), ("day", "made", 0)]


def test_what_two_flows_bring_at_once_is_in_the_log_whichever_is_stored(where):
    place = where()
    committing(opened(place), FIRST)
    backend = opened(place)

    def together():
        one, two = (delivery_of(backend, LATER, 1, flow=f"p/{name}") for name in ("one", "two"))
        backend.commit(one)
        backend.commit(two)
        assert [drift.action for drift in backend.drifts["p/two"]] == ["widened", "added"]
        backend._flows["p/one"].discard()
        backend.flush()

    asking(backend, together)
    assert history(place) == [*MADE, ("v", "widened", 2), ("note", "added", 1)]


def test_a_folder_is_made_as_the_first_rows_of_all_flows_are(where):
    place = where()
    backend = opened(place, schema="freeze")

    def together():
        backend.commit(delivery_of(backend, *FIRST, 1, flow="p/one"))
        backend.commit(delivery_of(backend, pa.table({"v": [7]}), 1, flow="p/two"))
        with pytest.raises(FatalError, match="'note'"):
            backend.commit(delivery_of(backend, pa.table({"note": ["x"]}), 1, flow="p/three"))
        backend.flush()

    asking(backend, together)
    assert set(history(place)) == set(MADE)  # objects are put at once: both may say so


def test_a_thousand_columns_are_written_down_once(where):
    place = where()
    wide = pa.table({f"c{number}": [number] for number in range(1000)})
    committing(opened(place, max_rows=1), [wide, wide, wide.append_column("more", pa.array([1]))])
    committing(opened(place, max_rows=1), [wide, wide], first_seq=4)
    entries = [entry for log in logs(place) for entry in log.entries()]
    commits = [entry for entry in entries if entry.kind == "commit"]
    assert [isinstance(entry.columns, bytes) for entry in commits] == [True, False, True, False, False]
    assert commits[-1].columns == commits[2].number
    with pytest.raises(FatalError, match="'note'"):
        committing(opened(place, schema="freeze"), [LATER.select(["note"])], first_seq=6)
    committing(opened(place, schema="freeze"), [pa.table({"more": [7]})], first_seq=6)


def test_types_that_alternate_are_written_down_once_and_told_of_one_commit_only(where):
    place = where()
    backend = opened(place)
    tables = [pa.table({"v": [1]}), pa.table({"v": ["x"]})] * 5
    assert len(committing(backend, tables)) == 1
    assert history(place) == [("v", "made", 0), ("v", "changed", 1), ("v", "changed", 1)]


def test_the_history_outlives_rows_that_are_deleted(where):
    place = where()
    committing(opened(place), FIRST)
    asking(backend := opened(place), backend.remove, "contract/source:1")
    assert history(place) == MADE
