"""`write: replace` in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collectors.chunks import Reading
from collectors.storage.backends._postgres_connection import Connection
from collectors.storage.replacing import Replacement
from collectors.storage.sql_names import quote

__all__ = ["PostgresReplacement"]


class PostgresReplacement(Replacement):
    """One table of a schema. The waiting table has the constraints and defaults of the table, but no foreign keys.

    Whoever reads the table meanwhile sees what was there before: rows are deleted and inserted, so no lock is in the way.
    """

    mark = "%s"

    def __init__(self, connection: Connection, schema: str | None, table: str) -> None:
        self.quoted_schema = f"{quote(schema)}." if schema else ""
        super().__init__(table)
        self._connection = connection

    def place(self, reading: Reading) -> str | None:
        """Do what a delivery asks for; rows that take their place may take the server as long as a slow COPY."""
        if reading != "ends":
            return super().place(reading)
        with self._connection.patient():
            return super().place(reading)

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        cursor = self._connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def columns(self, table: str) -> Mapping[str, str] | None:
        """Return the columns with their types, but for those that the server fills."""
        found = self.run(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = to_regclass(%s) "
            "and attnum > 0 and not attisdropped and attgenerated = '' and attidentity <> 'a' order by attnum",
            [f"{self.quoted_schema}{quote(table)}"],
        )
        return dict(found) or None

    def make_waiting(self) -> None:
        """Make it of the same columns, with what holds for them."""
        self.run(f"create table {self._quoted_waiting} (like {self._quoted} including all)")

    def note_begun(self) -> None:
        """Insert the line without a location."""
        self.run(f"insert into {self._writes} values ('', %s, 0, 0, now())", [self.waiting])  # noqa: S608

    def adopt(self, there: Mapping[str, str], waiting: Mapping[str, str]) -> None:
        """Add the columns that are missing, change the types that are others."""
        quoted = [f"add column {quote(name)} {kind}" for name, kind in waiting.items() if name not in there]
        quoted += [
            f"alter column {quote(name)} type {kind}"
            for name, kind in waiting.items()
            if there.get(name, kind) != kind
        ]
        if quoted:
            self.run(f"alter table {self._quoted} {', '.join(quoted)}")
