"""Rows as Python's objects, made from columns and taken apart into columns, at the speed of compiled code.

Where it was built for this machine, that is `_native/rows.c`. Otherwise a struct of msgspec that has the columns as its
members is made once for each set of names; a row is then one call of it.
"""

from __future__ import annotations

import ctypes
import sys
from array import array
from collections.abc import Callable, Container, Iterator, Sequence
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from collectors import native

__all__ = [
    "BATCH_ROWS",
    "Called",
    "batches",
    "call_for_rows",
    "can_stay",
    "dicts_of",
    "dicts_or_reasons",
    "encodable",
    "python_rows",
    "python_value",
    "take_apart",
    "to_dicts",
]

BATCH_ROWS = 4096
"""So many rows at a time are fast to make and to drop: they stay in the processor's cache."""
_LIBRARY = Path(__file__).parent / "_native" / "rows.so"
_KINDS = (pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string())
"""The columns that compiled code knows, in the order of its numbers for them."""
_NUMBERS, _OTHER = {kind: number for number, kind in enumerate(_KINDS)}, len(_KINDS)
_NOT_IN_PYTHON = (OverflowError, ValueError)
"""A date before the year 1, a time with nanoseconds, a time zone that is not known."""
_ARROW_ARRAY_BYTES = 80
"""The size of a `struct ArrowArray` where pointers have 64 bits."""


@lru_cache(maxsize=1)
def _functions() -> Any:
    """Return the compiled code: what makes dicts, what takes them apart, and what does both around a function; None where
    it is not installed, or switched off by `COLLECTORS_NATIVE=0`.
    """
    names = "collectors_to_dicts_1", "collectors_take_apart_1", "collectors_call_2"
    found = native.functions(_LIBRARY, *names, with_lock=True)
    if found is None:
        return None
    make, take, call = found
    rows = (ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.py_object)
    make.argtypes = rows
    take.argtypes = (ctypes.py_object, ctypes.py_object)
    call.argtypes = (ctypes.py_object, *rows, ctypes.py_object, ctypes.c_char_p, ctypes.c_int)
    make.restype = take.restype = call.restype = ctypes.py_object
    return make, take, call


class Called(msgspec.Struct):
    """What a function returned for the rows of a table, up to where it was no dict like the others.

    `columns` are the values of the dicts, and `rows` tells of which row each is, among the first `done` rows. Where that is
    not all, the function was called for one more, and `result` is what it returned, or `error` what it raised. With neither
    it was not called, since that row is not to be had as a dict.
    """

    columns: list[pa.Array]
    rows: array[int]
    done: int
    result: Any
    error: BaseException | None


def can_stay(column: pa.DataType) -> bool:
    """Return whether values of this type cannot be changed by who has them, and come back as they were."""
    return column in _NUMBERS


def batches(count: int) -> Iterator[tuple[int, int]]:
    """Yield where to begin, and how many rows to make at a time."""
    for start in range(0, count, BATCH_ROWS):
        yield start, min(BATCH_ROWS, count - start)


def to_dicts(names: Sequence[str], columns: Sequence[list[Any]], count: int) -> list[dict[str, Any]]:
    """Return so many rows of columns of this length as dicts; of columns that have the same name the last one counts."""
    if not names:
        return [{} for _ in range(count)]
    row = _row(tuple(names), as_attributes=True)
    if row is None:
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return list(map(msgspec.structs.asdict, map(row, *columns)))


