"""The contract of the sql source, against SQLite, PostgreSQL and MariaDB, with a cursor and with a key alone."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing
from uuid import uuid4

import pytest

from collectors.testing.source_contract import SourceContract


class _Rows(SourceContract):
    """Rows with an id that grows with the cursor, ten of them with the same one."""

    component = "sql"
    by: dict = {"cursor": "changed", "key": "id"}

    def settings(self, url, table):
        return {"url": url, "table": table, "chunk_size": 64, **self.by}


class TestSqliteWithCursor(_Rows):
    component = "sql"

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path):
        self.path = tmp_path / f"{uuid4().hex}.db"

    @asynccontextmanager
    async def rig(self, ids):
        with closing(sqlite3.connect(self.path)) as database, database:
            database.execute(
                "create table if not exists items (id integer primary key, changed integer, note text)"
            )
            database.executemany("insert into items values (?, ?, 'x')", [(n, n // 10) for n in ids])
        yield self.settings(f"sqlite:///{self.path}", "items")


class TestSqliteWithKey(TestSqliteWithCursor):
    component = "sql"
    by = {"key": "id"}


class TestPostgresWithCursor(_Rows):
    component = "sql"

    @pytest.fixture(autouse=True)
    def _place(self, postgres_server):
        self.server = postgres_server

    @asynccontextmanager
    async def rig(self, ids):
        import psycopg

        table = f"items_{uuid4().hex}"
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            connection.execute(f"create table {table} (id int primary key, changed timestamptz, note text)")
            connection.cursor().executemany(
                f"insert into {table} values (%s, timestamptz '2026-01-01 00:00Z' + %s * interval '1 second', 'x')",
                [(n, n // 10) for n in ids],
            )
        yield self.settings(self.server.dsn, table)


class TestPostgresWithKey(TestPostgresWithCursor):
    component = "sql"
    by = {"key": "id"}


class TestMariaDbWithCursor(_Rows):
    component = "sql"

    @pytest.fixture(autouse=True)
    def _place(self, mariadb_server):
        self.server = mariadb_server

    @asynccontextmanager
    async def rig(self, ids):
        table = f"items_{uuid4().hex}"
        with closing(self.server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"create table {table} (id int primary key, changed timestamp(6) null, note text)")
            cursor.executemany(
                f"insert into {table} values (%s, timestamp'2026-01-01 00:00:00' + interval %s second, 'x')",
                [(n, n // 10) for n in ids],
            )
        yield self.settings(self.server.url, table)


class TestMariaDbWithKey(TestMariaDbWithCursor):
    component = "sql"
    by = {"key": "id"}
