"""Judges decoded records against the columns: which do not fit, and the reason in words."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
from msgspec import Struct, field

from collectors.codecs._json_read import EXACT
from collectors.codecs._json_types import Kind, family_of_kind, family_of_type, kind_of
from collectors.codecs._wording import quoted, unexpected

__all__ = ["Expected", "column_of", "expect", "large_numbers"]

_INT64 = 2**63


class Expected(Struct, frozen=True):
    """What a column, a member or an item has to be; built once a chunk, since Arrow's types are slow to ask."""

    data_type: pa.DataType
    family: str | None
    members: dict[str, Expected] = field(default_factory=dict)
    item: Expected | None = None

    def takes(self, kind: Kind) -> bool:
        """Return whether values of this kind fit, but for how large numbers are and what text says."""
        if kind is type(None) or self.family == "any":
            return True
        family = family_of_kind(kind)
        if family is None:
            return self.family in {None, "object"}
        if family == "object":
            return self.family == "object" and all(
                key in self.members and self.members[key].takes(member)
                for key, member in zip(kind[1], kind[2], strict=True)
            )
        if family == "array":
            return self.item is not None and all(map(self.item.takes, kind[1]))
        if pa.types.is_decimal(self.data_type):
            return family in {"number", "string"}
        return family == self.family and not (kind is float and pa.types.is_integer(self.data_type))

    def conflict(self, value: Any, path: str = "") -> str | None:
        """Return why the value does not fit, None when it does; this looks at large numbers too."""
        if self.family == "any":
            return None
        if isinstance(value, dict) and self.family == "object":
            return next(filter(None, self._members_conflicts(value, path)), None)
        if isinstance(value, list) and self.item is not None:
            return next(filter(None, (self.item.conflict(item, f"{path}[]") for item in value)), None)
        if not self.takes(kind_of(value)):
            return unexpected(path, self.data_type, quoted(value))
        return self._loses_digits(value, path) if type(value) is int else None

    def _members_conflicts(self, value: dict[str, Any], path: str) -> Iterator[str | None]:
        for key, member in value.items():
            inner = f"{path}.{key}" if path else key
            if key in self.members:
                yield self.members[key].conflict(member, inner)
            else:
                yield f"column '{inner}' is not known"

    def _loses_digits(self, value: int, path: str) -> str | None:
        advice = f"; to keep it declare `columns: {{{column_of(path)}: string}}` or `decimal(38, 0)`"
        if pa.types.is_integer(self.data_type) and not -_INT64 <= value < _INT64:
            return f"column '{path}': {quoted(value)} does not fit in 64 bits{advice}"
        if pa.types.is_floating(self.data_type) and not _is_exact(value):
            return f"column '{path}': a float cannot hold {quoted(value)} exactly{advice}"
        return None


def expect(schema: pa.Schema, as_text: Collection[str]) -> Expected:
    """Return what a record has to be; `as_text` names the columns that take any value as its source text."""
    members = {
        item.name: Expected(item.type, "any") if item.name in as_text else _expect(item.type)
        for item in schema
    }
    return Expected(pa.struct([]), "object", members)


def _expect(data_type: pa.DataType) -> Expected:
    members = {}
    if pa.types.is_struct(data_type):
        members = {item.name: _expect(item.type) for item in data_type}
    item = _expect(data_type.value_type) if pa.types.is_list(data_type) else None
    return Expected(data_type, family_of_type(data_type), members, item)


def large_numbers(values: list[dict[str, Any]]) -> list[int]:
    """Return which records have an integer, at any depth, that not every type of number holds."""
    return [number for number, value in enumerate(values) if any(map(_is_large, value.values()))]


def _is_large(value: Any) -> bool:
    if type(value) is int:
        return not -EXACT <= value <= EXACT
    if type(value) is dict:
        return any(map(_is_large, value.values()))
    return type(value) is list and any(map(_is_large, value))


def _is_exact(value: int) -> bool:
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def column_of(path: str) -> str:
    """Return the column to which a path into nested values belongs."""
    return path.partition(".")[0].removesuffix("[]")
