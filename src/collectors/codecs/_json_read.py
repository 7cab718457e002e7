"""The fast path of JSON: pyarrow with an explicit schema, behind guards that make it safe and exact.

pyarrow's own type inference is never used. It turns text into timestamps and large integers into floats, and deep
nesting crashes the process in it (reproduced with 26.0.1). With an explicit schema an unknown key is an error.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from collectors.codecs import _json_native
from collectors.codecs._text_values import parse

__all__ = ["EXACT", "count_plain", "is_suspicious", "read", "read_compiled"]

EXACT = 2.0**53
"""From here on a float no longer holds every integer."""

_EMPTY_OBJECT = pa.struct([])
_STRAY_BREAK = re.compile(rb"\n[^{]")
_STRAY_BREAK_NESTED = re.compile(rb"\n(?:(?<!\}\n)|(?!\{|\Z))")
_LONG_NUMBER = re.compile(rb"[0-9]{16}")


def count_plain(text: bytes, schema: pa.Schema) -> int | None:
    """Return the number of lines when each begins with `{`, so that pyarrow's rows can be checked against it.

    None when not. pyarrow crashes on a `null` at the very beginning and makes a row of one further down; it also
    takes two objects on a line, or one over several. If every line break stands before a `{` that can only begin a
    record, then rows equal lines exactly when each line is one record. Where objects may be nested, the `{` behind
    a line break could also lie inside of a record, unless a `}` stands before the break.
    """
    stray = _STRAY_BREAK_NESTED if any(_holds_object(field.type) for field in schema) else _STRAY_BREAK
    if not text.startswith(b"{") or stray.search(text):
        return None
    return text.count(b"\n") + (not text.endswith(b"\n"))


def read(text: bytes, schema: pa.Schema) -> pa.Table:
    """Return the lines as a table of exactly this schema. Raises pa.ArrowException for anything that does not fit.

    The text is UTF-8 and begins with `{`.
    """
    from pyarrow import json

    table = json.read_json(
        pa.BufferReader(text),
        read_options=json.ReadOptions(use_threads=False, block_size=min(len(text) + 64, 2**31 - 1)),
        parse_options=json.ParseOptions(
            explicit_schema=pa.schema([pa.field(field.name, _read_as(field.type)) for field in schema]),
            unexpected_field_behavior="error",
        ),
    )
    if any(pa.types.is_decimal(field.type) for field in schema):
        table.validate(full=True)  # pyarrow lets through decimals with more digits than the type has
    return _converted(table, schema)


def read_compiled(text: bytes, schema: pa.Schema) -> pa.Table | None:
    """Return the lines as a table of exactly this schema, by compiled code; None when that does not take them.

    What it takes needs no guards: it knows lines, and refuses whatever a column would not hold exactly.
    """
    table = _json_native.read(
        text, pa.schema([pa.field(item.name, _read_as(item.type, pa.null())) for item in schema])
    )
    try:
        return None if table is None else _converted(table, schema)
    except pa.ArrowException:
        return None


def _converted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if table.schema.types == schema.types:
        return table
    columns = [
        column if column.type == field.type else _convert(column.combine_chunks(), field.type)
        for column, field in zip(table.columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(list(schema)))


def is_suspicious(table: pa.Table, text: bytes) -> bool:
    """Return whether floats are there that JSON has no spelling for, or that may stand for an integer they cannot hold."""
    arrays = [chunk for column in table.columns for chunk in column.chunks]
    large = False
    for floats in (leaf for array in arrays for leaf in _float_leaves(array)):
        # The sum is below the bound only when every value is: one pass, a fortieth of a millisecond.
        if not (pc.sum(pc.abs(floats)).as_py() or 0.0) < EXACT:
            if pc.all(pc.is_finite(floats)).as_py() is False:
                return True
            large = True
    return large and _LONG_NUMBER.search(text) is not None


def _float_leaves(array: pa.Array) -> list[pa.Array]:
    if pa.types.is_floating(array.type):
        return [array]
    if pa.types.is_struct(array.type):
        return [leaf for child in array.flatten() for leaf in _float_leaves(child)]
    if pa.types.is_list(array.type):
        return _float_leaves(array.flatten())
    return []


def _holds_object(data_type: pa.DataType) -> bool:
    """Return whether objects can be in such a column; in one of type null there can be empty ones."""
    if pa.types.is_list(data_type):
        return _holds_object(data_type.value_type)
    return bool(pa.types.is_struct(data_type) or pa.types.is_null(data_type))


def _read_as(data_type: pa.DataType, nothing: pa.DataType = _EMPTY_OBJECT) -> pa.DataType:
    """Return the type that is read for ours, where `nothing` takes null as well as `{}`, and nothing else."""
    if pa.types.is_null(data_type):
        return nothing
    if pa.types.is_temporal(data_type) or pa.types.is_binary(data_type):
        return pa.string()
    if pa.types.is_struct(data_type):
        return pa.struct([pa.field(field.name, _read_as(field.type, nothing)) for field in data_type])
    if pa.types.is_list(data_type):
        return pa.list_(_read_as(data_type.value_type, nothing))
    return data_type


def _convert(array: pa.Array, data_type: pa.DataType) -> pa.Array:
    """Return what was read as the type it stands for; raises pa.ArrowInvalid when text cannot be read as it."""
    if array.type == data_type:
        return array
    if pa.types.is_null(data_type):
        return pa.nulls(len(array))
    if pa.types.is_struct(data_type):
        children = [_convert(array.field(i), field.type) for i, field in enumerate(data_type)]
        return pa.StructArray.from_arrays(children, fields=list(data_type), mask=array.is_null())
    if pa.types.is_list(data_type):
        values = _convert(array.values, data_type.value_type)
        return pa.ListArray.from_arrays(array.offsets, values, type=data_type, mask=array.is_null())
    return parse(array, data_type)
