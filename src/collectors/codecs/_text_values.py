"""Turns columns of text into columns of a declared type, and says which values cannot be read.

Used wherever a format has only text for a type: dates and binary in JSON, everything in CSV and in lines.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from contextlib import suppress

import pyarrow as pa
import pyarrow.compute as pc

from collectors.codecs._wording import quoted, unexpected

__all__ = ["parse", "typed", "unreadable"]

_DATE = r"^\d{4}-\d\d-\d\d$"
_LACKS_ZONE = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$"
_INTEGER = r"^[+-]?[0-9]+$"
_BOOLS = {
    "true": True,
    "True": True,
    "TRUE": True,
    "1": True,
    "false": False,
    "False": False,
    "FALSE": False,
    "0": False,
}
_NOTHING = pa.scalar("", pa.string())
"""Text that no type but string can be read from."""


def parse(text: pa.Array, data_type: pa.DataType) -> pa.Array:
    """Return the strings as values of the type. Raises pa.ArrowInvalid when one cannot be read.

    Timestamps are ISO 8601, taken as UTC where they have no zone; dates `YYYY-MM-DD`; binary is base64.
    """
    return _convert(_spelled(text, data_type), data_type)


def unreadable(text: pa.Array, data_type: pa.DataType) -> list[int]:
    """Return the rows that `parse` refuses, found by halving: cheap when they are few."""
    if pa.types.is_string(data_type):
        return []
    return _refused(_spelled(text, data_type), data_type, 0)


def typed(
    columns: Mapping[str, pa.Array],
    types: Mapping[str, pa.DataType],
    numbers: list[int],
    reasons: dict[int, str],
) -> dict[str, pa.Array]:
    """Return columns of text in their types, string where none is said.

    `numbers` are the numbers of the rows' records; those of rows with other text in a column move to the reasons.
    """
    with suppress(pa.ArrowException):
        return _parsed(columns, types)
    bad: dict[int, str] = {}
    for name, wanted in types.items():
        for row in unreadable(columns[name], wanted):
            bad[row] = unexpected(name, wanted, quoted(columns[name][row].as_py()))
    if bad:
        reasons |= {numbers[row]: reason for row, reason in bad.items()}
        keep = [row for row in range(len(numbers)) if row not in bad]
        numbers[:] = [numbers[row] for row in keep]
        columns = {name: column.take(pa.array(keep, pa.int64())) for name, column in columns.items()}
    return _parsed(columns, types)


def _parsed(columns: Mapping[str, pa.Array], types: Mapping[str, pa.DataType]) -> dict[str, pa.Array]:
    return {name: parse(column, types.get(name, pa.string())) for name, column in columns.items()}


def _refused(text: pa.Array, data_type: pa.DataType, start: int) -> list[int]:
    try:
        _convert(text, data_type)
    except pa.ArrowException:
        if len(text) == 1:
            return [start]
        middle = len(text) // 2
        left = _refused(text.slice(0, middle), data_type, start)
        return left + _refused(text.slice(middle), data_type, start + middle)
    return []


def _spelled(text: pa.Array, data_type: pa.DataType) -> pa.Array:
    """Return the strings as Arrow's casts want them, and nothing in place of what only Arrow would accept."""
    if pa.types.is_timestamp(data_type) and data_type.tz is not None:
        if pc.any(pc.match_substring_regex(text, _DATE)).as_py():
            midnight = pc.binary_join_element_wise(text, "T00:00:00", "")
            text = pc.if_else(pc.match_substring_regex(text, _DATE), midnight, text)
        lacks_zone = pc.match_substring_regex(text, _LACKS_ZONE)
        if pc.any(lacks_zone).as_py():
            text = pc.if_else(lacks_zone, pc.binary_join_element_wise(text, "Z", ""), text)
    elif pa.types.is_integer(data_type):
        # Arrow reads 0x10 as 16, and no leading plus.
        text = pc.if_else(pc.match_substring_regex(text, _INTEGER), text, _NOTHING)
        text = pc.replace_substring_regex(text, r"^\+", "")
    elif pa.types.is_boolean(data_type):
        text = pc.if_else(
            pc.is_in(text, pa.array(list(_BOOLS))),
            pc.utf8_lower(text),
            pc.if_else(pc.is_valid(text), _NOTHING, None),
        )
    return text


def _convert(text: pa.Array, data_type: pa.DataType) -> pa.Array:
    if pa.types.is_null(data_type) and text.null_count == len(text):
        return pa.nulls(len(text))
    if not pa.types.is_binary(data_type):
        return text.cast(data_type)
    try:
        values = [
            None if item is None else base64.b64decode(item, validate=True) for item in text.to_pylist()
        ]
    except (binascii.Error, ValueError) as error:
        raise pa.ArrowInvalid(f"not base64: {error}") from error
    return pa.array(values, data_type)
