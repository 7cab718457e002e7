"""`schema:` of a storage: what happens when rows bring other columns, or other types, than their table has."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import duckdb
import psycopg
import pyarrow as pa
import pytest
from _tables import asking, committing, committing_what_it_can, opened, stored, tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import ValidationError

from collectors.chunks import Drift, drift_lines
from collectors.config.load import load
from collectors.errors import ConfigurationError, DataError, FatalError, TransientError
from collectors.runtime.ledger import EdgeReport, FlowReport
from collectors.storage.drift import Columns, Difference, DriftConfig, read_drift
from collectors.testing.deliveries import delivery

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

    assert [line[0] for line in lines("discard-column")] == ["~", "~"]
    assert lines("freeze")[0].startswith("! v: table has ")
    assert "stops at the first value that does not fit" in lines("freeze")[0]
    assert lines("freeze")[-1].startswith("! note")
    assert "set aside" in lines("set-aside")[-1]
    assert lines("evolve")[-1].startswith("+ note")


def test_kinds_of_values_that_are_left_out_are_written_down_up_to_a_thousand(tmp_path):
    backend = opened(
        {"type": "sqlite", "path": str(tmp_path / "rows.db")}, table="t", schema="discard-column"
    )
    committing(backend, NARROW)
    wide = pa.table({"id": [3], **{f"x{number}": ["x" * 9] for number in range(1010)}})
    began = time.process_time()
    found = committing(backend, [wide, wide], first_seq=2)
    assert time.process_time() - began < 20  # a row that many columns show is written once
    assert len(found) == 1010
    assert len(history(backend)) == 1000


@pytest.mark.parametrize("mode", ["discard-column", "freeze", "set-aside"])
def test_numbers_for_which_a_chosen_type_is_too_narrow(postgres_server, mode):
    place = {"type": "postgres", "dsn": postgres_server.dsn, "table": f"rows-{uuid.uuid4().hex[:12]}"}
    with psycopg.connect(postgres_server.dsn) as connection:
        columns = "id bigint, s smallint, i integer, r real, n numeric(6,2), w numeric"
        connection.execute(f'create table "{place["table"]}" ({columns})'.encode())
    fits = {"s": 7, "i": 2**31 - 1, "r": 0.5, "n": Decimal("9999.99"), "w": Decimal("1e10")}
    beyond = {"s": 2**15, "i": 2**31, "r": 0.1, "n": Decimal("10000.00"), "w": Decimal("1e20")}
    table = pa.Table.from_pylist([{"id": 1, **fits}, {"id": 2, **beyond}])
    backend = opened(place, schema=mode)
    if mode == "freeze":
        with pytest.raises(FatalError, match="column 's': rows bring bigint, and the table has smallint"):
            committing(backend, [table])
    elif mode == "set-aside":
        with pytest.raises(DataError) as raised:
            committing(backend, [table])
        assert set(raised.value.rows) == {1}
    else:
        assert {drift.column: drift.rows for drift in committing(backend, [table])} == dict.fromkeys(
            "sirn", 1
        )
        one, two = sorted(stored(opened(place)), key=lambda row: row["id"])
        assert one == {"id": 1, **fits}
        assert two == {"id": 2, **dict.fromkeys("sirn"), "w": Decimal("1e20")}


def test_a_history_from_before_it_was_kept(where):
    place = where()
    backend = opened(place)
    committing(backend, NARROW)
    if place["type"] == "postgres":
        with psycopg.connect(place["dsn"]) as connection:
            connection.execute("drop table _collectors_schema")
    elif place["type"] == "duckdb":
        backend = opened(place, path=place["path"] + ".old")
        committing(backend, NARROW)
        with duckdb.connect(backend.config.path) as connection:
            connection.execute("drop table _collectors_schema")
    else:
        with sqlite3.connect(place["path"]) as connection:
            connection.execute("drop table _collectors_schema")
        connection.close()
    assert history(backend) == []
    assert asking(backend, backend.stored, "contract/source").seq == 1
    committing(backend, [WIDER.select(["id", "note"])], first_seq=2)
    assert history(backend) == [("note", "added", 1)]


def test_times_are_told_in_utc(where, monkeypatch):
    place = where()
    committing(opened(place), NARROW)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        backend = opened(place)
        found = [each for each in asking(backend, backend.schema_history) if each.table == place["table"]]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert {drift.at.utcoffset() for drift in found} == {timedelta(0)}


def test_what_one_flow_brings_is_not_told_of_another(tmp_path):
    """SQLite stores rows of several flows at once."""
    backend = opened(
        {"type": "sqlite", "path": str(tmp_path / "rows.db")}, table="t", schema="discard-column"
    )
    committing(backend, NARROW)

    def together(seq):
        tables = {
            "p/one": pa.table({"id": [1, 2], "note": [None, "x"]}),
            "p/two": pa.table({"id": [3, 4, 5], "note": ["y", "z", None]}),
            "p/three": pa.table({"id": [6], "note": pa.nulls(1, pa.string())}),
        }
        made = []
        for flow, table in tables.items():
            epoch = backend.claim(flow).epoch
            made.append(replace(delivery(seq, seq, epoch, letters=0, flow=flow), table=table))
        backend.commit_together(made)

    asking(backend, together, 1)
    found = {
        flow: [(drift.action, drift.rows, drift.location, drift.samples[0]) for drift in drifts]
        for flow, drifts in backend.drifts.items()
        if flow.startswith("p/")
    }
    assert found == {
        "p/one": [("left out", 1, "p/one:1", '{"id":2}')],
        "p/two": [("left out", 2, "p/two:1", '{"id":3}')],
        "p/three": [],
    }
    assert history(backend) == [("note", "left out", 1)]


def test_a_rehearsal_leaves_nothing_to_tell(tmp_path):
    backend = opened({"type": "duckdb", "path": str(tmp_path / "rows.db")}, table="t")
    committing(backend, NARROW)

    def rehearse():
        epoch = backend.claim("contract/source").epoch
        backend.drifts.clear()
        backend.rehearse(replace(delivery(2, 2, epoch, letters=0), table=pa.table({"note": ["x"]})))

    asking(backend, rehearse)
    assert backend.drifts == {}
    assert history(backend) == []


def test_a_mode_that_there_is_not(where):
    with pytest.raises(ValidationError, match="freeze"):
        opened(where(), schema="thaw")


def test_a_mode_that_there_is_not_is_pointed_at(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(
        "sources: [{type: file, path: a.ndjson}]\nstorage:\n  - type: sqlite\n    path: rows.db\n    schema:\n"
        "      note: freeze\n      other: thaw\n"
    )
    with pytest.raises(ConfigurationError) as raised:
        load(file)
    (line,) = str(raised.value).splitlines()
    assert "p.yaml:7:14" in line
    assert "storage[0].schema.other" in line
    assert "'freeze'" in line


def test_a_report_stays_small_whatever_the_columns_are_called():
    edge = EdgeReport("sqlite", "rows.db")
    told = [
        edge.note_drift(Drift("t", f"x{number}", None, "TEXT", "left out", 2, [], "p/s:1", datetime.now(UTC)))
        for number in range(1500)
    ]
    assert told.count(True) == 1001
    assert len(edge.drifts) == 1001
    assert edge.remarks()[-1].startswith("storage sqlite: values of more columns were left out of 1,000 rows")
    (shown,) = FlowReport("s", edges=[edge]).as_dict()["storage"]
    assert shown["left_out"][0] == {"table": "t", "column": "x0", "type": "TEXT", "rows": 2}


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


def test_what_is_left_out_is_not_in_a_sample(where):
    place = where()
    rules = {"secret": "discard-column"}
    table = pa.table({"id": [3], "secret": ["hunter2"], "note": ["x"]})
    found = committing(opened(place, schema=rules), [*NARROW, table])
    assert {drift.column: [json.loads(row) for row in drift.samples] for drift in found} == {
        "secret": [{"id": 3, "note": "x"}],
        "note": [{"id": 3, "note": "x"}],
    }


@pytest.mark.parametrize(("more", "most"), [({}, 12), ({"write": "upsert", "key": ["id"]}, 12)])
def test_a_commit_without_news_asks_sqlite_for_the_columns_once(tmp_path, more, most):
    backend = opened({"type": "sqlite", "path": str(tmp_path / "rows.db")}, table="t", **more)
    committing(backend, NARROW)
    said = []

    def watched():
        epoch = backend.claim("contract/source").epoch
        backend._database.set_trace_callback(said.append)
        backend.commit(replace(delivery(2, 2, epoch, letters=0), table=NARROW[0].slice(0, 1)))

    asking(backend, watched)
    assert len(said) <= most, said
    assert not [each for each in said if each.startswith(("create", "alter"))]


def test_two_who_change_one_table_at_the_same_moment(where):
    """Each brings columns of its own, one of both, and a wider type, and tries again as the runtime does."""
    place, together = where(), threading.Barrier(2)
    rounds = 4

    def writing(name, first):
        backend = opened(place)
        backend.open()
        try:
            epoch = trying(lambda: backend.claim(f"p/{name}")).epoch
            for number in range(rounds):
                own = pa.array([number])
                wide = pa.array([number if number < 2 else number + 0.5])
                columns = {"id": pa.array([first + number]), f"{name}{number}": own, f"both{number}": own}
                if place["type"] != "sqlite":
                    columns["wide"] = wide
                made = delivery(number + 1, number + 1, epoch, letters=0, flow=f"p/{name}")
                together.wait(20)
                trying(
                    lambda made=made, columns=columns: backend.commit(replace(made, table=pa.table(columns)))
                )
        finally:
            backend.close()

    def trying(doing):
        for _ in range(20):
            try:
                return doing()
            except TransientError:
                continue
        raise AssertionError("it never worked")

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(writing, "a", 0), threads.submit(writing, "b", 100)]:
            done.result(50)
    rows = sorted(stored(opened(place)), key=lambda row: row["id"])
    assert [row["id"] for row in rows] == [first + n for first in (0, 100) for n in range(rounds)]
    for row in rows:
        name, number = "ab"[row["id"] >= 100], row["id"] % 100
        assert row[f"{name}{number}"] == row[f"both{number}"] == number
    backend = opened(place)
    found = [each for each in asking(backend, backend.schema_history) if each.table == place["table"]]
    known = [(drift.column, drift.action) for drift in found if drift.action in {"made", "added"}]
    assert len({column for column, _ in known}) == len(known)
    assert {column for column, _ in known} == names(rows)
    assert [drift.column for drift in found if drift.action == "widened"] == (
        [] if place["type"] == "sqlite" else ["wide"]
    )


def settling(rows, differences, mode="evolve", parts=()):
    """Settle rows of two locations; returns what became of them, and what was found."""
    told = Columns("t", lambda _: mode, "p/one:1", found := [], parts)
    return told.settle(rows, differences), found


def test_samples_are_three_and_short():
    rows = pa.table({"new": ["x" * 900, *"abcd"]})
    _, (drift,) = settling(rows, {"new": Difference(None, "TEXT")})
    assert (drift.rows, len(drift.samples), drift.samples[1]) == (5, 3, '{"new":"a"}')
    assert len(drift.samples[0]) == 501


def test_what_is_widened_is_told_once_with_the_type_that_it_gets():
    parts = [("p/one:1", 1), ("p/two:1", 2)]
    rows = pa.table({"v": [1, 2, 3]})
    _, (drift,) = settling(rows, {"v": Difference("TINYINT", "BIGINT", "HUGEINT")}, parts=parts)
    assert (drift.existing, drift.brought, drift.rows, drift.location) == ("TINYINT", "HUGEINT", 3, "p/one:1")
    settled, found = settling(rows, {"v": Difference(None, "INTEGER")}, "discard-column", parts)
    assert [(each.location, each.rows) for each in found] == [("p/one:1", 1), ("p/two:1", 2)]
    assert settled.num_columns == 0


def test_a_row_is_set_aside_for_the_first_column_that_does_not_fit():
    rows = pa.table({"a": [None, 1], "b": [2, 3]})
    with pytest.raises(DataError, match="2 rows .*; the first is row 0: column 'b'") as raised:
        settling(rows, {name: Difference(None, "INTEGER") for name in "ab"}, "set-aside")
    assert {row: reason[:10] for row, reason in raised.value.rows.items()} == {
        0: "column 'b'",
        1: "column 'a'",
    }


def test_times_that_are_read_are_in_utc():
    values = ("t", "c", None, "TEXT", "made", 0, "[]", "p/s:1", "2026-01-01T09:00:00+09:00")
    assert read_drift(values).at.isoformat() == "2026-01-01T00:00:00+00:00"


def test_what_becomes_wider_is_said_before():
    config = DriftConfig()
    assert config.preview_other("v", "INT", "REAL", "REAL") == "~ v: table has INT, becomes REAL"
    assert config.preview_other("v", "INT", "TEXT", None) == "! v: table has INT, rows bring TEXT"


def test_a_column_that_the_table_has_stays_when_none_of_its_values_fit():
    settled, (drift,) = settling(
        pa.table({"v": ["x", None]}), {"v": Difference("INT", "TEXT")}, "discard-column"
    )
    assert settled.to_pydict() == {"v": [None, None]}
    assert (drift.action, drift.rows) == ("left out", 1)


def test_columns_that_come_together_are_one_line():
    """Each column has a line of its own for machines; people read one, and not whole rows again and again."""
    row = json.dumps({"a": 1, "long": "x" * 200})
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def drift(column, action="added", table="t"):
        return Drift(table, column, None, "REAL", action, 1, [row], "p/s:2", now)

    many = [drift(f"c{number}") for number in range(23)]
    (line,) = drift_lines(many)
    assert line.startswith("table 't': 23 new columns: 'c0' REAL, 'c1' REAL, ")
    assert line.endswith("'c19' REAL and 3 more (p/s:2)")
    (line,) = drift_lines([drift("a")])
    assert line == f"table 't': new column 'a' of type REAL, for example {row[:100]}… (p/s:2)"
    assert row in drift("a").text()
    lines = drift_lines([drift("b", table="u"), *many[:2], drift("d", "set aside")])
    assert [line[:24] for line in lines] == [
        "table 't': 2 new columns",
        "table 'u': new column 'b",
        "table 't': column 'd': r",
    ]
