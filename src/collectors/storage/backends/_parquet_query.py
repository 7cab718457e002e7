"""Queries over the files of a folder: a coarse filter on columns, then the reference on what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collectors.enums import ErrorType
from collectors.errors import CollectorsError, FatalError
from collectors.models import QueryCriteria
from collectors.storage.backends._parquet_file import EMPTY, without_empty
from collectors.storage.backends._parquet_log import FileEntry
from collectors.storage.backends._parquet_partition import read_value
from collectors.storage.criteria import Condition, check_columns, matcher, ordering, parse, select_rows
from collectors.storage.records import to_records

__all__ = ["select"]

_BATCH_ROWS = 32 * 1024
_COMPARE = {"=": pc.equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}
_EXACT = 2**53


def select(
    source_of: Callable[[FileEntry], Any], files: list[FileEntry], criteria: QueryCriteria
) -> list[dict[str, Any]]:
    """Return the rows of the files that the criteria ask for, in the order of the files; `source_of` gives a path or file.

    Raises ConfigurationError, a ValueError, for bad criteria, FatalError for a file that is gone or damaged. With a
    limit, no more rows are held than it needs.
    """
    conditions = parse(criteria)
    names = list(dict.fromkeys(name for file in files for name in (*file.columns, *file.partition)))
    if files:
        check_columns(criteria, names)
    enough = None if criteria.limit is None else criteria.limit + (criteria.offset or 0)
    kept: list[dict[str, Any]] = []
    filtered = QueryCriteria(criteria.filters, criteria.sort_by, enough, None)
    for file in files:
        for rows in _matching(source_of(file), file, conditions):
            kept += [{name: row.get(name) for name in names} for row in rows]
            if enough is not None and len(kept) > 2 * enough + _BATCH_ROWS:
                kept = select_rows(kept, filtered)
        if enough is not None and ordering(criteria) is None and len(kept) >= enough:
            break
    return select_rows(kept, criteria)


def _matching(source: Any, file: FileEntry, conditions: list[Condition]) -> Iterator[list[dict[str, Any]]]:
    values = {name: read_value(value, file.types[name]) for name, value in file.partition.items()}
    for condition in conditions:
        name = condition.column
        if name not in file.columns and not matcher(condition)(values.get(name)):
            return
    inside = [condition for condition in conditions if condition.column in file.columns]
    tests = [(condition.column, matcher(condition)) for condition in inside]
    try:
        with pq.ParquetFile(source) as opened:
            clean = EMPTY in str(opened.schema_arrow)
            for batch in opened.iter_batches(_BATCH_ROWS):
                found = _coarse(pa.Table.from_batches([batch]), inside)
                rows = [without_empty(row) for row in to_records(found)] if clean else to_records(found)
                yield [row | values for row in rows if all(test(row.get(column)) for column, test in tests)]
    except CollectorsError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise FatalError(
            f"{source} cannot be read ({error}), and the log says that it holds {file.rows} rows; "
            "restore it from a copy",
            error_type=ErrorType.STORAGE,
        ) from error


def _coarse(table: pa.Table, conditions: list[Condition]) -> pa.Table:
    """Leave out rows that certainly do not match."""
    for condition in conditions:
        scalar = _comparable(table.column(condition.column).type, condition)
        if scalar is not None:
            table = table.filter(_COMPARE[condition.operator](table.column(condition.column), scalar))
    return table


def _comparable(kind: pa.DataType, condition: Condition) -> pa.Scalar | None:
    """Return the value as Arrow compares it in exactly the reference's way; None when it would not."""
    value, types = condition.value, pa.types
    if condition.operator not in _COMPARE:
        return None
    if isinstance(value, (int, float)):
        if types.is_signed_integer(kind) and isinstance(value, int) and -(2**63) <= value < 2**63:
            return pa.scalar(int(value), pa.int64())
        if types.is_float64(kind) and (isinstance(value, float) or -_EXACT <= value <= _EXACT):
            return pa.scalar(float(value), pa.float64())
    if isinstance(value, str) and (types.is_string(kind) or types.is_large_string(kind)):
        return pa.scalar(value, kind)
    aware = isinstance(value, datetime) and value.tzinfo is not None
    if aware and types.is_timestamp(kind) and kind.tz and kind.unit == "us":
        return pa.scalar(value, pa.timestamp("us", "UTC"))
    return None
