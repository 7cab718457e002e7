"""What the compactions of `parquet` and `object_store` have in common: several files become one, and are compared with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.enums import ErrorType
from collectors.errors import CollectorsError, FatalError
from collectors.storage.backends._parquet_file import PartFile
from collectors.storage.files import translated

__all__ = ["Source", "damaged", "merge", "reading", "same", "schema_of"]


class Source(NamedTuple):
    """A file with so many rows, as the log says; `open` gives a path, or a file, and may be called again."""

    name: str
    rows: int
    open: Callable[[], Any]


def schema_of(source: Source) -> pa.Schema:
    """Return the columns of a Parquet file. Raises FatalError when it is gone or damaged."""
    with reading(source):
        return pq.read_schema(source.open()).remove_metadata()


def merge(sources: Sequence[Source], path: Path, *, durable: bool) -> int:
    """Write the rows of Parquet files into one, a row group at a time, and compare; returns how many there are.

    Raises FatalError when a file is gone or damaged, has another number of rows than the log says, or when the new file
    does not have the same ones; TransientError when the disk does not take them now.
    """
    made: PartFile | None = None
    for source in sources:
        rows = 0
        for table in _tables(source):
            with translated(path, "cannot write to"):
                made = made or PartFile(path, table.schema, table, durable=durable)
                made.add(table)
                made.drain()
            rows += table.num_rows
        if rows != source.rows:
            raise damaged(source, f"it has {rows} rows")
    if made is None:
        raise damaged(sources[0], "it has no rows")
    with translated(path, "cannot write to"):
        made.finish()
    new = Source(str(path), made.rows, lambda: path)
    if not same(_tables(new), chain.from_iterable(map(_tables, sources))):
        raise damaged(new, "it does not have the rows that were written to it")
    return made.rows


@contextmanager
def reading(source: Source) -> Iterator[None]:
    """Raise FatalError where a file cannot be read; what a store says of itself stays as it is."""
    try:
        yield
    except CollectorsError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise damaged(source, str(error)) from error


def damaged(source: Source, why: str) -> FatalError:
    """Return the error for a file that is not as the log says."""
    return FatalError(
        f"{source.name} cannot be merged ({why}), and the log says that it holds {source.rows} rows; nothing was changed "
        "for it; restore it from a copy",
        error_type=ErrorType.STORAGE,
    )


def same(ones: Iterator[pa.Table], others: Iterator[pa.Table]) -> bool:
    """Return whether both have the same rows in the same order, however they are split."""
    waiting: pa.Table | None = None
    for table in ones:
        left = table
        while left.num_rows:
            waiting = waiting if waiting is not None and waiting.num_rows else next(others, None)
            if waiting is None:
                return False
            rows = min(left.num_rows, waiting.num_rows)
            if not _equal(left.slice(0, rows), waiting.slice(0, rows)):
                return False
            left, waiting = left.slice(rows), waiting.slice(rows)
    return not (waiting is not None and waiting.num_rows) and next(others, None) is None


def _equal(one: pa.Table, other: pa.Table) -> bool:
    """Return whether tables are equal; a NaN is, to another one."""
    return one.equals(other) or (
        one.schema.equals(other.schema)
        and all(
            left.equals(right) or repr(left.to_pylist()) == repr(right.to_pylist())
            for left, right in zip(one.columns, other.columns, strict=True)
        )
    )


def _tables(source: Source) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file, a row group at a time."""
    with reading(source), pq.ParquetFile(source.open()) as opened:
        for number in range(opened.num_row_groups):
            yield opened.read_row_group(number).replace_schema_metadata(None)
