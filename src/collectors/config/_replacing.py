"""`write: replace` is possible: each such table has one source, whose readings are of everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collectors.config._components import Builder
from collectors.config._document import Document
from collectors.config._problems import Keys
from collectors.config.model import Component, Route
from collectors.storage.base import BackendConfig

__all__ = ["report_replacing"]


def report_replacing(
    document: Document,
    builder: Builder,
    routes: Sequence[Route],
    sources: Mapping[str, Component],
    backends: Mapping[str, Component],
    places: Mapping[str, Keys],
) -> None:
    """Report tables that would never be replaced, or by several flows in turn."""
    taken: dict[tuple[Any, str], str] = {}
    ways = [(route, name, source) for route in routes for name in route.backends for source in route.sources]
    for route, name, source in ways:
        if name not in backends or source not in sources:
            continue
        backend, path = backends[name], places[name]
        if not (isinstance(backend.settings, BackendConfig) and backend.settings.replaces_readings()):
            continue
        if not builder.reads_everything(sources[source], path):
            document.report(
                (*path, "write"),
                f"the source '{source}' does not read everything again and again, so nothing would be replaced",
                hint="sql without `cursor` and `key` does, and http without `incremental`; not within a `group`. For "
                "others use `append` or `upsert`",
            )
            continue
        own = f"the source '{source}'" + (f" in the pipeline '{route.name}'" if route.label else "")
        first = taken.setdefault((backend.cls, builder.place(backend, source, path) or name), own)
        if first != own:
            document.report(
                (*path, "write"),
                f"{first} and {own} would replace each other's rows in one table",
                hint='give each a table of its own, for example with `table: "{source}"`',
            )
