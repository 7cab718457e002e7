"""Under which names storages know a source: by a route of another name they would get everything once more.

A storage that has rows of a source under names that no route leads to any more has lost the route that goes on with them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from collectors.config.model import MAIN_ROUTE, PipelineConfig
from collectors.errors import ConfigurationError
from collectors.runtime.state import State
from collectors.storage.base import Backend, KeepsPosition, ListsFlows

__all__ = ["check_names", "held_flows", "name_at"]


async def check_names(
    config: PipelineConfig, source: str, backends: Mapping[str, Backend[Any]], state: State | None
) -> None:
    """Raise ConfigurationError where a run of this source would, for the names of its routes; claims nothing."""
    known = f"{config.name}/{source}"
    routes = [route for route in config.routes if source in route.sources]
    for name in dict.fromkeys(each for route in routes for each in route.backends):
        current = [route.flow(config.name, source) for route in routes if name in route.backends]
        held = await held_flows(backends[name], known, state)
        for flow in current:
            name_at(name, known, flow, current, held)


async def held_flows(backend: Backend[Any], source: str, state: State | None) -> list[str]:
    """Return under which names a storage has rows of a source, `pipeline/source`, but not what was replayed.

    `state` is the state file, for storages that keep no positions; None: there is none.
    """
    if isinstance(backend, ListsFlows):
        await backend.connect()
        found: list[str] = await backend.call(backend.flows, source)
    elif isinstance(backend, KeepsPosition):  # one that cannot list them is asked for those that there may be
        await backend.connect()
        names = [source, _old_main(source)]
        found = [name for name in names if (await backend.call(backend.stored, name)).seq]
    else:
        found = [] if state is None else await state.flows(source, backend.get_backend_id())
    return [flow for flow in found if "#" not in flow]


def name_at(backend: str, source: str, flow: str, current: Collection[str], held: Sequence[str]) -> str:
    """Return by which name a flow goes on at a storage that has those of `held` of the source.

    `current` are the flows of all routes that lead there. Raises ConfigurationError when the storage has rows by a route
    that is not among them, and nothing by this one: it would get them again, or miss some.
    """
    old = _old_main(source)
    if flow in held:
        return flow
    if flow == source and old in held:
        return old
    left = [name for name in held if name not in current and (name != old or source not in current)]
    if not left:
        return flow
    before = " or ".join(f"'{_route(source, name)}'" for name in left)
    raise ConfigurationError(
        f"storage '{backend}' has rows of source '{source.partition('/')[2]}' by the route {before}, and none by the "
        f"route '{_route(source, flow)}', by which it would get them again or miss some; under `pipelines`, call the "
        f"route that goes on there {before}; or, to begin anew, choose another table or folder, or give the source "
        "another id"
    )


def _old_main(source: str) -> str:
    """Return the name that the main route once had when there were others beside it."""
    return f"{source}/{MAIN_ROUTE}"


def _route(source: str, flow: str) -> str:
    return flow.removeprefix(source).removeprefix("/") or MAIN_ROUTE
