"""Positions, dead letters and counts of flows in a DuckDB file: its `_collectors_*` tables.

No table has a key or an index: those are what DuckDB's log most often fails to replay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
from msgspec.structs import astuple

from collectors.chunks import Checkpoint, Counts, DeadLetter, Delivery
from collectors.storage.backends._duckdb_file import Connection
from collectors.storage.letters import LETTER_COLUMNS, letter_values, read_letter
from collectors.storage.positions import check_follows, same_table

__all__ = ["FlowTables", "create_tables"]

_TABLES = """
create table if not exists _collectors_checkpoint (
    flow varchar not null, target varchar not null, epoch bigint not null, seq bigint not null,
    position varchar, schema blob, updated_at timestamptz not null
);
create table if not exists _collectors_ledger (
    run varchar not null, flow varchar not null, target varchar not null,
    read bigint not null, added bigint not null, stored bigint not null, filtered bigint not null,
    set_aside bigint not null, first_at timestamptz not null, last_at timestamptz not null
);
create table if not exists _collectors_dead_letters (
    owner varchar not null, letter_id varchar not null, pipeline varchar not null, source varchar not null,
    run varchar not null, seq bigint not null, record bigint not null, step varchar not null, reason varchar not null,
    raw blob not null, position varchar, version varchar not null, created_at varchar not null,
    route varchar not null, attempt bigint not null, origin varchar not null, head blob not null,
    data_format varchar not null, whole bigint not null, passed varchar not null
);
create table if not exists _collectors_writes (
    location_id varchar not null, table_name varchar not null, first_row bigint not null, last_row bigint not null,
    stored_at timestamptz not null
);
create table if not exists _collectors_schema (
    table_name varchar not null, column_name varchar not null, existing varchar, brought varchar not null,
    action varchar not null, rows bigint not null, samples varchar not null, location_id varchar not null,
    changed_at timestamptz not null
)
"""
_COLUMNS = ", ".join(LETTER_COLUMNS)
_NUMBERS = {"seq", "record", "attempt", "whole"}
_BYTES = {"raw", "head"}
_COUNTS = "read, added, stored, filtered, set_aside"


def create_tables(connection: Connection) -> None:
    """Make the tables that are missing."""
    for statement in _TABLES.split(";"):
        connection.execute(statement)


class FlowTables:
    """What one target, a table of the `duckdb` backend, keeps about its flows; whoever writes opens the transaction.

    A flow goes on under the target that it began with, as long as that means the same table.
    """

    def __init__(self, connection: Connection, target: str) -> None:
        self._connection = connection
        self._target = target

    def exist(self) -> bool:
        """Return whether the tables are there."""
        return bool(
            self._connection.rows("select 1 from duckdb_tables() where table_name = '_collectors_writes'")
        )

    def claim(self, flow: str) -> Checkpoint:
        """Raise the flow's epoch by one and return how far it is stored."""
        target, checkpoint = self._find(flow)
        if checkpoint is None:
            self._connection.execute(
                "insert into _collectors_checkpoint values (?, ?, 0, 0, null, null, ?)",
                [flow, target, _now()],
            )
        self._connection.execute(
            "update _collectors_checkpoint set epoch = epoch + 1, updated_at = ? where flow = ? and target = ?",
            [_now(), flow, target],
        )
        return self.stored(flow)

    def stored(self, flow: str) -> Checkpoint:
        """Return how far the flow is stored; epoch 0 and seq 0 for one that was never claimed."""
        return self._find(flow)[1] or Checkpoint(0)

    def of(self, source: str) -> list[str]:
        """Return the flows of a source of which anything is stored."""
        rows = self._connection.rows(
            "select flow, target from _collectors_checkpoint "
            "where seq > 0 and (flow = ? or starts_with(flow, ?)) order by flow",
            [source, f"{source}/"],
        )
        return list(dict.fromkeys(flow for flow, target in rows if self._is_ours(target, flow)))

    def seqs(self) -> dict[str, int]:
        """Return the last stored seq of every flow."""
        rows = self._connection.rows(
            "select flow, target, seq from _collectors_checkpoint order by updated_at"
        )
        return {flow: seq for flow, target, seq in rows if self._is_ours(target, flow)}

    def commit(self, delivery: Delivery, store_rows: Callable[[], None]) -> bool:
        """Store a delivery, its rows by `store_rows`; False when it is stored already. Raises FencedError."""
        key = delivery.key
        target, checkpoint = self._find(key.flow)
        if not check_follows(checkpoint or Checkpoint(0), delivery):
            return False
        store_rows()
        self._replace_letters(f"{key.flow}>{target}", delivery)
        self.forget_letters(delivery.resolved)
        self._count(delivery, target)
        position = None if delivery.position is None else msgspec.json.encode(delivery.position).decode()
        self._connection.execute(
            "update _collectors_checkpoint set seq = ?, position = ?, schema = ?, updated_at = ? "
            "where flow = ? and target = ?",
            [key.seq, position, delivery.schema, _now(), key.flow, target],
        )
        return True

    def dead_letters(self, pipeline: str) -> list[DeadLetter]:
        """Return the letters of a pipeline in the order in which they were set aside."""
        rows = self._connection.rows(
            f"select {_COLUMNS} from _collectors_dead_letters where pipeline = ? order by rowid",  # noqa: S608  # ours
            [pipeline],
        )
        return [read_letter(row) for row in rows]

    def forget_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Delete these letters, whoever keeps them in this file."""
        if letters:
            given = [(letter.pipeline, letter.letter_id, letter.run) for letter in letters]
            self._connection.execute(
                "delete from _collectors_dead_letters where (pipeline, letter_id, run) in "
                "(select (unnest(?), unnest(?), unnest(?)))",
                [list(values) for values in zip(*given, strict=True)],
            )

    def ledger(self, run: str) -> dict[str, Counts]:
        """Return the counts of a run, by flow."""
        rows = self._connection.rows(
            f"select flow, target, {_COUNTS} from _collectors_ledger where run = ?",  # noqa: S608
            [run],
        )
        return {flow: Counts(*counts) for flow, target, *counts in rows if self._is_ours(target, flow)}

    def _is_ours(self, target: str, flow: str) -> bool:
        return same_table(target, self._target, flow, any_case=True)

    def _find(self, flow: str) -> tuple[str, Checkpoint | None]:
        """Return under which target a flow is kept, and how far it is stored; None for one that was never claimed."""
        rows = self._connection.rows(
            "select target, epoch, seq, position, schema from _collectors_checkpoint where flow = ? "
            "order by updated_at desc",
            [flow],
        )
        for target, epoch, seq, position, schema in rows:
            if self._is_ours(target, flow):
                place = None if position is None else msgspec.json.decode(position)
                return target, Checkpoint(epoch, seq, place, schema)
        return self._target, None

    def _replace_letters(self, owner: str, delivery: Delivery) -> None:
        self._connection.execute(
            "delete from _collectors_dead_letters where owner = ? and seq >= ?", [owner, delivery.first_seq]
        )
        if not delivery.dead_letters:
            return
        columns = zip(*map(letter_values, delivery.dead_letters), strict=True)
        arrays = {
            name: pa.array(values, _letter_type(name))
            for name, values in zip(LETTER_COLUMNS, columns, strict=True)
        }
        table = pa.table({"owner": [owner] * len(delivery.dead_letters), **arrays})
        self._connection.insert(f"_collectors_dead_letters (owner, {_COLUMNS})", table)

    def _count(self, delivery: Delivery, target: str) -> None:
        counts = astuple(delivery.counts)
        where = [delivery.run, delivery.key.flow, target]
        updated = self._connection.rows(
            "update _collectors_ledger set read = read + ?, added = added + ?, stored = stored + ?, "
            "filtered = filtered + ?, set_aside = set_aside + ?, last_at = ? where run = ? and flow = ? and target = ?",
            [*counts, _now(), *where],
        )
        if updated == [(0,)]:
            self._connection.execute(
                "insert into _collectors_ledger values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [*where, *counts, _now(), _now()],
            )


def _letter_type(name: str) -> pa.DataType:
    return pa.int64() if name in _NUMBERS else pa.binary() if name in _BYTES else pa.string()


def _now() -> Any:
    return datetime.now(UTC)
