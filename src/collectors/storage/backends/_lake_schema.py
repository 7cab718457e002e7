"""The columns of a folder of files as its log knows them: what `schema:` holds rows against.

Files keep the types of their rows. What is new in rows is written down in the entry of the log that commits them, so that
a crash leaves both or neither; until then only the flow that has taken the rows builds on it, and forgets it with them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

import pyarrow as pa
from msgspec import Struct, field

from collectors.chunks import Drift
from collectors.storage.backends._parquet_file import writable
from collectors.storage.backends._parquet_partition import split
from collectors.storage.drift import ONCE, Columns, Difference, DriftConfig, unwritten
from collectors.storage.records import plain

__all__ = ["FlowSchema", "LakeSchema", "Settled"]

Types = dict[str, pa.DataType]


class Settled(Struct, frozen=True):
    """Rows as the folder can have them, and what they bring that it did not have."""

    rows: pa.Table
    columns: Types = field(default_factory=dict)
    drifts: list[Drift] = field(default_factory=list)
    fitting: pa.Schema | None = None


class LakeSchema:
    """What is committed, shared by the flows that one backend writes.

    `load` gives what the newest entry of each flow has, oldest first; it is called once, so that what another process adds
    meanwhile is seen with the next start. What it raises is raised by whoever asks first.
    """

    def __init__(self, name: str, config: DriftConfig, load: Callable[[], Iterable[bytes]]) -> None:
        self.name = name
        self.mode = config.mode
        self._config = config
        self._load = load
        self._lock = threading.Lock()  # flows may be published by several threads
        self._known: Types | None = None
        self._once: set[tuple[str, str]] = set()
        self._waiting: list[FlowSchema] = []

    def known(self) -> Types:
        """Return the columns that are committed."""
        if self._known is None:
            self._known = _merged(map(_read, self._load()))
        return self._known

    @property
    def is_known(self) -> bool:
        """Whether anybody had to know them."""
        return self._known is not None

    def shared(self) -> Types:
        """Return the columns that are committed, or brought by rows that wait in any of the flows."""
        return _merged([self.known(), *(flow.columns for flow in self._waiting)])

    def wait(self, flow: FlowSchema) -> None:
        """Let the others know what a flow has taken."""
        if flow not in self._waiting:
            self._waiting.append(flow)

    def leave(self, flow: FlowSchema, *, committed: bool) -> None:
        """Forget what a flow has taken, or know it for good."""
        with self._lock:
            if flow in self._waiting:
                self._waiting.remove(flow)
            if committed and flow.columns:
                self._known = _merged([self.known(), flow.columns])
            if committed:
                self._once |= {(drift.column, drift.brought) for drift in flow.drifts if drift.action in ONCE}

    def unwritten(self, drifts: Sequence[Drift]) -> list[Drift]:
        """Return what is not in the log yet, whoever has written it."""
        known = self._known or {}
        return [
            drift
            for drift in unwritten(drifts, self._once)
            if drift.action in ONCE or str(known.get(drift.column)) != drift.brought
        ]

    def preview(self, rows: pa.Table, partition_by: list[str]) -> list[str]:
        """Return a line for each column of the rows. Raises FatalError for rows that files cannot have."""
        for part in split(rows, partition_by)[:1] if rows.num_rows else []:
            writable(part.table)
        return [self._line(name, kind) for name, kind in _types(rows).items()]

    def _line(self, name: str, brought: pa.DataType) -> str:
        known = self.known().get(name)
        if known is None:
            return self._config.preview_new(name, str(brought)) if self.known() else f"+ {name} {brought}"
        if _difference(known, brought) is None:
            return f"= {name} {known}"
        if self.mode(name) != "evolve":
            return self._config.preview_other(name, str(known), str(brought), None)
        return f"~ {name}: files have {known}, rows bring {brought}; readers of all files must convert one of the two"


class FlowSchema:
    """One flow's view of the folder: what is committed, with `columns` and `drifts` of its rows that wait."""

    def __init__(self, lake: LakeSchema) -> None:
        self.columns: Types = {}
        self.drifts: list[Drift] = []
        self._lake = lake
        self._fitting: pa.Schema | None = None
        self._written: tuple[int, Types] = (0, {})

    def settle(self, rows: pa.Table, location: str, found: list[Drift]) -> Settled:
        """Return the rows as the folder can have them, and tell in `found` what differs; nothing is known by it yet.

        Raises FatalError for a frozen column, DataError with `rows` for those to be set aside.
        """
        if not rows.num_rows or (self._fitting is not None and rows.schema.equals(self._fitting)):
            return Settled(rows)
        if len(set(rows.column_names)) < rows.num_columns:
            return Settled(rows)  # it is for the files to say that they cannot have it
        brought, own, shared = _types(rows), self._own(), self._lake.shared()
        evolving = {name for name in brought if not shared or self._lake.mode(name) == "evolve"}
        told = Columns(self._lake.name, self._lake.mode, location, first := list[Drift]())
        differences = {
            name: difference
            for name, kind in brought.items()
            if (own or name not in evolving)
            and (difference := _difference((own if name in evolving else shared).get(name), kind))
        }
        try:
            settled = told.settle(rows, differences)
            for name in evolving & set(differences):
                if differences[name].existing is not None and differences[name].wider is None:
                    told.note_changed(name, differences[name], settled)
            columns = {
                name: (_together(own.get(name), kind) or kind) if name in evolving else shared[name]
                for name, kind in brought.items()
                if name in evolving or name in shared
            }
            if not own:
                told.note_made({name: str(kind) for name, kind in columns.items()})
        finally:
            found += first
        news = {name: kind for name, kind in columns.items() if kind != own.get(name)}
        fits = evolving.issuperset(differences)
        return Settled(settled, news, first, rows.schema if fits else None)

    def take(self, settled: Settled) -> None:
        """Build on what these rows bring: they wait now, for `committed` or `drop`."""
        self.columns |= settled.columns
        self.drifts = self._lake.unwritten([*self.drifts, *settled.drifts])
        self._fitting = settled.fitting or self._fitting
        if settled.columns:
            self._lake.wait(self)

    def drop(self) -> None:
        """Forget what the rows that waited have brought: they are not stored."""
        self._end(committed=False)
        self._fitting = None

    def committed(self) -> None:
        """Know for good what the rows that waited have brought."""
        self._end(committed=True)

    def content(self, number: int, read: Callable[[], bytes]) -> bytes | int:
        """Return what the entry that commits the rows says of all columns: them, or the number of the entry with them.

        `number` is that of the one that has had them so far, 0 for none, and `read` what it has.
        """
        if not self._lake.is_known:
            return number
        columns = self._own()
        if number and number != self._written[0]:
            self._written = number, _read(read())
        if number and columns == self._written[1]:
            return number
        return bytes(pa.schema(list(columns.items())).serialize()) if columns else b""

    def to_write_down(self) -> list[Drift]:
        """Return what the entry that commits the rows says of differences: that values are left out once for each kind."""
        return self._lake.unwritten(self.drifts)

    def _own(self) -> Types:
        return _merged([self._lake.known(), self.columns])

    def _end(self, *, committed: bool) -> None:
        self._lake.leave(self, committed=committed)
        self.columns, self.drifts = {}, []


def _read(content: bytes) -> Types:
    schema = pa.ipc.read_schema(pa.py_buffer(content))
    return dict(zip(schema.names, schema.types, strict=True))


def _merged(several: Iterable[Mapping[str, pa.DataType]]) -> Types:
    """Return all columns, each with the type that takes those of all, or the last one."""
    known: Types = {}
    for columns in several:
        for name, kind in columns.items():
            known[name] = _together(known.get(name), kind) or kind
    return known


def _types(rows: pa.Table) -> Types:
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
