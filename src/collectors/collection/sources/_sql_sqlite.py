"""A SQLite file that is read, never written: types by what columns declare, and values that are what SQLite stores.

A column may hold anything in SQLite. Declared types give the type here, by SQLite's own rules of affinity
(https://sqlite.org/datatype3.html#determination_of_column_affinity): integer → int64, real and numeric → double, text, dates and
times → text, blob → binary, boolean → bool. One without a type takes that of its first values.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from collectors.collection.sources._sql_columns import Column, Row
from collectors.collection.sources._sql_database import Database, Fetch
from collectors.collection.sources._sql_dialects import TIMES, SqliteDialect
from collectors.errors import CollectorsError, ConfigurationError, FatalError, TransientError

__all__ = ["Sqlite"]

_KINDS: dict[pa.DataType | None, set[type]] = {
    pa.int64(): {int},
    pa.float64(): {float, int},
    pa.string(): {str},
    pa.binary(): {bytes},
    pa.bool_(): {int},
}
_ROWID = {"rowid", "oid", "_rowid_"}
_BUSY_SECONDS = 5.0


class Sqlite(Database):
    """One read-only connection; it is used by one thread at a time."""

    dialect = SqliteDialect()

    def __init__(self, path: str) -> None:
        self._path = path
        if not Path(path).is_file():
            raise ConfigurationError(f"url: there is no file '{path}'")
        with self._translated():
            self._connection = sqlite3.connect(
                f"file:{quote(path)}?mode=ro",
                uri=True,
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        self.execute("select count(*) from sqlite_schema")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run a statement."""
        with self._translated():
            return self._connection.execute(statement, values).fetchall()

    def columns(self, quoted: str, table: str | None) -> list[Column]:
        """Return the columns as a view of the relation has them, and the rowid of a table."""
        self.execute("drop view if exists temp._collectors_relation")
        self.execute(f"create temp view _collectors_relation as select * from {quoted}")  # noqa: S608  # quoted
        found = self.execute("select name, type from pragma_table_info('_collectors_relation', 'temp')")
        columns = [Column(name, _type(declared), declared or "no type") for name, declared in found]
        self.execute("drop view temp._collectors_relation")
        names = {column.name.lower() for column in columns}
        if table is not None:
            with suppress(CollectorsError):
                self.execute(f"select rowid from {quoted} limit 0")  # noqa: S608  # quoted
                columns += [
                    Column(name, pa.int64(), "rowid", nullable=False) for name in sorted(_ROWID - names)
                ]
        return columns

    def tables(self) -> list[str]:
        """Return tables and views, but for SQLite's own."""
        found = self.execute(
            "select name from sqlite_schema where type in ('table', 'view') and name not like 'sqlite\\_%' escape '\\'"
        )
        return [name for (name,) in found]

    @contextmanager
    def rows(self, statement: str, values: Sequence[Any]) -> Iterator[Fetch]:
        """Enter a result; SQLite computes rows as they are fetched."""
        with self._translated():
            cursor = self._connection.execute(statement, values)

        def fetch(count: int) -> list[Row]:
            with self._translated():
                return cursor.fetchmany(count)

        try:
            yield fetch
        finally:
            cursor.close()

    def learn(self, columns: list[Column], rows: Sequence[Row]) -> list[Column]:
        """Return the columns with the types of their first values where none is declared."""
        return [
            Column(column.name, _type_of(values), column.declared) if column.type is None else column
            for column, values in zip(columns, zip(*rows, strict=True), strict=True)
        ]

    def array(self, column: Column, values: Sequence[Any]) -> pa.Array:
        """Return the values. Raises TypeError when one is of another storage class."""
        if column.type is None:
            return pa.nulls(len(values))
        others = set(map(type, values)) - _KINDS[column.type] - {type(None)}
        if others and column.declared.upper() in TIMES and others <= {int, float}:
            return pa.array([None if value is None else str(value) for value in values], pa.string())
        if others:
            raise TypeError(f"{others}")
        if pa.types.is_boolean(column.type):
            return pa.array([None if value is None else _flag(value) for value in values], column.type)
        return pa.array(values, column.type)

    def interrupt(self) -> None:
        """End the statement that is under way."""
        self.usable = False
        with suppress(sqlite3.Error):
            self._connection.interrupt()

    def close(self) -> None:
        """Close it."""
        self.usable = False
        self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _translate(error, self._path) from error


_BOOLEANS = {"BOOL", "BOOLEAN"}


def _flag(value: int) -> bool:
    if value not in {0, 1}:
        raise ValueError(f"{value}")
    return value == 1


def _type(declared: str) -> pa.DataType | None:
    """Return the type for a declared one: SQLite's rules for its affinity, in their order."""
    name = declared.upper()
    if name in {"", "NUM"}:  # an expression
        return None
    if name in _BOOLEANS:
        return pa.bool_()
    if name in TIMES:
        return pa.string()
    if "INT" in name:
        return pa.int64()
    if any(part in name for part in ("CHAR", "CLOB", "TEXT")):
        return pa.string()
    return pa.binary() if "BLOB" in name else pa.float64()


def _type_of(values: Sequence[Any]) -> pa.DataType | None:
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {int, float}:
        return pa.float64()
    kind = next((type(value) for value in values if value is not None), None)
    types = {int: pa.int64(), float: pa.float64(), str: pa.string(), bytes: pa.binary()}
    return None if kind is None else types[kind]


def _translate(error: sqlite3.Error, path: str) -> CollectorsError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    text = f"SQLite, {path}: {error}"
    if code == sqlite3.SQLITE_NOTADB:
        return ConfigurationError(f"url: '{path}' is no SQLite database, or it is encrypted")
    if code == sqlite3.SQLITE_CORRUPT:
        return FatalError(f"{text}; keep a copy of the file and try: sqlite3 … .recover")
    if code == sqlite3.SQLITE_ERROR or isinstance(error, sqlite3.ProgrammingError):
        return ConfigurationError(text)
    return TransientError(text)
