"""`nested: tables`: nested records in child tables, in every backend with tables alike."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from contextlib import closing, contextmanager, suppress
from unittest.mock import ANY

import psycopg
import pyarrow as pa
import pytest
from _nested import Oracle, nested_tables
from _tables import asking, committing, committing_what_it_can, opened
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import ValidationError

from collectors.chunks import ChunkKey
from collectors.errors import DataError, FatalError
from collectors.storage.backends._duckdb_file import Connection as DuckdbConnection
from collectors.storage.backends._duckdb_table import RowTable as DuckdbRows
from collectors.storage.backends._sqlite_table import RowTable as SqliteRows
from collectors.storage.backends.duckdb import DuckdbBackend
from collectors.storage.backends.sqlite import SqliteBackend
from collectors.testing.deliveries import delivery, everything

NOON, FAR = 1_000_000, 400_000_000_000
"""Seconds; the second one lies behind the year 9999."""
ORDERS = pa.table(
    {
        "id": [1, 2, 3],
        "who": [{"name": "a", "at": {"city": "x"}}, None, {"name": "c", "at": None}],
        "tags": [["p", "q"], [], None],
        "items": [
            [{"sku": "s1", "lines": [1, 2]}, {"sku": "s2", "lines": []}],
            None,
            [{"sku": "s3", "lines": [3]}, None],
        ],
    }
)


def nested(where, **more):
    return opened(where, nested="tables", **more)


def query(place, text):
    """Ask the database itself; `{t…}` in the text stands for the quoted name of the table, with its end."""
    text = text.replace("{t", '"' + place["table"]).replace("}", '"')
    if place["type"] == "postgres":
        with psycopg.connect(place["dsn"], autocommit=True) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else []
    if place["type"] == "sqlite":
        with closing(sqlite3.connect(place["path"])) as connection, connection:
            return connection.execute(text).fetchall()
    backend = opened(place)

    def ask():
        with backend._file.transaction() as connection:
            return connection.rows(text) if text.startswith("select") else connection.execute(text)

    return asking(backend, ask)


def rows_of(place, suffix=""):
    backend = opened({**place, "table": place["table"] + suffix})
    return asking(backend, backend.select, everything())


def tables_of(place):
    backend = opened(place)
    start = place["table"]
    return {name[len(start) :] for name in asking(backend, backend.tables) if name.startswith(start)}


def numbered(place, suffix, columns):
    """Return rows with their numbers and links, in the order in which they were stored."""
    ours = "_collectors_row, " + ("_collectors_parent, _collectors_index" if suffix else "null, null")
    names = "".join(f', "{name}"' for name in columns)
    return query(place, f"select {ours}{names} from {{t{suffix}}} order by _collectors_row")


def test_tables_and_links(where):
    place = where()
    committing(nested(place), [ORDERS])
    assert tables_of(place) == {"", "__tags", "__items", "__items__lines"}
    assert [tuple(row.values()) for row in rows_of(place)] == [(1, "a", "x"), (2, None, None), (3, "c", None)]
    assert list(rows_of(place)[0]) == ["id", "who__name", "who__at__city"]
    first, _, third = (row[0] for row in numbered(place, "", []))
    assert [row[1:] for row in numbered(place, "__tags", ["value"])] == [(first, 0, "p"), (first, 1, "q")]
    items = numbered(place, "__items", ["sku"])
    assert [row[1:] for row in items] == [
        (first, 0, "s1"),
        (first, 1, "s2"),
        (third, 0, "s3"),
        (third, 1, None),
    ]
    lines = numbered(place, "__items__lines", ["value"])
    assert [row[1:] for row in lines] == [(items[0][0], 0, 1), (items[0][0], 1, 2), (items[2][0], 0, 3)]


@contextmanager
def taken_back(backend):
    """Give what inserts a table and what asks for rows, in a transaction that leaves nothing behind."""
    if isinstance(backend, SqliteBackend):
        with backend._writer() as database:
            database.execute("begin")
            try:
                yield (
                    lambda table, location: SqliteRows(database, backend.config.table, backend.config).insert(
                        [(location, table)]
                    ),
                    lambda text: database.execute(text).fetchall(),
                )
            finally:
                database.execute("rollback")
    elif isinstance(backend, DuckdbBackend):
        with backend._file.transaction(take_back=True) as connection:
            yield DuckdbRows(connection, backend.config.table, backend.config).insert, connection.rows
    else:
        with backend._writer() as connection, connection.rehearsal():
            yield (
                backend._rows(connection, "p/s").insert,
                lambda text: connection.execute(text).fetchall(),
            )


@pytest.fixture
def some_backends(request, tmp_path):
    """One of each kind that can be had, open."""
    places = [{"type": kind, "path": str(tmp_path / kind), "table": "t"} for kind in ("sqlite", "duckdb")]
    with suppress(pytest.skip.Exception):
        dsn = request.getfixturevalue("postgres_server").dsn
        places.append({"type": "postgres", "dsn": dsn, "table": f"rows-{uuid.uuid4().hex[:12]}"})
    backends = [nested(place) for place in places]
    for backend in backends:
        backend.open()
    yield backends
    for backend in backends:
        backend.close()


@given(table=nested_tables(maps=False), data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_stored(some_backends, table, data):
    refused = Oracle(table).refused
    table = table.take(pa.array([row for row in range(table.num_rows) if row not in refused], pa.int64()))
    assume(table.num_rows)
    oracle = Oracle(pa.concat_tables([table, table]))
    backend = data.draw(st.sampled_from(some_backends))
    with taken_back(backend) as (insert, ask):
        insert(table, "p/s:1")
        insert(table, "p/s:2")
        see_rows(
            oracle,
            backend.config.table,
            lambda name, what: ask(f'select {what} from "{name}" order by _collectors_row'),
        )


def see_rows(oracle, start, ask):
    """See that each table, whose name begins so, has the rows that records become, in their order, with their links."""
    there = {}
    for name, rows in oracle.rows.items():
        columns, links = sorted(rows[0][3]), []
        if name != "t":
            links = ["_collectors_parent", "_collectors_index"]
        names = ", ".join(f'"{column}"' for column in ["_collectors_row", *links, *columns])
        found = ask(start + name.removeprefix("t"), names)
        there[name] = [row[0] for row in found]
        values = [[row[3][column] for column in columns] for row in rows]
        assert [list(row[1 + len(links) :]) for row in found] == values
        if links:
            above = there[oracle.owners[name][0]]
            assert [row[1:3] for row in found] == [(above[link[0]], link[1]) for _, link, *_ in rows]


def test_rows_that_a_child_table_cannot_have(where):
    place = where()
    table = pa.table(
        {
            "id": [1, 2, 3],
            "a": pa.array(
                [[{"t": [NOON]}], [{"t": []}, {"t": [NOON, FAR]}], [{"t": [FAR]}]],
                pa.list_(pa.struct([("t", pa.list_(pa.timestamp("s")))])),
            ),
        }
    )
    if place["type"] == "duckdb":
        pytest.skip("DuckDB has all of these times")
    with pytest.raises(DataError) as raised:
        committing(nested(place), [table])
    reason = "column 'value': the time lies outside of the years 1 to 9999"
    assert raised.value.rows == {1: f"a[1].t[1]: {reason}", 2: f"a[0].t[0]: {reason}"}
    assert tables_of(place) == set()


def test_names_that_are_ours_cost_their_record(where):
    table = pa.table(
        {"id": [1, 2], "a": [[{"x": 1, "_collectors_index": None}], [{"x": 1, "_collectors_index": 7}]]}
    )
    with pytest.raises(DataError) as raised:
        committing(nested(where()), [table])
    assert set(raised.value.rows) == {1}
    assert raised.value.rows[1].startswith("a[0]: the column '_collectors_index'")


def test_fields_of_one_name_cost_their_record(where):
    place = where()
    table = pa.table({"id": [1, 2], "a": [{"b": 1}, None], "a__b": [None, 2]})
    _, kept = committing_what_it_can(nested(place), table, 1)
    assert kept.column("id").to_pylist() == [2]
    assert rows_of(place) == [{"id": 2, "a__b": 2}]


def test_a_list_whose_table_no_database_can_have(where):
    place = where()
    for name in ["x\0y", *(["l" * 60] if place["type"] == "postgres" else [])]:
        table = pa.table({"id": [1, 2, 3], name: [[1], [], [[2], [3]][0]]})
        with pytest.raises(DataError) as raised:
            committing(nested(place), [table])
        assert set(raised.value.rows) == {0, 2}
        assert "rename it in a processor" in raised.value.rows[0]
        backend = nested(place)
        assert any(line.startswith("~ the field") for line in backend.preview(table, "contract/source"))


def test_a_location_is_deleted_with_its_child_rows(where):
    place = where()
    backend = nested(place)
    committing(backend, [ORDERS, ORDERS.slice(0, 1)])
    asking(backend, backend.remove, "contract/source:1")
    assert [row["id"] for row in rows_of(place)] == [1]
    assert [row["value"] for row in rows_of(place, "__tags")] == ["p", "q"]
    (parent,) = {row[1] for row in numbered(place, "__tags", [])}
    assert [row[0] for row in numbered(place, "", [])] == [parent]
    assert len(rows_of(place, "__items")) == len(rows_of(place, "__items__lines")) == 2
    asking(backend, backend.remove, "contract/source:2")
    assert all(rows_of(place, suffix) == [] for suffix in ("", "__tags", "__items", "__items__lines"))
    with pytest.raises(KeyError):
        asking(backend, backend.remove, "contract/source:1")


def test_what_is_stored_already_is_left_out_with_its_child_rows(where):
    place = where()
    backend, key = nested(place), ChunkKey("contract/source", 1, 1)
    assert [asking(backend, backend.write, ORDERS, key) for _ in range(2)] == [3, 0]
    asking(backend, backend.flush)
    assert len(rows_of(place, "__tags")) == 2


def test_a_table_of_another_is_not_a_child_table(where):
    place = where()
    committing(opened({**place, "table": place["table"] + "__tags"}), [pa.table({"value": ["theirs"]})])
    message = "is there already, and not for the elements of a list; choose another table"
    with pytest.raises(FatalError, match=message):
        committing(nested(place), [ORDERS])
    assert rows_of(place, "__tags") == [{"value": "theirs"}]
    assert tables_of(place) == {"__tags"}
    told = [line for line in nested(place).preview(ORDERS, "contract/source") if line.startswith("!")]
    assert len(told) == 1
    assert "for the elements of a list" in told[0]


@pytest.mark.parametrize("first", [0, 1])
def test_a_child_table_has_one_parent_table(where, first):
    """A list in a list and a list in an object would have the same name."""
    tables = [pa.table({"id": [1], "a": [[{"b": [1]}]]}), pa.table({"id": [1], "a": [{"b": [1]}]})]
    place = where()
    with pytest.raises(FatalError, match=r"__a__b' is there already, "):
        committing(nested(place), [tables[first], tables[1 - first]])
    assert len(rows_of(place, "__a__b")) == 1


@pytest.mark.parametrize("mode", ["evolve", "freeze", "discard-column", "set-aside"])
def test_a_list_that_is_new(where, mode):
    place = where()
    backend = nested(place, schema={"tags": mode})
    committing(backend, [pa.table({"id": [0]})])
    table = pa.table({"id": [1, 2, 3], "tags": [["p"], [], None]})
    told = backend.preview(table, "contract/source")
    name = f"{place['table']}__tags"
    if mode == "evolve":
        found = committing(backend, [table], first_seq=2)
        assert [(each.column, each.brought, each.action, each.rows) for each in found] == [
            ("tags", f"table {name}", "added", 1),
            ("_collectors_parent", f"row of '{place['table']}'", "made", 0),
            ("value", found[2].brought, "made", 0),
        ]
        assert [each.table for each in found] == [place["table"], name, name]
        history = [each for each in asking(backend, backend.schema_history) if each.table == name]
        assert [(each.column, each.action) for each in history] == [
            ("_collectors_parent", "made"),
            ("value", "made"),
        ]
        assert f"+ tags table {name} (new)" in told
        assert rows_of(place, "__tags") == [
            {
                "_collectors_parent": 2 if place["type"] != "postgres" else ANY,
                "_collectors_index": 0,
                "value": "p",
            }
        ]
        return
    assert any(line.startswith(("! tags", "~ tags")) for line in told)
    if mode == "freeze":
        with pytest.raises(FatalError, match=r"'tags'.*\[\\?\"p"):
            committing(backend, [table], first_seq=2)
        assert len(rows_of(place)) == 1
    elif mode == "discard-column":
        found = committing(backend, [table], first_seq=2)
        assert [(each.column, each.action, each.rows) for each in found] == [("tags", "left out", 1)]
        assert [row["id"] for row in rows_of(place)] == [0, 1, 2, 3]
    else:
        _, kept = committing_what_it_can(backend, table, 2)
        assert kept.column("id").to_pylist() == [2, 3]
    assert tables_of(place) == {""}


def test_modes_hold_in_child_tables(where):
    place = where()
    first = pa.table({"id": [1], "a": [[{"x": 1}]]})
    table = pa.table({"id": [2, 3], "a": [[{"x": 1}, {"x": 2, "y": "new"}], [{"x": 3}]]})
    backend = nested(place, schema={"y": "set-aside"})
    committing(backend, [first])
    found, kept = committing_what_it_can(backend, table, 2)
    assert kept.column("id").to_pylist() == [3]
    backend = nested(place, schema={"y": "freeze"})
    with pytest.raises(FatalError, match="'y'"):
        committing(backend, [table], first_seq=3)
    assert [drift.table for drift in backend.drifts["contract/source"]] == [f"{place['table']}__a"]
    committing(nested(place, schema={"y": "discard-column"}), [table], first_seq=3)
    assert [row["x"] for row in rows_of(place, "__a")] == [1, 3, 1, 2, 3]
    found = committing(nested(place), [table], first_seq=4)
    assert [(each.table, each.column, each.action) for each in found] == [
        (f"{place['table']}__a", "y", "added")
    ]
    assert [row["y"] for row in rows_of(place, "__a")][-3:] == [None, "new", None]


def test_a_constraint_of_a_child_table_costs_the_record(where):
    place = where()
    backend = nested(place)
    first = pa.table({"id": [1], "a": [["x"]]})
    committing(backend, [first])
    query(place, "create unique index {t_only} on {t__a} (value)")
    table = pa.table({"id": [2, 3, 4], "a": [["p", "q"], ["r", "x"], ["s"]]})
    with pytest.raises(DataError) as raised:
        committing(backend, [table], first_seq=2)
    if place["type"] != "duckdb":  # which names no row; the runtime rehearses parts then
        assert list(raised.value.rows) == [1]
    committing(backend, [table.take(pa.array([0, 2]))], first_seq=2)
    assert sorted(row["value"] for row in rows_of(place, "__a")) == ["p", "q", "s", "x"]
    assert [row["id"] for row in rows_of(place)] == [1, 2, 4]


def test_check(where):
    place = where()
    told = nested(place).preview(ORDERS, "contract/source")
    name = place["table"]
    made = [line for line in told if line.startswith("+ table")]
    assert made == [f"+ table {name}{end}" for end in ("", "__tags", "__items", "__items__lines")]
    committing(nested(place), [ORDERS])
    told = nested(place).preview(ORDERS, "contract/source")
    assert {line[0] for line in told} == {"="}
    assert f"= table {name}__tags" in told
    assert opened(place).preview(ORDERS, "contract/source") != told


def test_records_that_are_nothing_but_lists(where):
    place = where()
    committing(nested(place), [pa.table({"a": [[{}], [{}, {}]]})])
    assert len(numbered(place, "", [])) == 2
    assert [row[2] for row in numbered(place, "__a", [])] == [0, 0, 1]


def test_deliveries_of_several_flows_at_once(where):
    place = where()
    backend = nested(place)
    if not hasattr(backend, "commit_together"):
        pytest.skip("commits one by one")

    async def main():
        await backend.connect()
        made = []
        for flow in ("contract/source", "contract/source/b"):
            epoch = (await backend.call(backend.claim, flow)).epoch
            made.append(replace(delivery(1, 1, epoch, flow=flow, letters=0), table=ORDERS))
        await backend.call(backend.commit_together, made)
        await backend.disconnect()

    asyncio.run(main())
    parents = [row[0] for row in numbered(place, "", [])]
    assert [row[1] for row in numbered(place, "__tags", [])] == [parents[0]] * 2 + [parents[3]] * 2
    asking(backend, backend.remove, "contract/source:1")
    assert [row[1] for row in numbered(place, "__tags", [])] == [parents[3]] * 2


def test_a_query_without_a_table_is_of_the_records(where):
    place = {**where(), "table": "{source}"}
    backend = nested(place)
    if place["type"] == "postgres":
        schema = f"nested_{uuid.uuid4().hex[:12]}"
        backend = nested({**place, "in_schema": schema})
    committing(backend, [ORDERS])
    assert [row["id"] for row in asking(backend, backend.select, everything())] == [1, 2, 3]


def test_lists_in_another_case(where):
    place = where()
    committing(nested(place), [pa.table({"a": [["x"]]}), pa.table({"A": [["y"]]})])
    if place["type"] == "postgres":  # which tells upper case and lower case apart
        assert tables_of(place) == {"", "__a", "__A"}
        return
    rows = numbered(place, "__a", ["value"])
    assert [(row[1], row[3]) for row in rows] == [(1, "x"), (2, "y")]
    assert [row[0] for row in rows] == [1, 2]


def test_it_is_not_together_with_upsert(where):
    with pytest.raises(ValidationError, match="`nested: tables` cannot be together with `write: upsert`"):
        nested(where(), write="upsert", key="id")


def test_inline_is_what_holds_without_it(where):
    place = where()
    committing(opened(place), [ORDERS])
    assert tables_of(place) == {""}
    assert rows_of(place)[0]["tags"] == ["p", "q"]


def test_duckdb_is_asked_for_the_names_of_child_tables_once(tmp_path, monkeypatch):
    backend = nested({"type": "duckdb", "path": str(tmp_path / "rows.db"), "table": "t"})
    asked = []
    rows = DuckdbConnection.rows
    monkeypatch.setattr(
        DuckdbConnection, "rows", lambda self, text, *more: (asked.append(text), rows(self, text, *more))[1]
    )
    committing(backend, [ORDERS])
    there = len([text for text in asked if "duckdb_" in text])
    committing(backend, [ORDERS] * 5, first_seq=2)
    again = len([text for text in asked if "duckdb_" in text]) - there
    assert again <= there  # a new connection has to ask; further commits do not
