"""Rows in a table of a DuckDB file, typed, for analysis with SQL.

    storage:
      type: duckdb
      path: readings.duckdb
      table: readings

The table and its folder are made with the first rows. A column that appears later is added, and older rows have null
there; one that turns out too narrow (BIGINT for 1.5, an object with a new field) is widened where no value loses a
digit. Objects and lists stay what they are: STRUCT, MAP and LIST. A type that does not fit stops the flow and says what
to do. A table that exists already gets one more column, `_collectors_row`, which says which rows came with which commit.

With `nested: tables` what is nested in a record goes into columns and child tables of its own.

With `write: upsert` and a `key` each row takes the place of those with the same key.
With `write: replace` a whole reading takes the place of the one before.

Delivery: exactly once: rows, position, dead letters and counts are one transaction. What is behind DuckDB's last
CHECKPOINT, at most `checkpoint_after` ago, is told as durable: what came later is kept by its source or the spool, so
that even a write-ahead log that DuckDB cannot replay after a crash costs nothing (it is moved aside, and a warning
names it). While a pipeline writes to the file, no other process can open it: DuckDB's rule.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import pyarrow as pa
from pydantic import AfterValidator, Field

from collectors.chunks import Checkpoint, ChunkKey, Counts, DeadLetter, Delivery, Drift
from collectors.errors import ConfigurationError
from collectors.models import QueryCriteria
from collectors.settings import ByteSize, Duration, LocalPath
from collectors.storage.backends._duckdb_columns import Change, Column, column_changes, unfit_columns
from collectors.storage.backends._duckdb_file import CHECKPOINT_BYTES, Connection, Database, shared
from collectors.storage.backends._duckdb_state import FlowTables, create_tables
from collectors.storage.backends._duckdb_table import RowTable, table_names
from collectors.storage.backends._duckdb_types import sql_type
from collectors.storage.base import Backend, source_of
from collectors.storage.child_tables import NestedConfig, preview_nested, without_children
from collectors.storage.files import check_writable

if TYPE_CHECKING:
    from collectors.storage.replacing import Replacement

__all__ = ["COMPONENT", "DuckdbBackend", "DuckdbConfig"]

SOURCE = "{source}"
_TAKEN = "_collectors"


def _table_name(name: str) -> str:
    if not name or "\0" in name or name.lower().startswith(_TAKEN):
        raise ValueError("expected the name of a table; those that begin with _collectors are taken")
    return name


class DuckdbConfig(NestedConfig):
    """Settings of the `duckdb` backend."""

    path: LocalPath
    """The database file; it is made when it is not there."""
    table: Annotated[str, AfterValidator(_table_name)] = "{source}"
    """The table that takes the rows; `{source}` in it stands for the id of the source."""
    checkpoint_after: Duration = 30.0
    """Make a checkpoint when the oldest rows that are not behind one have waited so long, or at 64 MiB of log."""
    memory: ByteSize = 128 * 2**20
    """What DuckDB itself may take for its buffers, beside the memory of the pipeline."""
    threads: int = Field(1, ge=1)
    """So many cores work on a statement or a checkpoint."""

    def scratch(self, folder: Path) -> Self:
        """Return the settings for a file of the same name in the folder."""
        return self.model_copy(update={"path": str(folder / Path(self.path).name)})


class DuckdbBackend(Backend[DuckdbConfig]):
    """Shares one connection with whoever uses the same file in this process."""

    commit_rows = 184_320
    """One and a half of DuckDB's row groups: whole ones go past its log, and the rest is not worth being merged."""
    _database: Database | None = None
    _durable: dict[str, int]

    def open(self) -> None:
        """Look whether the file is a database, if there is one; nothing is written."""
        self._durable = {}
        self._database = shared(
            self.config.path, memory=self.config.memory, threads=self.config.threads, prepare=create_tables
        )
        self._database.join()
        if not self._database.log_size():  # else it may be that only one who writes can open it
            with self._database.reading():
                pass

    def close(self) -> None:
        """Close the file, unless others of this process use it."""
        database, self._database = self._database, None
        if database is not None:
            database.leave()

    def write(self, table: pa.Table, key: ChunkKey) -> int:
        """Store the rows and return their number; `flush` brings them behind a checkpoint."""
        with self._file.transaction() as connection:
            rows = RowTable(connection, self._table(key.flow), self.config)
            if rows.holds(self.location(key)):
                return 0
            if not self.config.replaces_readings():
                rows.insert(table, self.location(key))
            else:
                with self._replacement(connection, key.flow).whole() as place:
                    RowTable(connection, rows.name, self.config, place).insert(table, self.location(key))
        return int(table.num_rows)

    def claim(self, flow: str) -> Checkpoint:
        """Raise the flow's epoch and return how far it is stored in this table; all of that is durable."""
        with self._file.transaction() as connection:
            checkpoint = self._flows(connection).claim(flow)
        self._checkpoint()
        return checkpoint

    def commit(self, delivery: Delivery) -> int:
        """Store rows, letters, counts and position in one transaction; return the seq behind the last checkpoint."""
        with self._file.transaction() as connection:
            altered = self._store(connection, delivery)
        if altered or self._file.log_size() >= CHECKPOINT_BYTES:
            self._checkpoint()
        return self._durable.get(delivery.key.flow, 0)

    def rehearse(self, delivery: Delivery) -> None:
        """Store a delivery and take it back, with what was found about columns."""
        try:
            with self._file.transaction(take_back=True) as connection:
                self._store(connection, delivery)
        finally:
            self.drifts.pop(delivery.key.flow, None)

    def stored(self, flow: str) -> Checkpoint:
        """Return how far the flow is durably stored in this table: whoever has claimed flows makes a checkpoint."""
        if self._durable:
            self._checkpoint()
        if self._file.log_size():
            with self._file.transaction():
                pass  # whoever asks is about to write: a log that cannot be replayed is moved aside first
        with self._reading() as flows:
            return flows.stored(flow) if flows else Checkpoint(0)

    def flows(self, source: str) -> list[str]:
        """Return the flows of a source of which anything is stored in this table."""
        with self._reading() as flows:
            return flows.of(source) if flows else []

    def flush(self) -> None:
        """Make a checkpoint, if there is anything to bring behind one."""
        if self._file.log_size():
            self._checkpoint()

    def flush_interval(self) -> float:
        """Return `checkpoint_after`."""
        return self.config.checkpoint_after

    def dead_letters(self, pipeline: str) -> Iterator[DeadLetter]:
        """Yield the letters of a pipeline that were set aside on the way to this file."""
        with self._reading() as flows:
            return iter(flows.dead_letters(pipeline) if flows else [])

    def forget_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Delete these letters."""
        if letters and Path(self.config.path).exists():
            with self._file.transaction() as connection:
                self._flows(connection).forget_letters(letters)
            self._checkpoint()

    def ledger(self, run: str) -> dict[str, Counts]:
        """Return what a run has stored in this table, by flow."""
        with self._reading() as flows:
            return flows.ledger(run) if flows else {}

    def schema_history(self) -> list[Drift]:
        """Return what became of the columns of the tables in this file."""
        with self._file.reading() as connection:
            if connection is None or not self._flows(connection).exist():
                return []
            return RowTable(connection, "").history()

    def select(self, criteria: QueryCriteria) -> list[dict[str, Any]]:
        """Return the matching rows; none while there is no file or no table."""
        from collectors.storage.backends import _duckdb_query

        with self._file.reading() as connection:
            name = None if connection is None else self._queried_table(connection)
            return (
                [] if connection is None or name is None else _duckdb_query.select(connection, name, criteria)
            )

    def tables(self) -> list[str]:
        """Return the names of the tables in the file, without our own."""
        with self._file.reading() as connection:
            names = [] if connection is None else table_names(connection)
        return [name for name in names if not name.startswith(_TAKEN)]

    def remove(self, location_id: str) -> None:
        """Delete the rows that were stored under the location."""
        if not Path(self.config.path).exists():
            raise KeyError(location_id)
        with self._file.transaction() as connection:
            RowTable(connection, self._table(location_id.rpartition(":")[0])).remove(location_id)
        self._checkpoint()

    def preview(self, table: pa.Table, flow: str) -> list[str]:
        """Return what storing this table would change in the file."""
        check_writable(Path(self.config.path))
        name = self._table(flow)
        file = shared(
            self.config.path, memory=self.config.memory, threads=self.config.threads, prepare=create_tables
        )
        with file.reading() as connection:

            def look(name: str, rows: pa.Table) -> tuple[list[str] | None, list[str]]:
                existing = [] if connection is None else RowTable(connection, name).columns()
                told = _preview(self.config, name, existing, rows)
                return [column.name for column in existing] or None, told

            lines = [] if connection is not None else [f"+ file {self.config.path}"]
            lines += preview_nested(table, name, self.config, RowTable.unfit, look)
        return lines + self.config.preview_key(table)

    def describe(self) -> str:
        """Return the path, and the table where there is one for all sources."""
        fixed = SOURCE not in self.config.table
        return f"{self.config.path}:{self.config.table}" if fixed else self.config.path

    def place(self, source: str) -> str:
        """Return the file that the path leads to, and the table; case does not tell tables apart."""
        return f"{os.path.realpath(self.config.path)}, table {self._table_of(source).lower()}"

    @property
    def _file(self) -> Database:
        if self._database is None:
            self.open()
        assert self._database is not None  # noqa: S101  # open has set it, or raised
        return self._database

    def _store(self, connection: Connection, delivery: Delivery) -> bool:
        """Store a delivery unless it is there; returns whether columns were made or changed for it."""
        altered = False

        def store_rows() -> None:
            nonlocal altered
            flow, reading, place = delivery.key.flow, delivery.reading, None
            if reading and self.config.replaces_readings():
                place = self._replacement(connection, flow).place(reading)
                altered = reading != "within"
            elif reading:  # this storage has replaced before, as another one of the source does
                self._replacement(connection, flow).give_up()
            if delivery.table.num_rows:
                rows = RowTable(connection, self._table(flow), self.config, place)
                self.drifts[flow] = rows.found
                altered = rows.insert(delivery.table, self.location(delivery.key))

        self._flows(connection).commit(delivery, store_rows)
        return altered

    def _replacement(self, connection: Connection, flow: str) -> Replacement:
        from collectors.storage.backends._duckdb_replacing import DuckdbReplacement

        return DuckdbReplacement(connection, self._table(flow))

    def _checkpoint(self) -> None:
        with self._file.checkpointed() as connection:
            self._durable = self._flows(connection).seqs()

    @contextmanager
    def _reading(self) -> Iterator[FlowTables | None]:
        """Give what the file knows about flows; None where there is no file, or nothing of ours in it."""
        with self._file.reading() as connection:
            flows = None if connection is None else self._flows(connection)
            yield flows if flows is not None and flows.exist() else None

    def _flows(self, connection: Connection) -> FlowTables:
        return FlowTables(connection, self.config.table)

    def _table(self, flow: str) -> str:
        return self._table_of(source_of(flow))

    def _table_of(self, source: str) -> str:
        return self.config.table.replace(SOURCE, source)

    def _queried_table(self, connection: Connection) -> str | None:
        """Return the table to query: the one of the settings, or the only one that there is."""
        if SOURCE not in self.config.table:
            return self.config.table
        prefix, suffix = self.config.table.split(SOURCE, 1)
        names = [
            name
            for name in table_names(connection)
            if name.startswith(prefix) and name.endswith(suffix) and not name.startswith(_TAKEN)
        ]
        if self.config.nested == "tables":
            names = without_children(names)
        if len(names) > 1:
            raise ConfigurationError(
                f"{self.config.path} has a table for each of {', '.join(names)}; say which one is meant: "
                "--table NAME on the command line, `table:` in the settings"
            )
        return names[0] if names else None


def _preview(config: DuckdbConfig, name: str, existing: list[Column], table: pa.Table) -> list[str]:
    lines = [] if existing else [f"+ table {name}"]
    changes = column_changes(name, table, existing)
    lines += [_line(config, column, change, new=bool(existing)) for column, change in changes.items()]
    unfit = unfit_columns(name, table.column_names, [column.name for column in existing])
    return lines + [
        f"~ {column}: {reason}; records that have it are set aside" for column, reason in unfit.items()
    ]


def _line(config: DuckdbConfig, column: str, change: Change, *, new: bool) -> str:
    known, brought = change.existing, sql_type(change.brought)
    if known is None:
        return config.preview_new(column, brought) if new else f"+ {column} {brought}"
    if change.wanted is None or change.widening:
        wider = None if change.wanted is None else sql_type(change.wanted)
        return config.preview_other(column, known.declared, brought, wider)
    return f"= {column} {known.declared}"


COMPONENT = DuckdbBackend
