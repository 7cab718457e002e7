"""Positions, dead letters and counts of flows: the `_collectors_*` tables beside the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from collectors.chunks import Checkpoint, Counts, DeadLetter, Delivery
from collectors.storage.backends import _postgres_table
from collectors.storage.backends._postgres_connection import Connection, translated
from collectors.storage.letters import LETTER_COLUMNS, letter_values, read_letter
from collectors.storage.positions import check_follows, same_table
from collectors.storage.sql_names import quote

__all__ = ["DeliveryTables"]

_MAKING = 0x636F6C6C6563746F
"""The advisory lock of whoever makes our tables: "collecto"."""
_LETTERS = ", ".join(LETTER_COLUMNS)
_MARKS = ", %s" * len(LETTER_COLUMNS)
_TABLES = """
create table if not exists {schema}_collectors_checkpoint (
    flow text not null, target text not null, epoch bigint not null, seq bigint not null,
    position text, schema bytea, updated_at timestamptz not null,
    primary key (flow, target)
);
create table if not exists {schema}_collectors_ledger (
    run text not null, flow text not null, target text not null,
    read bigint not null, added bigint not null, stored bigint not null, filtered bigint not null,
    set_aside bigint not null, first_at timestamptz not null, last_at timestamptz not null,
    primary key (run, flow, target)
);
create table if not exists {schema}_collectors_dead_letters (
    number bigint generated always as identity primary key, owner text not null, letter_id text not null,
    pipeline text not null, source text not null, run text not null, seq bigint not null, record bigint not null,
    step text not null, reason text not null, raw bytea not null, position text, version text not null,
    created_at text not null, route text not null, attempt bigint not null, origin text not null,
    head bytea not null, data_format text not null, whole bigint not null, passed text not null
);
create index if not exists _collectors_dead_letters_owner on {schema}_collectors_dead_letters (owner, seq);
create index if not exists _collectors_dead_letters_pipeline
    on {schema}_collectors_dead_letters (pipeline, letter_id)
