"""Rows of a database as Arrow, each value exactly as it is there or refused by itself."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

__all__ = ["Column", "Row", "from_text", "is_time", "letter", "stream", "to_table"]

Row = tuple[Any, ...]
UNFIT = (pa.ArrowException, ValueError, TypeError, OverflowError)
"""What pyarrow raises for a value that is none of the type; UnicodeError is a ValueError."""
_LONGEST = 80


class Column(Struct, frozen=True):
    """A column as the database has it: its name, its type here and there, and whether NULL can be in it.

    `type` is None where the database does not say one; the values then do.
    """

    name: str
    type: pa.DataType | None
    declared: str
    nullable: bool = True


Make = Callable[[Column, Sequence[Any]], pa.Array]
"""Returns the values of a column as Arrow; raises one of UNFIT when one of them does not fit."""


def to_table(columns: Sequence[Column], rows: Sequence[Row], make: Make) -> tuple[pa.Table, dict[int, str]]:
    """Return the rows as a table, and the reason for each row that has a value which its column's type cannot hold.

    Rows may have further values behind those of the columns.
    """
    arrays: list[pa.Array] = []
    bad: dict[int, str] = {}
    for column, values in zip(columns, zip(*rows, strict=True), strict=False):
        try:
            arrays.append(make(column, values))
        except UNFIT:
            kept = list(values)
            for number, value in enumerate(values):
                try:
                    make(column, [value])
                except UNFIT:
                    kept[number] = None
                    shown = str(_shown(value))
                    shown = shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "…"
                    bad.setdefault(
                        number, f"column '{column.name}' ({column.declared}): {shown!r} is no {column.type}"
                    )
            arrays.append(make(column, kept))
    return pa.table(arrays, names=[column.name for column in columns]), bad


def from_text(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """Return values that the server wrote as text (bytes: binary) in a type. Raises one of UNFIT."""
    if pa.types.is_binary(kind):
        return pa.array(values, kind)
    if pa.types.is_list(kind):
        raw = pa.binary() if pa.types.is_binary(kind.value_type) else pa.string()
        lists = pa.array(values, pa.list_(raw))
        items = from_text(kind.value_type, lists.values)
        return pa.ListArray.from_arrays(lists.offsets, items, kind, mask=lists.is_null())
    text = pa.array(values, pa.string())
    if pa.types.is_string(kind):
        return text
    if pa.types.is_boolean(kind):
        return pc.equal(text, "t")
    if pa.types.is_time(kind):
        day = pc.binary_join_element_wise("1970-01-01", text, " ")
        return day.cast(pa.timestamp(kind.unit)).cast(kind)
    return text.cast(kind)


def is_time(column: Column) -> bool:
    """Return whether the column holds points in time."""
    return column.type is not None and bool(
        pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)
    )


def stream(table: pa.Table) -> bytes:
    """Return the table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def letter(columns: Sequence[Column], row: Row) -> bytes:
    """Return a row that is refused as one JSON object, values as the database gave them."""
    values = {column.name: value for column, value in zip(columns, row, strict=True)}
    return json.dumps(values, ensure_ascii=True, default=_shown).encode()


def _shown(value: Any) -> Any:
    return b64encode(value).decode() if isinstance(value, bytes) else value
