"""`QueryCriteria` as SQL, with the meaning that `storage.criteria` gives them.

Where SQL means the same as the reference, PostgreSQL selects, sorts and cuts. Where it does not for some part of the
criteria, it narrows by the rest, and the reference itself does what is left.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.adapt import Loader
from psycopg.types import datetime as times

from collectors.models import QueryCriteria
from collectors.storage.backends._postgres_connection import Connection, translated
from collectors.storage.backends._postgres_table import ROW, RowTable
from collectors.storage.criteria import Condition, check_columns, ordering, parse, select_rows
from collectors.storage.sql_names import quote

__all__ = ["select"]

Clause = tuple[str, list[Any]]
_COMPARED = {
    "smallint": "bigint",
    "integer": "bigint",
    "bigint": "bigint",
    "numeric": "numeric",
    "double precision": "double precision",
    "text": "text",
    "boolean": "boolean",
    "timestamp with time zone": "timestamptz",
}
_SORTED = {*_COMPARED, "timestamp without time zone", "date", "time without time zone", "bytea"}
_INT64 = range(-(2**63), 2**63)


def select(connection: Connection, table: RowTable, criteria: QueryCriteria) -> list[dict[str, Any]]:
    """Return the rows of the table that the criteria ask for; none when there is no such table yet.

    Raises ConfigurationError, a ValueError, for bad criteria and for columns that the table does not have.
    """
    conditions, order = parse(criteria), ordering(criteria)
    with translated():
        kinds = table.columns()
        if kinds is None:
            return []
        has_numbers = kinds.pop(ROW, None) is not None
        check_columns(criteria, kinds)
        clauses = [_native(condition, kinds[condition.column]) for condition in conditions]
        where = " and ".join(f"({clause[0]})" for clause in clauses if clause)
        values = [value for clause in clauses if clause for value in clause[1]]
        is_native = all(clauses) and (order is None or kinds[order.column] in _SORTED)
        by = (
            [_sorted(order.column, kinds[order.column], descending=order.descending)]
            if order and is_native
            else []
        )
        quoted_table = table.quoted.replace("%", "%%")
        if has_numbers and not by and is_native and criteria.limit is not None:
            wanted = criteria.limit + (criteria.offset or 0)
            last = _last_row(connection, quoted_table, (where or "true", values), wanted)
            if last is not None:
                where = f"{where or 'true'} and {ROW} <= %s"
                values.append(last)
        statement = f"select {', '.join(map(_named, kinds))} from {quoted_table}"  # noqa: S608
        statement += f" where {where}" if where else ""
        statement += (
            f" order by {', '.join([*by, *([ROW] if has_numbers else [])])}" if by or has_numbers else ""
        )
        if is_native:
            statement += " limit %s offset %s"
            values += [criteria.limit, criteria.offset or 0]
        with connection.cursor() as cursor:
            for name, loader in _LOADERS.items():
                cursor.adapters.register_loader(name, loader)
            rows = [dict(zip(kinds, row, strict=True)) for row in cursor.execute(statement.encode(), values)]
    return rows if is_native else select_rows(rows, criteria)


def _last_row(connection: Connection, quoted_table: str, clause: Clause, count: int) -> int | None:
    """Return the number of a row before which so many match; None when so many do not.

    These are any that are found first. So the server need not sort all that match to give those of the lowest numbers.
    """
    quoted_where, values = clause
    found = connection.execute(
        f"select max({ROW}) from (select {ROW} from {quoted_table} where {quoted_where} and {ROW} is not null limit %s) "  # noqa: S608  # quoted
        "as found having count(*) = %s".encode(),
        [*values, count, count],
    ).fetchone()
    return None if found is None else found[0]


def _native(condition: Condition, kind: str) -> Clause | None:
    """Return the condition in SQL, or None where SQL would mean something else."""
    column, operator, value = _named(condition.column), condition.operator, condition.value
    if operator in {"is null", "is not null"}:
        return f"{column} {operator}", []
    cast = _COMPARED.get(kind)
    if cast is None or operator == "like":
        return None
    if operator in {"in", "not in"}:
        if not all(_same_meaning(item, cast) for item in value):
            return None
        test = f"{column} = any(%s::{cast}[])"
        return (test if operator == "in" else f"{column} is not null and not {test}"), [
            [_bound(item, cast) for item in value]
        ]
    if not _same_meaning(value, cast) or (cast == "boolean" and operator not in {"=", "!="}):
        return None
    if operator == "!=":
        return f"{column} <> %s::{cast}", [_bound(value, cast)]
    collated = f'{column} collate "C"' if cast == "text" else column
    return f"{collated} {operator} %s::{cast}{_guard(column, cast)}", [_bound(value, cast)]


def _same_meaning(value: Any, cast: str) -> bool:
    """Return whether PostgreSQL compares this value with a column of the type as the reference does."""
    if cast == "text":
        return isinstance(value, str) and "\0" not in value
    if cast == "boolean":
        return isinstance(value, bool)
    if cast == "timestamptz":
        return isinstance(value, datetime) and value.tzinfo is not None
    if cast == "bigint":
        return isinstance(value, int) and value in _INT64
    if cast == "numeric":
        return isinstance(value, int) or (isinstance(value, Decimal) and value.is_finite())
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) <= 2**53


def _bound(value: Any, cast: str) -> Any:
    if cast == "numeric":
        return Decimal(value)
    if cast == "double precision":  # a list of values goes as an array, which has one type
        return float(value)
    return int(value) if isinstance(value, bool) and cast != "boolean" else value


def _guard(column: str, cast: str) -> str:
    """Return what keeps NaN, which PostgreSQL takes for the largest number, and the ends of time out of a comparison."""
    if cast in {"numeric", "double precision"}:
        return f" and {column} <> 'NaN'"
    return f" and isfinite({column})" if cast == "timestamptz" else ""


def _sorted(name: str, kind: str, *, descending: bool) -> str:
    collated = f'{_named(name)} collate "C"' if kind == "text" else _named(name)
    return f"{collated} {'desc' if descending else 'asc'} nulls last"


def _named(name: str) -> str:
    """Return the name as it is written in a statement with values: there a percent sign is doubled."""
    return quote(name).replace("%", "%%")


def _lenient(base: type[Loader]) -> type[Loader]:
    """Return a loader that gives the server's text for a value that Python has no place for."""

    class Lenient(base):  # type: ignore[misc,valid-type]
        def load(self, data: Any) -> Any:
            try:
                return super().load(data)
            except psycopg.DataError:
                return bytes(data).decode()

    return Lenient


def _whole(digits: str) -> int | float:
    """Return a number that jsonb has written without its exponent as the float that it was."""
    number = int(digits)
    return number if -(2**63) <= number < 2**64 else float(digits)


class _Json(Loader):
    def load(self, data: Any) -> Any:
        return json.loads(bytes(data), parse_int=_whole)


_LOADERS: dict[str, type[Loader]] = {
    "jsonb": _Json,
    "json": _Json,
    "timestamptz": _lenient(times.TimestamptzLoader),
    "timestamp": _lenient(times.TimestampLoader),
    "date": _lenient(times.DateLoader),
    "time": _lenient(times.TimeLoader),
    "interval": _lenient(times.IntervalLoader),
}
