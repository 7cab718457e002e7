"""Rows as Python's objects, made from columns at the speed of compiled code.

A struct of msgspec that has the columns as its members is made once for each set of names; a row is then one call of it,
several times as fast as a dict that is put together from pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec

__all__ = ["batches", "encodable", "to_dicts"]

_BATCH_ROWS = 4096
"""So many rows at a time are fast to make and to drop: they stay in the processor's cache."""


def batches(count: int) -> Iterator[tuple[int, int]]:
    """Yield where to begin, and how many rows to make at a time."""
    for start in range(0, count, _BATCH_ROWS):
        yield start, min(_BATCH_ROWS, count - start)


def to_dicts(names: Sequence[str], columns: Sequence[Sequence[Any]], count: int) -> list[dict[str, Any]]:
    """Return so many rows of columns of this length as dicts; of columns that have the same name the last one counts."""
    if not names:
        return [{} for _ in range(count)]
    row = _row(tuple(names), as_attributes=True)
    if row is None:
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return list(map(msgspec.structs.asdict, map(row, *columns)))


def encodable(names: Sequence[str], columns: Sequence[Sequence[Any]], count: int) -> list[Any]:
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
