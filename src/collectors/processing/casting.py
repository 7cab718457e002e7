"""Strict casts of columns: a value is converted without any loss, or its row is named; never rounded, cut or guessed.

`cast` is what the processor of that name and CAST, TRY_CAST and `::` of the expressions share. What may become what:

| from | to |
|---|---|
| string | int, float, bool (true, false, 1, 0), decimal, date, timestamp (ISO 8601; without a zone it is UTC), binary |
| int | float (when exactly the same number), decimal, bool (1, 0), string |
| float | int (when whole), decimal (when it reads back as the same float), string |
| decimal | int (when whole), float (when it reads back as the same decimal), decimal, string |
| bool | int, float, string |
| date, timestamp | each other (a timestamp's date is that in UTC), string (ISO 8601) |
| binary | string (when it is UTF-8) |

Text is read as it stands, without trimming. Floats are finite; timestamps and dates lie in the years 1 to 9999.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "UTC_TIMESTAMP",
    "a_type",
    "can_cast",
    "cast",
    "decimal_to_float",
    "kind",
    "parse_times",
    "plain",
    "plain_type",
    "refusal",
    "type_name",
]

UTC_TIMESTAMP = pa.timestamp("us", tz="UTC")
_YEAR_1_SECONDS, _YEAR_10000_SECONDS = -62_135_596_800, 253_402_300_800
_UNITS_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EXACT_IN_A_FLOAT = 2**53
_SHOWN_CHARACTERS = 60

_TARGETS = {
    "null": {"bool", "int", "float", "string", "binary", "date", "timestamp", "decimal"},
    "string": {"int", "float", "bool", "decimal", "date", "timestamp", "binary"},
    "int": {"float", "decimal", "bool", "string"},
    "float": {"int", "decimal", "string"},
    "decimal": {"int", "float", "decimal", "string"},
    "bool": {"int", "float", "string"},
    "date": {"timestamp", "string"},
    "timestamp": {"date", "timestamp", "string"},
    "time": {"string"},
    "binary": {"string"},
}
_SHAPES = {
    "int": r"^-?[0-9]+$",
    "float": r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$",
    "timestamp": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ]|$)",
}
"""What text of a type looks like: finds most of the bad values at once, halving finds the others."""

_PREDICATES: list[tuple[str, Callable[[pa.DataType], bool]]] = [
    ("null", pa.types.is_null),
    ("bool", pa.types.is_boolean),
    ("int", pa.types.is_integer),
    ("float", pa.types.is_floating),
    ("decimal", pa.types.is_decimal),
    ("string", lambda type_: pa.types.is_string(type_) or pa.types.is_large_string(type_)),
    ("string", pa.types.is_string_view),
    ("binary", lambda type_: pa.types.is_binary(type_) or pa.types.is_large_binary(type_)),
    ("binary", lambda type_: pa.types.is_fixed_size_binary(type_) or pa.types.is_binary_view(type_)),
    ("date", pa.types.is_date),
    ("timestamp", pa.types.is_timestamp),
    ("time", pa.types.is_time),
    ("duration", pa.types.is_duration),
    ("struct", pa.types.is_struct),
    ("map", pa.types.is_map),
    ("list", pa.types.is_nested),
]


def kind(type_: pa.DataType) -> str:
    """Return the family of a type, in the words of the settings: int for every width of integer, and so on."""
    if pa.types.is_dictionary(type_):
        return kind(type_.value_type)
    return next((name for name, holds in _PREDICATES if holds(type_)), str(type_))


def type_name(type_: pa.DataType) -> str:
    """Return a type's name for people: as settings write it, `decimal(12, 2)` with its digits."""
    return f"decimal({type_.precision}, {type_.scale})" if kind(type_) == "decimal" else kind(type_)


def a_type(type_: pa.DataType) -> str:
    """Return a type's name with its article."""
    return f"an {type_name(type_)}" if kind(type_) == "int" else f"a {type_name(type_)}"


def plain_type(type_: pa.DataType) -> pa.DataType:
    """Return the one type that stands for all widths and layouts of its kind; uint64 becomes a decimal, which holds it."""
    if pa.types.is_dictionary(type_):
        return plain_type(type_.value_type)
    if pa.types.is_uint64(type_):
        return pa.decimal128(20, 0)
    if pa.types.is_decimal(type_) and not pa.types.is_decimal256(type_):
        return pa.decimal128(type_.precision, type_.scale)
    widest = {"int": pa.int64(), "float": pa.float64(), "string": pa.string(), "binary": pa.binary()}
    return (widest | {"date": pa.date32(), "time": pa.time64("us")}).get(kind(type_), type_)


