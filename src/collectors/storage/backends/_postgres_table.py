"""The table that the `postgres` backend fills: its columns, its rows, and which rows belong to which location.

The number of a row, `_collectors_row`, is given out once: each location takes a range of them from a sequence, so
that writers of one table need not wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import psycopg
import pyarrow as pa

from collectors.chunks import Drift
from collectors.enums import ErrorType
from collectors.errors import DataError, FatalError
from collectors.storage.backends._postgres_columns import (
    brought_columns,
    encoder_of,
    is_json,
    unfit_columns,
    unfit_name,
)
from collectors.storage.backends._postgres_connection import Connection, is_refusal
from collectors.storage.backends._postgres_types import encode, fits, is_binary, narrower, widens
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
from collectors.storage.records import plain, to_values, without_unfit
from collectors.storage.sql_names import quote

__all__ = ["ROW", "TABLES", "RowTable"]

ROW = "_collectors_row"
_RANGE = 2**24
_BATCH = 16 * 1024
_MOST_REFUSED = 1024
TABLES = f"""
create sequence if not exists {{schema}}_collectors_rows increment by {_RANGE} minvalue 0 start 0;
create table if not exists {{schema}}_collectors_writes (
    location_id text not null, table_name text not null, first_row bigint not null, rows bigint not null,
    stored_at timestamptz not null,
    primary key (location_id, table_name)
);
create table if not exists {{schema}}_collectors_schema (
    number bigint generated always as identity primary key, table_name text not null, column_name text not null,
    existing text, brought text not null, action text not null, rows bigint not null, samples text not null,
    location_id text not null, changed_at timestamptz not null
)
"""
"""What has to be there beside the table, made together with the tables of deliveries."""


class RowTable:
    """One table of an open database, whose rows are at `place`; whoever calls `insert` and `remove` opens the transaction."""

    def __init__(
        self,
        connection: Connection,
        schema: str | None,
        name: str,
        config: NestedConfig | None = None,
        place: str | None = None,
    ) -> None:
        self._connection = connection
        self._config = config
        self._nested = config is not None and config.nested == "tables"
        self._key = config.key if config else []
        self._mode: Callable[[str], Mode] = config.mode if config else lambda _: "evolve"
        self.found: list[Drift] = []
        self.first: int | None = None
        self._settable: list[str] = []
        self._schema = schema
        self._quoted_schema = f"{quote(schema)}." if schema else ""
        self.name, self.place = name, place or name
        self.quoted = f"{self._quoted_schema}{quote(self.place)}"

    def columns(self) -> dict[str, str] | None:
        """Return the columns by name with their types, our row number included; None when there is no table."""
        rows = self._connection.execute(
            "select attname, format_type(atttypid, atttypmod), attgenerated = '' and attidentity <> 'a' from pg_class "
            "left join pg_attribute on attrelid = pg_class.oid and attnum > 0 and not attisdropped "
            "where pg_class.oid = to_regclass(%s) order by attnum",
            [self.quoted],
        ).fetchall()
        self._settable = [name for name, _, settable in rows if settable]
        return {name: kind for name, kind, _ in rows if name is not None} if rows else None

    def names(self) -> list[str] | None:
        """Return the names of all columns; None when there is no such table."""
        return None if (columns := self.columns()) is None else list(columns)

    def child(self, name: str) -> RowTable:
        """Return another table of the schema."""
        return RowTable(self._connection, self._schema, name, self._config)

    def made_for(self, column: str) -> str | None:
        """Return as what a column of the table was written down when that was made last; None: it was not."""
        found = self._connection.execute(
            f"select brought from {self._quoted_schema}_collectors_schema where table_name = %s and column_name = %s "  # noqa: S608
            "and action = 'made' order by number desc limit 1",
            [self.name, column],
        ).fetchone()
        return str(found[0]) if found else None

    @staticmethod
    def unfit(name: str) -> str | None:
        """Return why PostgreSQL cannot have a table of this name; None when it can."""
        return unfit_name(name)

    def insert(self, table: pa.Table, location_id: str) -> int:
        """Store the rows under a location and return their number; 0 when the location has rows already.

        Where there is a key, each takes the place of the row with the same one. Raises DataError with `rows` for those
        that cannot be stored, without them when only the server knows which; FatalError when the columns do not fit. With
        `nested: tables` what is nested in the rows goes into child tables.
        """
        nested = self._nested and insert_nested(self, table, location_id, self._mode)
        return (nested or [0])[0] if self._nested else self.put(table, location_id)

    def put(self, table: pa.Table, location_id: str, links: Links | None = None) -> int:
        """Store the rows in this table alone."""
        if table.num_rows > _RANGE:
            raise _unfit(f"{table.num_rows} rows at once are too many; store at most {_RANGE} at a time")
        taken = self._connection.execute(
            f"insert into {self._quoted_schema}_collectors_writes values (%s, %s, nextval(%s), %s, now()) "  # noqa: S608  # quoted
            "on conflict do nothing returning first_row, to_regclass(%s) is not null",
            [location_id, self.place, f"{self._quoted_schema}_collectors_rows", table.num_rows, self.quoted],
        ).fetchone()
        if taken is None:
            return 0
        self.first, is_there = taken
        if is_there:
            self._run(f"lock table {self.quoted} in row exclusive mode")
        rows, kinds = self._encoded(table, self.first or 0, location_id, links)
        self._store(rows, kinds)
        self._write_down()
        return int(table.num_rows)

    def refused(self, table: pa.Table) -> dict[int, str]:
        """Return the rows that the server refuses, with its reasons; not more than it tells in so many tries.

        Stores the others, half by half, so that a row is also refused for one before it; the caller takes that back.
        """
        self._run("set constraints all immediate")
        store = self._trial(table)
        bad: dict[int, str] = {}
        waiting = [(0, table.num_rows)]
        while waiting and len(bad) < _MOST_REFUSED:
            start, end = waiting.pop()
            self._run("savepoint part")
            try:
                store(start, end)
            except DataError as error:
                self._run("rollback to savepoint part")
                bad |= {start + row: reason for row, reason in error.rows.items()}
            except psycopg.Error as error:
                if not is_refusal(error):
                    raise
                self._run("rollback to savepoint part")
                if end - start == 1:
                    told = " ".join(filter(None, [error.diag.message_primary, error.diag.message_detail]))
                    bad[start] = told.replace(self.place, self.name)
                else:
                    middle = (start + end) // 2
                    waiting += [(middle, end), (start, middle)]
        return bad

    def _trial(self, table: pa.Table) -> Callable[[int, int], object]:
        """Return what stores a range of the rows, to see whether the server takes it."""
        if self._nested:
            return lambda start, end: self.insert(table.slice(start, end - start), f"{start}-{end}")
        (first,) = self._connection.execute(
            "select nextval(%s)", [f"{self._quoted_schema}_collectors_rows"]
        ).fetchone() or (0,)
        rows, kinds = self._encoded(table, first, "")
        return lambda start, end: self._store(rows.slice(start, end - start), kinds)

    def history(self) -> list[Drift]:
        """Return what became of the columns of all tables beside this one."""
        rows = self._run(
            f"select {DRIFT_COLUMNS} from {self._quoted_schema}_collectors_schema order by number"  # noqa: S608
        )
        return [read_drift(row) for row in rows]

    def remove(self, location_id: str) -> None:
        """Delete the rows of a location, those in child tables, too. Raises KeyError when there is none."""
        written = self._connection.execute(
            f"select table_name from {self._quoted_schema}_collectors_writes where location_id = %s",  # noqa: S608
            [location_id],
        )
        names = [str(name) for (name,) in written]
        if self.name not in names:
            raise KeyError(location_id)
        for name in [self.name, *child_names(self.name, names)]:
            table = self.child(name)
            if name != self.name and PARENT not in (table.names() or []):
                continue
            found = self._connection.execute(
                f"delete from {self._quoted_schema}_collectors_writes where location_id = %s and table_name = %s "  # noqa: S608
                "returning first_row, rows",
                [location_id, name],
            )
            for first, count in found.fetchall():
                self._run(f"delete from {table.quoted} where {ROW} >= {first} and {ROW} < {first + count}")  # noqa: S608

    def _differences(self, existing: dict[str, str], table: pa.Table) -> dict[str, Difference]:
        """Return the columns of the rows that the table does not have, or not of a type that takes all values."""
        found: dict[str, Difference] = {}
        for name, brought in brought_columns(self.name, table).items():
            now, kind = existing.get(name), plain(table.column(name)).type
            if now is None:
                found[name] = Difference(None, brought)
                continue
            narrow, evolves = narrower(now), self._mode(name) == "evolve"
            if not fits(now, kind) or (narrow and now != brought and not evolves):
                found[name] = Difference(now, brought, brought if widens(now, kind) else None, narrow)
        return found

    def _write_down(self) -> None:
        """Keep what was found."""
        if not self.found:
            return
        left_out = self._connection.execute(
            f"select column_name, brought from {self._quoted_schema}_collectors_schema "  # noqa: S608
            "where table_name = %s and action = 'left out'",
            [self.name],
        ).fetchall()
        for drift in unwritten(self.found, left_out):
            self._connection.execute(
                f"insert into {self._quoted_schema}_collectors_schema ({DRIFT_COLUMNS}) "  # noqa: S608
                "values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                drift_values(drift),
            )

    def _prepare(
        self, existing: dict[str, str] | None, table: pa.Table, links: Links | None
    ) -> dict[str, str]:
        """Make the table and columns that are missing; return the type of each column of the rows."""
        brought = brought_columns(self.name, table)
        if existing is None:
            ours = [f"{name} bigint not null" for name in (ROW, *linked(links))]
            quoted = ", ".join([*ours, *(f"{quote(name)} {kind}" for name, kind in brought.items())])
            self._run(f"create table {self.quoted} ({quoted})")
            self._run(f"create index on {self.quoted} using brin ({ROW})")
            return brought
        kinds: dict[str, str] = {}
        actions = [] if ROW in existing else [f"add column {ROW} bigint"]
        for name, kind in brought.items():
            now = existing.get(name)
            if now is None:
                actions.append(f"add column {quote(name)} {kind}")
            elif not fits(now, plain(table.column(name)).type):
                self._check_widening(name, now, plain(table.column(name)).type, kind)
                actions.append(f"alter column {quote(name)} type {kind}")
                now = kind
            kinds[name] = now or kind
        if actions:
            self._run(f"alter table {self.quoted} {', '.join(actions)}")
        return kinds

    def _check_widening(self, name: str, now: str, kind: pa.DataType, brought: str) -> None:
        advice = f"cast '{name}' in a processor, rename it, or choose another table"
        if not widens(now, kind):
            raise _unfit(
                f"table '{self.name}', column '{name}': it is of type {now} and the rows bring {brought}; {advice}"
            )
        if brought == "double precision":
            beyond = (
                f"select 1 from {self.quoted} where {quote(name)} not between -{2**53} and {2**53} limit 1"  # noqa: S608
            )
            if self._run(beyond).fetchone():
                raise _unfit(
                    f"table '{self.name}', column '{name}': it holds whole numbers of more than 53 bits, which would "
                    f"lose digits as {brought}, which the rows bring; {advice}"
                )

    def _encoded(
        self, table: pa.Table, first: int, location: str, links: Links | None = None
    ) -> tuple[pa.Table, dict[str, str]]:
        """Return the rows as they are sent, numbered from `first` on, and the types of their columns, which are made."""
        existing, told = self.columns(), Columns(self.name, self._mode, location, self.found)
        if lacking := without_key(table, self._key):
            raise self._refused(lacking)
        table = without_unfit(table, unfit_columns(self.name, table.column_names))
        if existing is not None:
            table = told.settle(table, self._differences(existing, table))
        kinds = self._prepare(existing, table, links)
        if existing is None:
            told.note_made(link_kinds(links) | kinds)
        if self._key:
            self._make_key()
        bad: dict[int, str] = {}
        numbers = pa.arange(first, first + table.num_rows)
        columns = {name: pa.chunked_array([own]) for name, own in {ROW: numbers, **linked(links)}.items()}
        for name, kind in kinds.items():
            columns[name], reasons = encode(plain(table.column(name)), kind)
            bad = {row: f"column '{name}': {reason}" for row, reason in reasons.items()} | bad
        if bad:
            raise self._refused(bad)
        return pa.table(columns), kinds

    def _make_key(self) -> None:
        """Have the server keep the key unique, which is also how it finds rows by it."""
        found = self._connection.execute(
            "select 1 from pg_index where indrelid = to_regclass(%s) and indisunique and indisvalid and indimmediate "
            "and indpred is null and indexprs is null and %s::text[] = array("
            "select attname::text from pg_attribute where attrelid = indrelid "
            "and attnum = any((indkey::int2[])[0:indnkeyatts - 1]) order by 1)",
            [self.quoted, sorted(self._key)],
        )
        if found.fetchone():
            return
        try:
            self._run(f"create unique index on {self.quoted} ({', '.join(map(quote, self._key))})")
        except psycopg.errors.UniqueViolation as error:
            raise _unfit(
                f"table '{self.name}' has several rows with the same key ({', '.join(self._key)}) already; delete all "
                "but one of each, or choose another `key` or table"
            ) from error

    def _store(self, rows: pa.Table, kinds: dict[str, str]) -> None:
        if not self._key:
            self._copy(self.quoted, rows, kinds)
            return
        names = ", ".join(map(quote, rows.column_names))
        signature = "\0".join([self.quoted, *(f"{name}\0{kind}" for name, kind in kinds.items())])
        stage = quote(f"_collectors_{sha256(signature.encode()).hexdigest()[:24]}")
        self._run(
            f"create temp table if not exists {stage} as select {names} from {self.quoted} with no data"  # noqa: S608
        )
        self._copy(f"pg_temp.{stage}", rows, kinds)
        key = ", ".join(map(quote, self._key))
        changes = ", ".join(f"{name} = excluded.{name}" for name in map(quote, self._replaced(rows)))
        self._run(
            f"insert into {self.quoted} ({names}) select distinct on ({key}) {names} from pg_temp.{stage} "  # noqa: S608
            f"order by {key}, {ROW} desc on conflict ({key}) do update set {changes}"
        )
        self._run(f"truncate pg_temp.{stage}")

    def _replaced(self, rows: pa.Table) -> list[str]:
        """Return the columns that a row with the same key gets anew: all but the key, and those that the server makes."""
        names = dict.fromkeys([*self._settable, *rows.column_names])  # some may have been made for these rows
        return [name for name in names if name not in self._key]

    def _copy(self, target: str, rows: pa.Table, kinds: dict[str, str]) -> None:
        names = ", ".join(map(quote, rows.column_names))
        if all(
            is_binary(kind, rows.column(name).type) or is_json(kind, rows, name)
            for name, kind in kinds.items()
        ):
            encoder = encoder_of(rows.schema, kinds)
            with (
                self._connection.cursor() as cursor,
                cursor.copy(f"copy {target} ({names}) from stdin (format binary)".encode()) as copy,
            ):
                copy.write(encoder.write_header())
                for batch in rows.combine_chunks().to_batches(_BATCH):
                    copy.write(encoder.write_batch(batch))
                copy.write(encoder.finish())
        else:
            with (
                self._connection.cursor() as cursor,
                cursor.copy(f"copy {target} ({names}) from stdin".encode()) as copy,
            ):
                for row in zip(*map(to_values, rows.columns), strict=True):
                    copy.write_row(row)

    def _run(self, statement: str) -> psycopg.Cursor[tuple[object, ...]]:
        return self._connection.execute(statement.encode())

    def _refused(self, bad: dict[int, str]) -> DataError:
        row, reason = min(bad.items())
        return DataError(
            f"{len(bad)} rows cannot be stored in table '{self.name}'; the first is row {row}: {reason}",
            rows=bad,
            error_type=ErrorType.STORAGE,
        )


def _unfit(message: str) -> FatalError:
    return FatalError(message, error_type=ErrorType.STORAGE)
