"""Arrow values as Python has them: what queries return, and what text formats write.

Times come as aware UTC datetimes; digits behind the microsecond are cut off, since Python's datetime ends there. A
value outside of Python's calendar comes as Arrow's text for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from collectors.enums import ErrorType
from collectors.errors import DataError
from collectors.json_rows import written
from collectors.rows import batches, encodable, to_dicts

__all__ = [
    "json_text",
    "non_finite",
    "plain",
    "to_exact_json_lines",
    "to_json_lines",
    "to_records",
    "to_values",
    "without_unfit",
]


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column without dictionary, run-end or extension encoding."""
    if isinstance(column.type, pa.BaseExtensionType):
        storage = [chunk.storage for chunk in column.chunks]
        return plain(pa.chunked_array(storage, column.type.storage_type))
    if pa.types.is_dictionary(column.type):
        return plain(column.cast(column.type.value_type))
    if pa.types.is_run_end_encoded(column.type):
        decoded = [pc.run_end_decode(chunk) for chunk in column.chunks]
        return plain(pa.chunked_array(decoded, column.type.value_type))
    return column


def without_unfit(table: pa.Table, unfit: Mapping[str, str]) -> pa.Table:
    """Return the table without columns whose names a store cannot have; `unfit` says why.

    Raises DataError for the rows that have a value in one of them: a key that one record brings costs that record.
    """
    bad: dict[int, str] = {}
    for name, reason in unfit.items():
        there = pc.indices_nonzero(pc.is_valid(table.column(name))).to_pylist()
        bad = (
            dict.fromkeys(there, f"the column {name!r}: {reason}; rename it in a processor, or leave it out")
            | bad
        )
    if bad:
        row, reason = min(bad.items())
        raise DataError(
            f"{len(bad)} rows cannot be stored; the first is row {row}: {reason}",
            rows=bad,
            error_type=ErrorType.STORAGE,
        )
    return table.drop_columns(list(unfit)) if unfit else table


def to_records(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows as dicts."""
    return [row for part in _parts(table) for row in to_dicts(*part)]


def to_json_lines(table: pa.Table) -> bytes:
    """Return one JSON object a row: times as ISO 8601, decimals as text, bytes as base64; NaN and infinity are null."""
    with suppress(pa.ArrowException):  # times that microseconds of 64 bits do not hold
        text = written(pa.table([_in_microseconds(column) for column in table.columns], table.column_names))
        if text is not None:
            return text
    encoder = msgspec.json.Encoder(enc_hook=str)
    return b"".join(encoder.encode_lines(encodable(*part)) for part in _parts(table))


def to_exact_json_lines(table: pa.Table) -> bytes:
    """Return what `to_json_lines` does, but NaN and infinities are the texts `NaN`, `Infinity` and `-Infinity`."""
    if not any(non_finite(column) for column in table.columns):
        return to_json_lines(table)
    records = [_without_non_finite(record) for record in to_records(table)]
    return msgspec.json.Encoder(enc_hook=str).encode_lines(records)


def _without_non_finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {name: _without_non_finite(item) for name, item in value.items()}
    return [_without_non_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def _parts(table: pa.Table) -> Iterator[tuple[list[str], list[list[Any]], int]]:
    """Yield some rows at a time: the names of the columns, their values as Python's, and how many they are."""
    for start, count in batches(table.num_rows):
        part = table.slice(start, count)
        yield part.column_names, [to_values(column) for column in part.columns], count


def _in_microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column in its Python type, times being microseconds."""
    column = _as_python_type(column)
    if pa.types.is_timestamp(column.type) and column.type.unit != "us":
        return column.cast(pa.timestamp("us", column.type.tz))
    return column


def to_values(column: pa.ChunkedArray) -> list[Any]:
    """Return a column as Python values."""
    column = _as_python_type(column)
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):
        values = [_value(scalar) for scalar in column]
    return values


def json_text(value: Any) -> str:
    """Return JSON of a value that `to_values` gave: decimals and times as text, bytes as base64.

    Raises ValueError for NaN and infinity inside of it, which JSON does not have.
    """
    if _has_non_finite(value):
        raise ValueError("JSON has no NaN and no infinity")
    return msgspec.json.encode(value, enc_hook=str).decode()


def non_finite(column: pa.ChunkedArray) -> bool:
    """Return whether a float anywhere in the column, nested ones too, is NaN or infinite."""
    return any(_non_finite(chunk) for chunk in column.chunks)


def _non_finite(array: pa.Array) -> bool:
    kind = array.type
    if pa.types.is_floating(kind):
        return bool(pc.any(pc.invert(pc.is_finite(array))).as_py())
    if pa.types.is_struct(kind):
        return any(_non_finite(field) for field in array.flatten())
    if pa.types.is_map(kind):
        return _non_finite(array.keys) or _non_finite(array.items)
    if pa.types.is_nested(kind):
        return _non_finite(array.flatten())
    return False


def _has_non_finite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_non_finite, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_non_finite, value))


def _as_python_type(column: pa.ChunkedArray) -> pa.ChunkedArray:
    column = plain(column)
    wanted = _python_type(column.type)
    return column if wanted.equals(column.type) else column.cast(wanted, safe=False)


def _python_type(kind: pa.DataType) -> pa.DataType:
    """Return the type with times cut to the microsecond and in UTC."""
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us" if kind.unit == "ns" else kind.unit, "UTC" if kind.tz else None)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pa.types.is_time64(kind):
        return pa.time64("us")
    if pa.types.is_map(kind):
        return pa.map_(_python_type(kind.key_type), _python_type(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_python_field(kind.value_field), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(_python_field(kind.value_field))
    if pa.types.is_large_list(kind):
        return pa.large_list(_python_field(kind.value_field))
    if pa.types.is_struct(kind):
        return pa.struct([_python_field(field) for field in kind])
    if pa.types.is_dictionary(kind):
        return _python_type(kind.value_type)
    return kind


def _python_field(field: pa.Field) -> pa.Field:
    return field.with_type(_python_type(field.type))


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        return pa.array([scalar], scalar.type).to_string()
