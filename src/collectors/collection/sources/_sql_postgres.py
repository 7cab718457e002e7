"""PostgreSQL: every value as the server writes it, and rows that were committed late are not missed.

| PostgreSQL | here |
|---|---|
| smallint, integer, bigint, oid | int16, int32, int64, int64 |
| real, double precision, boolean, bytea | float, double, bool, binary |
| numeric(p, s) | decimal(p, s); numeric without them has no limit, so text |
| date, time, timestamp, timestamp with time zone | date32, time64, timestamp, timestamp in UTC; microseconds |
| one-dimensional arrays of these | list |
| all others: text, json, jsonb, uuid, enums, interval, … | text, as PostgreSQL writes it |

What a type here cannot hold, as `infinity`, a year before 0 or after 9999, or an array of arrays, is refused by itself.

Late commits. A transaction may take its `now()` or the next number of a sequence, and commit after others that took later ones
have committed and were read. Comparing the number of a row's transaction (xmin) with the oldest that runs is not enough: it is
given at the first write, which can be long after the value of the cursor was made, or long before. So a reading looks
first how far there are rows, then which transactions are open, and reads up to there when those have ended. Whatever begins
later makes larger values. CREATE INDEX CONCURRENTLY waits in the same way
(https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY). Which are open is in pg_locks for
every user: each transaction holds its virtual id, each that has written its number too, also when it was prepared
(https://www.postgresql.org/docs/current/view-pg-locks.html). A standby does not know what is open on its primary.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import postgres
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import TextLoader
from psycopg.waiting import Ready, Wait

from collectors.collection.sources._sql_columns import Column, Row, from_text
from collectors.collection.sources._sql_database import Database, Fetch
from collectors.collection.sources._sql_dialects import Bound, PostgresDialect
from collectors.errors import CollectorsError, ConfigurationError, FatalError, TransientError

__all__ = ["Postgres"]

_NAME = "collectors (reads only)"
"""The name of our sessions: others of us do not wait for them, since they write nothing."""
_TYPES = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "oid": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}
_LOOK_MS = 100
_CONNECT_SECONDS = 10
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.2
_AGAIN = ("08", "40", "53", "57", "58", "55", "25")
"""Connection, serialization, resources, operator, I/O, in use, transaction state."""
_SETTINGS = ("28", "3D", "42")
_SETTINGS_TEXTS = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "certificate",
    "permission denied",
)
_OPEN = """
select coalesce(l.virtualxid, l.transactionid::text), coalesce(l.pid, 0)
from pg_locks l left join pg_stat_activity a on a.pid = l.pid
where l.locktype = any (%s) and l.mode = 'ExclusiveLock' and l.granted and l.pid is distinct from pg_backend_pid()
and (a.pid is null or (a.datname = current_database() and a.usesysid is not null and a.application_name <> %s))
"""
_PREPARED = "0"
"""The pid of a transaction that was prepared."""
_COLUMNS = """
select a.attname, a.attnotnull from pg_attribute a where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped
"""
_TABLES = """
select case when n.nspname = any (current_schemas(false)) then c.relname else n.nspname || '.' || c.relname end
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\\_%%'
"""


class _Connection(psycopg.Connection[Row]):
    """A connection on which no wait is longer than `silence`, and each ends when `stop` is set."""

    silence: float
    stop: threading.Event

    def wait(self, gen: Any, interval: float = 0, timeout: float | None = None) -> Any:
        """Run one of psycopg's generators."""
        try:
            wanted = next(gen)
            while True:
                wanted = gen.send(self._ready(wanted))
        except StopIteration as done:
            return done.value

    def _ready(self, wanted: Any) -> Ready:
        end = time.monotonic() + self.silence
        poll = select.poll()
        poll.register(
            self.pgconn.socket,
            (select.POLLIN if wanted & Wait.R else 0) | (select.POLLOUT if wanted & Wait.W else 0),
        )
        while not self.stop.is_set() and time.monotonic() < end:
            for _, events in poll.poll(_LOOK_MS):
                readable = events & ~select.POLLOUT and wanted & Wait.R
                writable = events & ~select.POLLIN and wanted & Wait.W
                return Ready((Ready.R if readable else 0) | (Ready.W if writable else 0))
        self.close()  # what came later on it would be taken for the answer to something else
        why = (
            "it was given up"
            if self.stop.is_set()
            else "the server gave no answer in time (setting `timeout`)"
        )
        raise psycopg.OperationalError(why)


