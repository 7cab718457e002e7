"""The columns of a folder of files as its log knows them: what `schema:` holds rows against.

Files keep the types of their rows. What is new in rows is written down in the entry of the log that commits them, with
all columns that the folder has then, so that a crash leaves both or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa

from collectors.chunks import Drift
from collectors.storage.drift import Columns, Difference, Mode
from collectors.storage.records import plain

__all__ = ["LakeSchema", "merged"]


class LakeSchema:
    """Shared by the flows that one backend writes; `load` gives what the newest entry of each flow has, oldest first.

    What another process adds meanwhile is seen with the next start.
    """

    def __init__(self, name: str, mode: Callable[[str], Mode], load: Callable[[], Iterable[bytes]]) -> None:
        self._name = name
        self._mode = mode
        self._load = load
        self._known: dict[str, pa.DataType] | None = None
        self._written_down: set[tuple[str, str]] = set()
        self._fitting: pa.Schema | None = None

    @property
    def content(self) -> bytes:
        """All columns, as an entry keeps them; empty when nobody had to know them."""
        return b"" if self._known is None else bytes(pa.schema(list(self._known.items())).serialize())

    def settle(self, rows: pa.Table, location: str, found: list[Drift]) -> pa.Table:
        """Return the rows as the folder can have them, and tell in `found` what differs; for a commit of this location.

        Raises FatalError for a frozen column, DataError with `rows` for those to be set aside.
        """
        if not rows.num_rows or (self._fitting is not None and rows.schema.equals(self._fitting)):
            return rows
        if len(set(rows.column_names)) < rows.num_columns:
            return rows  # it is for the files to say that they cannot have it
        if self._known is None:
            self._known = merged(self._load())
        told = Columns(self._name, self._mode, location, found)
        brought = _types(rows)
        if not self._known:
            told.note_made({name: str(kind) for name, kind in brought.items()})
            self._known = brought
        differences = {
            name: difference
            for name, kind in brought.items()
            if (difference := _difference(self._known.get(name), kind))
        }
        settled = told.settle(rows, differences)
        for name, difference in differences.items():
            if self._mode(name) == "evolve":
                if difference.existing is not None and difference.wider is None:
                    told.note_changed(name, difference, settled)
                self._known[name] = _together(self._known.get(name), brought[name]) or brought[name]
        if not differences or all(self._mode(name) == "evolve" for name in differences):
            self._fitting = rows.schema
        return settled

    def to_write_down(self, found: list[Drift]) -> list[Drift]:
        """Return what of this belongs into the log: that values are left out once for each kind of them."""
        kept = []
        for drift in found:
            kind = drift.column, drift.brought
            if drift.action != "left out" or kind not in self._written_down:
                kept.append(drift)
            if drift.action == "left out":
                self._written_down.add(kind)
        return kept


def merged(contents: Iterable[bytes]) -> dict[str, pa.DataType]:
    """Return the columns of several entries, each with the type that takes all, or the last one."""
    known: dict[str, pa.DataType] = {}
    for content in contents:
        for field in pa.ipc.read_schema(pa.py_buffer(content)):
            known[field.name] = _together(known.get(field.name), field.type) or field.type
    return known


def _types(rows: pa.Table) -> dict[str, pa.DataType]:
    """Return the columns that have a type, as files have it."""
    kinds = {field.name: plain(pa.chunked_array([], field.type)).type for field in rows.schema}
    return {name: kind for name, kind in kinds.items() if not pa.types.is_null(kind)}


def _difference(existing: pa.DataType | None, brought: pa.DataType) -> Difference | None:
    """Return in what rows differ; None where the type that there is takes them."""
    if existing is None:
        return Difference(None, str(brought))
    together = _together(existing, brought)
    if together is not None and together.equals(existing):
        return None
    return Difference(str(existing), str(brought), None if together is None else str(together), existing)


def _together(one: pa.DataType | None, other: pa.DataType) -> pa.DataType | None:
    """Return the type that takes the values of both; None where there is none."""
    if one is None or one.equals(other):
        return other
    schemas = [pa.schema([("x", kind)]) for kind in (one, other)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None
