"""`write: replace` in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from collectors.chunks import Reading
from collectors.storage.backends._postgres_connection import Connection
from collectors.storage.replacing import Replacement
from collectors.storage.sql_names import quote

__all__ = ["PostgresReplacement"]


class PostgresReplacement(Replacement):
    """One table of a schema. The waiting table has the constraints and defaults of the table, but no foreign keys.

    Where triggers may change rows before they are in, it has no constraints: those hold for what the triggers make.

    Whoever reads the table meanwhile sees what was there before: rows are deleted and inserted, so no lock is in the way.
    """

    mark = "%s"
    refusals = (psycopg.IntegrityError, psycopg.DataError)

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
        """Make it of the same columns, with what holds for them; numbers that the server gives are given only once."""
        without = " excluding constraints excluding indexes" if self._has_triggers() else ""
        self.run(f"create table {self._quoted_waiting} (like {self._quoted} including all{without})")
        found = self.run(
            "select attname, attidentity = 'd', quote_literal(pg_get_serial_sequence(%s, attname)) from pg_attribute "
            "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped and attidentity <> 'a' "
            "and (attidentity = 'd' or (attnotnull and %s))",
            [self._quoted, self._quoted, bool(without)],
        )
        for name, is_identity, sequence in found:
            quoted_changes = [f"alter column {quote(name)} drop not null"] if without else []
            if is_identity:
                quoted_changes = [f"alter column {quote(name)} drop identity", *quoted_changes]
                quoted_changes.append(f"alter column {quote(name)} set default nextval({sequence})")
            self.run(f"alter table {self._quoted_waiting} {', '.join(quoted_changes)}")

    def note_begun(self) -> None:
        """Insert the line without a location."""
        self.run(f"insert into {self._writes} values ('', %s, 0, 0, now())", [self.waiting])  # noqa: S608

    def change_types(self, kinds: Mapping[str, str]) -> None:
        """Give columns of the empty table other types."""
        if kinds:
            quoted = ", ".join(f"alter column {quote(name)} type {kind}" for name, kind in kinds.items())
            self.run(f"alter table {self._quoted} {quoted}")

    def _has_triggers(self) -> bool:
        """Return whether triggers of the user's may change rows before they are in the table."""
        before_each_insert = 1 | 2 | 4  # bits of tgtype: for each row, before, insert
        return bool(
            self.run(
                "select 1 from pg_trigger where tgrelid = to_regclass(%s) and not tgisinternal and tgtype & %s = %s",
                [self._quoted, before_each_insert, before_each_insert],
            )
        )