class Postgres(Database):
    """One session, read-only."""

    dialect = PostgresDialect()

    def __init__(self, url: str, timeout: float) -> None:
        with _translated():
            self._connection = _Connection.connect(**_parameters(url, timeout))
            self._connection.silence, self._connection.stop = timeout, threading.Event()
            self._connection.autocommit = True
            self._connection.prepare_threshold = (
                None  # a pooler between may give each transaction another session
            )
            for each in postgres.types:
                if each.name != "bytea":
                    self._connection.adapters.register_loader(each.oid, TextLoader)
        self.execute(
            "select set_config('timezone', 'UTC', false), set_config('datestyle', 'ISO, YMD', false), "
            "set_config('intervalstyle', 'postgres', false), set_config('extra_float_digits', '1', false), "
            "set_config('bytea_output', 'hex', false), set_config('default_transaction_read_only', 'on', false), "
            "set_config('idle_in_transaction_session_timeout', '0', false)"
        )

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run a statement."""
        with _translated():
            cursor = self._connection.execute(statement, values)
            return cursor.fetchall() if cursor.description is not None else []

    def columns(self, quoted: str, table: str | None) -> list[Column]:
        """Return the columns as a result has them."""
        with _translated():
            cursor = self._connection.execute(f"select * from {quoted} limit 0", ())  # noqa: S608  # quoted
        found = cursor.description or []
        names = [
            name
            for each in found
            for (name,) in self.execute("select format_type(%s::oid, %s::int)", [each.type_code, each._fmod])  # noqa: SLF001
        ]
        sure = (
            {name for name, required in self.execute(_COLUMNS, [table.replace("%%", "%")]) if required == "t"}
            if table
            else set()
        )
        return [
            Column(each.name, _type(each.type_code, each._fmod), name, each.name not in sure)  # noqa: SLF001
            for each, name in zip(found, names, strict=True)
        ]

    def tables(self) -> list[str]:
        """Return tables and views, with their schema where it is not on the search path."""
        return [name for (name,) in self.execute(_TABLES)]

    @contextmanager
    def rows(self, statement: str, values: Sequence[Any]) -> Iterator[Fetch]:
        """Enter the result behind a cursor of the server."""
        cursor = self._connection.cursor(name="collectors_rows")

        def fetch(count: int) -> list[Row]:
            with _translated():
                return cursor.fetchmany(count)

        try:
            with _translated():
                cursor.execute(statement, values)
            yield fetch
        except BaseException:
            self.close()  # with rows on their way it is not asked to end them
            raise
        finally:
            with _translated():
                cursor.close()

    def array(self, column: Column, values: Sequence[Any]) -> pa.Array:
        """Return values that the server wrote as text."""
        return from_text(column.type, values)

    def settle(
        self, last: Callable[[], Bound | None], *, writers: bool
    ) -> Generator[str, None, Bound | None]:
        """Wait until no transaction is open that may commit a row that belongs before the last one there is now."""
        bound = last()
        if bound is None:
            return None
        waited_for, pause = self._open(writers), _FIRST_PAUSE
        while waited_for:
            pids = ", ".join(sorted({pid for pid in waited_for.values() if pid != _PREPARED}))
            yield f"open transactions (pid {pids})" if pids else "prepared transactions"
            self.execute("select pg_sleep(%s)", [pause])
            pause = min(2 * pause, _LONGEST_PAUSE)
            still = self._open(writers)
            ended = waited_for.keys() - still.keys()
            waited_for = {
                key: pid
                for key, pid in still.items()
                if key in waited_for or (ended and pid == _PREPARED)  # one of those may be prepared now
            }
        return bound

    def warning(self) -> str | None:
        """Return what to know of a standby."""
        if self.execute("select pg_is_in_recovery()") != [("t",)]:
            return None
        return "this server is a standby, which does not tell what is not committed yet: rows can be missed unless `lag` covers them"

    def interrupt(self) -> None:
        """End what is waited for."""
        self.usable = False
        self._connection.stop.set()

    def close(self) -> None:
        """Close the connection."""
        self.usable = False
        with suppress(psycopg.Error):
            self._connection.close()

    def _open(self, writers: bool) -> dict[str, str]:
        """Return what names the transactions that are open, with the pid of each."""
        kinds = ["transactionid"] if writers else ["transactionid", "virtualxid"]
        return dict(self.execute(_OPEN, [kinds, _NAME]))


def _parameters(url: str, timeout: float) -> dict[str, Any]:
    silence = max(2, int(timeout))
    ours = {
        "connect_timeout": min(_CONNECT_SECONDS, silence),
        "keepalives_idle": max(1, silence // 2),
        "keepalives_interval": max(1, silence // 6),
        "keepalives_count": 3,
        "tcp_user_timeout": silence * 1000,
    }
    return ours | conninfo_to_dict(url) | {"application_name": _NAME, "client_encoding": "UTF8"}


def _type(oid: int, modifier: int) -> pa.DataType:
    known = postgres.types.get(oid)
    if known is None:
        return pa.string()
    kind = _TYPES.get(known.name, pa.string())
    if known.name == "numeric" and modifier >= 4:
        precision, scale = (modifier - 4) >> 16, (modifier - 4) & 0x7FF
        if precision <= 76 and scale <= precision:
            kind = pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
    return pa.list_(kind) if known.array_oid == oid else kind


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise _translate(error) from error


def _translate(error: psycopg.Error) -> CollectorsError:
    code, text = error.sqlstate, " ".join(str(error).split())
    if code is None:
        if isinstance(error, psycopg.OperationalError) and any(each in text for each in _SETTINGS_TEXTS):
            return ConfigurationError(f"PostgreSQL: {text}")
        again = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
        return TransientError(f"PostgreSQL: {text}") if again else FatalError(f"PostgreSQL: {text}")
    message = f"PostgreSQL: {text} (SQLSTATE {code})"
    if code.startswith(_AGAIN):
        return TransientError(message)
    return ConfigurationError(message) if code.startswith(_SETTINGS) else FatalError(message)
