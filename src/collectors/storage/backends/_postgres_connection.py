"""A connection to PostgreSQL on which nothing waits for ever, and what its errors mean.

TCP keepalives find a machine that is gone. A server, or something between, that keeps the connection alive and says
nothing is found here: every wait of psycopg goes through `Connection.wait`, which gives up after a time of silence,
or as soon as it is told to. Errors are told apart by SQLSTATE
(https://www.postgresql.org/docs/current/errcodes-appendix.html).
"""

from __future__ import annotations

import fcntl
import logging
import re
import select
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, LiteralString, Self

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.waiting import Ready, Wait

from collectors.enums import ErrorType
from collectors.errors import CollectorsError, ConfigurationError, DataError, FatalError, TransientError

__all__ = ["Connection", "is_refusal", "translated"]

logger = logging.getLogger(__name__)

_LOOK_MS = 100
"""How often a wait looks whether it is to end."""
_OVERALL = 20
"""A statement may take so many times the longest silence before the server ends it: COPY through a slow line."""
_AGAIN = (
    *(
        "08",
        "40",
        "53",
        "57",
        "58030",
    ),  # connection, serialization and deadlock, resources, operator, I/O error
    *("55006", "55P03", "25006", "25P03"),  # in use, lock timeout, read-only (a standby), idle in transaction
    *(
        "42P06",
        "42P07",
        "42701",
        "42710",
    ),  # somebody else made the schema, table, column or object at the same time
)
_BAD_DATA = ("22", "23", "54000")
_SETTINGS = ("28", "3D000")
_SETTINGS_TEXTS = re.compile(
    r"authentication failed|no password supplied|does not exist|no pg_hba\.conf entry|not permitted to log in"
    r"|permission denied|certificate|does not support SSL|invalid"
)
"""What libpq says when connecting: it gives no SQLSTATE there."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """An open connection in autocommit mode; `transaction_begin` is the statement that begins a durable transaction."""

    silence: float
    stop: threading.Event
    transaction_begin: LiteralString = "BEGIN READ WRITE"

    @classmethod
    def open(cls, parameters: Mapping[str, Any], silence: float, stop: threading.Event) -> Self:
        """Connect. `silence` is how many seconds a wait may take, `stop` ends it at once. Raises psycopg.Error."""
        conninfo = make_conninfo("", **(_tcp(silence) | dict(parameters)))
        pgconn = pq.PGconn.connect_start(conninfo.encode())
        wants = {pq.PollingStatus.READING: Wait.R, pq.PollingStatus.WRITING: Wait.W}
        try:
            while (status := pgconn.connect_poll()) != pq.PollingStatus.OK:
                if status == pq.PollingStatus.FAILED:
                    raise psycopg.OperationalError(pgconn.get_error_message())
                _wait(pgconn.socket, wants[pq.PollingStatus(status)], silence, stop)
        except BaseException:
            pgconn.finish()
            raise
        connection = cls(pgconn)
        connection.silence, connection.stop = silence, stop
        connection.autocommit = True
        connection.prepare_threshold = None  # a pooler between may give each transaction another session
        connection._settle()
        return connection

    def wait(self, gen: Any, interval: float = 0, timeout: float | None = None) -> Any:
        """Run one of psycopg's generators; the connection is closed when the server stays silent for too long."""
        try:
            wanted = next(gen)
            while True:
                silence = self.silence if timeout is None else timeout
                wanted = gen.send(_wait(self.pgconn.socket, wanted, silence, self.stop))
        except StopIteration as done:
            return done.value
        except BaseException:
            if self.pgconn.transaction_status in {pq.TransactionStatus.ACTIVE, pq.TransactionStatus.UNKNOWN}:
                self.close()  # what comes later on this connection would be taken for the answer to something else
            raise

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Let the statements under `with` take as long as the server lets any take."""
        silence, self.silence = self.silence, self.silence * _OVERALL
        try:
            yield
        finally:
            self.silence = silence

    @contextmanager
    def durable_transaction(self) -> Iterator[None]:
        """Do what stands under `with` in one transaction that ends on disk, or leave everything as it was.

        Raises as `translated` does; after a TransientError the outcome is unknown.
        """
        with translated():
            self.execute(self.transaction_begin)
            try:
                yield
                self.execute("COMMIT")
            except BaseException:
                if not self.closed:
                    self.execute("ROLLBACK")
                raise

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Do what stands under `with` and take it back. Raises as `translated` does."""
        with translated():
            self.execute(self.transaction_begin)
            try:
                yield
            finally:
                if not self.closed:
                    self.execute("ROLLBACK")

    def _settle(self) -> None:
        """Set what the session needs, and look whether the server keeps what it acknowledges."""
        self.execute(
            "select set_config('timezone', 'UTC', false), set_config('extra_float_digits', '1', false), "
            "set_config('bytea_output', 'hex', false), set_config('intervalstyle', 'postgres', false), "
            "set_config('datestyle', 'ISO, YMD', false), "
            "set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false), "
            "set_config('idle_in_transaction_session_timeout', %s, false), "
            "set_config('tcp_keepalives_idle', %s, false), set_config('tcp_keepalives_interval', %s, false), "
            "set_config('tcp_keepalives_count', '3', false)",
            [
                f"{int(self.silence * 500)}ms",
                f"{int(self.silence * 1000 * _OVERALL)}ms",
                f"{int(self.silence * 2000)}ms",
                str(max(1, int(self.silence / 2))),
                str(max(1, int(self.silence / 6))),
            ],
        )
        row = self.execute(
            "select current_setting('synchronous_commit'), current_setting('fsync'), current_setting('server_encoding')"
        ).fetchone()
        synchronous_commit, fsync, encoding = row or ("", "", "")
        if synchronous_commit == "off":
            self.transaction_begin = "BEGIN READ WRITE; SET LOCAL synchronous_commit = on"
        if fsync == "off":
            logger.warning(
                "the PostgreSQL server runs with fsync = off: a power cut loses what it has acknowledged"
            )
        if encoding not in {"UTF8", "SQL_ASCII"}:
            raise psycopg.OperationalError(f"invalid encoding of the database: {encoding}; it has to be UTF8")


