"""Columns as a Singer SCHEMA, and rows as RECORD messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa

from collectors.storage.records import plain, to_json_lines

__all__ = ["properties_of", "records_of", "schema_line"]


def properties_of(table: pa.Table) -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of each column, as `records_of` writes its values."""
    return {field.name: _schema(field.type) for field in _zoned(table).schema}


def schema_line(stream: str, properties: dict[str, dict[str, Any]], key: Sequence[str]) -> bytes:
    """Return the message that says what the columns of a stream are; a column of the key is never null."""
    told = {
        name: {**each, "type": each["type"][1:]} if name in key and "type" in each else each
        for name, each in properties.items()
    }
    schema = {"type": "object", "properties": told}
    return (
        msgspec.json.encode(
            {"type": "SCHEMA", "stream": stream, "schema": schema, "key_properties": list(key)}
        )
        + b"\n"
    )


def records_of(table: pa.Table, stream: str) -> bytes:
    """Return a message for each row."""
    lines = to_json_lines(_zoned(table))
    head = b'{"type":"RECORD","stream":' + msgspec.json.encode(stream) + b',"record":'
    return head + lines[:-1].replace(b"\n", b"}\n" + head) + b"}\n" if lines else b""


def _zoned(table: pa.Table) -> pa.Table:
    """Return the table with times that have no zone as UTC: `date-time` has to say one."""
    if not table.num_columns:
        return table
    columns = [
        column.cast(pa.timestamp(column.type.unit, "UTC"))
        if pa.types.is_timestamp(column.type) and column.type.tz is None
        else column
        for column in map(plain, table.columns)
    ]
    return pa.table(columns, table.column_names)


def _schema(kind: pa.DataType) -> dict[str, Any]:
    """Return what values of a type are in JSON, null among them."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return {"type": ["null", "array"], "items": _schema(kind.value_type)}
    if types.is_map(kind):
        return {"type": ["null", "array"], "items": {"type": "array"}}
    if types.is_struct(kind):
        return {
            "type": ["null", "object"],
            "properties": {field.name: _schema(field.type) for field in kind},
        }
    if types.is_dictionary(kind):
        return _schema(kind.value_type)
    if types.is_timestamp(kind):
        return {"type": ["null", "string"], **({"format": "date-time"} if kind.tz else {})}
    if types.is_decimal(kind):
        exact = {"format": "x-singer.decimal", "precision": kind.precision, "scale": kind.scale}
        return {"type": ["null", "string"], **exact}
    for fits, name, more in _SIMPLE:
        if fits(kind):
            return {"type": ["null", name], **more}
    return {"type": ["null", "string"]}


_SIMPLE: list[tuple[Any, str, dict[str, str]]] = [
    (pa.types.is_boolean, "boolean", {}),
    (pa.types.is_integer, "integer", {}),
    (pa.types.is_floating, "number", {}),
    (pa.types.is_date, "string", {"format": "date"}),
    (pa.types.is_time, "string", {"format": "time"}),
    (pa.types.is_duration, "string", {"format": "duration"}),
    (pa.types.is_binary, "string", {"contentEncoding": "base64"}),
    (pa.types.is_large_binary, "string", {"contentEncoding": "base64"}),
    (pa.types.is_fixed_size_binary, "string", {"contentEncoding": "base64"}),
]
"""Which types are what in JSON; text, and columns that had nothing but null so far, are text."""
