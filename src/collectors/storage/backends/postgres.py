"""Rows in a table of a PostgreSQL database, typed, queryable, deletable.

    storage:
      type: postgres
      dsn: ${POSTGRES_DSN:-postgresql://localhost/postgres}
      table: readings

Without `dsn` the server is found by `host`, `port`, `user`, `password`, `database`; what is left out comes from where
libpq has it: PGHOST and its kin, a service file, a password file. The table is made with the first rows; a column that
appears later is added, and one of whole numbers becomes `numeric` or `double precision` when the rows need it, if no
digit is lost by that. A column whose type does not fit stops the flow and says what to do. A table that exists already
is used as it is, with one more column, `_collectors_row`, which says which rows came with which commit. Lists, objects
and maps are `jsonb`. A row that PostgreSQL cannot hold, as one with NUL in a text, becomes a dead letter.

With `nested: tables` what is nested in a record goes into columns and child tables of its own.

With `write: upsert` and a `key` each row takes the place of the one with the same key, by `ON CONFLICT` on a unique
index, which is made where there is none.
With `write: replace` a whole reading takes the place of the one before.

Delivery: exactly once: rows, position, dead letters and counts are one transaction, with `synchronous_commit` on. A
connection that is refused, hangs or breaks is tried again; what was stored is asked for first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Self

import psycopg
import pyarrow as pa
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, ConfigDict, Field, SecretStr, model_validator

from collectors.chunks import Checkpoint, ChunkKey, Counts, DeadLetter, Delivery, Drift, Reading
from collectors.errors import ConfigurationError, DataError, TransientError
from collectors.models import QueryCriteria
from collectors.settings import Duration
from collectors.storage.backends._postgres_columns import brought_columns, unfit_columns, unfit_name
from collectors.storage.backends._postgres_connection import Connection, translated
from collectors.storage.backends._postgres_delivery import DeliveryTables
from collectors.storage.backends._postgres_table import RowTable
from collectors.storage.backends._postgres_types import fits, widens
from collectors.storage.base import Backend, source_of
from collectors.storage.child_tables import NestedConfig, preview_nested, without_children
from collectors.storage.records import plain

if TYPE_CHECKING:
    from collectors.storage.replacing import Replacement

__all__ = ["COMPONENT", "PostgresBackend", "PostgresConfig"]

SOURCE = "{source}"
_PLACE = ("service", "host", "hostaddr", "port", "dbname", "user", "options")
"""The parameters of libpq that say which tables are meant."""


def _name(name: str) -> str:
    reason = unfit_name(name) or ("names that begin with pg_ are taken" if name.startswith("pg_") else None)
    if reason is not None:
        raise ValueError(f"PostgreSQL cannot have this name: {reason}")
    return name


def _dsn(dsn: SecretStr) -> SecretStr:
    try:
        conninfo_to_dict(dsn.get_secret_value())
    except psycopg.Error:
        raise ValueError(
            "expected postgresql://user:password@host:port/database, or pairs as in host=db.example dbname=readings"
        ) from None
    return dsn


class PostgresConfig(NestedConfig):
    """Settings of the `postgres` backend."""

    model_config = ConfigDict(hide_input_in_errors=True)

    dsn: Annotated[SecretStr, AfterValidator(_dsn)] | None = None
    """Where the database is, as a URL or as `key=value` pairs of libpq."""
    host: str | None = None
    """The server's name or address."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """The server's port."""
    user: str | None = None
    """Who to log in as."""
    password: SecretStr | None = None
    """The password of that user."""
    database: str | None = None
    """The database on that server."""
    in_schema: Annotated[str, AfterValidator(_name)] | None = None
    """The schema of the table, made when it is not there; else the first one of the search path."""
    table: Annotated[str, AfterValidator(_name)] = SOURCE
    """The table that takes the rows; `{source}` in it stands for the id of the source."""
    timeout: Annotated[Duration, Field(ge=0.1, le=86_400)] = 30.0
    """How long the server may be silent, when connecting or within a statement, before the attempt counts as failed."""

    @model_validator(mode="after")
    def _one_way_to_say_where(self) -> Self:
        apart = [
            name
            for name in ("host", "port", "user", "password", "database")
            if getattr(self, name) is not None
        ]
        if self.dsn is not None and apart:
            raise ValueError(f"`dsn` says where the database is; leave out {', '.join(apart)}, or `dsn`")
        return self

    def parameters(self) -> dict[str, Any]:
        """Return what libpq connects by; the password is in it."""
        if self.dsn is not None:
            return conninfo_to_dict(self.dsn.get_secret_value())
        password = None if self.password is None else self.password.get_secret_value()
        given = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": password,
            "dbname": self.database,
        }
        return {key: value for key, value in given.items() if value is not None}


class PostgresBackend(Backend[PostgresConfig]):
    """Keeps one connection; a new one is made for the next call after the connection was lost."""

    _connection: Connection | None = None
    _made = False

    def __init__(self, config: PostgresConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._stop = threading.Event()

    def open(self) -> None:
        """Connect; nothing is written."""
        with translated():
            self._connection = Connection.open(self.config.parameters(), self.config.timeout, self._stop)

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection, self._made = self._connection, None, False
        if connection is not None:
            connection.close()

    async def connect(self) -> None:
        """Connect, unless that was done."""
        self._stop.clear()
        await super().connect()

    async def disconnect(self) -> None:
        """Disconnect at once: a call that waits for the server ends with TransientError."""
        self._stop.set()
        await super().disconnect()

    def write(self, table: pa.Table, key: ChunkKey) -> int:
        """Store the rows and return their number."""
        with (
            self._writer() as connection,
            self._naming(connection, table, key),
            connection.durable_transaction(),
        ):
            if not self.config.replaces_readings():
                return self._rows(connection, key.flow).insert(table, self.location(key))
            with self._replacement(connection, key.flow).whole() as place:
                return self._rows(connection, key.flow, place).insert(table, self.location(key))

    def claim(self, flow: str) -> Checkpoint:
        """Raise the flow's epoch and return how far it is stored in this table."""
        with self._writer() as connection:
            return self._tables(connection).claim(flow)

    def commit(self, delivery: Delivery) -> int:
        """Store rows, letters, counts and position in one transaction."""
        about = delivery.table, delivery.key, delivery.reading
        with self._writer() as connection, self._naming(connection, *about):
            return self._tables(connection).commit(delivery, lambda: self._store_rows(connection, delivery))

    def stored(self, flow: str) -> Checkpoint:
        """Return how far the flow is stored in this table."""
        with self._reader() as connection:
            return self._tables(connection).stored(flow)

    def flows(self, source: str) -> list[str]:
        """Return the flows of a source of which anything is stored in this table."""
        with self._reader() as connection:
            return self._tables(connection).flows(source)

    def dead_letters(self, pipeline: str) -> Iterator[DeadLetter]:
        """Yield the letters of a pipeline that were set aside on the way to this schema."""
        with self._reader() as connection:
            yield from self._tables(connection).dead_letters(pipeline)

    def forget_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Delete these letters."""
        with self._writer() as connection:
            self._tables(connection).forget_letters(letters)

    def ledger(self, run: str) -> dict[str, Counts]:
        """Return what a run has stored in this table, by flow."""
        with self._reader() as connection:
            return self._tables(connection).ledger(run)

    def schema_history(self) -> list[Drift]:
        """Return what became of the columns of the tables in this schema."""
        with self._reader() as connection, translated():
            there = self._tables(connection).is_there("schema")
            return self._rows(connection, "").history() if there else []

    def select(self, criteria: QueryCriteria) -> list[dict[str, Any]]:
        """Return the matching rows; none while there is no table."""
        from collectors.storage.backends import _postgres_query

        with self._reader() as connection:
            with translated():
                name = self._queried_table(connection)
            if name is None:
                return []
            return _postgres_query.select(
                connection, RowTable(connection, self.config.in_schema, name), criteria
            )

    def tables(self) -> list[str]:
        """Return the names of the tables in the schema, without our own."""
        with self._reader() as connection, translated():
            return self._table_names(connection)

    def remove(self, location_id: str) -> None:
        """Delete the rows that were stored under the location."""
        with self._reader() as connection, translated():
            if not self._tables(connection).is_there():
                raise KeyError(location_id)
        with self._writer() as connection, connection.durable_transaction():
            self._rows(connection, location_id.rpartition(":")[0]).remove(location_id)

    def preview(self, table: pa.Table, flow: str) -> list[str]:
        """Return what storing this table would change in the database."""
        name = self._table(flow)
        connection = Connection.open(self.config.parameters(), self.config.timeout, threading.Event())

        def look(name: str, rows: pa.Table) -> tuple[list[str] | None, list[str]]:
            existing = RowTable(connection, self.config.in_schema, name).columns()
            return None if existing is None else list(existing), _preview(self.config, name, existing, rows)

        try:
            with translated():
                lines = preview_nested(table, name, self.config, RowTable.unfit, look)
            return [*lines, *self.config.preview_key(table)]
        finally:
            connection.close()

    def describe(self) -> str:
        """Return server and database, and the table where there is one for all sources."""
        known = self.config.parameters()
        place = f"{known.get('host', 'localhost')}:{known.get('port', 5432)}/{known.get('dbname', '')}"
        return f"postgresql://{place}" + ("" if SOURCE in self.config.table else f":{self.config.table}")

    def place(self, source: str) -> str:
        """Return server, database and user as the settings have them, and the table."""
        known = {"port": "5432"} | {name: str(value) for name, value in self.config.parameters().items()}
        where = " ".join(f"{name}={known[name]}" for name in _PLACE if name in known)
        schema = "" if self.config.in_schema is None else f"{self.config.in_schema}."
        return f"PostgreSQL {where}, table {schema}{self._table_of(source)}"

    @contextmanager
    def _naming(
        self, connection: Connection, table: pa.Table, key: ChunkKey, reading: Reading = ""
    ) -> Iterator[None]:
        """Find the rows that the server has refused, which does not say which: store them and take that back."""
        try:
            yield
        except DataError as error:
            if not error.rows:
                with connection.rehearsal():
                    place = self._place(connection, key.flow, reading)
                    error.rows = self._rows(connection, key.flow, place).refused(table)
            raise

    def _store_rows(self, connection: Connection, delivery: Delivery) -> None:
        place = self._place(connection, delivery.key.flow, delivery.reading)
        if delivery.table.num_rows:
            rows = self._rows(connection, delivery.key.flow, place)
            self.drifts[delivery.key.flow] = rows.found
            rows.insert(delivery.table, self.location(delivery.key))

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
            for name in self._table_names(connection)
            if name.startswith(prefix) and name.endswith(suffix)
        ]
        if self.config.nested == "tables":
            names = without_children(names)
        if len(names) > 1:
            raise ConfigurationError(
                f"{self.describe()} has a table for each of {', '.join(names)}; say which one is meant: "
                "--table NAME on the command line, `table:` in the settings"
            )
        return names[0] if names else None

    def _table_names(self, connection: Connection) -> list[str]:
        rows = connection.execute(
            "select relname from pg_class where relkind in ('r', 'p') "
            "and relnamespace = coalesce(to_regnamespace(quote_ident(%s)), "
            "case when %s::text is null then current_schema()::regnamespace end) order by relname",
            [self.config.in_schema, self.config.in_schema],
        )
        return [name for (name,) in rows if not name.startswith("_collectors")]

    def _tables(self, connection: Connection) -> DeliveryTables:
        return DeliveryTables(connection, self.config.in_schema, self.config.table)

    def _rows(self, connection: Connection, flow: str, place: str | None = None) -> RowTable:
        return RowTable(connection, self.config.in_schema, self._table(flow), self.config, place)

    def _place(self, connection: Connection, flow: str, reading: Reading) -> str | None:
        """Do what is to be done at this point of a reading; return where the rows wait, if they do."""
        if not reading:
            return None
        replacement = self._replacement(connection, flow)
        if self.config.replaces_readings():
            return replacement.place(reading)
        replacement.give_up()  # this storage has replaced before, as another one of the source does
        return None

    def _replacement(self, connection: Connection, flow: str) -> Replacement:
        from collectors.storage.backends._postgres_replacing import PostgresReplacement

        return PostgresReplacement(connection, self.config.in_schema, self._table(flow))

    @contextmanager
    def _reader(self) -> Iterator[Connection]:
        """Give the connection; after a failure that may pass, the next one is a new one."""
        try:
            if self._connection is None or self._connection.closed:
                self.open()
            assert self._connection is not None  # noqa: S101  # `open` has set it
            yield self._connection
        except TransientError:
            self.close()
            raise

    @contextmanager
    def _writer(self) -> Iterator[Connection]:
        """Give the connection, with our tables made."""
        with self._reader() as connection:
            if not self._made:
                self._tables(connection).create()
                self._made = True
            yield connection


def _preview(
    config: PostgresConfig, name: str, existing: dict[str, str] | None, table: pa.Table
) -> list[str]:
    lines = [f"+ table {name}"] if existing is None else []
    for column, brought in brought_columns(name, table).items():
        kind = plain(table.column(column)).type
        declared = (existing or {}).get(column)
        if existing is None:
            lines.append(f"+ {column} {brought}")
        elif declared is None:
            lines.append(config.preview_new(column, brought))
        elif fits(declared, kind):
            lines.append(f"= {column} {declared}")
        else:
            wider = brought if widens(declared, kind) else None
            lines.append(config.preview_other(column, declared, brought, wider))
    unfit = unfit_columns(name, table.column_names)
    return lines + [
        f"~ {column}: {reason}; records that have it are set aside" for column, reason in unfit.items()
    ]


COMPONENT = PostgresBackend
