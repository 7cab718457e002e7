"""MySQL and MariaDB: every value as the server writes it.

| MySQL | here |
|---|---|
| tinyint … bigint, unsigned too; year | int8 … int64, uint8 … uint64; int16 |
| decimal(p, s) | decimal(p, s) |
| float, double | double; a float is asked for as a double, since its text has six digits |
| bit | uint64 |
| date, datetime, timestamp | date32, timestamp, timestamp in UTC; microseconds |
| binary, varbinary, blob, geometry | binary |
| all others: char, text, json, enum, set, time, … | text |

A zero date is none and is refused by itself; a query with `nullif(day, '0000-00-00')` makes it NULL.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pymysql
from pymysql.constants import CR, ER, FIELD_TYPE, FLAG
from pymysql.converters import encoders
from pymysql.cursors import SSCursor

from collectors.collection.sources._sql_columns import Column, Row, from_text
from collectors.collection.sources._sql_database import Database, Fetch
from collectors.collection.sources._sql_dialects import MySqlDialect
from collectors.errors import CollectorsError, ConfigurationError, FatalError, TransientError

__all__ = ["MySql"]

_CONNECT_SECONDS = 10
_BINARY = 63
"""The number of the character set of bytes."""
_WHOLE = {
    FIELD_TYPE.TINY: (pa.int8(), pa.uint8()),
    FIELD_TYPE.SHORT: (pa.int16(), pa.uint16()),
    FIELD_TYPE.INT24: (pa.int32(), pa.uint32()),
    FIELD_TYPE.LONG: (pa.int32(), pa.uint32()),
    FIELD_TYPE.LONGLONG: (pa.int64(), pa.uint64()),
    FIELD_TYPE.YEAR: (pa.int16(), pa.int16()),
}
_OTHERS = {
    FIELD_TYPE.FLOAT: pa.float64(),
    FIELD_TYPE.DOUBLE: pa.float64(),
    FIELD_TYPE.BIT: pa.uint64(),
    FIELD_TYPE.DATE: pa.date32(),
    FIELD_TYPE.DATETIME: pa.timestamp("us"),
    FIELD_TYPE.TIMESTAMP: pa.timestamp("us", "UTC"),
    FIELD_TYPE.TIME: pa.string(),
    FIELD_TYPE.JSON: pa.string(),
}
_NAMES = {
    getattr(FIELD_TYPE, name): name.lower()
    for name in sorted(vars(FIELD_TYPE), reverse=True)
    if not name.startswith("_")
}
_SETTINGS = {
    ER.ACCESS_DENIED_ERROR,
    ER.DBACCESS_DENIED_ERROR,
    ER.TABLEACCESS_DENIED_ERROR,
    ER.COLUMNACCESS_DENIED_ERROR,
    ER.BAD_DB_ERROR,
    ER.NO_SUCH_TABLE,
    ER.BAD_FIELD_ERROR,
    ER.PARSE_ERROR,
    ER.DUP_FIELDNAME,
}
_AGAIN = {
    ER.CON_COUNT_ERROR,
    ER.SERVER_SHUTDOWN,
    ER.LOCK_WAIT_TIMEOUT,
    ER.LOCK_DEADLOCK,
    ER.NET_WRITE_INTERRUPTED,
    ER.QUERY_INTERRUPTED,
    ER.TOO_MANY_USER_CONNECTIONS,
}


class MySql(Database):
    """One session, read-only."""

    dialect = MySqlDialect()

    def __init__(self, url: str, timeout: float) -> None:
        place = urlsplit(url)
        with _translated():
            self._connection = pymysql.connect(
                **_login(place),
                **_tls(place),
                charset="utf8mb4",
                conv={key: value for key, value in encoders.items() if not isinstance(key, int)},
                autocommit=True,
                connect_timeout=min(_CONNECT_SECONDS, max(1, int(timeout))),
                read_timeout=timeout,
                write_timeout=timeout,
            )
        self.execute("set session time_zone = '+00:00', session net_write_timeout = 86400")
        self.execute("set session transaction read only")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run a statement."""
        with _translated(), self._connection.cursor() as cursor:
            cursor.execute(statement, tuple(values))
            return list(cursor.fetchall())

    def columns(self, quoted: str, table: str | None) -> list[Column]:
        """Return the columns as a result has them."""
        with _translated(), self._connection.cursor() as cursor:
            cursor.execute(f"select * from {quoted} limit 0", ())  # noqa: S608  # quoted
            return [_column(field) for field in cursor._result.fields]  # noqa: SLF001  # flags are nowhere else

    def tables(self) -> list[str]:
        """Return tables and views, with their database where it is another one."""
        found = self.execute(
            "select if(table_schema = database(), table_name, concat(table_schema, '.', table_name)) from information_schema.tables "
            "where table_schema not in ('information_schema', 'mysql', 'performance_schema', 'sys')"
        )
        return [name for (name,) in found]

    @contextmanager
    def rows(self, statement: str, values: Sequence[Any]) -> Iterator[Fetch]:
        """Enter a result that the server sends as it is read."""
        cursor = self._connection.cursor(SSCursor)
        self.usable = False
        try:
            with _translated():
                cursor.execute(statement, tuple(values))

            def fetch(count: int) -> list[Row]:
                with _translated():
                    return list(cursor.fetchmany(count))

            yield fetch
            with _translated():
                cursor.close()
            self.usable = True
        finally:
            if not self.usable:
                self._forget(cursor)

    def array(self, column: Column, values: Sequence[Any]) -> pa.Array:
        """Return values that the server wrote as text."""
        if column.declared == "bit":
            return pa.array(
                [None if value is None else int.from_bytes(value, "big") for value in values], column.type
            )
        if column.declared == "timestamp":
            return pc.assume_timezone(from_text(pa.timestamp("us"), values), "UTC")
        return from_text(column.type, values)

    def warning(self) -> str | None:
        """Return that it does not tell everybody what is open."""
        return (
            "MySQL does not tell what is not committed yet: a row that is committed behind others with a larger cursor, or key, "
            "is missed, unless `lag` covers it"
        )

    def interrupt(self) -> None:
        """End what is waited for."""
        self.usable = False
        with suppress(OSError, AttributeError):
            self._connection._sock.shutdown(socket.SHUT_RDWR)  # noqa: SLF001  # it has nothing of its own for that

    def close(self) -> None:
        """Close the connection."""
        self.usable = False
        if self._connection.open:
            self._connection.close()

    def _forget(self, cursor: Any) -> None:
        """Close the connection with rows on their way; left to itself the cursor would read them all."""
        self.close()
        if cursor._result is not None:  # noqa: SLF001
            cursor._result.unbuffered_active = False  # noqa: SLF001
        cursor.connection = None


