"""Rows to folders: `day=2026-01-02/device=a%2Fb/`, as Hive names them and every reader knows them."""

from __future__ import annotations

from datetime import date
from typing import Any, NamedTuple
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from collectors.enums import ErrorType
from collectors.errors import DataError, FatalError
from collectors.storage.records import plain

__all__ = ["Partition", "read_value", "split"]

_NULL = "__HIVE_DEFAULT_PARTITION__"
_LONGEST = 250


class Partition(NamedTuple):
    """The rows that go into one folder, without the columns whose values its name has."""

    folder: str
    values: dict[str, Any]
    types: dict[str, str]
    table: pa.Table


def split(table: pa.Table, columns: list[str]) -> list[Partition]:
    """Return the rows by folder, in the order of their values; within a folder in the order in which they came.

    Raises FatalError for a column that is not there or of a type that folders cannot have, DataError with `rows` for
    values that are too long for a folder.
    """
    if not columns:
        return [Partition("", {}, {}, table)]
    keys = [_key(table, name) for name in columns]
    codes = keys[0][0]
    for code, values in keys[1:]:
        codes = pc.add(pc.multiply(codes, len(values)), code)
    order = pc.sort_indices(codes)
    ordered, rest = table.take(order), [name for name in table.column_names if name not in columns]
    types = {name: str(plain(table.column(name)).type) for name in columns}
    partitions, start = [], 0
    bad: dict[int, str] = {}
    for number, count in sorted(
        (pair["values"], pair["counts"]) for pair in pc.value_counts(codes).to_pylist()
    ):
        chosen = _values(number, columns, keys)
        segments = {name: _segment(name, value) for name, value in chosen.items()}
        for name, segment in segments.items():
            if len(segment) > _LONGEST:
                reason = f"column '{name}': the value is too long for the name of a folder"
                bad |= dict.fromkeys(order.slice(start, count).to_pylist(), reason)
        part = ordered.slice(start, count).select(rest)
        partitions.append(Partition("/".join(segments.values()) + "/", chosen, types, part))
        start += count
    if bad:
        raise DataError(
            f"{len(bad)} rows cannot be put into folders; the first is row {min(bad)}: {bad[min(bad)]}",
            rows=bad,
            error_type=ErrorType.STORAGE,
        )
    return partitions


def read_value(value: Any, kind: str) -> Any:
    """Return a value of a partition as the type had it that the log names."""
    return date.fromisoformat(value) if kind.startswith("date") and value is not None else value


def _key(table: pa.Table, name: str) -> tuple[pa.Array, list[Any]]:
    """Return a number for each row, and the value that each number stands for."""
    if name not in table.column_names:
        raise _unfit(f"no column '{name}' to partition by; there are: {', '.join(table.column_names)}")
    column = plain(table.column(name)).combine_chunks()
    kind = column.type
    types = pa.types
    if not any(
        test(kind)
        for test in (
            types.is_integer,
            types.is_string,
            types.is_large_string,
            types.is_boolean,
            types.is_date,
            types.is_null,
        )
    ):
        raise _unfit(
            f"column '{name}' is {kind}, which makes no folders; partition by text, whole numbers, dates or true/false "
            "(a processor can make such a column)"
        )
    encoded = pc.dictionary_encode(column, null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.indices.cast(pa.int64()), encoded.dictionary.to_pylist()


def _values(code: int, columns: list[str], keys: list[tuple[Any, list[Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (_, values) in reversed(list(zip(columns, keys, strict=True))):
        code, index = divmod(code, len(values))
        found[name] = values[index]
    return {name: found[name] for name in columns}


def _segment(name: str, value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    encoded = quote(text, safe=" ").replace(_NULL, f"%5F{_NULL[1:]}") if value is not None else _NULL
    return f"{quote(name, safe=' ')}={encoded}"


def _unfit(message: str) -> FatalError:
    return FatalError(message, error_type=ErrorType.STORAGE)
