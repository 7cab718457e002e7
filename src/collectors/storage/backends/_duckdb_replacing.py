"""`write: replace` in a DuckDB file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb

from collectors.chunks import Reading
from collectors.storage.backends._duckdb_file import Connection
from collectors.storage.replacing import Replacement
from collectors.storage.sql_names import quote

__all__ = ["DuckdbReplacement"]


class DuckdbReplacement(Replacement):
    """One table of an open file. Constraints of the table hold when the rows take their place, not before."""

    refusals = (duckdb.IntegrityError, duckdb.DataError)

    def __init__(self, connection: Connection, table: str) -> None:
        super().__init__(table)
        self._connection = connection

    def place(self, reading: Reading) -> str | None:
        """Do what a delivery asks for; what was known of tables is asked for again."""
        place = super().place(reading)
        if reading != "within":
            self._connection.known.clear()
        return place

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        return self._connection.rows(statement, list(values))

    def columns(self, table: str) -> Mapping[str, str] | None:
        """Return the columns with their types, but for those that are generated."""
        return {name: kind for name, kind, _ in self._described(table)} or None

    def make_waiting(self) -> None:
        """Make it of the same columns, with their defaults."""
        quoted = ", ".join(
            f"{quote(name)} {kind}" + ("" if default is None else f" default ({default})")
            for name, kind, default in self._described(self.table)
        )
        self.run(f"create table {self._quoted_waiting} ({quoted})")

    def note_begun(self) -> None:
        """Insert the line without a location."""
        self.run("insert into _collectors_writes values ('', ?, 0, 0, ?)", [self.waiting, datetime.now(UTC)])

    def change_types(self, kinds: Mapping[str, str]) -> None:
        """Give columns of the empty table other types."""
        for name, kind in kinds.items():
            quoted = f"{quote(name)} type {kind}"
            self.run(f"alter table {self._quoted} alter {quoted}")

    def _described(self, table: str) -> list[tuple[str, str, str | None]]:
        """Return name, type and default of the columns that can be written."""
        return self.run(
            "select column_name, data_type, column_default from duckdb_columns() where schema_name = 'main' "
            "and lower(table_name) = lower(?) and not is_generated order by column_index",
            [table],
        )
