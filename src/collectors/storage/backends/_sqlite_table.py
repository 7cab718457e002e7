"""The table that the `sqlite` backend fills: its columns, its rows, and which rows belong to which location.

The number of a row, `_collectors_row`, is given out once: `remove` deletes exactly what a location holds even after a
VACUUM or after somebody else's deletes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from collectors.chunks import Drift
from collectors.enums import ErrorType
from collectors.errors import DataError, FatalError
from collectors.storage.backends._sqlite_columns import column_changes, takes, unfit_columns
from collectors.storage.backends._sqlite_types import affinity, encode, fits
from collectors.storage.child_tables import (
    PARENT,
    Links,
    NestedConfig,
    child_names,
    insert_nested,
    link_kinds,
    linked,
)
from collectors.storage.drift import (
    DRIFT_COLUMNS,
    Columns,
    Difference,
    Mode,
    drift_values,
    read_drift,
    unwritten,
)
from collectors.storage.keys import without_key
from collectors.storage.records import plain, without_unfit
from collectors.storage.sql_names import quote
from collectors.storage.sqlite_store import Database

__all__ = ["ROW", "RowTable"]

ROW = "_collectors_row"
_OURS = {"_collectors_writes", "_collectors_writes_last", "_collectors_schema"}
_WRITES = """
create table if not exists _collectors_writes (
    location_id text not null, table_name text not null, first_row integer not null, last_row integer not null,
    rows integer not null, stored_at text not null,
    primary key (location_id, table_name)
) without rowid;
create index if not exists _collectors_writes_last on _collectors_writes (table_name, last_row);
create table if not exists _collectors_schema (
    number integer primary key, table_name text not null, column_name text not null, existing text,
    brought text not null, action text not null, rows integer not null, samples text not null,
    location_id text not null, changed_at text not null
)
"""


class RowTable:
    """One table of an open database; whoever calls `insert` and `remove` opens the transaction.

    An object is for one transaction: what it has asked about the table is not asked again. Its rows are in a table of
    another name where `place` says so: in what is told of them they are the table's own.
    """

    def __init__(
        self, database: Database, name: str, config: NestedConfig | None = None, place: str | None = None
    ) -> None:
        self._database = database
        self._config = config
        self._key = config.key if config else []
        self._mode: Callable[[str], Mode] = config.mode if config else lambda _: "evolve"
        self.found: list[Drift] = []
        self.first: int | None = None
        found = database.execute(
            "select type, name from sqlite_schema where tbl_name = ? collate nocase "
            "or tbl_name in ('_collectors_writes', '_collectors_schema')",
            (name,),
        ).fetchall()
        made = (other for kind, other in found if kind == "table" and other not in _OURS)
        self.name: str = next(made, name)  # as the table was made: rows are written down under it
        self.place = place or self.name
        self._quoted = quote(self.place)
        self._there = {other for _, other in found}
        self._info: list[tuple[str, str, int]] | None = None

    def columns(self) -> dict[str, str]:
        """Return the columns by name with their declared types, our row number left out."""
        return {name: declared for name, declared, _ in self._all_columns() if name != ROW}

    def exists(self) -> bool:
        """Return whether there is a table, or a view, of this name."""
        return bool(self._all_columns())

    def names(self) -> list[str] | None:
        """Return the names of all columns; None when there is no such table."""
        return [name for name, _, _ in self._all_columns()] or None

    def child(self, name: str) -> RowTable:
        """Return another table of the file."""
        return RowTable(self._database, name, self._config)

    def made_for(self, column: str) -> str | None:
        """Return as what a column of the table was written down when that was made last; None: it was not."""
        found = self._database.execute(
            "select brought from _collectors_schema where (table_name, column_name, action) = (?, ?, 'made') "
            "order by number desc limit 1",
            (self.name, column),
        ).fetchone()
        return str(found[0]) if found else None

    @staticmethod
    def unfit(name: str) -> str | None:
        """Return why SQLite cannot have a table of this name; None when it can."""
        return "there is NUL in it" if "\0" in name else None

    def is_numbered(self) -> bool:
        """Return whether our row number is the key of the table, as it is where we made the table."""
        return any(name == ROW and place == 1 for name, _, place in self._all_columns())

    def holds(self, location_id: str) -> bool:
        """Return whether there are rows under a location."""
        self._make_writes()
        return self._find(location_id, self.place) is not None

    def insert(self, parts: Sequence[tuple[str, pa.Table]]) -> int:
        """Store rows, each part under its location, and return their number; all parts have the same columns.

        Where there is a key, each takes the place of the row with the same one. Raises DataError with `rows` for those
        that cannot be stored, numbered over all parts, FatalError when the columns do not fit or a location has rows
        already. With `nested: tables` there is one part, and what is nested in it goes into child tables.
        """
        if self._config is None or self._config.nested != "tables":
            return self._put(parts)
        ((location, table),) = parts
        return insert_nested(self, table, location, self._mode)[0]

    def put(self, table: pa.Table, location_id: str, links: Links | None = None) -> int:
        """Store the rows in this table alone."""
        return self._put([(location_id, table)], links)

    def _put(self, parts: Sequence[tuple[str, pa.Table]], links: Links | None = None) -> int:
        self._make_writes()
        table = pa.concat_tables([rows for _, rows in parts])
        if lacking := without_key(table, self._key):
            raise _refused(self.name, lacking)
        existing = self.columns()
        table = without_unfit(table, unfit_columns(self.name, table.column_names, list(existing)))
        changes = column_changes(self.name, existing, table)
        places = [(location, rows.num_rows) for location, rows in parts]
        told = Columns(self.name, self._mode, parts[0][0], self.found, places)
        is_there = self.exists()
        if is_there:
            settled = told.settle(table, self._differences(changes))
            if settled is not table:
                table, changes = settled, column_changes(self.name, existing, settled)
        declared = self._prepare(changes, links)
        if not is_there:
            told.note_made(link_kinds(links) | declared)
        columns = []
        bad: dict[int, str] = {}
        for name, kind in declared.items():
            values, reasons = encode(plain(table.column(name)), kind)
            columns.append(values)
            bad = {row: f"column '{name}': {reason}" for row, reason in reasons.items()} | bad
        if bad:
            raise _refused(self.name, bad)
        self.first = first = self._next_row()
        ours = {ROW: pa.arange(first, first + table.num_rows), **linked(links)}
        columns = [*(values.to_pylist() for values in ours.values()), *columns]
        self._insert([*ours, *declared], columns)
        self._note(parts, first)
        self._write_down()
        return int(table.num_rows)

    def history(self) -> list[Drift]:
        """Return what became of the columns of all tables in the file."""
        if not self._database.execute(
            "select 1 from sqlite_schema where name = '_collectors_schema'"
        ).fetchone():
            return []
        rows = self._database.execute(f"select {DRIFT_COLUMNS} from _collectors_schema order by number")  # noqa: S608
        return [read_drift(row) for row in rows]

    def remove(self, location_id: str) -> None:
        """Delete the rows of a location, those in child tables, too. Raises KeyError when there is none."""
        if not self.holds(location_id):
            raise KeyError(location_id)
        written = self._database.execute(
            "select table_name from _collectors_writes where location_id = ?", (location_id,)
        ).fetchall()
        for name in [self.name, *child_names(self.name, [name for (name,) in written])]:
            if name == self.name or PARENT in (self.child(name).names() or []):
                self._remove(location_id, name)

    def _remove(self, location_id: str, name: str) -> None:
        found = self._find(location_id, name)
        self._database.execute(f"delete from {quote(name)} where {ROW} between ? and ?", found or ())  # noqa: S608  # quoted
        self._database.execute(
            "delete from _collectors_writes where location_id = ? and table_name = ?", (location_id, name)
        )

    def _all_columns(self) -> list[tuple[str, str, int]]:
        """Return all columns with their declared types, and their places in the key of the table."""
        if self._info is None:
            self._info = self._database.execute(
                "select name, type, pk from pragma_table_info(?)", (self.place,)
            ).fetchall()
        return self._info

    def _make_writes(self) -> None:
        if self._there >= _OURS:
            return
        for statement in _WRITES.split(";"):
            self._database.execute(statement)

    def _note(self, parts: Sequence[tuple[str, pa.Table]], first: int) -> None:
        """Write down which rows each location has."""
        now, notes = _now(), []
        for location_id, rows in parts:
            notes.append((location_id, self.place, first, first + rows.num_rows - 1, rows.num_rows, now))
            first += rows.num_rows
        try:
            self._database.executemany("insert into _collectors_writes values (?, ?, ?, ?, ?, ?)", notes)
        except sqlite3.IntegrityError as error:
            names = ", ".join(name for name, _ in parts[:3])
            raise _unfit(
                f"table '{self.name}' has rows of {names} already, although its position is before them; nothing was "
                "stored. Was a row of _collectors_checkpoint deleted? Choose another table, or delete those rows first"
            ) from error

    def _differences(self, changes: dict[str, tuple[str | None, str]]) -> dict[str, Difference]:
        """Return the columns of the rows that the table does not have, or not of a type that takes all values."""
        found: dict[str, Difference] = {}
        for name, (existing, brought) in changes.items():
            whole = pa.int64() if existing is not None and affinity(existing) == "INTEGER" else None
            if existing is None:
                found[name] = Difference(None, brought)
            elif not takes(existing, brought, self._mode(name)):
                found[name] = Difference(existing, brought, None, whole)
        return found

    def _write_down(self) -> None:
        """Keep what was found."""
        if not self.found:
            return
        left_out = self._database.execute(
            "select column_name, brought from _collectors_schema where table_name = ? and action = 'left out'",
            (self.name,),
        ).fetchall()
        for drift in unwritten(self.found, left_out):
            *values, at = drift_values(drift)
            self._database.execute(
                f"insert into _collectors_schema ({DRIFT_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (*values, at.isoformat()),
            )

    def _find(self, location_id: str, name: str) -> tuple[int, int] | None:
        row: tuple[int, int] | None = self._database.execute(
            "select first_row, last_row from _collectors_writes where location_id = ? and table_name = ?",
            (location_id, name),
        ).fetchone()
        return row

    def _prepare(self, changes: dict[str, tuple[str | None, str]], links: Links | None) -> dict[str, str]:
        """Make the table and columns that are missing; return the declared type of each column of the rows."""
        for name, (existing, brought) in changes.items():
            if existing is not None and not fits(existing, brought):
                raise _unfit(
                    f"table '{self.name}', column '{name}': it is declared {existing} and the rows bring {brought}; "
                    f"cast '{name}' in a processor, rename it, or choose another table"
                )
        known = self.names()
        new = [
            f"{quote(name)} {brought}" for name, (existing, brought) in changes.items() if existing is None
        ]
        if not known:
            ours = [f"{ROW} integer primary key", *(f"{name} integer not null" for name in linked(links))]
            quoted = ", ".join([*ours, *new])
            self._database.execute(f"create table {self._quoted} ({quoted})")
        else:
            new = new if ROW in known else [f"{ROW} integer", *new]
            for quoted in new:
                self._database.execute(f"alter table {self._quoted} add column {quoted}")
        if not known or new:
            self._info = None
        if self._key:
            self._make_key()
        return {name: existing or brought for name, (existing, brought) in changes.items()}

    def _make_key(self) -> None:
        """Have SQLite keep the key unique, which also finds rows by it."""
        name = f"_collectors_key_{self.name}_{'_'.join(self._key)}"
        if name in self._there:
            return
        quoted = quote(name)
        quoted_key = ", ".join(map(quote, self._key))
        try:
            self._database.execute(
                f"create unique index if not exists {quoted} on {self._quoted} ({quoted_key})"
            )
        except sqlite3.IntegrityError as error:
            raise _unfit(
                f"table '{self.name}' has several rows with the same key ({', '.join(self._key)}) already; delete all but "
                "one of each, or choose another `key` or table"
            ) from error

    def _next_row(self) -> int:
        quoted = f" union all select max({ROW}) from {self._quoted}" if self.is_numbered() else ""  # noqa: S608  # quoted
        (last,) = self._database.execute(
            f"select max(last) from (select max(last_row) as last from _collectors_writes where table_name = ?{quoted})",  # noqa: S608
            (self.place,),
        ).fetchone()
        return (last or 0) + 1

    def _insert(self, names: list[str], columns: list[list[Any]]) -> None:
        marks = ", ".join("?" * len(names))
        statement = f"insert into {self._quoted} ({', '.join(map(quote, names))}) values ({marks})"  # noqa: S608
        if self._key:
            quoted_key = ", ".join(map(quote, self._key))
            quoted = [quote(name) for name in (ROW, *self.columns()) if name not in self._key]
            changes = ", ".join(f"{name} = excluded.{name}" for name in quoted)
            statement += f" on conflict ({quoted_key}) do update set {changes}"
        try:
            self._database.executemany(statement, zip(*columns, strict=True))
        except (sqlite3.IntegrityError, sqlite3.DataError):
            self._find_refused(statement, columns)
            raise

    def _find_refused(self, statement: str, columns: list[list[Any]]) -> None:
        """Insert row by row to learn which ones a constraint of the table refuses; the transaction ends in an error."""
        self._database.execute(f"delete from {self._quoted} where {ROW} >= ?", (columns[0][0],))  # noqa: S608
        bad = {}
        for row, values in enumerate(zip(*columns, strict=True)):
            try:
                self._database.execute(statement, values)
            except (sqlite3.IntegrityError, sqlite3.DataError) as error:
                bad[row] = str(error)
        if bad:
            raise _refused(self.name, bad)


def _refused(table: str, bad: dict[int, str]) -> DataError:
    row, reason = min(bad.items())
    return DataError(
        f"{len(bad)} rows cannot be stored in table '{table}'; the first is row {row}: {reason}",
        rows=bad,
        error_type=ErrorType.STORAGE,
    )


def _unfit(message: str) -> FatalError:
    return FatalError(message, error_type=ErrorType.STORAGE)


def _now() -> str:
    return datetime.now(UTC).isoformat()
