"""Arrow columns as SQLite keeps them, and back.

What SQLite has no type for is text in one exact form, under a declared type that SQLite never turns into a number
(the word TEXT in it does that):

| Arrow | declared | stored |
|---|---|---|
| int8 … int64, uint8 … uint32 | INTEGER | integer |
| uint64 | UNSIGNED_TEXT | its digits |
| float16, float32, float64 | REAL | real; NaN cannot be stored |
| bool | BOOLEAN | 0 or 1 |
| string | TEXT | text |
| binary | BLOB | blob |
| decimal | DECIMAL_TEXT | its digits, none lost |
| timestamp with a zone | TIMESTAMP | `2026-01-02T03:04:05.000006Z`; nine digits for nanoseconds |
| timestamp without | DATETIME | the same without Z |
| date, time | DATE, TIME | `2026-01-02`, `03:04:05.000006` |
| duration | DURATION_TEXT | seconds |
| list, struct, map | JSON_TEXT | JSON |
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from collectors.storage.records import json_text, non_finite, to_values

__all__ = ["DECODERS", "Encoded", "affinity", "declared_type", "encode", "fits"]

Encoded = tuple[list[Any], dict[int, str]]
"""The values to bind, and the reason for each row whose value cannot be stored."""

_LARGEST = 2**63 - 1
_TEXT_FORMS = {
    "TIMESTAMP",
    "DATETIME",
    "DATE",
    "TIME",
    "JSON_TEXT",
    "DECIMAL_TEXT",
    "UNSIGNED_TEXT",
    "DURATION_TEXT",
}
_SPECIAL_FITS = {
    "DATETIME": {"TIMESTAMP"},
    "DECIMAL_TEXT": {"INTEGER", "UNSIGNED_TEXT"},
    "UNSIGNED_TEXT": {"INTEGER"},
}
_AFFINITY_FITS = {
    "INTEGER": {"INTEGER", "REAL", "BOOLEAN", "UNSIGNED_TEXT", "DECIMAL_TEXT"},
    "REAL": {"INTEGER", "REAL", "BOOLEAN", "UNSIGNED_TEXT"},
    "NUMERIC": {"INTEGER", "REAL", "BOOLEAN"},
    "TEXT": {"TEXT", *_TEXT_FORMS},
    "BLOB": {"BLOB"},
}
_PER_SECOND = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def declared_type(kind: pa.DataType) -> str | None:
    """Return the declared type for an Arrow type; None when there is none."""
    types = pa.types
    simple: list[tuple[Callable[[pa.DataType], bool], str]] = [
        (types.is_uint64, "UNSIGNED_TEXT"),
        (types.is_integer, "INTEGER"),
        (types.is_floating, "REAL"),
        (types.is_boolean, "BOOLEAN"),
        (lambda it: types.is_string(it) or types.is_large_string(it) or types.is_string_view(it), "TEXT"),
        (lambda it: types.is_binary(it) or types.is_large_binary(it) or types.is_binary_view(it), "BLOB"),
        (types.is_fixed_size_binary, "BLOB"),
        (types.is_decimal, "DECIMAL_TEXT"),
        (types.is_date, "DATE"),
        (types.is_time, "TIME"),
        (types.is_duration, "DURATION_TEXT"),
        (types.is_nested, "JSON_TEXT"),
    ]
    if types.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz else "DATETIME"
    return next((name for test, name in simple if test(kind)), None)


def affinity(declared: str) -> str:
    """Return what SQLite makes of a declared type (https://sqlite.org/datatype3.html#determination_of_column_affinity)."""
    name = declared.upper()
    if "INT" in name:
        return "INTEGER"
    if any(part in name for part in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not name or "BLOB" in name:
        return "BLOB"
    return "REAL" if any(part in name for part in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def fits(existing: str, incoming: str) -> bool:
    """Return whether a column declared so takes values of another declared type, each as a whole or refused."""
    name = existing.upper()
    if name == incoming or name in {"", "ANY"}:
        return True
    if name in _TEXT_FORMS | {"BOOLEAN"}:
        return incoming in _SPECIAL_FITS.get(name, set())
    return incoming in _AFFINITY_FITS[affinity(name)]


def encode(column: pa.ChunkedArray, declared: str) -> Encoded:
    """Return the values of a `plain` column for a column declared so, which it `fits`."""
    kind = declared_type(column.type)
    if kind in {"INTEGER", "UNSIGNED_TEXT"}:
        return _encode_integers(column, declared)
    if kind == "REAL":
        values = column.to_pylist()
        bad = _where(pc.is_nan(column))
        return values, dict.fromkeys(bad, "SQLite cannot store NaN")
    if kind == "DECIMAL_TEXT":
        return _encode_decimals(column, declared)
    if kind in {"TIMESTAMP", "DATETIME", "DATE"}:
        return _encode_times(column)
    if kind == "TIME":
        return column.cast(pa.string()).to_pylist(), {}
    if kind == "DURATION_TEXT":
        digits = _PER_SECOND[column.type.unit]
        counts = column.cast(pa.int64()).to_pylist()
        return [
            None if count is None else format(Decimal(count).scaleb(-digits), "f") for count in counts
        ], {}
    if kind == "JSON_TEXT":
        return _encode_json(column)
    return column.to_pylist(), {}


def _encode_integers(column: pa.ChunkedArray, declared: str) -> Encoded:
    values = column.to_pylist()
    kept_as = affinity(declared)
    if kept_as == "TEXT":
        return [None if value is None else str(value) for value in values], {}
    if kept_as == "REAL":
        inexact = [
            row for row, value in enumerate(values) if value is not None and int(float(value)) != value
        ]
        return values, {row: f"{values[row]} loses digits in a {declared} column" for row in inexact}
    if pa.types.is_uint64(column.type):
        large = [row for row, value in enumerate(values) if value is not None and value > _LARGEST]
        return values, {row: f"{values[row]} is too large for a {declared} column" for row in large}
    return values, {}


def _encode_decimals(column: pa.ChunkedArray, declared: str) -> Encoded:
    values = column.to_pylist()
    if affinity(declared) != "INTEGER":
        return [None if value is None else format(value, "f") for value in values], {}
    bad = {
        row: f"{value} is not a 64-bit whole number, as the {declared} column needs it"
        for row, value in enumerate(values)
        if value is not None and (value != int(value) or not -_LARGEST - 1 <= value <= _LARGEST)
    }
    return [None if value is None or row in bad else int(value) for row, value in enumerate(values)], bad


def _encode_times(column: pa.ChunkedArray) -> Encoded:
    kind = column.type
    if pa.types.is_date64(kind):
        column, kind = column.cast(pa.date32()), pa.date32()
    smallest, largest = _calendar(kind)
    counts = column.cast(pa.int32()).cast(pa.int64()) if pa.types.is_date(kind) else column.cast(pa.int64())
    bad = _where(pc.or_(pc.less(counts, smallest), pc.greater(counts, largest)))
    if bad:
        mask = pa.array([row in set(bad) for row in range(len(column))])
        column = pc.if_else(mask, pa.scalar(None, kind), column)
    reasons = dict.fromkeys(bad, "the time lies outside of the years 1 to 9999")
    if pa.types.is_date(kind):
        return column.cast(pa.string()).to_pylist(), reasons
    unit = "ns" if kind.unit == "ns" else "us"
    text = pc.replace_substring(column.cast(pa.timestamp(unit)).cast(pa.string()), " ", "T")
    return (pc.binary_join_element_wise(text, "Z", "") if kind.tz else text).to_pylist(), reasons


def _calendar(kind: pa.DataType) -> tuple[int, int]:
    days = date.max.toordinal() - date(1970, 1, 1).toordinal(), 1 - date(1970, 1, 1).toordinal()
    if pa.types.is_date(kind):
        return days[1], days[0]
    second = 10 ** _PER_SECOND[kind.unit]
    return max(days[1] * 86400 * second, -_LARGEST), min((days[0] + 1) * 86400 * second - 1, _LARGEST)


def _encode_json(column: pa.ChunkedArray) -> Encoded:
    values = to_values(column)
    if not non_finite(column):
        write = msgspec.json.Encoder(enc_hook=str).encode
        return [None if value is None else write(value).decode() for value in values], {}
    texts: list[Any] = []
    bad: dict[int, str] = {}
    for row, value in enumerate(values):
        try:
            texts.append(None if value is None else json_text(value))
        except ValueError as error:
            texts.append(None)
            bad[row] = str(error)
    return texts, bad


def _where(mask: pa.ChunkedArray) -> list[int]:
    if not pc.any(mask).as_py():
        return []
    rows: list[int] = pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()
    return rows


def _decoder(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what gives back a value that is not in our form, written by somebody else, as it is."""

    def decode(value: Any) -> Any:
        if value is None:
            return None
        try:
            return read(value)
        except (ValueError, TypeError, ArithmeticError):
            return value

    return decode


_READERS: dict[str, Callable[[Any], Any]] = {
    "BOOLEAN": lambda value: [False, True][value] if value in {0, 1} else value,
    "TIMESTAMP": datetime.fromisoformat,
    "DATETIME": datetime.fromisoformat,
    "DATE": date.fromisoformat,
    "TIME": time.fromisoformat,
    "JSON_TEXT": msgspec.json.decode,
    "DECIMAL_TEXT": Decimal,
    "UNSIGNED_TEXT": int,
    "DURATION_TEXT": lambda value: timedelta(microseconds=int(Decimal(value) * 1_000_000)),
}
DECODERS = {name: _decoder(read) for name, read in _READERS.items()}
"""Declared type to what turns a stored value into the Python value of a query; other types need nothing."""
