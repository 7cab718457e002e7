"""Each value of a database arrives exactly as it is there, or is refused by itself."""

from __future__ import annotations

import datetime as dt
import math
import sqlite3
from contextlib import closing
from decimal import Decimal
from uuid import uuid4

import psycopg
import pyarrow as pa
import pytest
from _sql_reading import refused, rows, run, tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

UTC = dt.UTC
PRECISE = "98765432109876543210.0123456789"


@pytest.fixture
def sqlite(tmp_path):
    """Return what makes a file by a script and returns its URL."""

    def make(script, *inserts):
        path = tmp_path / f"{uuid4().hex}.db"
        with closing(sqlite3.connect(path)) as database, database:
            database.executescript(script)
            for statement, values in inserts:
                database.execute(statement, values)
        return f"sqlite:///{path}"

    return make


@pytest.fixture
def postgres(postgres_server):
    """Return what runs statements in a new schema and returns the settings of it."""
    schema = f"s{uuid4().hex}"

    def make(*statements):
        with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
            connection.execute(f"create schema if not exists {schema}")
            connection.execute(f"set search_path = {schema}")
            for statement in statements:
                connection.execute(statement)
        return {"url": postgres_server.dsn, "table": f"{schema}.t", "key": "id"}

    return make


@pytest.fixture
def mariadb(mariadb_server):
    """Return what runs statements on table `t` and returns the settings of it."""
    table = f"t{uuid4().hex}"

    def make(*statements):
        with closing(mariadb_server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set sql_mode = '', time_zone = '+00:00'")
            for statement in statements:
                cursor.execute(statement.replace(" t ", f" {table} "))
        return {"url": mariadb_server.url, "table": table, "key": "id"}

    return make


def types(chunks):
    return {field.name: field.type for field in tables(chunks)[0].schema}


class TestSqlite:
    def test_declared_types(self, sqlite):
        url = sqlite(
            "create table t (id integer primary key, big bigint, price decimal(10,2), name varchar(9), raw blob, "
            "at datetime, ok boolean, r real)",
            (
                "insert into t values (1, ?, 1.5, ?, x'00ff', '2026-01-01 00:00:00', 1, 0.1)",
                [2**63 - 1, "ü\0x"],
            ),
            ("insert into t values (2, ?, 7, '', x'', 1767225600, 0, 5)", [-(2**63)]),
            ("insert into t (id) values (3)", []),
        )
        chunks = run(url=url, table="t", key="id")
        assert refused(chunks) == []
        found = [tuple(row.values()) for row in rows(chunks)]
        assert found == [
            (1, 2**63 - 1, 1.5, "ü\0x", b"\x00\xff", "2026-01-01 00:00:00", True, 0.1),
            (2, -(2**63), 7.0, "", b"", "1767225600", False, 5.0),
            (3, *[None] * 7),
        ]
        assert types(chunks)["price"] == pa.float64()
        assert types(chunks)["big"] == pa.int64()

    @pytest.mark.parametrize(
        ("declared", "value"),
        [
            ("integer", "text"),
            ("integer", 1.5),
            ("integer", b"raw"),
            ("text", b"raw"),
            ("blob", "text"),
            ("blob", 5),
            ("real", "text"),
            ("decimal(10,2)", "n/a"),
            ("decimal(10,2)", 2**53 + 1),
            ("boolean", 2),
            ("boolean", "yes"),
            ("date", b"raw"),
        ],
    )
    def test_a_value_of_another_kind_is_refused_alone(self, sqlite, declared, value):
        good = {"integer": 5, "text": "a", "blob": b"a", "boolean": 1, "date": "2026-01-01"}.get(
            declared, 0.5
        )
        url = sqlite(
            f"create table t (id integer primary key, v {declared})",
            ("insert into t values (1, ?), (2, ?), (3, ?), (4, null)", [good, value, good]),
        )
        chunks = run(url=url, table="t", key="id")
        assert [row["id"] for row in rows(chunks)] == [1, 3, 4]
        ((record, reason),) = refused(chunks)
        assert record["id"] == 2
        assert reason.lower().startswith(f"column 'v' ({declared}): ")
        assert [chunk.position["at"] for chunk in chunks] == [[1], [2], [4]]
        for number, chunk in enumerate(chunks):
            rest = run(chunk.position, url=url, table="t", key="id")
            assert [item.position for item in rest] == [item.position for item in chunks[number + 1 :]]

    def test_text_that_is_none_is_refused(self, sqlite):
        url = sqlite(
            "create table t (id integer primary key, v text); insert into t values (1, cast(x'ff41' as text))"
        )
        ((record, reason),) = refused(run(url=url, table="t", key="id"))
        assert record == {"id": 1, "v": "\udcffA"}
        assert "column 'v' (TEXT)" in reason

    def test_columns_without_a_type_take_that_of_their_values(self, sqlite):
        url = sqlite(
            "create table t (id integer primary key, a, b, c, d, e); insert into t values (1, 1, 'x', 0.5, x'00', null)"
        )
        chunks = run(url=url, query="select *, a + 1 as f, count(*) over () as n from t", key="id")
        assert types(chunks) == {
            "id": pa.int64(),
            "a": pa.int64(),
            "b": pa.string(),
            "c": pa.float64(),
            "d": pa.binary(),
            "e": pa.null(),
            "f": pa.int64(),
            "n": pa.int64(),
        }

    def test_the_rowid_is_a_key(self, sqlite):
        url = sqlite("create table t (a text); insert into t values ('x'), ('y'), ('z')")
        chunks = run(url=url, table="t", key="rowid", chunk_size=1)
        assert rows(chunks) == [{"a": "x"}, {"a": "y"}, {"a": "z"}]
        assert rows(run(chunks[1].position, url=url, table="t", key="rowid")) == [{"a": "z"}]

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        values=st.lists(
            st.one_of(
                st.integers(-(2**63), 2**63 - 1),
                st.floats(allow_nan=False),
                st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
                st.binary(max_size=20),
                st.none(),
            ),
            min_size=1,
            max_size=12,
        )
    )
    @pytest.mark.parametrize("declared", ["", "integer", "text", "real", "blob", "numeric"])
    def test_nothing_is_lost_or_changed(self, sqlite, declared, values):
        """What arrives is what SQLite stores, of the same kind and equal; the others are refused."""
        url = sqlite(
            f"create table t (id integer primary key, v {declared})",
            *(("insert into t (v) values (?)", [value]) for value in values),
        )
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
            stored = dict(database.execute("select id, v from t"))
        chunks = run(url=url, table="t", key="id", chunk_size=300)
        arrived = {row["id"]: row["v"] for row in rows(chunks)}
        assert sorted([*arrived, *(record["id"] for record, _ in refused(chunks))]) == sorted(stored)
        for number, value in arrived.items():
            assert value == stored[number]
            alike = {int, float} if isinstance(value, float) else {type(value)}
            assert type(stored[number]) in alike