def plain(values: pa.Array) -> pa.Array:
    """Return the values in their plain type; no value is lost by it."""
    target = plain_type(values.type)
    return values if values.type == target else values.cast(target, safe=not pa.types.is_time(target))


def can_cast(source: pa.DataType, target: pa.DataType) -> bool:
    """Return whether some value of one type can become the other at all."""
    source = plain_type(source)
    return source == target or kind(target) in _TARGETS.get(kind(source), set())


def cast(values: pa.Array, target: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Return the values in a type for which `can_cast` holds: null where that loses something, and those rows."""
    values = plain(values)
    if values.type == target:
        return values, []
    try:
        return _convert(values, target), []
    except pa.ArrowInvalid:
        encoded = values.dictionary_encode()
    distinct, nothing = encoded.dictionary, pa.scalar(None, values.type)
    shape = _SHAPES.get(kind(target)) if kind(values.type) == "string" else None
    fits = pc.match_substring_regex(distinct, shape) if shape else pc.is_valid(distinct)
    refused = pa.array(_refused(pc.if_else(fits, distinct, nothing), target, 0), pa.int64())
    fits = pc.and_not(fits, pc.is_in(pa.arange(0, len(distinct)), refused))
    bad = pc.fill_null(pc.invert(fits.take(encoded.indices)), False)
    known = _convert(pc.if_else(fits, distinct, nothing), target)
    return known.take(encoded.indices), pc.indices_nonzero(bad).to_pylist()


def parse_times(values: pa.Array, form: str) -> tuple[pa.Array, list[int]]:
    """Return strings as UTC timestamps, read with a `strptime` format: null where one does not fit it, and those rows.

    Python's parser, once a distinct text: Arrow's reads 30.02. as the 1st of March and second 60 as the next minute.
    """
    encoded = plain(values).dictionary_encode()
    times = [_parse_time(text, form) for text in encoded.dictionary.to_pylist()]
    bad = {number for number, time in enumerate(times) if time is None}
    rows = [row for row, number in enumerate(encoded.indices.to_pylist()) if number in bad] if bad else []
    return pa.array(times, UTC_TIMESTAMP).take(encoded.indices), rows


def refusal(value: Any, target: pa.DataType) -> str:
    """Return why a value could not be cast, as it stands in a dead letter."""
    shown = repr(value) if isinstance(value, str) else str(value)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = shown[:_SHOWN_CHARACTERS] + "…"
    if isinstance(value, (str, bytes)):
        return f"{shown} is not {a_type(target)}"
    return f"{shown} cannot be {a_type(target)} without loss"


def decimal_to_float(values: pa.Array) -> pa.Array:
    """Return the float nearest to each decimal; Arrow's own cast is off by one place for 19.99."""
    return values.cast(pa.string()).cast(pa.float64())


def _parse_time(text: str | None, form: str) -> datetime | None:
    try:
        time = datetime.strptime(text or "", form)  # noqa: DTZ007 - the zone is set below, where the text has none
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _refused(values: pa.Array, target: pa.DataType, start: int) -> list[int]:
    """Halve until each value that cannot be converted stands alone."""
    try:
        _convert(values, target)
    except pa.ArrowInvalid:
        if len(values) == 1:
            return [start]
        middle = len(values) // 2
        left = _refused(values.slice(0, middle), target, start)
        return left + _refused(values.slice(middle), target, start + middle)
    return []


def _convert(values: pa.Array, target: pa.DataType) -> pa.Array:
    """Convert all values or raise ArrowInvalid; closes the gaps that Arrow's own safe casts have."""
    special = _SPECIAL.get((kind(values.type), kind(target)))
    return special(values, target) if special else values.cast(target)


def _require(condition: Any) -> None:
    """Raise ArrowInvalid unless all of the condition is true or null."""
    if not pc.all(condition, min_count=0).as_py():
        raise pa.ArrowInvalid("a value would change")


def _text_to_int(values: pa.Array, target: pa.DataType) -> pa.Array:
    result = values.cast(target)
    _require(pc.invert(pc.match_substring(values, "x", ignore_case=True)))  # Arrow reads 0x1F as 31
    return result


def _text_to_float(values: pa.Array, target: pa.DataType) -> pa.Array:
    result = values.cast(target)
    _require(pc.is_finite(result))  # Arrow reads 1e999 as infinity
    return result


def _text_to_timestamp(values: pa.Array, target: pa.DataType) -> pa.Array:
    naive = pa.timestamp(target.unit)
    zoned = pc.match_substring_regex(values, r"[T ]\d\d.*(?:Z|[+-]\d\d(?::?\d\d)?)$")
    with_zone = pc.if_else(zoned, values, pa.scalar(None, values.type)).cast(pa.timestamp(target.unit, "UTC"))
    without = pc.if_else(zoned, pa.scalar(None, values.type), values).cast(naive).cast(with_zone.type)
    return _in_calendar(pc.coalesce(with_zone, without)).cast(target)


def _text_to_date(values: pa.Array, target: pa.DataType) -> pa.Array:
    return _in_calendar(values.cast(target))


def _to_timestamp(values: pa.Array, target: pa.DataType) -> pa.Array:
    return _in_calendar(values.cast(target))


def _in_calendar(values: pa.Array) -> pa.Array:
    """Arrow knows the year 0 and years above 9999; Python, and most stores, do not."""
    day = pa.types.is_date(values.type)
    unit = 1 / 86_400 if day else _UNITS_A_SECOND[values.type.unit]
    ends = pc.min_max(values.cast(pa.int32()).cast(pa.int64()) if day else values.cast(pa.int64())).as_py()
    if ends["min"] is not None and not (
        ends["min"] >= _YEAR_1_SECONDS * unit and ends["max"] < _YEAR_10000_SECONDS * unit
    ):
        raise pa.ArrowInvalid("the year is not in 1 to 9999")
    return values


def _int_to_float(values: pa.Array, target: pa.DataType) -> pa.Array:
    large = pc.or_(pc.less(values, -_EXACT_IN_A_FLOAT), pc.greater(values, _EXACT_IN_A_FLOAT))
    if any(int(float(number)) != number for number in values.filter(large).to_pylist()):
        raise pa.ArrowInvalid("a value would change")
    return values.cast(target, safe=False)


def _int_to_bool(values: pa.Array, target: pa.DataType) -> pa.Array:
    _require(pc.is_in(values, pa.array([0, 1, None], values.type)))
    return values.cast(target)


def _int_to_decimal(values: pa.Array, target: pa.DataType) -> pa.Array:
    return values.cast(pa.decimal256(76, max(target.scale, 0))).cast(target)


def _float_to_decimal(values: pa.Array, target: pa.DataType) -> pa.Array:
    """Go by the shortest text that reads back as the same float; Arrow's own cast rounds."""
    return values.cast(pa.string()).cast(target)


def _decimal_to_float(values: pa.Array, target: pa.DataType) -> pa.Array:
    result = decimal_to_float(values)
    _require(pc.equal(_float_to_decimal(result, values.type), values))
    return result.cast(target)


def _timestamp_to_text(values: pa.Array, target: pa.DataType) -> pa.Array:
    return pc.replace_substring(_in_utc(values).cast(target), " ", "T", max_replacements=1)


def _timestamp_to_date(values: pa.Array, target: pa.DataType) -> pa.Array:
    return _in_utc(values).cast(target)


def _in_utc(values: pa.Array) -> pa.Array:
    return values.cast(pa.timestamp(values.type.unit, "UTC")) if values.type.tz else values


_SPECIAL: dict[tuple[str, str], Callable[[pa.Array, pa.DataType], pa.Array]] = {
    ("string", "int"): _text_to_int,
    ("string", "float"): _text_to_float,
    ("string", "timestamp"): _text_to_timestamp,
    ("string", "date"): _text_to_date,
    ("date", "timestamp"): _to_timestamp,
    ("timestamp", "timestamp"): _to_timestamp,
    ("int", "float"): _int_to_float,
    ("int", "bool"): _int_to_bool,
    ("int", "decimal"): _int_to_decimal,
    ("float", "decimal"): _float_to_decimal,
    ("decimal", "float"): _decimal_to_float,
    ("timestamp", "string"): _timestamp_to_text,
    ("timestamp", "date"): _timestamp_to_date,
}
