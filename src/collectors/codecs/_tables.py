"""Brings tables that have types of their own in line with the columns so far; for Parquet, Arrow, and text formats."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping

import pyarrow as pa

from collectors.chunks import Rejected
from collectors.codecs._wording import type_name
from collectors.codecs.base import Decoded

__all__ = ["broken", "conform", "in_order", "pieces"]

_SLICE_ROWS = 64 * 1024
_UNITS = ("s", "ms", "us", "ns")


def in_order(columns: Mapping[str, pa.Array], schema: pa.Schema | None, rows: int) -> pa.Table:
    """Return the columns as a table: those of the schema first, null where they are missing, new ones behind."""
    known = {item.name: pa.nulls(rows, item.type) for item in schema or ()}
    arranged = known | dict(columns)
    return pa.table(list(arranged.values()), names=list(arranged))


def broken(data: bytes, reason: str, schema: pa.Schema | None) -> Decoded:
    """Return a chunk that is refused as one record, since what is in it cannot be told apart."""
    return Decoded(_empty(schema), 1, [Rejected(data, reason, 0, 0)])


def _empty(schema: pa.Schema | None) -> pa.Table:
    return schema.empty_table() if schema is not None else pa.table({})


def conform(table: pa.Table, schema: pa.Schema | None) -> Decoded:
    """Return the table with the columns so far, in order, in their types or wider ones; else every row refused.

    Integers widen to larger ones and, where no digit is lost, to float; null to anything; objects by their members.
    Raises ValueError for rows without columns.
    """
    names = table.column_names
    if not names and table.num_rows:
        raise ValueError("it has rows but no columns")
    twin = next((name for name, times in Counter(names).items() if times > 1), None)
    if twin is not None:
        return _refused(table, f"two columns are named '{twin}'", schema)
    columns = dict(zip(names, table.columns, strict=True))
    for item in schema or ():
        column = columns.get(item.name)
        if column is None:
            continue
        wanted = _merge(item.type, column.type)
        try:
            if wanted is None:
                raise pa.ArrowInvalid(f"the data have {type_name(column.type)}")
            columns[item.name] = column.cast(wanted)
        except pa.ArrowException as error:
            return _refused(
                table, f"column '{item.name}': expected {type_name(item.type)}, but {error}", schema
            )
    return Decoded(in_order(columns, schema, table.num_rows), table.num_rows)


def _to_stream(batch: pa.RecordBatch) -> bytes:
    """Return a batch as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def pieces(batches: Iterator[pa.RecordBatch], row: int, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield the rows from number `start` on as streams of at most _SLICE_ROWS, each with the row number behind it.

    `row` is the number of the first row of the first batch.
    """
    for batch in batches:
        for first in range(max(0, start - row), batch.num_rows, _SLICE_ROWS):
            part = batch.slice(first, _SLICE_ROWS)
            yield row + first + part.num_rows, _to_stream(part)
        row += batch.num_rows


def _refused(table: pa.Table, reason: str, schema: pa.Schema | None) -> Decoded:
    names = table.column_names
    rows = (
        dict(zip(names, values, strict=True))
        for values in zip(*(column.to_pylist() for column in table.columns), strict=True)
    )
    rejected = [
        Rejected(json.dumps(row, default=str, ensure_ascii=False).encode(), reason, number)
        for number, row in enumerate(rows)
    ]
    return Decoded(_empty(schema), len(rejected), rejected)


def _merge(known: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    """Return the type that holds the values of both, None when there is none."""
    if known.equals(new) or pa.types.is_null(new):
        return known
    if pa.types.is_null(known):
        return new
    if pa.types.is_dictionary(new):
        return _merge(known, new.value_type)
    if pa.types.is_dictionary(known):
        return _merge(known.value_type, new)
    for same in (_merge_numbers, _merge_times, _merge_nested):
        merged = same(known, new)
        if merged is not None:
            return merged
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    blobs = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    )
    alike = any(all(any(test(side) for test in tests) for side in (known, new)) for tests in (texts, blobs))
    return known if alike else None


def _merge_numbers(known: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    def is_number(data_type: pa.DataType) -> bool:
        return bool(pa.types.is_integer(data_type) or pa.types.is_floating(data_type))

    if not (is_number(known) and is_number(new)):
        return None
    if pa.types.is_floating(known) or pa.types.is_floating(new):
        both = pa.types.is_floating(known) and pa.types.is_floating(new)
        return max(known, new, key=lambda item: item.bit_width) if both else pa.float64()
    if pa.types.is_signed_integer(known) == pa.types.is_signed_integer(new):
        return max(known, new, key=lambda item: item.bit_width)
    return pa.int64()


def _merge_times(known: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    if pa.types.is_timestamp(known) and pa.types.is_timestamp(new) and (known.tz is None) == (new.tz is None):
        return pa.timestamp(max(known.unit, new.unit, key=_UNITS.index), known.tz)
    return None


def _merge_nested(known: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    if pa.types.is_list(known) and pa.types.is_list(new):
        item = _merge(known.value_type, new.value_type)
        return None if item is None else pa.list_(item)
    if not (pa.types.is_struct(known) and pa.types.is_struct(new)):
        return None
    members = {item.name: item.type for item in known}
    for item in new:
        merged = _merge(members.get(item.name, pa.null()), item.type)
        if merged is None:
            return None
        members[item.name] = merged
    return pa.struct(list(members.items()))
