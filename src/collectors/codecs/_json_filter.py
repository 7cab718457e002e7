"""Finds the lines that are not simply like the columns known so far, at the speed of a compiled decoder.

Only a sieve: what it lets through may still be refused by pyarrow, and what it holds back may turn out to be fine.
"""

from __future__ import annotations

import datetime as dt
import decimal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import pyarrow as pa

__all__ = ["suspects"]

_INT = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_EXACT = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


def suspects(lines: Sequence[bytes], known: pa.Schema) -> list[int] | None:
    """Return the numbers of the lines that have to be looked at closely.

    None when that is more than an eighth, or when a column has a name that the decoder cannot take.
    """
    try:
        decode = msgspec.json.Decoder(_struct(known)).decode
    except ValueError:  # a name with a quote or a backslash in it
        return None
    found: list[int] = []
    most = len(lines) // 8 + 8
    # The decoder takes a key that is there twice; a line with more keys than there are columns may have one.
    most_keys = sys.maxsize if any(pa.types.is_nested(field.type) for field in known) else len(known)
    for number, line in enumerate(lines):
        try:
            decode(line)
            if line.count(b'":') <= most_keys:
                continue
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass
        found.append(number)
        if len(found) > most:
            return None
    return found


def _struct(fields: Any) -> Any:
    """Return a class whose decoder takes exactly these keys; its attributes have names of their own."""
    columns = [(f"f{number}", _type(field.type) | None, None) for number, field in enumerate(fields)]
    return msgspec.defstruct(
        "Record",
        columns,
        rename={f"f{number}": field.name for number, field in enumerate(fields)},
        forbid_unknown_fields=True,
        gc=False,
    )


def _type(data_type: pa.DataType) -> Any:
    if pa.types.is_struct(data_type):
        return _struct(data_type)
    if pa.types.is_list(data_type):
        return list[_type(data_type.value_type) | None]  # type: ignore[misc]
    if pa.types.is_boolean(data_type):
        return bool
    if pa.types.is_integer(data_type):
        return _INT
    if pa.types.is_floating(data_type):
        return _EXACT | float
    if pa.types.is_decimal(data_type):
        return decimal.Decimal
    if pa.types.is_timestamp(data_type):
        return dt.datetime
    if pa.types.is_date(data_type):
        return dt.date
    if pa.types.is_binary(data_type):
        return bytes
    return type(None) if pa.types.is_null(data_type) else str
