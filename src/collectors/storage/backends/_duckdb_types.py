"""Arrow types as DuckDB keeps them, when one widens into another, and values on their way.

| Arrow | DuckDB |
|---|---|
| int8 … int64, uint8 … uint64 | TINYINT … BIGINT, UTINYINT … UBIGINT |
| float16, float32, float64 | FLOAT, FLOAT, DOUBLE |
| bool, string, binary | BOOLEAN, VARCHAR, BLOB |
| decimal up to 38 digits | DECIMAL |
| timestamp with a zone | TIMESTAMPTZ; TIMESTAMPTZ_NS for nanoseconds |
| timestamp without | TIMESTAMP; TIMESTAMP_NS |
| date, time | DATE; TIME, TIME_NS for nanoseconds |
| duration | INTERVAL |
| list, struct, map | `T[]`, `STRUCT(…)`, `MAP(…)` |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pyarrow as pa

from collectors.storage.records import plain, to_values
from collectors.storage.sql_names import quote

__all__ = ["UnstorableError", "as_python", "conversion", "fit", "sql_type", "storable", "widened"]

_SIMPLE = {
    pa.null(): '"NULL"',
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.date32(): "DATE",
    pa.time64("us"): "TIME",
    pa.time64("ns"): "TIME_NS",
    pa.timestamp("us"): "TIMESTAMP",
    pa.timestamp("ns"): "TIMESTAMP_NS",
    pa.timestamp("us", "UTC"): "TIMESTAMP WITH TIME ZONE",
    pa.timestamp("ns", "UTC"): "TIMESTAMPTZ_NS",
    pa.month_day_nano_interval(): "INTERVAL",
}
_MOST_DIGITS = 38


class UnstorableError(ValueError):
    """DuckDB has no place for this; the text says for what, and why."""


def storable(kind: pa.DataType) -> pa.DataType:
    """Return the type in which values of an Arrow type go into a table and come back. Raises UnstorableError."""
    types = pa.types
    kind = plain(pa.chunked_array([], kind)).type
    if types.is_struct(kind):
        return pa.struct([(field.name, _inside(field.type)) for field in _fields(kind)])
    if types.is_map(kind):
        return pa.map_(_inside(kind.key_type), _inside(kind.item_type))
    if _is_list(kind):
        return pa.list_(_inside(kind.value_type))
    if types.is_timestamp(kind):
        return pa.timestamp("ns" if kind.unit == "ns" else "us", "UTC" if kind.tz else None)
    if types.is_time(kind):
        return pa.time64("ns" if kind.unit == "ns" else "us")
    if types.is_decimal(kind) and kind.precision <= _MOST_DIGITS and kind.scale >= 0:
        return pa.decimal128(kind.precision, kind.scale)
    others: list[tuple[Callable[[pa.DataType], bool], pa.DataType]] = [
        (types.is_float16, pa.float32()),
        (lambda it: types.is_large_string(it) or types.is_string_view(it), pa.string()),
        (lambda it: types.is_large_binary(it) or types.is_binary_view(it), pa.binary()),
        (types.is_fixed_size_binary, pa.binary()),
        (types.is_date, pa.date32()),
        (types.is_duration, pa.month_day_nano_interval()),
        (lambda it: it in _SIMPLE, kind),
    ]
    found = next((to for test, to in others if test(kind)), None)
    if found is None or types.is_decimal(kind):
        raise UnstorableError(f"DuckDB has no place for Arrow's {kind}; cast it to another type")
    return found


def sql_type(kind: pa.DataType) -> str:
    """Return DuckDB's name for a `storable` type, as its catalog writes it."""
    if pa.types.is_struct(kind) and not kind.num_fields:
        return "STRUCT"
    if pa.types.is_struct(kind):
        return f"STRUCT({', '.join(f'{quote(field.name)} {sql_type(field.type)}' for field in kind)})"
    if pa.types.is_map(kind):
        return f"MAP({sql_type(kind.key_type)}, {sql_type(kind.item_type)})"
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    return _SIMPLE[kind]


def widened(existing: pa.DataType, brought: pa.DataType) -> pa.DataType | None:
    """Return the narrowest type that takes both `storable` ones, each value as a whole or refused; None: there is none.

    A number never becomes text, a decimal never a float. Of signed and unsigned numbers of 64 bits, the signed one.
    """
    types = pa.types
    if existing.equals(brought) or types.is_null(brought):
        return existing
    if types.is_null(existing):
        return brought
    if types.is_struct(existing) and types.is_struct(brought):
        return _merged(existing, brought)
    if types.is_map(existing) and types.is_map(brought):
        key, item = (
            widened(existing.key_type, brought.key_type),
            widened(existing.item_type, brought.item_type),
        )
        return None if key is None or item is None else pa.map_(key, item)
    if types.is_list(existing) and types.is_list(brought):
        value = widened(existing.value_type, brought.value_type)
        return None if value is None else pa.list_(value)
    both = {_kind(existing), _kind(brought)}
    if None in both or (len(both) > 1 and both not in ({"integer", "float"}, {"integer", "decimal"})):
        return None
    schemas = [pa.schema([("x", kind)]) for kind in (existing, brought)]
    try:
        found = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None
    return found if not types.is_decimal(found) or found.precision <= _MOST_DIGITS else None