def _login(place: SplitResult) -> dict[str, Any]:
    return {
        "host": place.hostname or "localhost",
        "port": place.port or 3306,
        "user": unquote(place.username or ""),
        "password": unquote(place.password or ""),
        "database": unquote(place.path.lstrip("/")) or None,
    }


def _tls(place: SplitResult) -> dict[str, Any]:
    """Return what a URL says about TLS; the driver's own options do not compare names where no `ssl-ca` is given."""
    options = {key: values[-1] for key, values in parse_qs(place.query).items()}
    authorities = options.get("ssl-ca")
    mode = options.get("ssl-mode", "verify_identity" if authorities else "preferred").lower()
    if mode in {"disabled", "preferred"}:
        return {"ssl_disabled": mode == "disabled"}
    try:
        context = ssl.create_default_context(cafile=authorities)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"url: ssl-ca: cannot read '{authorities}': {error.strerror or error}"
        ) from error
    context.check_hostname = mode == "verify_identity"
    context.verify_mode = ssl.CERT_NONE if mode == "required" else ssl.CERT_REQUIRED
    return {"ssl": context}


def _column(field: Any) -> Column:
    code, unsigned = field.type_code, bool(field.flags & FLAG.UNSIGNED)
    name, kind = _NAMES.get(code, "text"), pa.string()
    if code in _WHOLE:
        kind = _WHOLE[code][unsigned]
    elif code in {FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL}:
        precision = field.length - (0 if unsigned else 1) - (1 if field.scale else 0)
        kind = (
            pa.decimal128(precision, field.scale)
            if precision <= 38
            else pa.decimal256(precision, field.scale)
        )
    elif code in _OTHERS:
        kind = _OTHERS[code]
    elif field.flags & FLAG.ENUM or field.flags & FLAG.SET:
        name = "enum" if field.flags & FLAG.ENUM else "set"
    elif field.charsetnr == _BINARY:
        kind = pa.binary()
    return Column(field.name, kind, name, not field.flags & FLAG.NOT_NULL)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except pymysql.Error as error:
        raise _translate(error) from error
    except OSError as error:
        raise TransientError(f"MySQL: {error.strerror or error}") from error


def _translate(error: pymysql.Error) -> CollectorsError:
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    message = f"MySQL: {error.args[-1] if error.args else 'the connection was lost'} (error {code})"
    if code in _SETTINGS:
        return ConfigurationError(message)
    lost = CR.CR_ERROR_FIRST <= code <= CR.CR_ERROR_LAST or isinstance(error, pymysql.InterfaceError)
    return TransientError(message) if lost or code in _AGAIN else FatalError(message)