"""


class DeliveryTables:
    """What one schema of an open database keeps of flows; every method but `is_there` is one transaction.

    `target` tells apart what several users of one schema keep about the same flow: the setting of the table for the
    rows. A flow goes on under the target that it began with, as long as that means the same table.
    """

    def __init__(self, connection: Connection, schema: str | None, target: str) -> None:
        self._connection = connection
        self._schema = schema
        self._quoted_schema = f"{quote(schema)}." if schema else ""
        self._target = target

    def is_there(self, table: str = "dead_letters") -> bool:
        """Return whether the tables have been made; `schema` came later than the others."""
        found = self._connection.execute(
            "select to_regclass(%s) is not null", [f"{self._quoted_schema}_collectors_{table}"]
        ).fetchone()
        return bool(found and found[0])

    def create(self) -> None:
        """Make the tables that are missing, and the schema."""
        with translated():
            if self.is_there("schema"):
                return
        with self._connection.durable_transaction():
            self._connection.execute("select pg_advisory_xact_lock(%s)", [_MAKING])
            if self.is_there("schema"):
                return
            if self._schema is not None:
                found = self._connection.execute(
                    "select to_regnamespace(%s)", [quote(self._schema)]
                ).fetchone()
                if found == (None,):
                    self._connection.execute(f"create schema {quote(self._schema)}".encode())
            for statement in f"{_TABLES};{_postgres_table.TABLES}".split(";"):
                self._connection.execute(statement.format(schema=self._quoted_schema).encode())

    def claim(self, flow: str) -> Checkpoint:
        """Raise the flow's epoch by one, durably, and return how far it is stored."""
        with self._connection.durable_transaction():
            target, _ = self._find(flow, "for update")
            self._execute(
                "insert into {}_collectors_checkpoint as known values (%s, %s, 1, 0, null, null, now()) "
                "on conflict (flow, target) do update set epoch = known.epoch + 1, updated_at = now()",
                flow,
                target,
            )
            return self._find(flow)[1]

    def stored(self, flow: str) -> Checkpoint:
        """Return how far the flow is stored; epoch 0 and seq 0 for one that was never claimed."""
        with translated():
            return self._find(flow)[1] if self.is_there() else Checkpoint(0)

    def flows(self, source: str) -> list[str]:
        """Return the flows of a source of which anything is stored."""
        with translated():
            if not self.is_there():
                return []
            rows = self._execute(
                "select flow, target from {}_collectors_checkpoint "
                "where seq > 0 and (flow = %s or starts_with(flow, %s)) order by flow",
                *(source, f"{source}/"),
            )
            return list(
                dict.fromkeys(flow for flow, target in rows if same_table(target, self._target, flow))
            )

    def commit(self, delivery: Delivery, store_rows: Callable[[], None]) -> int:
        """Store a delivery and return its seq; the rows by what `store_rows` does inside of the transaction.

        A delivery that is stored already is left out. Raises FencedError unless the epoch is the flow's and the stored
        seq the one before; in that case, and for any error of `store_rows`, nothing is stored.
        """
        key = delivery.key
        with self._connection.durable_transaction():
            target, checkpoint = self._find(key.flow, "for update")
            if not check_follows(checkpoint, delivery):
                return checkpoint.seq
            store_rows()
            self._replace_letters(f"{key.flow}>{target}", delivery)
            self._forget(delivery.resolved)
            self._count(delivery, target)
            position = None if delivery.position is None else msgspec.json.encode(delivery.position).decode()
            self._execute(
                "update {}_collectors_checkpoint set seq = %s, position = %s, schema = %s, updated_at = now() "
                "where flow = %s and target = %s",
                *(key.seq, position, delivery.schema, key.flow, target),
            )
        return key.seq

    def dead_letters(self, pipeline: str) -> Iterator[DeadLetter]:
        """Yield the letters of a pipeline in the order in which they were set aside."""
        with translated():
            if not self.is_there():
                return
            rows = self._execute(
                f"select {_LETTERS} from {{}}_collectors_dead_letters where pipeline = %s order by number",  # noqa: S608
                pipeline,
            )
            yield from map(read_letter, rows)

    def forget_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Delete these letters, whoever keeps them in this schema."""
        if letters:
            with self._connection.durable_transaction():
                self._forget(letters)

    def ledger(self, run: str) -> dict[str, Counts]:
        """Return the counts of a run by flow."""
        with translated():
            if not self.is_there():
                return {}
            rows = self._execute(
                "select flow, target, read, added, stored, filtered, set_aside from {}_collectors_ledger "
                "where run = %s order by first_at",
                run,
            )
            return {
                flow: Counts(*counts)
                for flow, target, *counts in rows
                if same_table(target, self._target, flow)
            }

    def _execute(self, statement: str, *values: Any) -> Any:
        return self._connection.execute(statement.format(self._quoted_schema).encode(), values)

    def _find(self, flow: str, lock: str = "") -> tuple[str, Checkpoint]:
        """Return under which target a flow is kept, and how far it is stored."""
        rows = self._execute(
            f"select target, epoch, seq, position, schema from {{}}_collectors_checkpoint "  # noqa: S608
            f"where flow = %s order by updated_at desc {lock}",
            flow,
        )
        for target, epoch, seq, position, schema in rows:
            if same_table(target, self._target, flow):
                place = None if position is None else msgspec.json.decode(position, type=dict)
                return target, Checkpoint(epoch, seq, place, schema)
        return self._target, Checkpoint(0)

    def _replace_letters(self, owner: str, delivery: Delivery) -> None:
        self._execute(
            "delete from {}_collectors_dead_letters where owner = %s and seq >= %s", owner, delivery.first_seq
        )
        if delivery.dead_letters:
            with self._connection.cursor() as cursor:
                cursor.executemany(
                    f"insert into {self._quoted_schema}_collectors_dead_letters (owner, {_LETTERS}) values (%s{_MARKS})".encode(),  # noqa: S608
                    [(owner, *map(_storable, letter_values(letter))) for letter in delivery.dead_letters],
                )

    def _forget(self, letters: Sequence[DeadLetter]) -> None:
        if letters:
            self._execute(
                "delete from {}_collectors_dead_letters where (pipeline, letter_id, run) in "
                "(select * from unnest(%s::text[], %s::text[], %s::text[]))",
                [letter.pipeline for letter in letters],
                [letter.letter_id for letter in letters],
                [letter.run for letter in letters],
            )

    def _count(self, delivery: Delivery, target: str) -> None:
        counts = delivery.counts
        self._execute(
            "insert into {}_collectors_ledger as known values (%s, %s, %s, %s, %s, %s, %s, %s, now(), now()) "
            "on conflict (run, flow, target) do update set "
            "read = known.read + excluded.read, added = known.added + excluded.added, "
            "stored = known.stored + excluded.stored, filtered = known.filtered + excluded.filtered, "
            "set_aside = known.set_aside + excluded.set_aside, last_at = now()",
            *(delivery.run, delivery.key.flow, target),
            *(counts.read, counts.added, counts.stored, counts.filtered, counts.set_aside),
        )


def _storable(value: Any) -> Any:
    return value.replace("\0", "\\x00") if isinstance(value, str) else value
