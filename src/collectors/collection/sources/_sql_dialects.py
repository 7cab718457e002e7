"""How each database writes what the sql source asks: names quoted, values bound. Nothing here is connected to anything."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, ClassVar

import pyarrow as pa

from collectors.collection.sources._sql_columns import Column, is_time
from collectors.errors import FatalError

__all__ = ["TIMES", "Bound", "Dialect", "MySqlDialect", "PostgresDialect", "SqliteDialect"]

Bound = list[Any]
"""The values of the cursor and the key of one row, in order."""
TIMES = {"DATE", "DATETIME", "TIMESTAMP", "TIME"}
"""Declared types of SQLite whose values are text that it reads as a time."""


class Dialect:
    """What they have in common. `name` is what sqlglot calls it, `mark` is where a bound value goes."""

    name: ClassVar[str]
    quotes: ClassVar[str] = '"'
    mark: ClassVar[str] = "%s"
    paged: ClassVar[bool] = False
    """Whether rows are asked for page by page, since a statement that is under way keeps writers out."""
    begin: ClassVar[str] = "begin"

    def quote(self, name: str) -> str:
        """Return a name as an identifier."""
        return self.text(self.quotes + name.replace(self.quotes, self.quotes * 2) + self.quotes)

    def text(self, sql: str) -> str:
        """Return SQL as it stands in a statement with marks."""
        return sql.replace("%", "%%")

    def item(self, column: Column) -> str:
        """Return what stands in a SELECT for the column."""
        return self.quote(column.name)

    def term(self, column: Column) -> str:
        """Return what stands in a statement for a value of the column."""
        return self.mark

    def value(self, column: Column, raw: Any) -> Any:
        """Return what to keep of a value in a position, so that it can be bound again."""
        return raw

    def lagging(self, column: Column) -> str | None:
        """Return the condition that the column is older than a bound number of seconds; None when it is no time."""
        raise NotImplementedError

    def compared(self, order: Sequence[Column], operator: str, bound: Bound) -> tuple[str, Bound]:
        """Return the condition that a row stands there (`>`, `<=`) in the order, with what to bind."""
        names = ", ".join(self.quote(column.name) for column in order)
        return f"({names}) {operator} ({', '.join(self.term(column) for column in order)})", bound


class SqliteDialect(Dialect):
    """SQLite."""

    name = "sqlite"
    mark = "?"
    paged = True

    def text(self, sql: str) -> str:
        """Return SQL as it is: a question mark in quotes is none."""
        return sql

    def value(self, column: Column, raw: Any) -> Any:
        """Return the value. Raises FatalError for text that is none, since it cannot be bound."""
        if isinstance(raw, str) and not raw.isascii():
            try:
                raw.encode()
            except UnicodeEncodeError:
                raise FatalError(
                    f"cursor, key: '{column.name}' has a text that is not UTF-8, {raw!r}, behind which one cannot go on; "
                    "give a `query` with hex() of it"
                ) from None
        return raw

    def lagging(self, column: Column) -> str | None:
        """Return the condition for a text that SQLite reads as a time, in UTC; what it cannot read is not held back."""
        if column.declared.upper() not in TIMES:
            return None
        day = f"julianday({self.quote(column.name)})"
        return f"{day} <= julianday('now') - ? / 86400.0 or {day} is null"


class PostgresDialect(Dialect):
    """PostgreSQL. Values are the text that it wrote, bytes but for bytea."""

    name = "postgres"
    begin = "begin isolation level repeatable read read only"

    def term(self, column: Column) -> str:
        """Return a mark that the server reads as the column's own type."""
        return f"cast(%s as {self.text(column.declared)})"

    def lagging(self, column: Column) -> str | None:
        """Return the condition in the server's time; times without a zone are taken for UTC."""
        return f"{self.quote(column.name)} <= now() - make_interval(secs => %s)" if is_time(column) else None


class MySqlDialect(Dialect):
    """MySQL and MariaDB."""

    name = "mysql"
    quotes = "`"
    begin = "start transaction with consistent snapshot, read only"

    def item(self, column: Column) -> str:
        """Return the column; a float as a double, with all of its digits."""
        name = self.quote(column.name)
        return f"({name} + 0e0) as {name}" if column.declared == "float" else name

    def value(self, column: Column, raw: Any) -> Any:
        """Return a number as one: MySQL compares numbers with text as doubles."""
        kind = column.type
        if column.declared == "bit":
            return int.from_bytes(raw, "big")
        if pa.types.is_integer(kind):
            return int(raw)
        if pa.types.is_floating(kind):
            return float(raw)
        return Decimal(raw) if pa.types.is_decimal(kind) else raw

    def lagging(self, column: Column) -> str | None:
        """Return the condition in the server's time; a datetime, which has no zone, is taken for UTC."""
        if not is_time(column):
            return None
        age = "interval cast(%s * 1000000 as signed) microsecond"
        return f"{self.quote(column.name)} <= utc_timestamp(6) - {age}"

    def compared(self, order: Sequence[Column], operator: str, bound: Bound) -> tuple[str, Bound]:
        """Return the condition column by column, with the first one apart, so that MySQL finds the place in an index."""
        names = [self.quote(column.name) for column in order]
        parts: list[str] = []
        values: Bound = [bound[0]]
        for count, name in enumerate(names):
            here = operator if count == len(names) - 1 else operator[0]
            parts.append(" and ".join([*(f"{each} = %s" for each in names[:count]), f"{name} {here} %s"]))
            values += bound[: count + 1]
        return f"{names[0]} {operator[0]}= %s and ({' or '.join(f'({part})' for part in parts)})", values