class TestPostgres:
    def test_types(self, postgres):
        where = postgres(
            "create type mood as enum ('sad', 'ok')",
            "create domain cents as bigint",
            "create table t (id int primary key, s smallint, b bigint, n numeric(30,10), wide numeric(60,20), free numeric, "
            "f real, d double precision, ok boolean, txt text, ch char(4), raw bytea, day date, clock time, at timestamp, "
            "atz timestamptz, js json, jb jsonb, u uuid, ip inet, span interval, m mood, c cents, ints int[], "
            "texts text[], nums numeric(5,2)[], tags mood[], oks bool[], blobs bytea[], clocks time[], uuids uuid[], none int[])",
            f"insert into t values (1, -32768, 9223372036854775807, {PRECISE}, -0.5, 1e-40, 0.1, 0.1, true, E'a\\nü', 'ab', "
            "'\\x00ff', '0001-01-01', '23:59:59.999999', '9999-12-31 23:59:59.999999', '2026-03-29 02:30:00+02', "
            "'{\"a\" : 1}', '{\"b\": 12345678901234567890.10}', '00000000-0000-0000-0000-00000000000a', '10.0.0.1', "
            "'1 mon -2 days', 'sad', 5, '{1,null,3}', '{a,\"b,c\",null}', '{1.50,NULL}', '{ok,sad}', '{t,f,null}', '{\"\\\\x00ff\"}', '{01:00}', '{}', null)",
            "insert into t (id, f, d) values (2, 'nan', '-infinity')",
        )
        chunks = run(**where)
        assert refused(chunks) == []
        first, second = rows(chunks)
        assert first == {
            "id": 1,
            "s": -32768,
            "b": 2**63 - 1,
            "n": Decimal(PRECISE),
            "wide": Decimal("-0.5"),
            "free": "0." + 39 * "0" + "1",
            "f": pa.scalar(0.1, pa.float32()).as_py(),
            "d": 0.1,
            "ok": True,
            "txt": "a\nü",
            "ch": "ab  ",
            "raw": b"\x00\xff",
            "day": dt.date(1, 1, 1),
            "clock": dt.time(23, 59, 59, 999999),
            "at": dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
            "atz": dt.datetime(2026, 3, 29, 0, 30, tzinfo=UTC),
            "js": '{"a" : 1}',
            "jb": '{"b": 12345678901234567890.10}',
            "u": "00000000-0000-0000-0000-00000000000a",
            "ip": "10.0.0.1",
            "span": "1 mon -2 days",
            "m": "sad",
            "c": 5,
            "ints": [1, None, 3],
            "texts": ["a", "b,c", None],
            "nums": [Decimal("1.50"), None],
            "tags": "{ok,sad}",
            "oks": [True, False, None],
            "blobs": [b"\x00\xff"],
            "clocks": [dt.time(1)],
            "uuids": [],
            "none": None,
        }
        assert math.isnan(second.pop("f"))
        assert second.pop("d") == -math.inf
        assert set(second.values()) == {2, None}
        found = types(chunks)
        assert found["n"] == pa.decimal128(30, 10)
        assert found["wide"] == pa.decimal256(60, 20)
        assert found["atz"] == pa.timestamp("us", "UTC")
        assert found["ints"] == pa.list_(pa.int32())

    @pytest.mark.parametrize(
        ("declared", "value"),
        [
            ("timestamptz", "infinity"),
            ("timestamptz", "0044-03-15 00:00+00 BC"),
            ("timestamp", "20000-01-01"),
            ("date", "-infinity"),
            ("date", "0044-03-15 BC"),
            ("time", "24:00"),
            ("numeric(10,2)", "nan"),
            ("int[]", "{{1,2},{3,4}}"),
        ],
    )
    def test_what_no_type_holds_is_refused_alone(self, postgres, declared, value):
        where = postgres(
            f"create table t (id int primary key, v {declared})",
            f"insert into t values (1, null), (2, '{value}'), (3, null)",
        )
        chunks = run(**where)
        assert [row["id"] for row in rows(chunks)] == [1, 3]
        ((record, reason),) = refused(chunks)
        assert record["id"] == "2"
        assert "column 'v'" in reason

    @pytest.mark.parametrize(
        ("declared", "values"),
        [
            (
                "timestamptz",
                ["-infinity", "0044-03-15 BC", "2026-01-01 00:00:00.000001+00", "30000-01-01", "infinity"],
            ),
            ("numeric", ["-1e50", "0.1", "0.10000000000000000000000001", "1e50"]),
            ("double precision", ["-infinity", "0.1", "0.30000000000000004", "1e300", "infinity", "nan"]),
            ("bytea", ["\\x", "\\x00", "\\x00ff", "\\xff"]),
            ("uuid", [f"{n:032x}" for n in (1, 2, 2**100)]),
            ("text", ["", "%s", "a'b", "a\\b", "ü"]),
            ("interval", ["1 day", "1 mon", "2 years"]),
        ],
    )
    def test_any_type_is_a_cursor(self, postgres, declared, values):
        listed = ", ".join(
            f"({n}, '{v.replace(chr(39), 2 * chr(39))}')" for n, v in enumerate([*values, *values])
        )
        where = postgres(
            f"create table t (id int primary key, v {declared})", f"insert into t values {listed}"
        )
        where |= {"cursor": "v", "chunk_size": 1, "columns": ["id"]}
        chunks = run(**where)
        ids = [row["id"] for row in rows(chunks)]
        assert sorted(ids) == list(range(2 * len(values)))
        for number, chunk in enumerate(chunks):
            assert ids[: number + 1] + [row["id"] for row in rows(run(chunk.position, **where))] == ids


