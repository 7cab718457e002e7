"""`QueryCriteria` as SQL, with the meaning that `storage.criteria` gives them.

What SQL compares in the same way is compared in SQL. Everything else asks the reference itself, row by row, through
a function of the connection. Values are bound, never written into the statement; names are quoted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from collectors.models import QueryCriteria
from collectors.storage.backends._sqlite_table import ROW, RowTable
from collectors.storage.backends._sqlite_types import DECODERS, affinity
from collectors.storage.criteria import Condition, Ordering, check_columns, matcher, ordering, parse, sort_key
from collectors.storage.sql_names import quote
from collectors.storage.sqlite_store import Database

__all__ = ["select"]

_INT64 = range(-(2**63), 2**63)
_MOST_VALUES = 1000
_OUR_TIME = "____-__-__T__:__:__.______%Z"
_MATCH = "_collectors_match"
Clause = tuple[str, list[Any]]


def select(database: Database, table: str, criteria: QueryCriteria) -> list[dict[str, Any]]:
    """Return the rows of the table that the criteria ask for; none when there is no such table yet.

    Raises ConfigurationError, a ValueError, for bad criteria and for columns that the table does not have.
    """
    conditions, order = parse(criteria), ordering(criteria)
    with database.translated():
        rows = RowTable(database, table)
        if not rows.exists():
            return []
        columns = rows.columns()
        check_columns(criteria, columns)
        where, values = _where(database, conditions, columns)
        by = _order_by(database, order, columns) + ([ROW] if rows.is_numbered() else [])
        names = ", ".join(map(quote, columns)) or "null"
        quoted = f"select {names} from {quote(table)}"  # noqa: S608  # names are quoted
        quoted += f" where {where}" if where else ""
        quoted += f" order by {', '.join(by)}" if by else ""
        limit = -1 if criteria.limit is None else criteria.limit
        found = database.execute(f"{quoted} limit ? offset ?", [*values, limit, criteria.offset or 0])
        decoders = [(name, DECODERS.get(declared.upper())) for name, declared in columns.items()]
        return [
            {
                name: value if decode is None else decode(value)
                for (name, decode), value in zip(decoders, row, strict=bool(decoders))
            }
            for row in found
        ]


def _where(database: Database, conditions: list[Condition], columns: dict[str, str]) -> Clause:
    tests: list[Callable[[Any], bool]] = []
    clauses: list[str] = []
    values: list[Any] = []
    for condition in conditions:
        declared = columns[condition.column].upper()
        asked = f"{_MATCH}({len(tests)}, {quote(condition.column)})"
        tests.append(_decoded(matcher(condition), declared))
        test, bound = _native(condition, declared, asked)
        clauses.append(f"({test})")
        values += bound
    database.create_function(_MATCH, 2, lambda number, value: tests[number](value))
    return " and ".join(clauses), values


def _decoded(test: Callable[[Any], bool], declared: str) -> Callable[[Any], bool]:
    decode = DECODERS.get(declared)
    return test if decode is None else lambda value: test(decode(value))


def _native(condition: Condition, declared: str, asked: str) -> Clause:
    """Return the condition in SQL, or `asked`, which asks the reference, where SQL would mean something else."""
    column, operator, value = quote(condition.column), condition.operator, condition.value
    if operator in {"is null", "is not null"}:
        return f"{column} {operator}", []
    if operator in {"in", "not in"}:
        return _native_in(column, operator, value, declared) or (asked, [])
    if declared == "TIMESTAMP":
        text = _time_text(value) if operator in {"=", "<", "<=", ">", ">="} else None
        known = f"case when {column} like '{_OUR_TIME}' then substr({column}, 1, 26) {operator} ? else {asked} end"
        return (asked, []) if text is None else (known, [text])
    guard = _guard(column, value, declared)
    if guard is None or operator == "like":
        return asked, []
    if operator == "!=":
        return f"{column} is not null and not ({guard} and {column} = ? collate binary)", [value]
    return f"{guard} and {column} {operator} ? collate binary", [value]


def _native_in(column: str, operator: str, values: list[Any], declared: str) -> Clause | None:
    guards = {_guard(column, value, declared) for value in values}
    if len(guards) != 1 or None in guards or len(values) > _MOST_VALUES:
        return None
    (guard,) = guards
    test = f"{guard} and {column} collate binary in ({', '.join('?' * len(values))})"
    return (test if operator == "in" else f"{column} is not null and not ({test})"), values


def _time_text(value: Any) -> str | None:
    """Return a time with a zone as the first 26 letters of what we store for it."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        return None
    try:
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rjust(26, "0")
    except OverflowError:
        return None


def _guard(column: str, value: Any, declared: str) -> str | None:
    """Return the SQL test that a stored value is of the kind of this one; None when SQL has not the whole answer."""
    if declared in DECODERS and declared != "BOOLEAN":
        return None
    if isinstance(value, (int, float)):
        exact = value in _INT64 if isinstance(value, int) else not math.isnan(value)
        return f"typeof({column}) in ('integer', 'real')" if exact else None
    if isinstance(value, str):
        return f"typeof({column}) = 'text'" if affinity(declared) in {"TEXT", "BLOB"} else None
    return f"typeof({column}) = 'blob'" if isinstance(value, bytes) else None


def _order_by(database: Database, order: Ordering | None, columns: dict[str, str]) -> list[str]:
    if order is None:
        return []
    declared, column = columns[order.column].upper(), quote(order.column)
    key = f"{column} collate binary"
    if declared in {"TIMESTAMP", "DATETIME"}:
        key = f"substr({column}, 1, 26)"
    elif declared in DECODERS and declared not in {"BOOLEAN", "DATE", "TIME"}:
        decode = DECODERS[declared]
        database.create_collation("_collectors_order", lambda a, b: _compare(decode(a), decode(b)))
        key = f"{column} collate _collectors_order"
    return [f"{column} is null", f"{key} {'desc' if order.descending else 'asc'}"]


def _compare(left: Any, right: Any) -> int:
    first, second = sort_key(left), sort_key(right)
    return int(first > second) - int(first < second)
