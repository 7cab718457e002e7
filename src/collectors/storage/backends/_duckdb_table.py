"""The table that the `duckdb` backend fills: its columns, its rows, and which rows belong to which location."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from collectors.chunks import Drift
from collectors.enums import ErrorType
from collectors.errors import DataError, FatalError
from collectors.storage.backends._duckdb_columns import (
    Change,
    Column,
    column_changes,
    differences,
    unfit_columns,
)
from collectors.storage.backends._duckdb_file import Connection
from collectors.storage.backends._duckdb_types import (
    UnstorableError,
    conversion,
    fit,
    sql_type,
    storable,
)
from collectors.storage.child_tables import (
    PARENT,
    Links,
    NestedConfig,
    child_names,
    insert_nested,
    link_kinds,
    linked,
)
from collectors.storage.drift import DRIFT_COLUMNS, Columns, Mode, drift_values, read_drift, unwritten
from collectors.storage.keys import without_key
from collectors.storage.records import without_unfit
from collectors.storage.sql_names import folded, quote

__all__ = ["ROW", "RowTable", "table_names"]

ROW = "_collectors_row"
_SAMPLE = 4096
"""So many values are looked at to choose a compression."""


class RowTable:
    """One table of an open file; whoever calls `insert` and `remove` opens the transaction.

    Its rows are in a table of another name where `place` says so: in what is told of them they are the table's own.
    """

    def __init__(
        self, connection: Connection, name: str, config: NestedConfig | None = None, place: str | None = None
    ) -> None:
        self._connection = connection
        self._config = config
        self._key = config.key if config else []
        self._mode: Callable[[str], Mode] = config.mode if config else lambda _: "evolve"
        self.found: list[Drift] = []
        self.first: int | None = None
        self.name = name
        self.place = place or name
        self._quoted = quote(self.place)

    def columns(self) -> list[Column]:
        """Return the columns, our row number left out; none when there is no such table."""
        return [column for column in self._all_columns() if column.name != ROW]

    def exists(self) -> bool:
        """Return whether there is a table, or a view, of this name."""
        return bool(self._all_columns())

    def names(self) -> list[str] | None:
        """Return the names of all columns; None when there is no such table."""
        return [column.name for column in self._all_columns()] or None

    def child(self, name: str) -> RowTable:
        """Return another table of the file, under the name with which it was made; asked of the connection once."""
        known = self._connection.known
        made: str | None = known.get(f"{name}\0")  # which is no name of a table
        if made is None:
            found = self._connection.rows(
                "select table_name from duckdb_tables() where schema_name = 'main' and lower(table_name) = lower(?)",
                [name],
            )
            made = known[f"{name}\0"] = next(
                (made for (made,) in found if folded(made) == folded(name)), name
            )
        return RowTable(self._connection, made, self._config)

    def made_for(self, column: str) -> str | None:
        """Return as what a column of the table was written down when that was made last; None: it was not."""
        found = self._connection.rows(
            "select brought from _collectors_schema where (table_name, column_name, action) = (?, ?, 'made') "
            "order by rowid desc limit 1",
            [self.name, column],
        )
        return str(found[0][0]) if found else None

    @staticmethod
    def unfit(name: str) -> str | None:
        """Return why DuckDB cannot have a table of this name; None when it can."""
        return "there is NUL in it" if "\0" in name else None

    def insert(self, table: pa.Table, location_id: str) -> bool:
        """Store the rows under a location; returns whether columns were made or changed.

        Where there is a key, each takes the place of the row with the same one. Raises DataError with `rows` for those
        whose values cannot be stored, without for those that a constraint of the table refuses; FatalError when the
        columns do not fit. With `nested: tables` what is nested in the rows goes into child tables.
        """
        if self._config is None or self._config.nested != "tables":
            return self.put(table, location_id)
        return any(insert_nested(self, table, location_id, self._mode))

    def put(self, table: pa.Table, location_id: str, links: Links | None = None) -> bool:
        """Store the rows in this table alone."""
        if lacking := without_key(table, self._key):
            raise self._refused_rows(lacking)
        existing = self._all_columns()
        names = [column.name for column in existing]
        table = without_unfit(table, unfit_columns(self.name, table.column_names, names))
        told = Columns(self.name, self._mode, location_id, self.found)
        if existing:
            table = told.settle(table, differences(column_changes(self.name, table, existing)))
        changes = column_changes(self.name, table, existing)
        altered = self._alter(changes, existing, table, links)
        if not existing:
            told.note_made(
                link_kinds(links) | {name: sql_type(change.brought) for name, change in changes.items()}
            )
        if altered:
            del self._connection.known[self.place]
        columns: dict[str, pa.ChunkedArray] = {}
        bad: dict[int, str] = {}
        for name, change in changes.items():
            columns[name], reasons = fit(table.column(name), change.wanted or change.brought)
            bad = {row: f"column '{name}': {reason}" for row, reason in reasons.items()} | bad
        if bad:
            raise self._refused_rows(bad)
        self.first, count = self._next_row(), table.num_rows
        ours = {ROW: pa.arange(self.first, self.first + count), **linked(links)}
        arrays = [*ours.values(), *columns.values()]
        rows = pa.table(arrays, [f"c{number}" for number in range(len(arrays))])
        quoted = f"{self._quoted} ({', '.join(map(quote, [*ours, *columns]))})"
        try:
            if self._key:
                self._replace(quoted, rows, [list(columns).index(name) + 1 for name in self._key])
            else:
                self._connection.insert(quoted, rows)
        except (duckdb.DataError, duckdb.IntegrityError) as error:
            raise _refused(f"table '{self.name}' refuses rows: {error}") from error
        self._connection.execute(
            "insert into _collectors_writes values (?, ?, ?, ?, ?)",
            [location_id, self.place, self.first, self.first + count - 1, datetime.now(UTC)],
        )
        self._write_down()
        return altered

    def history(self) -> list[Drift]:
        """Return what became of the columns of all tables in the file; a file from before has no place for it."""
        if "_collectors_schema" not in table_names(self._connection):
            return []
        rows = self._connection.rows(f"select {DRIFT_COLUMNS} from _collectors_schema order by rowid")  # noqa: S608
        return [read_drift(row) for row in rows]

    def _write_down(self) -> None:
        """Keep what was found."""
        if not self.found:
            return
        left_out = self._connection.rows(
            "select column_name, brought from _collectors_schema where table_name = ? and action = 'left out'",
            [self.name],
        )
        for drift in unwritten(self.found, left_out):
            self._connection.execute(
                f"insert into _collectors_schema ({DRIFT_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                list(drift_values(drift)),
            )

    def _replace(self, quoted: str, rows: pa.Table, places: Sequence[int]) -> None:
        """Put rows, whose first column is their number, in the place of those with the same key; the last of each counts."""
        key = [f"c{place}" for place in places]
        quoted_same = " and ".join(
            f"kept.{quote(name)} = new.{own}" for name, own in zip(self._key, key, strict=True)
        )
        quoted_latest = f"row_number() over (partition by {', '.join(key)} order by c0 desc) = 1"
        with self._connection.incoming(rows) as new_quoted:
            quoted_pair = f"{self._quoted} as kept using {new_quoted} as new"
            self._connection.execute(f"delete from {quoted_pair} where {quoted_same}")  # noqa: S608
            self._connection.execute(
                f"insert into {quoted} select * from {new_quoted} qualify {quoted_latest} order by c0"  # noqa: S608
            )

    def holds(self, location_id: str) -> bool:
        """Return whether there are rows under the location."""
        return bool(self._find(location_id))

    def remove(self, location_id: str) -> None:
        """Delete the rows of a location, those in child tables, too. Raises KeyError when there is none."""
        if not self.holds(location_id):
            raise KeyError(location_id)
        written = self._connection.rows(
            "select table_name from _collectors_writes where location_id = ?", [location_id]
        )
        for name in [self.name, *child_names(self.name, [name for (name,) in written])]:
            rows = RowTable(self._connection, name)
            if name != self.name and PARENT not in (rows.names() or []):
                continue
            ((first, last),) = rows._find(location_id)
            self._connection.execute(f"delete from {quote(name)} where {ROW} between ? and ?", [first, last])  # noqa: S608  # quoted
            self._connection.execute(
                "delete from _collectors_writes where location_id = ? and table_name = ?", [location_id, name]
            )

    def _refused_rows(self, bad: dict[int, str]) -> DataError:
        row, reason = min(bad.items())
        return _refused(
            f"{len(bad)} rows cannot be stored in table '{self.name}'; the first is row {row}: {reason}", bad
        )

    def _all_columns(self) -> list[Column]:
        """Return the columns with our row number; asked of the connection once, until the table is changed."""
        columns: list[Column] | None = self._connection.known.get(self.place)
        if columns is None:
            columns = self._connection.known[self.place] = self._look_up()
        return columns

    def _look_up(self) -> list[Column]:
        found = self._connection.rows(
            "select table_name, column_name, data_type from duckdb_columns() "
            "where schema_name = 'main' and lower(table_name) = lower(?) order by table_oid, column_index",
            [self.place],
        )
        declared = [(name, text) for table, name, text in found if folded(table) == folded(self.place)]
        if not declared:
            return []
        schema = self._connection.types(self._quoted)
        kinds = [_plain(field.type) for field in schema]
        return [Column(name, text, kind) for (name, text), kind in zip(declared, kinds, strict=True)]

    def _find(self, location_id: str) -> list[tuple[int, int]]:
        return self._connection.rows(
            "select first_row, last_row from _collectors_writes where location_id = ? and table_name = ?",
            [location_id, self.place],
        )

    def _next_row(self) -> int:
        ((last,),) = self._connection.rows(
            "select max(last_row) from _collectors_writes where table_name = ?", [self.place]
        )
        return (last or 0) + 1

    def _alter(
        self, changes: dict[str, Change], existing: list[Column], table: pa.Table, links: Links | None
    ) -> bool:
        """Make the table and the columns that are missing, widen those that are too narrow."""
        for name, change in changes.items():
            if change.wanted is None:
                raise _unfit(
                    f"table '{self.name}', column '{name}': it is declared "
                    f"{change.existing.declared if change.existing else None} and the rows bring "
                    f"{sql_type(change.brought)}; cast '{name}' in a processor, rename it, or choose another table"
                )
        quoted = [
            f"{quote(name)} {sql_type(change.brought)}{_compression(table.column(name))}"
            for name, change in changes.items()
            if change.existing is None
        ]
        if ROW not in {column.name for column in existing}:
            quoted.insert(0, f"{ROW} bigint")
        if not existing:
            quoted[1:1] = [f"{name} bigint not null" for name in linked(links)]
            quoted_columns = ", ".join(quoted)
            self._connection.execute(f"create table {self._quoted} ({quoted_columns})")
            return True
        for new_quoted in quoted:
            self._connection.execute(f"alter table {self._quoted} add column {new_quoted}")
        widening = [found for change in changes.values() if (found := change.widening)]
        for known, wanted in widening:
            self._widen(known, wanted)
        return bool(quoted or widening)

    def _widen(self, column: Column, wanted: pa.DataType) -> None:
        """Give a column another type; each value must be the same before and behind."""
        quoted, declared = quote(column.name), sql_type(wanted)
        if not pa.types.is_nested(wanted):
            lost = self._connection.rows(
                f"select cast({quoted} as varchar) from {self._quoted} where {quoted} is distinct from "  # noqa: S608  # quoted
                f"try_cast(try_cast({quoted} as {declared}) as {column.declared}) limit 1"
            )
            if lost:
                raise _unfit(
                    f"table '{self.name}', column '{column.name}': it is declared {column.declared}, the rows bring what "
                    f"needs {declared}, and a value that is there, {lost[0][0]}, would not keep its digits; cast "
                    f"'{column.name}' in a processor, rename it, or choose another table"
                )
        widening_quoted = f"{quoted} type {declared} using {conversion(quoted, column.arrow, wanted)}"
        self._connection.execute(f"alter table {self._quoted} alter {widening_quoted}")


def table_names(connection: Connection) -> list[str]:
    """Return the names of all tables and views, sorted."""
    found = connection.rows(
        "select table_name from information_schema.tables where table_schema = 'main' order by 1"
    )
    return [name for (name,) in found]


def _compression(values: pa.ChunkedArray) -> str:
    """Return what a new column says about compression: nothing, mostly.

    Text of which hardly a value comes twice, like times or ids, is told to be zstd: half the work of the dictionary that
    DuckDB would choose, and smaller.
    """
    sample = values.slice(0, _SAMPLE)
    if not pa.types.is_string(values.type) or len(sample) < _SAMPLE:
        return ""
    return " using compression zstd" if pc.count_distinct(sample).as_py() > _SAMPLE // 2 else ""


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of a result as `storable` has it, where it has."""
    try:
        return storable(kind)
    except UnstorableError:
        return kind


def _refused(message: str, rows: dict[int, str] | None = None) -> DataError:
    return DataError(message, rows=rows, error_type=ErrorType.STORAGE)


def _unfit(message: str) -> FatalError:
    return FatalError(message, error_type=ErrorType.STORAGE)
