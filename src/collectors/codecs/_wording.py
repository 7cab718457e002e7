"""How codecs name types and values in their reasons, so that people read the same words everywhere."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

__all__ = ["quoted", "type_name", "unexpected"]

_SHOWN = 80


def type_name(data_type: pa.DataType) -> str:
    """Return a type as settings write it."""
    if pa.types.is_integer(data_type):
        return "int"
    if pa.types.is_floating(data_type):
        return "float"
    if pa.types.is_decimal(data_type):
        return f"decimal({data_type.precision}, {data_type.scale})"
    if pa.types.is_timestamp(data_type):
        return "timestamp"
    if pa.types.is_date(data_type):
        return "date"
    if pa.types.is_struct(data_type):
        return "object"
    if pa.types.is_list(data_type):
        return "array"
    return str(data_type)


def quoted(value: Any) -> str:
    """Return a value as JSON text, shortened, and what it is: `"warm" (string)`."""
    kinds = {type(None): "null", bool: "bool", int: "int", float: "float", str: "string", dict: "object"}
    text = json.dumps(value, ensure_ascii=False)
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return f"{shown} ({kinds.get(type(value), 'array')})"


def unexpected(column: str, data_type: pa.DataType, got: str) -> str:
    """Return the reason for a value that does not fit its column."""
    return f"column '{column}': expected {type_name(data_type)}, got {got}"