def dicts_of(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a table as dicts; of columns that have the same name the last one counts."""
    functions, parts = _functions(), table.to_batches()
    if functions is None or len(parts) != 1:
        return to_dicts(table.column_names, [column.to_pylist() for column in table.columns], table.num_rows)
    rows: list[dict[str, Any]] = functions[0](*_given(parts[0]))
    return rows


def call_for_rows(
    function: Callable[[dict[str, Any]], Any],
    names: Sequence[str],
    table: pa.Table,
    first: int,
    known: Container[str] = frozenset(),
) -> Called | None:
    """Call a function for rows as dicts, in order, as long as it returns None or dicts with these keys in this order, which
    hold what is simple in `take_apart`, of one kind in each column. Rows are numbered from `first` on. Of a table with
    columns that compiled code does not know, only the first rows are taken. Of `known` names the caller has the values; they
    are nulls here.

    None where there is no compiled code or the table cannot be taken by it; the function was not called then.
    """
    functions, parts = _functions(), table.to_batches()
    if functions is None or len(parts) != 1:
        return None
    (batch,) = parts
    if any(column.type not in _NUMBERS for column in batch.columns):
        batch = batch.slice(0, BATCH_ROWS)
    try:
        given = _given(batch)
    except _NOT_IN_PYTHON:
        return None
    skipped = bytes(name in known for name in names)
    columns, rows, done, result, error = functions[2](function, *given, tuple(names), skipped, first)
    numbers = array("i", rows)
    return Called([_array(len(numbers), *column) for column in columns], numbers, done, result, error)


def _given(batch: pa.RecordBatch) -> tuple[Any, ...]:
    """Return what compiled code takes of rows: names, the exported columns, their kinds, and the values of the others."""
    kinds = [_NUMBERS.get(column.type, _OTHER) for column in batch.columns]
    lists = [
        column.to_pylist() if kind == _OTHER else None
        for kind, column in zip(kinds, batch.columns, strict=True)
    ]
    exported = ctypes.create_string_buffer(_ARROW_ARRAY_BYTES)
    batch._export_to_c(ctypes.addressof(exported))  # noqa: SLF001  # how ctypes is served
    # Names that are one object with those in the code that asks for them are found faster.
    return tuple(map(sys.intern, batch.schema.names)), exported, bytes(kinds), tuple(lists)


def dicts_or_reasons(table: pa.Table) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Return the rows as dicts, and for those with a value that Python has no type for, by number, the column and why."""
    try:
        return dicts_of(table), {}
    except _NOT_IN_PYTHON:
        problems: dict[int, str] = {}
        columns = [
            _python_values(name, column, problems)
            for name, column in zip(table.column_names, table.columns, strict=True)
        ]
        return to_dicts(table.column_names, columns, table.num_rows), problems


def python_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows as dicts, for people and dead letters: a value that Python has no type for is text."""
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
    except _NOT_IN_PYTHON:
        columns = [[python_value(scalar) for scalar in column] for column in table.columns]
        return to_dicts(table.column_names, columns, table.num_rows)
    return rows


def python_value(scalar: pa.Scalar) -> Any:
    """Return a value; as text where Python has no type for it."""
    try:
        return scalar.as_py()
    except _NOT_IN_PYTHON:
        if isinstance(scalar, pa.DictionaryScalar):
            return python_value(scalar.value)
        return " ".join(pa.repeat(scalar, 1).to_string().split())[2:-2]


def _python_values(name: str, column: pa.ChunkedArray, problems: dict[int, str]) -> list[Any]:
    values: list[Any] = []
    for row, scalar in enumerate(column):
        try:
            values.append(scalar.as_py())
        except _NOT_IN_PYTHON:
            values.append(None)
            what = (
                f"column '{name}': Python has no value for {python_value(scalar)} of the type {scalar.type}"
            )
            problems.setdefault(row, f"{what}; cast it before this step, for example to a string")
    return values


def take_apart(names: Sequence[str], records: list[dict[str, Any]]) -> list[pa.Array | list[Any]] | None:
    """Return the values of dicts that have these keys and no others, a column each; None where one has others.

    A column is an array where that is simple, the values being bools, ints of 64 bits, floats or text and None; it holds
    them exactly. Else it is a list of the values.
    """
    functions = _functions()
    if functions is not None:
        found = functions[1](tuple(names), records)
        if found is not None:
            return [
                list(map(itemgetter(name), records)) if column is None else _array(len(records), *column)
                for name, column in zip(names, found, strict=True)
            ]
    if set(map(type, records)) - {dict}:
        return None  # others make up values for the keys that they do not have
    try:
        columns = [list(map(itemgetter(name), records)) for name in names]
    except KeyError:
        return None
    return columns if max(map(len, records), default=0) <= len(names) else None


def _array(count: int, kind: int, nulls: int, *buffers: bytes | None) -> pa.Array:
    """Return what compiled code made of a column: `buffers` are which values are there, offsets of text, values."""
    if not kind:
        return pa.nulls(count)
    valid, offsets, data = (None if buffer is None else pa.py_buffer(buffer) for buffer in buffers)
    parts = [valid, data] if offsets is None else [valid, offsets, data]
    return pa.Array.from_buffers(_KINDS[kind], count, parts, nulls)


def encodable(names: Sequence[str], columns: Sequence[list[Any]], count: int) -> list[Any]:
    """Return the rows as something that msgspec writes as a JSON object with these names."""
    row = _row(tuple(names), as_attributes=False)
    return to_dicts(names, columns, count) if row is None else list(map(row, *columns))


@lru_cache(maxsize=64)
def _row(names: tuple[str, ...], *, as_attributes: bool) -> Any:
    """Return a class with a member for each name, in order; None where that cannot be.

    Members that are not written down under their own name only carry it in JSON.
    """
    if not names or len(set(names)) < len(names):
        return None
    members = list(names) if as_attributes else [f"f{number}" for number in range(len(names))]
    if as_attributes and not all(
        name.isascii() and name.isidentifier() and name[:2] != "__" for name in names
    ):
        return None
    try:
        return msgspec.defstruct(
            "Row",
            [(member, Any) for member in members],
            rename=dict(zip(members, names, strict=True)),
            gc=False,
        )
    except ValueError:  # a name that JSON has to escape
        return None