def conversion(expression: str, existing: pa.DataType, wanted: pa.DataType, depth: int = 0) -> str:
    """Return the SQL that makes values of one type such of a `widened` one."""
    if existing.equals(wanted):
        return expression
    if pa.types.is_struct(existing):
        known = {field.name: field.type for field in existing}
        parts = []
        for field in wanted:
            inner = f"cast(null as {sql_type(field.type)})"
            if field.name in known:
                inside = f"struct_extract({expression}, {_literal(field.name)})"
                inner = conversion(inside, known[field.name], field.type, depth)
            parts.append(f"{quote(field.name)} := {inner}")
        return f"case when {expression} is null then null else struct_pack({', '.join(parts)}) end"
    if pa.types.is_list(existing) and pa.types.is_nested(existing.value_type):
        inner = conversion(f"x{depth}", existing.value_type, wanted.value_type, depth + 1)
        return f"list_transform({expression}, lambda x{depth}: {inner})"
    return f"cast({expression} as {sql_type(wanted)})"


def fit(column: pa.ChunkedArray, wanted: pa.DataType) -> tuple[pa.ChunkedArray, dict[int, str]]:
    """Return a column as the wanted type, and the reason for each row whose value that type cannot take.

    Rows that are refused are null in the column.
    """
    column = plain(column)
    if column.type.equals(wanted):
        return column, {}
    lasts = pa.types.is_duration(column.type)
    between = pa.duration("us") if lasts else wanted  # Arrow has no cast from durations to intervals
    try:
        kept, bad = column.cast(between), list[int]()
    except pa.ArrowException:
        from collectors.storage.narrowing import narrowed

        kept, bad = narrowed(column, between)
    reasons = {row: f"{_shown(column[row])} does not fit into {sql_type(wanted)}" for row in bad}
    return _intervals(kept) if lasts else kept, reasons


def as_python(column: pa.ChunkedArray) -> list[Any]:
    """Return a column of a result as Python values, an interval as a timedelta where it has no months."""
    values = to_values(column)
    if pa.types.is_interval(column.type):
        return [value if value is None or value.months else _timedelta(value) for value in values]
    return values


def _shown(value: pa.Scalar) -> str:
    try:
        return str(value)
    except (OverflowError, ValueError):  # a time that Python does not have
        return f"a {value.type}"


def _intervals(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return durations of microseconds as intervals of days and nanoseconds."""
    day = 86_400_000_000
    counts = column.cast(pa.int64()).to_pylist()
    values = [None if count is None else (0, count // day, count % day * 1000) for count in counts]
    return pa.chunked_array([pa.array(values, pa.month_day_nano_interval())])


def _timedelta(value: Any) -> timedelta:
    return timedelta(days=value.days, microseconds=value.nanoseconds // 1000)


def _merged(existing: pa.DataType, brought: pa.DataType) -> pa.DataType | None:
    fields = {field.name: field.type for field in existing}
    for field in brought:
        known = fields.get(field.name)
        kind = field.type if known is None else widened(known, field.type)
        if kind is None:
            return None
        fields[field.name] = kind
    return pa.struct(list(fields.items()))


def _inside(kind: pa.DataType) -> pa.DataType:
    found = storable(kind)
    if pa.types.is_interval(found):
        raise UnstorableError(
            f"a {kind} inside of a list or an object has no place in DuckDB; cast it to a number"
        )
    return found


def _fields(kind: pa.DataType) -> Iterator[pa.Field]:
    seen: set[str] = set()
    for field in kind:
        name = field.name
        if not name or "\0" in name or name.lower() in seen:
            raise UnstorableError(
                f"DuckDB cannot have the field {name!r} in an object, or not beside one that differs from it only in "
                "upper and lower case; rename it"
            )
        seen.add(name.lower())
        yield field


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (
        types.is_list,
        types.is_large_list,
        types.is_fixed_size_list,
        types.is_list_view,
        types.is_large_list_view,
    )
    return any(test(kind) for test in tests)


def _kind(kind: pa.DataType) -> str | None:
    types = pa.types
    if types.is_timestamp(kind):
        return "moment" if kind.tz else "clock"
    tests = {
        "integer": types.is_integer,
        "float": types.is_floating,
        "decimal": types.is_decimal,
        "time": types.is_time,
    }
    return next((name for name, test in tests.items() if test(kind)), None)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
