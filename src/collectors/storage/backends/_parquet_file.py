"""One Parquet file while it is written: row groups go to a scratch file, so that memory stays small.

What the disk does not take is kept and written again by the next `drain`: a full disk loses nothing and needs no
restart. The writer itself never sees an error of the disk.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collectors.enums import ErrorType
from collectors.errors import FatalError
from collectors.storage.files import make_durable
from collectors.storage.records import plain

__all__ = ["EMPTY", "PartFile", "Sink", "without_empty", "writable"]

EMPTY = "_empty"
"""The column, all null, that stands where Parquet needs one and there is none: in an object without fields."""

_GROUP_BYTES = 8 * 2**20
_GROUP_ROWS = 128 * 1024
_SAMPLE_ROWS = 10_000


class Sink:
    """The file that a writer writes to: everything is accepted, `drain` brings it to the disk."""

    closed = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[bytes] = []
        self.on_disk = 0
        self._length = 0

    def write(self, content: Any) -> int:
        data = bytes(content)
        self._waiting.append(data)
        self._length += len(data)
        return len(data)

    def tell(self) -> int:
        return self._length

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def drain(self, *, sync: bool = False) -> None:
        """Write what waits, and with `sync` make all of it durable. Raises OSError; it can be called again."""
        fresh = os.O_CREAT | os.O_TRUNC if self.on_disk == 0 else 0
        descriptor = os.open(self._path, os.O_WRONLY | fresh, 0o666)
        try:
            while self._waiting:
                written = os.pwrite(descriptor, self._waiting[0], self.on_disk)
                self.on_disk += written
                rest = self._waiting[0][written:]
                self._waiting[:1] = [rest] if rest else []
            if sync:
                make_durable(descriptor, self._path)
        finally:
            os.close(descriptor)


class PartFile:
    """The rows of one partition on their way into one file; `durable`: it survives a power cut once it is finished."""

    def __init__(self, path: Path, schema: pa.Schema, sample: pa.Table, *, durable: bool = True) -> None:
        self.path = path
        self.schema = schema
        self.rows = 0
        self.closed = False
        self._finished = False
        self._sink = Sink(path)
        self._durable = durable
        self._waiting: list[pa.Table] = []
        self.waiting_bytes = 0
        try:
            self._writer = pq.ParquetWriter(
                self._sink,
                schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=_worth_a_dictionary(sample) or False,
            )
        except pa.ArrowException as error:
            raise FatalError(
                f"Parquet cannot have this column: {error}; cast it to another type in a processor",
                error_type=ErrorType.STORAGE,
            ) from error

    @property
    def columns(self) -> list[str]:
        """The names of the columns that rows have."""
        return [name for name in self.schema.names if name != EMPTY]

    @property
    def on_disk(self) -> bool:
        """Whether the scratch file has been begun."""
        return self._sink.on_disk > 0

    @property
    def size(self) -> int:
        """How large the file is so far, with what waits in memory."""
        return self._sink.tell() + self.waiting_bytes

    def add(self, table: pa.Table) -> None:
        """Take rows; they reach the disk with `drain`."""
        self.rows += table.num_rows
        self._waiting.append(table)
        self.waiting_bytes += table.nbytes
        if self.waiting_bytes >= _GROUP_BYTES or sum(each.num_rows for each in self._waiting) >= _GROUP_ROWS:
            self.write_group()

    def drain(self) -> None:
        """Bring whole row groups to the disk. Raises OSError; it can be called again."""
        if not self._finished:
            self._sink.drain()

    def finish(self) -> None:
        """Bring all of the file to the disk, once. Raises OSError; it can be called again."""
        if self._finished:
            return
        if not self.closed:
            self.write_group()
            self._writer.close()
            self.closed = True
        self._sink.drain(sync=self._durable)
        self._finished = True

    def write_group(self) -> None:
        """Turn the rows that wait into a row group."""
        if self._waiting:
            table = pa.concat_tables(self._waiting)
            self._waiting, self.waiting_bytes = [], 0
            self._writer.write_table(table, row_group_size=max(1, table.num_rows))


def writable(table: pa.Table) -> pa.Table:
    """Return the table as Parquet can have it and readers can put it beside others.

    A column of nothing but null has no type yet: it is left out, and readers find null there. Dictionaries become
    plain values; an object without fields gets the field `_empty`.
    """
    _check_names(table.column_names)
    columns: dict[str, pa.ChunkedArray] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        simple = plain(column)
        if pa.types.is_null(simple.type):
            continue
        filled = _filled(simple.type)
        if not filled.equals(simple.type):
            simple = pa.chunked_array([pa.array(simple.to_pylist(), filled)])
        columns[name] = simple
    return pa.table(columns or {EMPTY: pa.nulls(table.num_rows)})


def without_empty(value: Any) -> Any:
    """Return a value that was read back without the fields that `writable` put in."""
    if isinstance(value, dict):
        return {name: without_empty(item) for name, item in value.items() if name != EMPTY}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


def _check_names(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1 or name == EMPTY:
            problem = "is there twice" if name != EMPTY else "is a name that this backend needs itself"
            raise FatalError(
                f"the column '{name}' {problem}; rename it in a processor", error_type=ErrorType.STORAGE
            )


def _filled(kind: pa.DataType) -> pa.DataType:
    """Return the type with a field in every object that has none."""
    if pa.types.is_struct(kind):
        fields = [field.with_type(_filled(field.type)) for field in kind]
        return pa.struct(fields or [pa.field(EMPTY, pa.null())])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, _filled(kind.item_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_filled(kind.value_type)))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_filled(kind.value_type)))
    return kind


def _worth_a_dictionary(sample: pa.Table) -> list[str]:
    """Return the columns of whose first rows at most half differ or, where there are more, the second half brings few
    values that the first has not: encoding all columns so costs 75 % more time.

    Of other columns, delta encodings would be smaller and faster for whole numbers; too many readers lack them.
    """
    first = sample.slice(0, _SAMPLE_ROWS)
    half = first.slice(0, first.num_rows // 2)

    def worth(name: str) -> bool:
        distinct = _distinct(first.column(name))
        if 2 * distinct <= first.num_rows:
            return True
        return sample.num_rows > _SAMPLE_ROWS and 3 * distinct <= 5 * _distinct(half.column(name))

    return [
        field.name
        for field in first.schema
        if not pa.types.is_nested(field.type) and not pa.types.is_boolean(field.type) and worth(field.name)
    ]


def _distinct(column: pa.ChunkedArray) -> int:
    try:
        return int(pc.count_distinct(column).as_py())
    except pa.ArrowNotImplementedError:
        return len(column)
