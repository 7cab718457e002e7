"""Child tables for the lists of nested records: `nested: tables` of a backend.

`insert_nested` stores what `split` has cut, parents first: a child row has the number of its parent row and its place in
the list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, Self

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from pydantic import model_validator

from collectors.chunks import Drift
from collectors.enums import ErrorType
from collectors.errors import DataError, FatalError
from collectors.storage.drift import Columns, Difference, Mode
from collectors.storage.keys import KeyedConfig

if TYPE_CHECKING:
    from collectors.storage.nesting import Part, Split

__all__ = [
    "INDEX",
    "PARENT",
    "Links",
    "NestedConfig",
    "Rows",
    "child_names",
    "insert_nested",
    "link_kinds",
    "linked",
    "preview_nested",
    "without_children",
]

PARENT = "_collectors_parent"
INDEX = "_collectors_index"


class NestedConfig(KeyedConfig):
    """Settings of backends that can give nested records tables of their own."""

    nested: Literal["inline", "tables"] = "inline"
    """`inline`: an object or a list is one column. `tables`: a field `b` of an object `a` is the column `a__b`, and a list
    `c` is the child table `TABLE__c` with a row for each element: its fields as columns, or a column `value` where elements
    are no objects; lists within lists likewise, 8 levels deep. `_collectors_parent` of a child row is the `_collectors_row`
    of its parent row, `_collectors_index` its place in the list, from 0. A list that is empty or null has no child rows, an
    object that is empty or null has null in its columns; a map stays one column. Where two fields would have the same name,
    records with the second one are set aside. Only with `write: append`."""

    @model_validator(mode="after")
    def _no_upsert_of_nested(self) -> Self:
        if self.nested == "tables" and self.write != "append":
            raise ValueError(
                f"`nested: tables` cannot be together with `write: {self.write}`: a row that is replaced would leave its "
                "child rows behind; use `nested: inline`, or `write: append`"
            )
        return self


class Links(Struct, frozen=True):
    """For each row of a child table the number of its parent row, and its place in the list; `kinds` is written down."""

    parents: pa.Array
    places: pa.Array
    kinds: dict[str, str]


class Rows(Protocol):
    """What `insert_nested` needs of one table of a backend."""

    name: str
    found: list[Drift]
    first: int | None
    """The number of the first of the rows that were stored last; None: they were stored already."""

    def names(self) -> list[str] | None:
        """Return the names of all columns; None when there is no such table."""

    def child(self, name: str) -> Self:
        """Return another table of the same database, with the same settings."""

    def made_for(self, column: str) -> str | None:
        """Return as what a column of the table was written down when that was made last; None: it was not."""

    def put(self, table: pa.Table, location_id: str, links: Links | None = None) -> int:
        """Store rows in this table alone."""

    def unfit(self, name: str) -> str | None:
        """Return why the database cannot have a table of this name; None when it can."""


def insert_nested(top: Rows, table: pa.Table, location: str, mode: Callable[[str], Mode]) -> list[int]:
    """Store rows in a table and its child tables, within the transaction of the caller; returns what each `put` returned.

    A child table that is missing where its parent table is there already is a new column to `schema`. Raises DataError
    with the `rows` of the records that any of the tables refuses, FatalError when tables do not fit.
    """
    from collectors.storage.nesting import split  # most tables do without

    cut = split(table, top.name)
    tables = [top, *(top.child(part.name) for part in cut.parts[1:])]
    left_out, results = _unfit_names(cut, top), list[int]()
    known = [None if number in left_out else rows.names() for number, rows in enumerate(tables)]
    try:
        for number, (part, rows) in enumerate(zip(cut.parts, tables, strict=True)):
            if part.above in left_out:
                left_out.add(number)
            if number in left_out or (part.above is not None and known[number] and not len(part.records)):
                continue
            _check_owner(cut, number, tables, known)
            if known[number] is not None:
                left_out |= _left_out(cut, number, known, Columns(part.name, mode, location, rows.found))
            try:
                results.append(rows.put(part.table, location, _links(cut, part, tables)))
            except DataError as error:
                if not error.rows:
                    raise
                cut.refuse(number, error.rows)
            else:
                if rows.first is None:
                    _check_first(cut, number, location)
                    break
        cut.check()
    finally:
        for rows in tables[1:]:
            top.found += rows.found
    return results


def linked(links: Links | None) -> dict[str, pa.Array]:
    """Return the columns of a child row that lead to its parent row; none for a record."""
    return {} if links is None else {PARENT: links.parents, INDEX: links.places}


def link_kinds(links: Links | None) -> dict[str, str]:
    """Return what is written down of these columns when a table is made."""
    return {} if links is None else links.kinds


def child_names(name: str, others: Sequence[str]) -> list[str]:
    """Return those of the names that child tables of a table may have."""
    from collectors.storage.nesting import child_name

    return [other for other in others if other.lower().startswith(child_name(name, "").lower())]


def without_children(names: Sequence[str]) -> list[str]:
    """Return the names of tables without those that are child tables of others, by their names."""
    below = {child for name in names for child in child_names(name, names)}
    return [name for name in names if name not in below]


def preview_nested(
    table: pa.Table,
    name: str,
    config: NestedConfig,
    unfit: Callable[[str], str | None],
    look: Callable[[str, pa.Table], tuple[Sequence[str] | None, list[str]]],
) -> list[str]:
    """Return what `preview` says of a table, and with `nested: tables` of its child tables.

    `look` gives the columns that a table has, None where there is none, and what is said of rows for it.
    """
    if config.nested == "inline":
        return look(name, table)[1]
    from collectors.storage.nesting import split

    cut, lines, known = split(table, name), list[str](), dict[int, Sequence[str] | None]()
    told = dict.fromkeys(cut.refused.values())
    for number, part in enumerate(cut.parts):
        if part.above is not None and part.above not in known:
            continue
        if part.above is not None and (problem := unfit(part.name)):
            told[_no_table(part, problem)] = None
            continue
        there, said = look(part.name, part.table)
        if part.above is not None and there is not None:
            lines.append(f"= table {part.name}" if PARENT in there else f"! {_foreign(part)}")
        elif part.above is not None and known[part.above] is not None:
            lines.append(config.preview_new(part.column, f"table {part.name}"))
            if config.mode(part.column) != "evolve":
                continue
        known[number] = there
        lines += said
    return lines + [f"~ {reason}; records that have it are set aside" for reason in told]


def _unfit_names(cut: Split, top: Rows) -> set[int]:
    """Refuse the records that need tables of names that the database cannot have; return those parts."""
    unfit = set[int]()
    for number, part in enumerate(cut.parts):
        if part.above is None or part.above in unfit or (problem := top.unfit(part.name)) is None:
            continue
        unfit.add(number)
        cut.refuse(part.above, dict.fromkeys(pc.unique(part.parents).to_pylist(), _no_table(part, problem)))
    return unfit


def _left_out(cut: Split, above: int, known: Sequence[Sequence[str] | None], told: Columns) -> set[int]:
    """Return the parts below one, whose table is there, for which no table is to be made."""
    from collectors.storage.nesting import filled

    rows, dropped = cut.parts[above].table, set[int]()
    for number, part in enumerate(cut.parts):
        if part.above != above or known[number] is not None or part.lists is None:
            continue
        lists = pc.if_else(filled(part.lists), part.lists, pa.scalar(None, part.lists.type))
        whole = {name: rows.column(name) for name in rows.column_names} | {part.column: lists}
        try:
            settled = told.settle(pa.table(whole), {part.column: Difference(None, f"table {part.name}")})
        except DataError as error:
            cut.refuse(above, error.rows)
            dropped.add(number)
        else:
            if part.column not in settled.column_names:
                dropped.add(number)
    return dropped


def _check_owner(
    cut: Split, number: int, tables: Sequence[Rows], known: Sequence[Sequence[str] | None]
) -> None:
    """Raise FatalError where a child table is not ours, or that of another list."""
    from collectors.storage.nesting import SEPARATOR

    part = cut.parts[number]
    if part.above is None:
        return
    above, mine = cut.parts[part.above].name, known[number]
    if mine is not None and PARENT not in mine:
        raise _unfit(_foreign(part))
    if mine is not None and known[part.above] is None:
        raise _unfit(f"table '{part.name}' is there already, but not '{above}', which has its parent rows")
    if mine is not None and (SEPARATOR in part.column or cut.parts[part.above].above is not None):
        other = tables[number].made_for(PARENT)
        if other not in (None, _parent_kind(above)):
            raise _unfit(
                f"table '{part.name}' is there already, with a {other}, and would have a {_parent_kind(above)}"
            )


def _parent_kind(above: str) -> str:
    return f"row of '{above}'"


def _no_table(part: Part, problem: str) -> str:
    from collectors.storage.nesting import RENAME

    return f"the field '{part.path}' would be the table {part.name!r}: {problem}; {RENAME}"


def _foreign(part: Part) -> str:
    return f"table '{part.name}' is there already, and not for the elements of a list"


def _check_first(cut: Split, number: int, location: str) -> None:
    if number:
        raise _unfit(
            f"table '{cut.parts[number].name}' has rows of {location} already, and its parent table has none"
        )


def _links(cut: Split, part: Part, tables: Sequence[Rows]) -> Links | None:
    if part.above is None:
        return None
    first = tables[part.above].first or 0  # 0 after a parent row was refused: nothing of this will stay
    kind = _parent_kind(cut.parts[part.above].name)
    return Links(pc.add(part.parents, first), part.places, {PARENT: kind})


def _unfit(message: str) -> FatalError:
    return FatalError(
        f"{message}; choose another table, or rename the field in a processor", error_type=ErrorType.STORAGE
    )