class TestMariaDb:
    def test_types(self, mariadb):
        where = mariadb(
            "create table t (id int primary key, ti tinyint, tu tinyint unsigned, su smallint unsigned, me mediumint, "
            "iu int unsigned, b bigint, bu bigint unsigned, n decimal(30,10), w decimal(65,30), pu decimal(5,0) unsigned, "
            "f float, d double, bi bit(12), y year, txt text, vc varchar(9), raw blob, vb varbinary(4), day date, "
            "at datetime(6), ts timestamp(6) null, clock time(6), js json, en enum('x','y'), se set('x','y'))",
            f"insert into t values (1, -128, 255, 65535, -8388608, 4294967295, -9223372036854775808, "
            f"18446744073709551615, {PRECISE}, -0.5, 99999, 16777215, 0.1, b'101010101010', 2026, 'a\\nü', '%s', x'00ff', "
            "x'00', '1000-01-01', '9999-12-31 23:59:59.999999', '2026-03-29 02:30:00.5', '-838:59:59', '{\"a\": 1.10}', 'y', 'x,y')",
            "insert into t (id) values (2)",
        )
        chunks = run(**where)
        assert refused(chunks) == []
        first, second = rows(chunks)
        assert first == {
            "id": 1,
            "ti": -128,
            "tu": 255,
            "su": 65535,
            "me": -8388608,
            "iu": 2**32 - 1,
            "b": -(2**63),
            "bu": 2**64 - 1,
            "n": Decimal(PRECISE),
            "w": Decimal("-0.5"),
            "pu": Decimal(99999),
            "f": 16777215.0,
            "d": 0.1,
            "bi": 0b101010101010,
            "y": 2026,
            "txt": "a\nü",
            "vc": "%s",
            "raw": b"\x00\xff",
            "vb": b"\x00",
            "day": dt.date(1000, 1, 1),
            "at": dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
            "ts": dt.datetime(2026, 3, 29, 2, 30, 0, 500000, tzinfo=UTC),
            "clock": "-838:59:59.000000",
            "js": '{"a": 1.10}',
            "en": "y",
            "se": "x,y",
        }
        assert set(second.values()) == {2, None}
        assert types(chunks)["n"] == pa.decimal128(30, 10)
        assert types(chunks)["w"] == pa.decimal256(65, 30)
        assert chunks[-1].position["at"] == [2]

    @pytest.mark.parametrize(
        ("declared", "value"),
        [("date", "0000-00-00"), ("datetime", "0000-00-00"), ("datetime(6)", "2026-00-10")],
    )
    def test_zero_dates_are_refused_alone(self, mariadb, declared, value):
        where = mariadb(
            f"create table t (id int primary key, v {declared})",
            f"insert into t values (1, null), (2, '{value}'), (3, null)",
        )
        chunks = run(**where)
        assert [row["id"] for row in rows(chunks)] == [1, 3]
        ((record, reason),) = refused(chunks)
        assert record["id"] == "2"
        assert "column 'v'" in reason
        assert "0" in reason
        query = f"select id, nullif(v, '0000-00-00') as v from {where['table']} where id <> 2"
        assert len(rows(run(url=where["url"], query=query, key="id"))) == 2

    @pytest.mark.parametrize(
        ("declared", "values"),
        [
            ("bigint unsigned", [2**64 - 2, 2**64 - 1, 2**53, 2**53 + 1]),
            (
                "decimal(40,20)",
                ["12345678901234567890.00000000000000000001", "12345678901234567890.00000000000000000002"],
            ),
            ("double", [0.1, 0.30000000000000004, 1e300]),
            ("float", [0.1, 16777215, 16777214]),
            ("timestamp(6)", ["2026-01-01 00:00:00.000001", "2026-01-01 00:00:00.000002"]),
            ("datetime", ["2026-01-01", "2026-01-02"]),
            ("varbinary(9)", ["a", "b'"]),
            ("varchar(9)", ["%s", "ü", "a\\\\b"]),
            ("time(3)", ["-10:00:00.5", "10:00:00.5"]),
            ("bit(9)", [1, 2, 300]),
        ],
    )
    def test_any_type_is_a_cursor(self, mariadb, declared, values):
        shown = [f"'{v.replace(chr(39), 2 * chr(39))}'" if isinstance(v, str) else repr(v) for v in values]
        listed = ", ".join(f"({n}, {v})" for n, v in enumerate([*shown, *shown]))
        where = mariadb(
            f"create table t (id int primary key, v {declared} not null)", f"insert into t values {listed}"
        )
        where |= {"cursor": "v", "chunk_size": 1, "columns": ["id"]}
        chunks = run(**where)
        ids = [row["id"] for row in rows(chunks)]
        assert sorted(ids) == list(range(2 * len(values)))
        for number, chunk in enumerate(chunks):
            assert ids[: number + 1] + [row["id"] for row in rows(run(chunk.position, **where))] == ids
