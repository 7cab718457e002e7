"""`QueryCriteria` as SQL, with the meaning that `storage.criteria` gives them.

What SQL compares in the same way is compared in SQL; the rest is asked of the reference, row by row, on what SQL has
left. Values are bound, never written into the statement; names are quoted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from collectors.models import QueryCriteria
from collectors.storage.backends._duckdb_columns import Column
from collectors.storage.backends._duckdb_file import Connection
from collectors.storage.backends._duckdb_table import ROW, RowTable
from collectors.storage.backends._duckdb_types import as_python
from collectors.storage.criteria import Condition, check_columns, matcher, ordering, parse, select_rows
from collectors.storage.sql_names import quote

__all__ = ["select"]

_BATCH_ROWS = 16 * 1024
_MOST_VALUES = 1000
_INT64 = range(-(2**63), 2**63)
_EXACT = 2**53
_COMPARISONS = {"=", "!=", "<", "<=", ">", ">="}
Clause = tuple[str, list[Any]]


def select(connection: Connection, table: str, criteria: QueryCriteria) -> list[dict[str, Any]]:
    """Return the rows of the table that the criteria ask for; none when there is no such table yet.

    Raises ConfigurationError, a ValueError, for bad criteria and for columns that the table does not have.
    """
    conditions, order = parse(criteria), ordering(criteria)
    rows = RowTable(connection, table)
    if not rows.exists():
        return []
    columns = {column.name: column for column in rows.columns()}
    check_columns(criteria, columns)
    clauses: list[str] = []
    values: list[Any] = []
    left: dict[str, Any] = {}
    for number, condition in enumerate(conditions):
        known = _native(condition, columns[condition.column])
        if known is None:
            left[f"{number}"] = condition
        else:
            clauses.append(f"({known[0]})")
            values += known[1]
    statement = f"select {', '.join(map(quote, columns)) or 'null'} from {quote(table)}"  # noqa: S608  # quoted
    statement += f" where {' and '.join(clauses)}" if clauses else ""
    in_order = order is None or _sorts_natively(columns[order.column])
    if order is not None and in_order:
        direction = "desc" if order.descending else "asc"
        last = "rowid" if "rowid" not in {name.lower() for name in columns} else ROW
        statement += f" order by {quote(order.column)} {direction} nulls last, {last}"
    if not left and in_order:
        statement += " limit ? offset ?"
        values += [_INT64[-1] if criteria.limit is None else criteria.limit, criteria.offset or 0]
        return list(_records(connection.batches(statement, values, _BATCH_ROWS), list(columns)))
    found = _records(connection.batches(statement, values, _BATCH_ROWS), list(columns))
    tests = [(condition.column, matcher(condition)) for condition in left.values()]
    matching = (row for row in found if all(test(row[column]) for column, test in tests))
    return _cut(matching, criteria, in_order=in_order)


def _cut(rows: Iterator[dict[str, Any]], criteria: QueryCriteria, *, in_order: bool) -> list[dict[str, Any]]:
    """Sort where SQL did not, and take what offset and limit leave."""
    offset = criteria.offset or 0
    if not in_order:
        return select_rows(rows, QueryCriteria({}, criteria.sort_by, criteria.limit, criteria.offset))
    end = math.inf if criteria.limit is None else offset + criteria.limit
    kept = []
    for number, row in enumerate(rows):
        if number >= end:
            break
        if number >= offset:
            kept.append(row)
    return kept


def _records(batches: Iterator[pa.RecordBatch], names: list[str]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        table = pa.Table.from_batches([batch])
        if not names:
            yield from ({} for _ in range(table.num_rows))
            continue
        columns = [as_python(column) for column in table.columns]
        yield from (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def _sorts_natively(column: Column) -> bool:
    kind = column.arrow
    return column.ordinary and not (
        pa.types.is_nested(kind) or pa.types.is_interval(kind) or pa.types.is_null(kind)
    )


def _native(condition: Condition, column: Column) -> Clause | None:
    """Return the condition in SQL; None where SQL would mean something else."""
    name, operator, value = quote(column.name), condition.operator, condition.value
    if operator in {"is null", "is not null"}:
        return f"{name} {operator}", []
    if not column.ordinary:
        return None
    if operator in {"in", "not in"}:
        bound = [_bound(each, column.arrow) for each in value]
        if None in bound or not 0 < len(bound) <= _MOST_VALUES:
            return None
        return f"{name} is not null and {name} {operator} ({', '.join('?' * len(bound))})", bound
    bound_value = _bound(value, column.arrow)
    if operator not in _COMPARISONS or bound_value is None:
        return None
    no_nan = f" and not isnan({name})" if pa.types.is_floating(column.arrow) and ">" in operator else ""
    return f"{name} is not null and {name} {operator} ?{no_nan}", [bound_value]


def _bound(value: Any, kind: pa.DataType) -> Any:
    """Return the value to bind that DuckDB compares with a column of this type as the reference does; None: there is none."""
    types = pa.types
    if isinstance(value, (int, float)) and not (isinstance(value, float) and math.isnan(value)):
        if types.is_integer(kind) and isinstance(value, int) and value in _INT64:
            return int(value)
        if types.is_float64(kind) and (isinstance(value, float) or -_EXACT <= value <= _EXACT):
            return float(value)
        return value if types.is_boolean(kind) and isinstance(value, bool) else None
    if isinstance(value, str):
        return value if types.is_string(kind) else None
    if isinstance(value, bytes):
        return value if types.is_binary(kind) else None
    if isinstance(value, datetime) and value.tzinfo is not None and types.is_timestamp(kind) and kind.tz:
        return value.astimezone(UTC) if kind.unit == "us" and 2 <= value.year <= 9998 else None
    return None
