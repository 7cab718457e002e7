"""One file of lines while it is written, JSON or CSV, compressed on the way; used like a `PartFile`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from collectors.enums import ErrorType
from collectors.errors import DataError, FatalError
from collectors.storage.backends._parquet_file import Sink
from collectors.storage.records import non_finite, plain, to_json_lines

__all__ = ["ENDINGS", "TextFile", "check_lines", "lines_of"]

ENDINGS = {"none": "", "gzip": ".gz", "zstd": ".zst"}


class TextFile:
    """The rows of one partition on their way into one file."""

    def __init__(self, path: Path, schema: pa.Schema, form: str, compression: str) -> None:
        self.path = path
        self.schema = schema
        self.rows = 0
        self.closed = False
        self.waiting_bytes = 0
        self._form = form
        self._sink = Sink(path)
        stream = pa.PythonFile(self._sink, mode="w")
        self._stream: Any = (
            stream if compression == "none" else pa.CompressedOutputStream(stream, compression)
        )
        self._finished = False

    @property
    def columns(self) -> list[str]:
        """The names of the columns that rows have."""
        return list(self.schema.names)

    @property
    def on_disk(self) -> bool:
        """Whether the scratch file has been begun."""
        return self._sink.on_disk > 0

    @property
    def size(self) -> int:
        """How large the file is so far."""
        return self._sink.tell()

    def add(self, table: pa.Table) -> None:
        """Take rows, as `lines_of` gives them; they reach the disk with `drain`."""
        if self._form == "csv":
            options = pyarrow.csv.WriteOptions(include_header=not self.rows)
            pyarrow.csv.write_csv(table, self._stream, options)
        else:
            self._stream.write(to_json_lines(table))
        self.rows += table.num_rows

    def drain(self) -> None:
        """Bring to the disk what there is. Raises OSError; it can be called again."""
        if not self._finished:
            self._sink.drain()

    def finish(self) -> None:
        """Bring all of the file to the disk, once. Raises OSError; it can be called again."""
        if self._finished:
            return
        if not self.closed:
            self._stream.close()
            self.closed = True
        self._sink.drain()
        self._finished = True

    def write_group(self) -> None:
        """Nothing waits."""


def check_lines(table: pa.Table, form: str) -> None:
    """Raise DataError with `rows` for those with a value that has no form in JSON, FatalError for two columns of one name."""
    names = table.column_names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise FatalError(
            f"the column '{twice}' is there twice; rename it in a processor", error_type=ErrorType.STORAGE
        )
    bad: dict[int, str] = {}
    for name, column in zip(names, table.columns, strict=True):
        simple = plain(column)
        if (form == "ndjson" or pa.types.is_nested(simple.type)) and non_finite(simple):
            reason = f"column '{name}': JSON has no NaN and no infinity; let a processor make null of it"
            bad = {
                row: reason for row, value in enumerate(simple.to_pylist()) if _has_non_finite(value)
            } | bad
    if bad:
        raise DataError(
            f"{len(bad)} rows cannot be written as {form}; the first is row {min(bad)}: {bad[min(bad)]}",
            rows=bad,
            error_type=ErrorType.STORAGE,
        )


def lines_of(table: pa.Table, form: str) -> pa.Table:
    """Return the table as `TextFile` writes it: text for what the format, or Python's times, cannot hold. Raises FatalError."""
    if form == "csv" and table.num_columns == 1 and table.column(0).null_count:
        raise FatalError(
            "csv cannot hold a null in the only column: it would be an empty line; add a column, or use ndjson",
            error_type=ErrorType.STORAGE,
        )
    return pa.table([_text(plain(column), form) for column in table.columns], table.column_names)


def _text(column: pa.ChunkedArray, form: str) -> pa.ChunkedArray:
    kind, types = column.type, pa.types
    if types.is_timestamp(kind) and (form == "csv" or kind.unit == "ns"):
        return pc.replace_substring(column.cast(pa.string()), " ", "T", max_replacements=1)
    if form == "ndjson":
        return column
    if types.is_null(kind):
        return column.cast(pa.string())
    if types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        lines = to_json_lines(pa.table({"v": column})).splitlines()
        return pa.chunked_array([pa.array(map(_cell, lines), pa.string())])
    return column


def _cell(line: bytes) -> str | None:
    value = msgspec.json.decode(line)["v"]
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def _has_non_finite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_non_finite, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_non_finite, value))
