"""Turns the rows of a table into JSON objects without losing anything, or says which rows cannot be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from collectors.codecs._wording import quoted
from collectors.errors import DataError
from collectors.json_rows import written
from collectors.rows import batches, encodable

__all__ = ["iso_text", "to_lines", "to_text"]


def to_text(table: pa.Table) -> bytes:
    """Return what `to_lines` yields, each line with its line feed."""
    if len(set(table.column_names)) == table.num_columns:
        plain = _with_iso_nanoseconds(table)
        _refuse_non_finite(plain)
        text = written(plain)
        if text is not None:
            return text
    return b"".join(line + b"\n" for line in to_lines(table))


def to_lines(table: pa.Table) -> Iterator[bytes]:
    """Yield one object a row, nulls included. Raises DataError for values that JSON has no form for (NaN, infinity)."""
    if len(set(table.column_names)) < table.num_columns:
        raise DataError(f"two columns have the same name: {', '.join(table.column_names)}")
    plain = _with_iso_nanoseconds(table)
    _refuse_non_finite(plain)
    encoder = msgspec.json.Encoder(enc_hook=_other)
    for start, count in batches(plain.num_rows):
        try:
            part = plain.slice(start, count)
            columns = [column.to_pylist() for column in part.columns]
        except (ValueError, OverflowError) as error:
            raise DataError(f"a value has no form in JSON: {error}") from error
        yield from map(encoder.encode, encodable(part.column_names, columns, count))


def iso_text(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return timestamps as ISO 8601 text, with every digit that they have."""
    return pc.replace_substring(times.cast(pa.string()), " ", "T", max_replacements=1)


def _with_iso_nanoseconds(table: pa.Table) -> pa.Table:
    """Python's datetime ends at microseconds."""
    for index, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            table = table.set_column(index, field.name, iso_text(table.column(index)))
    return table


def _refuse_non_finite(table: pa.Table) -> None:
    rows: dict[int, str] = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_floating(field.type):
            if pc.all(pc.is_finite(column)).as_py() is not False:
                continue
        elif not pa.types.is_nested(field.type):
            continue
        for row, value in enumerate(column.to_pylist()):
            if row not in rows and _has_non_finite(value):
                rows[row] = f"column '{field.name}': {quoted(value)} has no form in JSON"
    if rows:
        raise DataError(
            f"{len(rows)} rows hold values that JSON has no form for: {rows[min(rows)]}", rows=rows
        )


def _has_non_finite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_non_finite, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_non_finite, value))


def _other(value: Any) -> Any:
    return str(value)
