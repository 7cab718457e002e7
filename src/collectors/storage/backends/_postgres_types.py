"""Arrow columns as PostgreSQL keeps them.

| Arrow | column | |
|---|---|---|
| int8 … int64, uint8 … uint32 | bigint | |
| uint64, decimal | numeric | no digit is lost |
| float16, float32, float64 | double precision | NaN and infinity included |
| bool | boolean | |
| string | text | NUL cannot be stored |
| binary | bytea | |
| timestamp | timestamp with time zone, without where Arrow has none | years 1 to 9999, microseconds |
| date, time, duration | date, time without time zone, interval | microseconds |
| list, struct, map | jsonb | NUL cannot be stored |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from collectors.storage.records import json_text, to_values

__all__ = ["Encoded", "column_type", "encode", "fits", "is_binary", "narrower", "widens"]

Encoded = tuple[pa.ChunkedArray, dict[int, str]]
"""What to send, in a type that has one binary form in PostgreSQL, and the reason for each row that cannot be stored."""

WHOLE = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}
_WITHOUT_TEXT = re.compile(
    r"(smallint|integer|bigint|real|double precision|numeric|boolean|bytea|date|time|timestamp|interval|json|jsonb)\b"
)
_NUMERIC = re.compile(r"numeric(\((\d+),(-?\d+)\))?")
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_NUL_IN_JSON = r"(^|[^\\])(\\\\)*\\u0000"
_EXACT = 2**53


def column_type(kind: pa.DataType) -> str | None:
    """Return the column's type for an Arrow type, as PostgreSQL's `format_type` writes it; None when there is none."""
    types = pa.types
    simple: list[tuple[Callable[[pa.DataType], bool], str]] = [
        (types.is_uint64, "numeric"),
        (types.is_integer, "bigint"),
        (types.is_floating, "double precision"),
        (types.is_boolean, "boolean"),
        (lambda it: types.is_string(it) or types.is_large_string(it) or types.is_string_view(it), "text"),
        (lambda it: types.is_binary(it) or types.is_large_binary(it) or types.is_binary_view(it), "bytea"),
        (types.is_fixed_size_binary, "bytea"),
        (types.is_decimal, "numeric"),
        (types.is_date, "date"),
        (types.is_time, "time without time zone"),
        (types.is_duration, "interval"),
        (types.is_nested, "jsonb"),
    ]
    if types.is_timestamp(kind):
        return f"timestamp {'with' if kind.tz else 'without'} time zone"
    return next((name for test, name in simple if test(kind)), None)


def fits(existing: str, kind: pa.DataType) -> bool:
    """Return whether a column of this type takes values of an Arrow type, each exactly or refused."""
    brought = column_type(kind)
    if existing == brought:
        return True
    if brought == "bigint":
        return existing in WHOLE or existing == "double precision" or _whole_digits(existing)
    if brought == "numeric":
        return _scale(existing) >= (kind.scale if pa.types.is_decimal(kind) else 0)
    if brought == "double precision":
        return existing in {"real", "numeric"}
    if brought == "text":
        return not _WITHOUT_TEXT.match(existing) and not existing.endswith("[]")
    return brought == "jsonb" and existing == "json"


def widens(existing: str, kind: pa.DataType) -> bool:
    """Return whether the column can become one of the Arrow type's own column type without loss.

    To double precision it can while all of its numbers have at most 53 bits, which is for the caller to see.
    """
    return existing in WHOLE and column_type(kind) in {"numeric", "double precision"}


def narrower(existing: str) -> pa.DataType | None:
    """Return the Arrow type to which values can be narrowed for a column of this type; None: to none."""
    simple = {"smallint": pa.int16(), "integer": pa.int32(), "bigint": pa.int64(), "real": pa.float32()}
    if existing in simple:
        return simple[existing]
    match = _NUMERIC.fullmatch(existing)
    if match is None or match[2] is None or int(match[2]) > 38:
        return None
    return pa.decimal128(int(match[2]), int(match[3]))


def is_binary(existing: str, kind: pa.DataType) -> bool:
    """Return whether what `encode` gives has the binary form of the column's type."""
    return existing == column_type(kind) and not pa.types.is_decimal256(kind)


def encode(column: pa.ChunkedArray, existing: str) -> Encoded:
    """Return the values of a `plain` column for a column of this type, which it `fits`."""
    kind = column_type(column.type)
    if kind in {"bigint", "numeric", "double precision"}:
        return _encode_numbers(column, existing)
    if kind == "text":
        column = column.cast(pa.large_string())
        return column, _refuse(pc.match_substring(column, "\0"), "PostgreSQL cannot store NUL in text")
    if kind == "jsonb":
        return _encode_json(column)
    if kind == "bytea":
        return column.cast(pa.large_binary()), {}
    if kind == "boolean":
        return column, {}
    return _encode_times(column)


