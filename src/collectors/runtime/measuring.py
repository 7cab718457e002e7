"""What one step costs: seconds, lines of Python for each record, and which of its columns are new memory."""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, TypeVar

import pyarrow as pa

__all__ = ["Memory", "fresh", "memory_of", "python_lines", "typical_seconds"]

Result = TypeVar("Result")

LEAST_ROUNDS = 3
LEAST_SECONDS = 0.2
LEAST_RECORDS = 64
"""With fewer records a line that runs for each of them cannot be told from one that runs for each column."""

Memory = list[tuple[int, int]]
"""Where bytes lie: begin and end of each stretch."""


def typical_seconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the median time of a call that is made again and again, for at least 0.2 s."""
    times: list[float] = []
    while len(times) < LEAST_ROUNDS or sum(times) < LEAST_SECONDS:
        began = clock()
        call()
        times.append(clock() - began)
    return statistics.median(times)


def python_lines(call: Callable[[], Result], records: int) -> tuple[Result, int | None]:
    """Call, and return with the result how many lines of Python ran for every single record.

    It is seen, not declared: a line counts that ran at least as often as there are records, in whatever code of this
    thread. None when there are too few records to tell.
    """
    counts: Counter[tuple[Any, int]] = Counter()

    def look(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            counts[frame.f_code, frame.f_lineno] += 1
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        result = call()
    finally:
        sys.settrace(before)
    if records < LEAST_RECORDS:
        return result, None
    return result, sum(count // records for count in counts.values())


def fresh(table: pa.Table, before: Memory) -> tuple[list[str], int]:
    """Return the names of the columns with bytes that did not lie in this memory, and how many such bytes there are."""
    names, size = [], 0
    seen: set[int] = set()
    for name, column in zip(table.column_names, table.columns, strict=True):
        new = [
            buffer
            for buffer in _buffers(column)
            if not any(begin <= buffer.address < end for begin, end in before)
        ]
        if new:
            names.append(name)
        size += sum(buffer.size for buffer in new if buffer.address not in seen)
        seen |= {buffer.address for buffer in new}
    return names, size


def memory_of(table: pa.Table) -> Memory:
    """Return where the bytes of a table lie."""
    return [
        (buffer.address, buffer.address + buffer.size)
        for column in table.columns
        for buffer in _buffers(column)
    ]


def _buffers(column: pa.ChunkedArray) -> Iterable[Any]:
    for chunk in column.chunks:
        yield from (buffer for buffer in chunk.buffers() if buffer is not None and buffer.size)
        if pa.types.is_dictionary(chunk.type):
            yield from _buffers(pa.chunked_array([chunk.dictionary]))
