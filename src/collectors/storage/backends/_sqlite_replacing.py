"""`write: replace` in a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from collectors.chunks import Reading
from collectors.storage.backends._sqlite_table import ROW, RowTable
from collectors.storage.replacing import Replacement
from collectors.storage.sql_names import quote
from collectors.storage.sqlite_store import Database

__all__ = ["SqliteReplacement"]


class SqliteReplacement(Replacement):
    """One table of an open file. Constraints of the table hold when the rows take their place, not before."""

    refusals = (sqlite3.IntegrityError,)

    def __init__(self, database: Database, table: str) -> None:
        super().__init__(table)
        self._database = database

    def place(self, reading: Reading) -> str | None:
        """Do what a delivery asks for, in a file that may be new."""
        self._make_writes()
        return super().place(reading)

    def give_up(self) -> None:
        """Forget a reading that has begun, in a file that may be new."""
        self._make_writes()
        super().give_up()

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        return self._database.execute(statement, tuple(values)).fetchall()

    def columns(self, table: str) -> Mapping[str, str] | None:
        """Return the columns with their declared types; those that are generated are not among them."""
        return dict(self.run("select name, type from pragma_table_info(?)", [table])) or None

    def make_waiting(self) -> None:
        """Make it of the same columns, with their defaults."""
        numbered = self.run("select 1 from pragma_table_info(?) where name = ? and pk = 1", [self.table, ROW])
        quoted = [
            f"{quote(name)} {'integer primary key' if name == ROW and numbered else kind}"
            + ("" if default is None else f" default ({default})")
            for name, kind, default in self.run(
                "select name, type, dflt_value from pragma_table_info(?)", [self.table]
            )
        ]
        self.run(f"create table {self._quoted_waiting} ({', '.join(quoted)})")

    def note_begun(self) -> None:
        """Insert the line without a location."""
        now = datetime.now(UTC).isoformat()
        self.run("insert into _collectors_writes values ('', ?, 0, 0, 0, ?)", [self.waiting, now])

    def rename(self) -> None:
        """Do so also where there are views of a table that is not there: SQLite refuses it otherwise."""
        ((before,),) = self.run("pragma legacy_alter_table")
        self.run("pragma legacy_alter_table = on")
        try:
            super().rename()
        finally:
            self.run(f"pragma legacy_alter_table = {before}")

    def _make_writes(self) -> None:
        RowTable(self._database, self.table).holds("")  # makes what is beside the table