def _encode_numbers(column: pa.ChunkedArray, existing: str) -> Encoded:
    kind = column.type
    if pa.types.is_decimal256(kind):
        return _narrow_decimals(column)
    if pa.types.is_decimal(kind) or pa.types.is_uint64(kind):
        return column, {}
    if pa.types.is_floating(kind):
        column = column.cast(pa.float64())
        if existing != "real":
            return column, {}
        kept = column.cast(pa.float32(), safe=False).cast(pa.float64())
        return column, _refuse(pc.not_equal(kept, column), "loses digits in a real column", column)
    column = column.cast(pa.int64())
    if existing in WHOLE and existing != "bigint":
        limit = WHOLE[existing]
        beyond = pc.or_(pc.greater(column, limit), pc.less(column, -limit - 1))
        return column, _refuse(beyond, f"is too large for a column of type {existing}", column)
    if existing == "double precision":
        values = column.cast(pa.float64(), safe=False)
        beyond = pc.greater_equal(pc.abs(values), float(_EXACT))
        bad = {row: value for row, value in _at(beyond, column) if int(float(value)) != value}
        reasons = {row: f"{value} loses digits in a double precision column" for row, value in bad.items()}
        return values, reasons
    return column, {}


def _narrow_decimals(column: pa.ChunkedArray) -> Encoded:
    """Return decimals of up to 76 digits as text where they have more than the 38 that go in binary."""
    try:
        return column.cast(pa.decimal128(38, min(column.type.scale, 38))), {}
    except pa.ArrowInvalid:
        return column, {}


def _encode_json(column: pa.ChunkedArray) -> Encoded:
    texts: list[str | None] = []
    bad: dict[int, str] = {}
    for row, value in enumerate(to_values(column)):
        try:
            texts.append(None if value is None else json_text(value))
        except ValueError as error:
            texts.append(None)
            bad[row] = str(error)
    encoded = pa.chunked_array([pa.array(texts, pa.large_string())])
    nul = _refuse(pc.match_substring_regex(encoded, _NUL_IN_JSON), "PostgreSQL cannot store NUL in jsonb")
    return encoded, bad | nul


def _encode_times(column: pa.ChunkedArray) -> Encoded:
    kind = column.type
    if pa.types.is_date(kind):
        days = column.cast(pa.date32())
        counts = days.cast(pa.int32())
        return days, _refuse(
            _outside(counts, _FIRST_DAY, _LAST_DAY), "the date lies outside of the years 1 to 9999"
        )
    per_second = _PER_SECOND[kind.unit]
    counts = column.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64()).cast(pa.int64())
    bad: dict[int, str] = {}
    if kind.unit == "ns":
        finer = pc.not_equal(pc.multiply(pc.divide(counts, 1000), 1000), counts)
        bad = _refuse(finer, "has nanoseconds, and PostgreSQL keeps microseconds; cast it", column)
    elif pa.types.is_timestamp(kind):
        last = _LAST_SECOND * per_second + per_second - 1
        beyond = _outside(counts, _FIRST_SECOND * per_second, last)
        bad = _refuse(beyond, "the time lies outside of the years 1 to 9999")
    elif pa.types.is_duration(kind):
        largest = (2**63 - 1) // 10**6 * per_second
        bad = _refuse(_outside(counts, -largest, largest), "the duration is too long")
    if bad:
        column = pc.if_else(
            pa.array([row not in bad for row in range(len(column))]), column, pa.scalar(None, kind)
        )
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz), safe=False), bad
    return column.cast(pa.time64("us") if pa.types.is_time(kind) else pa.duration("us"), safe=False), bad


def _outside(counts: pa.ChunkedArray, first: int, last: int) -> pa.ChunkedArray:
    return pc.or_(pc.less(counts, first), pc.greater(counts, last))


def _refuse(mask: pa.ChunkedArray, reason: str, column: pa.ChunkedArray | None = None) -> dict[int, str]:
    """Return the reason for each row where the mask is true, with its value in front where there is a column."""
    if column is None:
        return {row: reason for row, _ in _at(mask, mask)}
    return {row: f"{value} {reason}" for row, value in _at(mask, column)}


def _at(mask: pa.ChunkedArray, column: pa.ChunkedArray) -> Iterable[tuple[int, Any]]:
    if not pc.any(mask).as_py():
        return ()
    rows = pc.indices_nonzero(pc.fill_null(mask, False))
    return zip(rows.to_pylist(), to_values(column.take(rows)), strict=True)


def _whole_digits(existing: str) -> bool:
    """Return whether a numeric column keeps whole numbers, or refuses those that are too long."""
    return _scale(existing) >= 0


def _scale(existing: str) -> int:
    """Return how many digits behind the point a numeric column keeps; -1 for a column that is not numeric."""
    match = _NUMERIC.fullmatch(existing)
    if match is None:
        return -1
    return 16383 if match[3] is None else int(match[3])
