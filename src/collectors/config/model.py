"""What a pipeline file says: its keys as pydantic reads them, and the loaded pipeline that the runtime runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Struct
from pydantic import Field

from collectors.registry import Kind
from collectors.settings import ByteSize, LocalPath, Name, OneOrMore, Settings, Share

__all__ = ["MAIN_ROUTE", "Component", "PipelineConfig", "PipelineFile", "Route", "RouteSettings"]

MAIN_ROUTE = "main"
"""The name of the only route of a pipeline without `pipelines`."""


Names = OneOrMore[Name]


class RouteSettings(Settings):
    """One way through a pipeline: from which sources, through what, to where."""

    from_: Annotated[Names | None, Field(alias="from")] = None
    """Ids of the sources; all when left out."""
    processors: list[Any] | None = None
    """The steps of this route, in order; the top-level `processors` when left out, none for `[]`."""
    to: Names | None = None
    """Ids of the storage; all when left out."""


class PipelineFile(Settings):
    """A pipeline: what to collect, what to do with it, and where to store it."""

    name: Name | None = None
    """Identity of the pipeline: positions, runs and dead letters hang on it. The file's name when left out."""
    memory: ByteSize = 256 * 2**20
    """Upper bound for what is in flight, for all sources together; sources wait when it is spent."""
    latency: Literal["normal", "low"] = "normal"
    """Small pieces that come again and again, over a socket or from a broker, are taken 10 ms apart, which saves most of what
    each would cost by itself; with `low` 4 ms apart, for twice the CPU time. One that comes alone is taken at once."""
    spool: ByteSize = 10 * 2**30
    """Upper bound for what waits on disk, for each source that cannot be read again; its intake waits when it is reached."""
    stop_above: Share | None = None
    """Stop a source, with exit code 3, when a larger share of its records than this is set aside in a run, for example
    `1%`; 0 stops at the first one. Looked at after each commit, from 100 records on, and when the source has ended."""
    state: LocalPath | None = None
    """Folder for what is not in a backend: leases, runs, spool; `.collectors/<name>` beside the file when left out."""
    sources: Annotated[list[Any], Field(min_length=1)]
    """Where data come from."""
    processors: list[Any] = []
    """What happens to the data, in order."""
    storage: Annotated[list[Any], Field(min_length=1)]
    """Where data go."""
    pipelines: dict[Name, RouteSettings] | None = None
    """Routes, by name, where not every source goes through all processors to every storage.

    A storage knows a route by its name. A run refuses to start where a storage has rows by a route that does not lead
    there any more and nothing by one that does: it was renamed, and would be stored once more. In a pipeline that has
    run without routes, the one that goes on with what is stored is called `main`.
    """


class Component(Struct, frozen=True):
    """One configured component.

    `cls` is its class; `settings` are its validated settings, always with the `id` that is unique in its pipeline. `where` is the place
    for messages: `pipeline.yaml:7`, or `sources[0]`. `instance` is there when Python code gave a finished one.
    """

    kind: Kind
    type: str
    cls: Any
    settings: Settings
    where: str
    instance: Any = None

    def __repr__(self) -> str:
        """Return what may be printed: settings have secrets."""
        return f"Component(kind={self.kind!r}, type={self.type!r}, cls={self.cls!r}, where={self.where!r})"

    @property
    def id(self) -> str:
        """The name in positions, the ledger and messages."""
        return str(getattr(self.settings, "id", None) or self.type)

    def make(self) -> Any:
        """Return a new object with these settings; opens nothing. A finished instance is returned as it is."""
        return self.instance if self.instance is not None else self.cls(self.settings)


class Route(Struct, frozen=True):
    """A way from sources through processors to backends; sources and backends by id."""

    sources: tuple[str, ...]
    processors: tuple[Component, ...]
    backends: tuple[str, ...]
    name: str

    @property
    def label(self) -> str:
        """What tells the route from others in names: nothing for the main one."""
        return "" if self.name == MAIN_ROUTE else self.name

    def flow(self, pipeline: str, source: str) -> str:
        """Return the name under which storages know how far they have a source by this route.

        It depends on the three names alone, so that a route added beside this one starts nothing anew.
        """
        return "/".join(filter(None, (pipeline, source, self.label)))


class PipelineConfig(Struct, frozen=True):
    """A loaded pipeline: every setting is valid, every name in it leads somewhere.

    `memory` and `spool` are in bytes, `stop_above` is a fraction. `version` is a short hash of what the file says,
    without secrets: the same for the same content, whatever its comments and layout. `stamp` is `file_stamp` of the
    file as it was loaded.
    """

    name: str
    memory: int
    latency: str
    spool: int
    stop_above: float | None
    state: Path
    folder: Path
    file: Path | None
    sources: Mapping[str, Component]
    backends: Mapping[str, Component]
    routes: tuple[Route, ...]
    version: str
    stamp: tuple[int, ...] | None = None
