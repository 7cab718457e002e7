"""Sources with a `group` become one source of that name, before anybody else sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collectors.collection.base import Answers, Remembers, Source
from collectors.collection.group import GroupConfig, SourceGroup
from collectors.config._document import Document
from collectors.config._problems import Keys
from collectors.config.model import Component

__all__ = ["fold"]


def fold(
    document: Document, sources: Mapping[str, Component], places: Mapping[str, Keys]
) -> tuple[dict[str, Component], dict[str, Keys]]:
    """Return the sources and their places with each group in the place of its first member; members that cannot be in one
    are reported.
    """
    folded: dict[str, Component] = {}
    members: dict[str, list[Component]] = {}
    found = {name: place for name, place in places.items() if name not in sources}
    for name, component in sources.items():
        group = getattr(component.settings, "group", None)
        if group is None:
            folded[name], found[name] = component, places[name]
            continue
        if group not in members:
            folded[group] = component
            found.setdefault(group, places[name])
        members.setdefault(group, []).append(component)
    for group, components in members.items():
        first = places[components[0].id]
        if group in sources and sources[group] not in components:
            document.report((*first, "group"), f"there is a source of this name already: '{group}'")
        _check(document, components, [(*places[each.id], "group") for each in components])
        settings = GroupConfig(
            id=group,
            members=tuple(components),
            stop_above=components[0].settings.stop_above,  # type: ignore[attr-defined]
        )
        folded[group] = Component("source", "group", SourceGroup, settings, components[0].where)
    return folded, found


def _check(document: Document, components: Sequence[Component], places: Sequence[Keys]) -> None:
    """Report members that cannot share a spool with others, or not with the first one."""
    first: Source[Any] = components[0].make()
    for component, place in zip(components, places, strict=True):
        source: Source[Any] = component.make()
        if isinstance(source, (Answers, Remembers)) or not source.needs_spool():
            document.report(
                place,
                f"'{component.id}' cannot be in a group: it answers its senders, or has a position of its own",
                hint="leave `group` out",
            )
        elif source.poll_interval() is None and source.config.cron is None:
            document.report(
                place,
                f"'{component.id}' is not polled, and a group is for sources that are",
                hint="set `every`, or leave `group` out",
            )
        elif source.format() != first.format() or source.config.stop_above != first.config.stop_above:
            document.report(
                place,
                f"'{component.id}' has another `format` or `stop_above` than '{components[0].id}', the first of its group",
                hint="give them the same, or another group",
            )
