"""Nested records as rows of several tables: `split` cuts them, column by column.

A field `b` of an object `a` becomes the column `a__b`; a list `c` in table `t` the rows of table `t__c`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct, field
from msgspec.structs import replace

from collectors.enums import ErrorType
from collectors.errors import DataError
from collectors.storage.records import plain

__all__ = ["MOST_LEVELS", "RENAME", "SEPARATOR", "Part", "Split", "child_name", "filled", "split"]

MOST_LEVELS = 8
"""So many lists within each other become tables; what is deeper stays a list in a column."""
SEPARATOR = "__"
RENAME = "rename it in a processor, or leave it out"
_VALUE = "value"


class Part(Struct, frozen=True):
    """The rows of one table. `above` is the number of the part that has the parent rows, None for the records.

    `parents` are rows of that part, `records` those of what was split; `path` leads to the list from the parent row, and
    `column` is its name there. `lists` are the lists themselves, one for each parent row.
    """

    name: str
    table: pa.Table
    records: pa.Array
    above: int | None = None
    path: str = ""
    column: str = ""
    parents: pa.Array | None = None
    places: pa.Array | None = None
    lists: pa.ChunkedArray | None = None


class Split(Struct, frozen=True):
    """What `split` found: the parts, parents first, and for each record that does not fit into tables the reason."""

    parts: list[Part] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)

    def where(self, number: int, row: int) -> str:
        """Return the path to a row of a part, as in `items[2].lines[0]`; empty for a record."""
        part = self.parts[number]
        if part.above is None or part.parents is None or part.places is None:
            return ""
        before = self.where(part.above, part.parents[row].as_py())
        return f"{before}{'.' if before and part.path else ''}{part.path}[{part.places[row]}]"

    def refuse(self, number: int, rows: Mapping[int, str]) -> None:
        """Add rows of a part: each costs its record."""
        part = self.parts[number]
        for row, reason in rows.items():
            path = self.where(number, row)
            self.refused.setdefault(part.records[row].as_py(), f"{path}: {reason}" if path else reason)

    def check(self) -> None:
        """Raise DataError when records were refused."""
        if self.refused:
            row, reason = min(self.refused.items())
            raise DataError(
                f"{len(self.refused)} rows cannot be stored in table '{self.parts[0].name}'; the first is row {row}: "
                f"{reason}",
                rows=self.refused,
                error_type=ErrorType.STORAGE,
            )


class _Field(Struct, frozen=True):
    name: str
    path: str
    values: pa.ChunkedArray
    made_up: bool = False


def split(table: pa.Table, name: str) -> Split:
    """Cut rows into those of the table of this name and of its child tables; objects become columns, lists tables."""
    found = Split()
    fields = [
        _Field(*each) for each in zip(table.column_names, table.column_names, table.columns, strict=True)
    ]
    _add(found, Part(name, table, pa.arange(0, table.num_rows)), fields, 0, set())
    return found


def _add(found: Split, part: Part, fields: Sequence[_Field], level: int, tables: set[str]) -> None:
    """Add a part whose rows have these fields, and those below it; `tables` are the names that are taken."""
    number = len(found.parts)
    columns, lists = dict[str, pa.ChunkedArray](), list[_Field]()
    refused: dict[int, str] = {}
    own = {each.name for each in fields if not pa.types.is_struct(plain(each.values).type)}
    for each in (flat for given in fields for flat in _flattened(given)):
        is_list = level < MOST_LEVELS and _is_list(each.values.type)
        table = child_name(part.name, each.name)
        seen = each.name in columns or any(each.name == other.name for other in lists)
        if seen or (each.made_up and each.name in own) or (is_list and table.lower() in tables):
            there = pc.indices_nonzero(filled(each.values) if is_list else each.values.is_valid())
            what = f"table '{table}'" if is_list else f"column '{each.name}'"
            reason = f"the field '{each.path}' would be the {what}, as another field is; {RENAME}"
            refused = dict.fromkeys(there.to_pylist(), reason) | refused
        elif is_list:
            lists.append(each)
            tables.add(table.lower())
        else:
            columns[each.name] = each.values
    if not columns:  # a table without columns forgets how many rows it has; one of nulls is not stored
        columns[_VALUE] = pa.chunked_array([pa.nulls(len(part.records))])
    found.parts.append(replace(part, table=pa.table(columns)))
    found.refuse(number, refused)
    for each in lists:
        values, parents, places = _elements(each.values)
        below = Part(
            name=child_name(part.name, each.name),
            table=part.table,
            records=part.records.take(parents),
            above=number,
            path=each.path,
            column=each.name,
            parents=parents,
            places=places,
            lists=each.values,
        )
        _add(found, below, _inner(values), level + 1, tables)


def _flattened(given: _Field) -> Iterator[_Field]:
    """Yield a field, or what is inside of it where it is an object."""
    values = plain(given.values)
    if not pa.types.is_struct(values.type):
        yield replace(given, values=values)
        return
    for inner, column in zip(values.type, values.flatten(), strict=True):
        name, path = child_name(given.name, inner.name), f"{given.path}.{inner.name}"
        yield from _flattened(_Field(name, path, column, made_up=True))


def _inner(values: pa.ChunkedArray) -> list[_Field]:
    """Return the fields of the rows that elements of a list become."""
    values = plain(values)
    if not pa.types.is_struct(values.type):
        return [_Field(_VALUE, "", values)]
    names = [inner.name for inner in values.type]
    return [_Field(*each) for each in zip(names, names, values.flatten(), strict=True)]


def _elements(lists: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.Array, pa.Array]:
    """Return the elements of all lists, and for each its list and its place in that."""
    lists = lists.cast(pa.large_list(lists.type.value_field)) if _is_fixed(lists.type) else lists
    elements = [chunk.flatten() for chunk in lists.chunks]  # what a null list may hide is not among them
    lengths = pc.fill_null(pc.list_value_length(lists), 0).cast(pa.int64()).combine_chunks()
    ends = pc.cumulative_sum(lengths)
    count = sum(map(len, elements))
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
    numbers = pa.arange(0, count) if count else pa.array([], pa.int64())
    parents = pc.list_parent_indices(pa.LargeListArray.from_arrays(offsets, numbers))
    places = pc.subtract(numbers, offsets.take(parents))
    return pa.chunked_array(elements, lists.type.value_type), parents, places


def filled(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return which lists have elements."""
    return pc.fill_null(pc.greater(pc.list_value_length(lists), 0), False)


def child_name(name: str, inner: str) -> str:
    """Return the name of what is inside of something: a child table, or the column for a field of an object."""
    return f"{name}{SEPARATOR}{inner}"


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or _is_fixed(kind))


def _is_fixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))