def _wait(fd: int, wanted: Any, silence: float, stop: threading.Event) -> Ready:
    """Wait until the socket is ready. Raises OperationalError after that much silence, or when told to stop.

    Bytes that leave for the server, down a slow line, are no silence.
    """
    end, unsent = time.monotonic() + silence, _unsent(fd)
    poll = select.poll()
    poll.register(fd, (select.POLLIN if wanted & Wait.R else 0) | (select.POLLOUT if wanted & Wait.W else 0))
    while not stop.is_set():
        for _, events in poll.poll(_LOOK_MS):
            readable = events & ~select.POLLOUT and wanted & Wait.R
            writable = events & ~select.POLLIN and wanted & Wait.W
            return Ready((Ready.R if readable else 0) | (Ready.W if writable else 0))
        if (left := _unsent(fd)) != unsent:
            end, unsent = time.monotonic() + silence, left
        elif time.monotonic() >= end:
            raise psycopg.OperationalError("the server gave no answer in time (setting `timeout`)")
    raise psycopg.OperationalError("the connection was given up, since this process stops")


def _unsent(fd: int) -> int:
    """Return how many bytes the system has still to send; 0 where it does not tell."""
    count = bytearray(4)
    with suppress(OSError):
        fcntl.ioctl(fd, termios.TIOCOUTQ, count)
    return int.from_bytes(count, sys.byteorder)


def _tcp(silence: float) -> dict[str, Any]:
    return {
        "application_name": "collectors",
        "client_encoding": "UTF8",
        "keepalives": 1,
        "keepalives_idle": max(1, int(silence / 2)),
        "keepalives_interval": max(1, int(silence / 6)),
        "keepalives_count": 3,
        "tcp_user_timeout": int(silence * 1000),
    }


@contextmanager
def translated() -> Iterator[None]:
    """Turn an error of psycopg into one of this package.

    TransientError: the connection is gone, or the server could not for now. DataError without `rows`: the server
    refused a value. ConfigurationError: it does not let us in. FatalError: all others.
    """
    try:
        yield
    except psycopg.Error as error:
        raise _translate(error) from error


def is_refusal(error: psycopg.Error) -> bool:
    """Return whether the server is fine and refused a value."""
    return (error.sqlstate or "").startswith(_BAD_DATA) and error.diag.schema_name != "pg_catalog"


def _translate(error: psycopg.Error) -> CollectorsError:
    code = error.sqlstate
    text = " ".join(str(error).split())
    if code is None:
        if _SETTINGS_TEXTS.search(text) and isinstance(error, psycopg.OperationalError):
            return ConfigurationError(f"PostgreSQL: {text}")
        if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
            return TransientError(f"PostgreSQL: {text}")
        return FatalError(f"PostgreSQL: {text}", error_type=ErrorType.STORAGE)
    message = f"PostgreSQL: {text} (SQLSTATE {code})"
    if code.startswith(_AGAIN) or error.diag.schema_name == "pg_catalog":
        return TransientError(message, error_type=ErrorType.STORAGE)
    if is_refusal(error):
        return DataError(message, error_type=ErrorType.STORAGE)
    if code.startswith(_SETTINGS):
        return ConfigurationError(message)
    return FatalError(message, error_type=ErrorType.STORAGE)
