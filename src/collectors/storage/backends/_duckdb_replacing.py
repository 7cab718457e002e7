"""`write: replace` in a DuckDB file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from collectors.chunks import Reading
from collectors.storage.backends._duckdb_file import Connection
from collectors.storage.replacing import Replacement
from collectors.storage.sql_names import quote

__all__ = ["DuckdbReplacement"]


class DuckdbReplacement(Replacement):
    """One table of an open file. Constraints of the table hold when the rows take their place, not before."""

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
        """Return the columns with their types."""
        found = self.run(
            "select column_name, data_type from duckdb_columns() "
            "where schema_name = 'main' and lower(table_name) = lower(?) order by column_index",
            [table],
        )
        return dict(found) or None

    def make_waiting(self) -> None:
        """Make it of the same columns."""
        self.run(f"create table {self._quoted_waiting} as from {self._quoted} limit 0")

    def note_begun(self) -> None:
        """Insert the line without a location."""
        self.run("insert into _collectors_writes values ('', ?, 0, 0, ?)", [self.waiting, datetime.now(UTC)])

    def adopt(self, there: Mapping[str, str], waiting: Mapping[str, str]) -> None:
        """Add the columns that are missing, change the types that are others."""
        for name, kind in waiting.items():
            if name not in there:
                quoted = f"add column {quote(name)} {kind}"
            elif kind != there[name]:
                quoted = f"alter {quote(name)} type {kind}"
            else:
                continue
            self.run(f"alter table {self._quoted} {quoted}")
