"""The parts of a pipeline and how they hang together: ids that are unique, routes that lead somewhere.

Works on the data as written, not on validated settings, so that a mistake at the top hides none further down.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from collectors.collection.group import GroupConfig
from collectors.config._components import Builder
from collectors.config._document import Document
from collectors.config._groups import fold
from collectors.config._problems import Keys, nearest, render_path, render_value
from collectors.config._replacing import report_replacing
from collectors.config.model import MAIN_ROUTE, Component, Route
from collectors.registry import Kind

__all__ = ["Parts", "build_parts", "is_name"]


class Parts(Struct):
    """What is left of a pipeline once all its components were built."""

    sources: dict[str, Component]
    backends: dict[str, Component]
    routes: tuple[Route, ...]

    def components(self) -> Iterator[Component]:
        """Yield every component, sources first."""
        for source in self.sources.values():
            yield from source.settings.members if isinstance(source.settings, GroupConfig) else (source,)
        yield from self.backends.values()
        for route in self.routes:
            yield from route.processors


def is_name(text: str) -> bool:
    """Return whether the text can be a `settings.Name`."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", text) is not None


def build_parts(document: Document, data: Any) -> Parts:
    """Build all components and routes; what is wrong with them is reported to the document."""
    builder = Builder(document)
    sources, source_ids = fold(document, *_named(document, builder, "source", data, "sources"))
    backends, backend_ids = _named(document, builder, "backend", data, "storage")
    common = _numbered(document, builder, data.get("processors"), ("processors",))
    pipelines = data.get("pipelines")
    if not isinstance(pipelines, Mapping) or not pipelines:
        route = Route(tuple(sources), common, tuple(backends), MAIN_ROUTE)
        _report_same_place(document, builder, route, backends, backend_ids)
        report_replacing(document, builder, (route,), sources, backends, backend_ids)
        return Parts(sources, backends, (route,))
    routes = []
    for name, found in pipelines.items():
        path: Keys = ("pipelines", name)
        settings = found if isinstance(found, Mapping) else {}
        own = settings.get("processors")
        routes.append(
            Route(
                _chosen(document, settings.get("from"), source_ids, (*path, "from")),
                common if own is None else _numbered(document, builder, own, (*path, "processors")),
                _chosen(document, settings.get("to"), backend_ids, (*path, "to")),
                str(name),
            )
        )
    _report_unused(document, data, routes, source_ids, backend_ids)
    for route in routes:
        _report_same_place(document, builder, route, backends, backend_ids)
    report_replacing(document, builder, routes, sources, backends, backend_ids)
    return Parts(sources, backends, tuple(routes))


def _named(
    document: Document, builder: Builder, kind: Kind, data: Any, key: str
) -> tuple[dict[str, Component], dict[str, Keys]]:
    """Build sources or storage; return them by id, and the place of every id, also of those that failed.

    An id is an identity: one is made of the type only where that is unique, never numbered, since a number would
    change when the file is edited.
    """
    components: dict[str, Component] = {}
    places: dict[str, Keys] = {}
    for index, item in enumerate(_list(data.get(key))):
        path: Keys = (key, index)
        component = builder.build(kind, item, path)
        name = component.id if component else _written_id(item)
        if name is None:
            continue
        if name in places:
            _report_double(document, item, name, places[name], path)
            continue
        places[name] = path
        if component is not None:
            components[name] = _with_id(component, name)
    return components, places


def _numbered(document: Document, builder: Builder, items: Any, path: Keys) -> tuple[Component, ...]:
    """Build processors; a second one of a type is numbered (`filter-2`), unless it has an id."""
    steps: list[Component] = []
    names: set[str] = set()
    for index, item in enumerate(_list(items)):
        component = builder.build("processor", item, (*path, index))
        if component is None:
            continue
        name, number = component.id, 1
        if name in names and getattr(component.settings, "id", None):
            document.report(
                (*path, index, "id"), "another step has this id already", shown=render_value(name)
            )
        while name in names:
            number += 1
            name = f"{component.id}-{number}"
        names.add(name)
        steps.append(_with_id(component, name))
    return tuple(steps)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _with_id(component: Component, name: str) -> Component:
    if component.instance is not None:
        return component
    return replace(component, settings=component.settings.model_copy(update={"id": name}))


def _written_id(item: Any) -> str | None:
    """Return the id of a component that could not be built, as far as it can be told."""
    name = (item.get("id") or item.get("type")) if isinstance(item, Mapping) else None
    return name if isinstance(name, str) else None


def _report_double(document: Document, item: Any, name: str, first: Keys, path: Keys) -> None:
    if isinstance(item, Mapping) and item.get("id"):
        message = f"{render_path(first)} has this id already"
        document.report((*path, "id"), message, shown=render_value(name))
    else:
        message = f"{render_path(first)} is called '{name}' already; give each an `id` of its own"
        document.report(path, message)


def _chosen(document: Document, names: Any, places: Mapping[str, Keys], path: Keys) -> tuple[str, ...]:
    """Return the ids that a route names, all when it names none; an unknown one is reported."""
    if names is None:
        return tuple(places)
    if isinstance(names, str):
        names = [names]
    for index, name in enumerate(_list(names)):
        place = (*path, index)
        if isinstance(name, str) and name not in places:
            document.report(
                place, "there is no such id", shown=render_value(name), hint=nearest(name, places)
            )
        elif name in names[:index]:
            document.report(place, "stands here twice", shown=render_value(name))
    if names == []:
        document.report(path, "expected at least one id", hint="leave it out for all of them")
    return tuple(name for name in _list(names) if isinstance(name, str))


def _report_same_place(
    document: Document,
    builder: Builder,
    route: Route,
    backends: Mapping[str, Component],
    places: Mapping[str, Keys],
) -> None:
    """Report storages of one route that are the same place: each would take the rows and the position of the other."""
    reported: set[str] = set()
    for source in route.sources:
        taken: dict[tuple[Any, str], str] = {}
        for name in route.backends:
            backend = backends.get(name)
            place = builder.place(backend, source, places[name]) if backend else None
            if backend is None or place is None or name in reported:
                continue
            first = taken.setdefault((backend.cls, place), name)
            if first != name:
                reported.add(name)
                document.report(
                    places[name],
                    f"the storages '{first}' and '{name}' are the same place: {place}",
                    hint="leave one of the two out, or give it a place of its own",
                )


def _report_unused(
    document: Document,
    data: Any,
    routes: list[Route],
    sources: Mapping[str, Keys],
    backends: Mapping[str, Keys],
) -> None:
    """Report what no route uses: it would never run, and nobody would be told."""
    for name, path in sources.items():
        if not any(name in route.sources for route in routes):
            document.report(path, f"no pipeline reads the source '{name}'", hint="name it in a `from`")
    for name, path in backends.items():
        if not any(name in route.backends for route in routes):
            document.report(path, f"no pipeline stores to '{name}'", hint="name it in a `to`")
    pipelines = data["pipelines"].values()
    own = [isinstance(found, Mapping) and found.get("processors") is not None for found in pipelines]
    if data.get("processors") and all(own):
        message = "every pipeline has `processors` of its own, so these are never used"
        document.report(("processors",), message, at_key=True)
