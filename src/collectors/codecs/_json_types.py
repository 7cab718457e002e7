"""Finds the types of columns from decoded records: deterministic, and bounded in the number of columns.

A record is described by its kind: the Python type of a scalar, `(dict, keys, kinds)` or `(list, kinds)`. A chunk has
few different kinds, so types are decided, and records judged, once a kind and not once a record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pyarrow as pa

__all__ = ["Kind", "Room", "family_of_kind", "family_of_type", "kind_of", "resolve"]

Kind = Any
"""Hashable; its forms are in the module's docstring."""

_FAMILIES: dict[Hashable, str] = {bool: "bool", int: "number", float: "number", str: "string"}
_EMPTY = (dict, (), ())


class Room:
    """How many columns a chunk may have, members of objects counted: records whose keys are data would make one each.

    Kinds are let in, in order of appearance, while what they bring fits; columns so far always do.
    """

    def __init__(self, known: pa.Schema, records: int) -> None:
        self.limit = min(4096, max(100, 2**24 // max(1, records)))
        self._paths = set(_paths_of_type(pa.struct(list(known)), ()))

    def admit(self, kind: Kind) -> str | None:
        """Return None when the columns of the kind fit, else the first that would be one too many."""
        new = dict.fromkeys(path for path in _paths_of_kind(kind, ()) if path not in self._paths)
        if new and len(self._paths) + len(new) > self.limit:
            free = max(0, self.limit - len(self._paths))
            return ".".join(list(new)[free])
        self._paths.update(new)
        return None


def _paths_of_kind(kind: Kind, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(kind, tuple) and kind[0] is dict:
        for key, member in zip(kind[1], kind[2], strict=True):
            yield (*path, key)
            yield from _paths_of_kind(member, (*path, key))
    elif isinstance(kind, tuple):
        for item in kind[1]:
            yield from _paths_of_kind(item, path)


def _paths_of_type(data_type: pa.DataType, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if pa.types.is_struct(data_type):
        for item in data_type:
            yield (*path, item.name)
            yield from _paths_of_type(item.type, (*path, item.name))
    elif pa.types.is_list(data_type):
        yield from _paths_of_type(data_type.value_type, path)


def kind_of(value: Any) -> Kind:
    """Return the kind of a decoded value."""
    if isinstance(value, dict):
        kinds = tuple(map(type, value.values()))
        if dict in kinds or list in kinds:
            kinds = tuple(map(kind_of, value.values()))
        return (dict, tuple(value), kinds)
    if isinstance(value, list):
        return (list, tuple(dict.fromkeys(map(kind_of, value))))
    return type(value)


def resolve(observed: Mapping[Kind, int], known: pa.DataType) -> pa.DataType:
    """Return the type for values of these kinds: the known one, widened if need be, else that of most records.

    `observed` counts records, in the order in which the kinds appeared; ties go to the first. Null widens to anything,
    int to float, an object by its members; members and columns that are new come last, in order of appearance. An
    empty object is like null until a member is seen: there is no column to keep it in.
    """
    families: Counter[str] = Counter()
    for kind, count in observed.items():
        family = family_of_kind(kind)
        if family:
            families[family] += count
    if not families:
        return known
    family = family_of_type(known) or max(families, key=lambda name: families[name])
    if family == "object":
        return _resolve_object(observed, known)
    if family == "array":
        items: dict[Kind, int] = {}
        for kind, count in observed.items():
            if family_of_kind(kind) == "array":
                for item in kind[1]:
                    items[item] = items.get(item, 0) + count
        return pa.list_(resolve(items, known.value_type if pa.types.is_list(known) else pa.null()))
    if family == "number" and (pa.types.is_null(known) or pa.types.is_integer(known)):
        return pa.float64() if float in observed else pa.int64() if pa.types.is_null(known) else known
    if not pa.types.is_null(known):
        return known
    return pa.bool_() if family == "bool" else pa.string()


def _resolve_object(observed: Mapping[Kind, int], known: pa.DataType) -> pa.DataType:
    members: dict[str, dict[Kind, int]] = {}
    for kind, count in observed.items():
        if family_of_kind(kind) == "object":
            for key, member in zip(kind[1], kind[2], strict=True):
                kinds = members.setdefault(key, {})
                kinds[member] = kinds.get(member, 0) + count
    fields = [
        pa.field(field.name, resolve(members.pop(field.name, {}), field.type))
        for field in (known if pa.types.is_struct(known) else ())
    ]
    fields += [pa.field(key, resolve(kinds, pa.null())) for key, kinds in members.items()]
    return pa.struct(fields) if fields else pa.null()


def family_of_kind(kind: Kind) -> str | None:
    """Return bool, number, string, object or array; None for null and for the empty object."""
    if isinstance(kind, tuple):
        if kind == _EMPTY:
            return None
        return "object" if kind[0] is dict else "array"
    return _FAMILIES.get(kind)


def family_of_type(data_type: pa.DataType) -> str | None:
    """Return which values a column of the type takes from JSON; None for the type null."""
    if pa.types.is_null(data_type):
        return None
    if pa.types.is_struct(data_type):
        return "object"
    if pa.types.is_list(data_type):
        return "array"
    if pa.types.is_boolean(data_type):
        return "bool"
    number = (
        pa.types.is_integer(data_type) or pa.types.is_floating(data_type) or pa.types.is_decimal(data_type)
    )
    return "number" if number else "string"
