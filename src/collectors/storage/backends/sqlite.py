"""Rows in a table of a SQLite file, typed, queryable, deletable.

    storage:
      type: sqlite
      path: readings.db
      table: readings

The table and its folder are made with the first rows; a column that appears later is added, and older rows have null
there. A column whose type does not fit the declared one stops the flow and says what to do. A table that exists
already is used as it is, with one more column, `_collectors_row`, which says which rows came with which commit.

With `nested: tables` what is nested in a record goes into columns and child tables of its own.

With `write: upsert` and a `key` each row takes the place of the one with the same key, kept unique by an index.
With `write: replace` a whole reading takes the place of the one before.

Delivery: exactly once: rows, position, dead letters and counts are one transaction. WAL, `synchronous=FULL`: what was
acknowledged survives a power cut. One process writes to a file at a time; others may read it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import pyarrow as pa
from pydantic import AfterValidator

from collectors.chunks import Checkpoint, ChunkKey, Counts, DeadLetter, Delivery, Drift, Reading
from collectors.errors import ConfigurationError, TransientError
from collectors.models import QueryCriteria
from collectors.settings import Duration, LocalPath
from collectors.storage.backends._sqlite_columns import column_changes, takes, unfit_columns
from collectors.storage.backends._sqlite_table import RowTable
from collectors.storage.base import Backend, source_of
from collectors.storage.child_tables import NestedConfig, preview_nested, without_children
from collectors.storage.files import check_writable
from collectors.storage.sqlite_store import Database, DeliveryTables, open_database

if TYPE_CHECKING:
    from collectors.storage.replacing import Replacement

__all__ = ["COMPONENT", "SqliteBackend", "SqliteConfig"]


SOURCE = "{source}"
_TAKEN = ("_collectors", "sqlite_")


def _table_name(name: str) -> str:
    if not name or "\0" in name or name.lower().startswith(_TAKEN):
        raise ValueError(
            "expected the name of a table; those that begin with _collectors or sqlite_ are taken"
        )
    return name


class SqliteConfig(NestedConfig):
    """Settings of the `sqlite` backend."""

    path: LocalPath
    """The database file; it is made when it is not there."""
    table: Annotated[str, AfterValidator(_table_name)] = "{source}"
    """The table that takes the rows; `{source}` in it stands for the id of the source."""
    lock_timeout: Duration = 5.0
    """How long to wait while another process writes to the file, before the attempt counts as failed."""

    def scratch(self, folder: Path) -> Self:
        """Return the settings for a file of the same name in the folder."""
        return self.model_copy(update={"path": str(folder / Path(self.path).name)})


class SqliteBackend(Backend[SqliteConfig]):
    """Keeps one connection that writes, opened with the first write; until then one that only reads."""

    _database: Database | None = None
    _writing = False

    def open(self) -> None:
        """Look whether the file is a database, if there is one; nothing is written."""
        if Path(self.config.path).exists():
            self._database = self._open(read_only=True)

    def close(self) -> None:
        """Close the file."""
        database, self._database, self._writing = self._database, None, False
        if database is not None:
            database.close()

    def write(self, table: pa.Table, key: ChunkKey) -> int:
        """Store the rows and return their number."""
        with self._writer() as database, database.transaction():
            rows = RowTable(database, self._table(key.flow), self.config)
            location = self.location(key)
            if rows.holds(location):
                return 0
            if not self.config.replaces_readings():
                return rows.insert([(location, table)])
            with self._replacement(database, rows.name).whole() as place:
                return RowTable(database, rows.name, self.config, place).insert([(location, table)])

    def claim(self, flow: str) -> Checkpoint:
        """Raise the flow's epoch and return how far it is stored in this table."""
        with self._writer() as database:
            return self._tables(database).claim(flow)

    def commit(self, delivery: Delivery) -> int:
        """Store rows, letters, counts and position in one transaction."""
        return self._commit([delivery])[0]

    def commit_together(self, deliveries: Sequence[Delivery]) -> list[int]:
        """Store deliveries of different flows in one transaction."""
        return self._commit(deliveries)

    def _commit(self, deliveries: Sequence[Delivery]) -> list[int]:
        """Rows of one table and of the same columns are inserted at once."""
        with self._writer() as database:

            def store_rows(fresh: Sequence[Delivery]) -> None:
                for (name, *_), group in self._alike(fresh).items():
                    place = self._place(database, name, group[0].reading)
                    parts = [(self.location(each.key), each.table) for each in group if each.table.num_rows]
                    if not parts:
                        continue
                    rows = RowTable(database, name, self.config, place)
                    try:
                        rows.insert(parts)
                    finally:
                        for flow in {each.key.flow for each in group}:
                            self.drifts[flow] = [
                                drift for drift in rows.found if drift.location.rpartition(":")[0] == flow
                            ]

            return self._tables(database).commit_together(deliveries, store_rows)

    def stored(self, flow: str) -> Checkpoint:
        """Return how far the flow is stored in this table."""
        database = self._reader()
        return Checkpoint(0) if database is None else self._tables(database).stored(flow)

    def flows(self, source: str) -> list[str]:
        """Return the flows of a source of which anything is stored in this table."""
        database = self._reader()
        return [] if database is None else self._tables(database).flows(source)

    def dead_letters(self, pipeline: str) -> Iterator[DeadLetter]:
        """Yield the letters of a pipeline that were set aside on the way to this file."""
        database = self._reader()
        return iter(()) if database is None else self._tables(database).dead_letters(pipeline)

    def forget_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Delete these letters."""
        if self._reader() is not None:
            with self._writer() as database:
                self._tables(database).forget_letters(letters)

    def ledger(self, run: str) -> dict[str, Counts]:
        """Return what a run has stored in this table, by flow."""
        database = self._reader()
        found = {} if database is None else self._tables(database).ledger(run)
        return {flow: counts for (_, flow), counts in found.items()}

    def schema_history(self) -> list[Drift]:
        """Return what became of the columns of the tables in this file."""
        database = self._reader()
        if database is None:
            return []
        with database.translated():
            return RowTable(database, "").history()

    def select(self, criteria: QueryCriteria) -> list[dict[str, Any]]:
        """Return the matching rows; none while there is no file or no table."""
        from collectors.storage.backends import _sqlite_query

        database = self._reader()
        if database is None:
            return []
        with database.translated():
            name = self._queried_table(database)
        return [] if name is None else _sqlite_query.select(database, name, criteria)

    def tables(self) -> list[str]:
        """Return the names of the tables in the file, without our own."""
        database = self._reader()
        if database is None:
            return []
        with database.translated():
            return _table_names(database, with_views=True)

    def remove(self, location_id: str) -> None:
        """Delete the rows that were stored under the location."""
        if self._reader() is None:
            raise KeyError(location_id)
        with self._writer() as database, database.transaction():
            RowTable(database, self._table(location_id.rpartition(":")[0])).remove(location_id)

    def preview(self, table: pa.Table, flow: str) -> list[str]:
        """Return what storing this table would change in the file."""
        path, name = Path(self.config.path), self._table(flow)
        check_writable(path)
        database = self._open(read_only=True) if path.exists() else None

        def look(name: str, rows: pa.Table) -> tuple[list[str] | None, list[str]]:
            there = None if database is None else RowTable(database, name)
            existing = None if there is None or not there.exists() else there.columns()
            return list(existing or ()) or None, _preview(self.config, name, existing, rows)

        try:
            lines = preview_nested(table, name, self.config, RowTable.unfit, look)
            made = [] if database is not None else [f"+ file {path}"]
            return [*made, *lines, *self.config.preview_key(table)]
        finally:
            if database is not None:
                database.close()

    def describe(self) -> str:
        """Return the path, and the table where there is one for all sources."""
        fixed = SOURCE not in self.config.table
        return f"{self.config.path}:{self.config.table}" if fixed else self.config.path

    def place(self, source: str) -> str:
        """Return the file that the path leads to, and the table; case does not tell tables apart."""
        return f"{os.path.realpath(self.config.path)}, table {self._table_of(source).lower()}"

    def _table(self, flow: str) -> str:
        return self._table_of(source_of(flow))

    def _table_of(self, source: str) -> str:
        return self.config.table.replace(SOURCE, source)

    def _queried_table(self, database: Database) -> str | None:
        """Return the table to query: the one of the settings, or the only one that there is."""
        if SOURCE not in self.config.table:
            return self.config.table
        prefix, suffix = self.config.table.split(SOURCE, 1)
        names = [name for name in _table_names(database) if name.startswith(prefix) and name.endswith(suffix)]
        if self.config.nested == "tables":
            names = without_children(names)
        if len(names) > 1:
            raise ConfigurationError(
                f"{self.config.path} has a table for each of {', '.join(names)}; say which one is meant: "
                "--table NAME on the command line, `table:` in the settings"
            )
        return names[0] if names else None

    def _alike(self, deliveries: Sequence[Delivery]) -> dict[tuple[Any, ...], list[Delivery]]:
        """Return the deliveries that have rows by table and columns; each alone where they have child tables.

        Those of readings that are to be replaced stay alone, too, with rows or not.
        """
        groups: dict[tuple[Any, ...], list[Delivery]] = {}
        for number, delivery in enumerate(deliveries):
            marked = bool(delivery.reading) and self.config.replaces_readings()
            if delivery.table.num_rows or marked:
                alone = number if self.config.nested == "tables" or marked else None
                key = self._table(delivery.key.flow), delivery.table.schema, alone
                groups.setdefault(key, []).append(delivery)
        return groups

    def _place(self, database: Database, name: str, reading: Reading) -> str | None:
        """Do what is to be done at this point of a reading; return where the rows wait, if they do."""
        if not reading:
            return None
        replacement = self._replacement(database, RowTable(database, name).name)
        if self.config.replaces_readings():
            return replacement.place(reading)
        replacement.give_up()  # this storage has replaced before, as another one of the source does
        return None

    def _replacement(self, database: Database, name: str) -> Replacement:
        from collectors.storage.backends._sqlite_replacing import SqliteReplacement

        return SqliteReplacement(database, name)

    def _tables(self, database: Database) -> DeliveryTables:
        return DeliveryTables(database, self.config.table)

    def _reader(self) -> Database | None:
        if self._database is None:
            self.open()
        return self._database

    @contextmanager
    def _writer(self) -> Iterator[Database]:
        """Give the connection that writes; after a failure that may pass, the next one is a new one."""
        try:
            if not self._writing or self._database is None:
                self.close()
                self._database, self._writing = self._open(read_only=False), True
                self._tables(self._database).create()
            yield self._database
        except TransientError:
            self.close()
            raise

    def _open(self, *, read_only: bool) -> Database:
        return open_database(self.config.path, read_only=read_only, timeout=self.config.lock_timeout)


def _table_names(database: Database, *, with_views: bool = False) -> list[str]:
    found = database.execute(
        "select name from sqlite_schema where type = 'table' or (? and type = 'view') order by name",
        (with_views,),
    )
    return [name for (name,) in found if not name.startswith(_TAKEN)]


def _preview(config: SqliteConfig, name: str, existing: dict[str, str] | None, table: pa.Table) -> list[str]:
    lines = [f"+ table {name}"] if existing is None else []
    for column, (declared, brought) in column_changes(name, existing or {}, table).items():
        if existing is None:
            lines.append(f"+ {column} {brought}")
        elif declared is None:
            lines.append(config.preview_new(column, brought))
        elif takes(declared, brought, config.mode(column)):
            lines.append(f"= {column} {declared}")
        else:
            lines.append(config.preview_other(column, declared, brought, None))
    unfit = unfit_columns(name, table.column_names, list(existing or {}))
    return lines + [
        f"~ {column}: {reason}; records that have it are set aside" for column, reason in unfit.items()
    ]


COMPONENT = SqliteBackend
