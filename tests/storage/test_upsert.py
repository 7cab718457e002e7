"""`write: upsert`: a row takes the place of the one with the same key, in every backend with tables alike."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from contextlib import closing

import duckdb
import psycopg
import pyarrow as pa
import pytest
from _tables import committing, opened, stored
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors.chunks import ChunkKey
from collectors.errors import DataError, FatalError


def upserting(where, *key):
    return opened(where, write="upsert", key=list(key))


ROWS = st.fixed_dictionaries(
    {"site": st.sampled_from(["a", "b"]), "id": st.integers(0, 3)},
    optional={"value": st.none() | st.integers(0, 99), "note": st.sampled_from(["x", "y"])},
)
COLUMNS = ["site", "id", "value", "note"]


@pytest.mark.timeout(400)
@given(chunks=st.lists(st.lists(ROWS, min_size=1, max_size=12), min_size=1, max_size=5))
@example(chunks=[[{"site": "a", "id": 1, "value": 1}], [{"site": "a", "id": 1, "note": "x"}]])
@example(chunks=[[{"site": "a", "id": 1, "value": 1}, {"site": "a", "id": 1}]])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_last_row_of_each_key_is_there(where, chunks):
    place = where()
    tables = []
    for chunk in chunks:
        names = [name for name in COLUMNS if any(name in row for row in chunk)]
        tables.append(pa.table({name: [row.get(name) for row in chunk] for name in names}))
    committing(upserting(place, "site", "id"), tables)
    expected = {(row["site"], row["id"]): row for chunk in chunks for row in chunk}
    found = stored(upserting(place, "site", "id"))
    assert len(found) == len(expected)
    for row in found:
        wanted = expected[row["site"], row["id"]]
        assert {name: row.get(name) for name in COLUMNS} == {name: wanted.get(name) for name in COLUMNS}


def test_rows_without_a_key_are_refused_one_by_one(where):
    with pytest.raises(DataError) as raised:
        committing(
            upserting(where(), "site", "id"), [pa.table({"site": ["a", None, "b"], "id": [1, 2, None]})]
        )
    assert raised.value.rows == {
        1: "column 'site': it is null, and rows are told apart by it (`key`)",
        2: "column 'id': it is null, and rows are told apart by it (`key`)",
    }


def test_a_key_that_is_no_column(where):
    with pytest.raises(DataError) as raised:
        committing(upserting(where(), "device"), [pa.table({"devise": ["a", "b"]})])
    assert raised.value.rows == dict.fromkeys(
        range(2), "there is no column 'device', by which rows are told apart (`key`); did you mean 'devise'?"
    )


def test_a_key_that_no_table_can_have(where):
    name = "_collectors_id"
    with pytest.raises(DataError) as raised:
        committing(upserting(where(), name), [pa.table({name: [1, 2], "v": ["a", "b"]})])
    assert set(raised.value.rows) == {0, 1}


def test_a_key_in_another_case(where):
    place = where()
    committing(opened(place), [pa.table({"id": [1, 2], "v": ["old", "old"]})])
    tables = [pa.table({"ID": [9]}), pa.table({"ID": [1], "v": ["new"]})]
    if place["type"] == "postgres":  # which tells upper case and lower case apart
        committing(upserting(place, "ID"), tables)
        return
    with pytest.raises(DataError) as raised:
        committing(upserting(place, "ID"), tables)
    database = {"sqlite": "SQLite", "duckdb": "DuckDB"}[place["type"]]
    assert raised.value.rows == {
        0: f"the column 'ID': 'id' differs only in upper and lower case, which {database} does not tell apart; "
        "rename it in a processor, or leave it out"
    }


def test_a_table_that_was_appended_to(where):
    place = where()
    committing(opened(place), [pa.table({"id": [1, 2], "v": ["old", "old"]})])
    committing(upserting(place, "id"), [pa.table({"id": [9]}), pa.table({"id": [2, 3], "v": ["new", "new"]})])
    found = sorted(stored(opened(place)), key=lambda row: row["id"])
    assert found == [{"id": 1, "v": "old"}, {"id": 2, "v": "new"}, {"id": 3, "v": "new"}]


def test_a_table_that_has_a_key_twice_is_left_alone(where):
    place = where()
    committing(opened(place), [pa.table({"id": [1, 1, 2]})])
    tables = [pa.table({"id": [7]}), pa.table({"id": [3]})]
    if place["type"] == "duckdb":  # it needs no index: rows of the key that comes are deleted, however many
        committing(upserting(place, "id"), [pa.table({"id": [7]}), pa.table({"id": [1]})])
        assert sorted(row["id"] for row in stored(opened(place))) == [1, 2]
        return
    with pytest.raises(
        FatalError, match=r"has several rows with the same key \(id\) already; delete all but one"
    ):
        committing(upserting(place, "id"), tables)
    assert sorted(row["id"] for row in stored(opened(place))) == [1, 1, 2]


def test_a_location_is_what_it_wrote_last(where):
    place = where()
    backend = upserting(place, "id")

    async def main():
        await backend.connect()
        for seq, ids in enumerate([[1, 2], [2, 3]], 1):
            table = pa.table({"id": ids, "seq": [seq, seq]})
            await backend.call(backend.write, table, ChunkKey("contract/source", 1, seq))
        await backend.delete(backend.location(ChunkKey("contract/source", 1, 1)))
        await backend.disconnect()

    asyncio.run(main())
    assert sorted((row["id"], row["seq"]) for row in stored(opened(place))) == [(2, 2), (3, 2)]


def test_the_table_has_a_primary_key_and_more_that_is_unique(where):
    place = where()
    text = 'create table "{}" (id bigint primary key, name text unique)'.format(place["table"])
    if place["type"] == "postgres":
        with psycopg.connect(place["dsn"], autocommit=True) as connection:
            connection.execute(text)
    else:
        connect = duckdb.connect if place["type"] == "duckdb" else sqlite3.connect
        with closing(connect(place["path"])) as connection:
            connection.execute(text)
    committing(upserting(place, "id"), [pa.table({"id": [1, 2], "name": ["a", "b"]})])
    with pytest.raises(DataError) as raised:
        writing(upserting(place, "id"), pa.table({"id": [1, 3, 4], "name": ["a", "c", "b"]}))
    if place["type"] != "duckdb":  # which names no row; the runtime rehearses parts then
        assert list(raised.value.rows) == [2]
    writing(upserting(place, "id"), pa.table({"id": [1, 3], "name": ["x", "c"]}))
    found = sorted((row["id"], row["name"]) for row in stored(opened(place)))
    assert found == [(1, "x"), (2, "b"), (3, "c")]


def writing(backend, table):
    async def main():
        await backend.connect()
        try:
            await backend.call(backend.write, table, ChunkKey(f"contract/{uuid.uuid4().hex}", 1, 1))
            await backend.call(backend.flush)
        finally:
            await backend.disconnect()

    asyncio.run(main())


def test_check_says_that_rows_have_no_key(where):
    backend, table = upserting(where(), "id", "site"), pa.table({"id": [1]})
    told = "! site: rows have no such column, and are told apart by it (`key`)"
    assert told in backend.preview(table, "contract/source")
    committing(backend, [pa.table({"id": [1], "site": ["a"]})])
    assert told in backend.preview(table, "contract/source")


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"write": "upsert"}, "needs a `key`"),
        ({"key": ["id"]}, r"a `key` \(id\) is for `write: upsert`"),
        ({"write": "upsert", "key": ["id", "id"]}, "names a column twice"),
        ({"write": "other"}, "append"),
    ],
)
def test_settings(where, given_settings, message):
    with pytest.raises(ValidationError, match=message):
        opened(where(), **given_settings)


def test_one_column_needs_no_list(where):
    assert opened(where(), write="upsert", key="id").config.key == ["id"]


def test_columns_that_the_server_makes_are_left_to_it(postgres_server):
    name = f"rows-{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server.dsn) as connection:
        columns = (
            "id bigint unique, v bigint, double bigint generated always as (v * 2) stored, "
            "made bigint generated always as identity, note text"
        )
        connection.execute(f'create table "{name}" ({columns})'.encode())
    place = {"type": "postgres", "dsn": postgres_server.dsn, "table": name, "write": "upsert", "key": ["id"]}
    committing(opened(place), [pa.table({"id": [1], "v": [1]}), pa.table({"id": [1], "v": [3], "more": [7]})])
    (row,) = stored(opened(place))
    assert row == {"id": 1, "v": 3, "double": 6, "made": 1, "note": None, "more": 7}
