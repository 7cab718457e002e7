"""Where a storage begins that is new to a flow while others have chunks of it: behind those, once and for all.

New is a storage at which nobody has claimed the flow. A claim ends that, so it is noted in the state file first; a
process that dies before the storage has got its beginning would else leave one that seems to lack chunks. A note says
how far the others were, and holds only as long as they are there: what they have got since, on another machine, the
storage may really lack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from collectors.chunks import Checkpoint
from collectors.runtime.delivery import Edge
from collectors.runtime.flow_names import held_flows, name_at
from collectors.runtime.hooks import Hooks
from collectors.storage.sqlite_store import Database

__all__ = ["begin", "claim"]

_TABLE = """
create table if not exists _collectors_beginnings (
    flow text not null, edge text not null, seq integer not null, primary key (flow, edge)
) without rowid
"""


async def claim(flow: str, edges: Sequence[Edge], hooks: Hooks) -> tuple[list[Checkpoint], list[Edge]]:
    """Claim a flow at every backend; return how far it is stored at each, and where it is to `begin`.

    Raises FencedError when another process takes it over meanwhile: two that have a part of the storages each would
    number chunks differently. Raises ConfigurationError when a storage has the source by a route of another name.
    """
    found = {edge: await edge.stored() for edge in edges}
    for edge in edges:
        if not found[edge].seq and await _has_another_name(flow, edge, edges, hooks):
            found[edge] = await edge.stored()
    if len(edges) == 1:
        return [await edges[0].claim()], []
    noted = await hooks.retrying(_noted, hooks, flow)
    empty = [
        edge for edge in edges if not found[edge].seq and (not found[edge].epoch or _name(edge) in noted)
    ]
    claimed = {edge: await edge.claim() for edge in edges if edge not in empty}
    front = max((checkpoint.seq for checkpoint in claimed.values()), default=0)
    new = [edge for edge in empty if front and (not found[edge].epoch or noted[_name(edge)] == front)]
    notes = {_name(edge): front for edge in new}
    if notes != noted:
        await hooks.retrying(_note, hooks, flow, notes)
    for edge in empty:
        claimed[edge] = await edge.claim()
    for edge in edges:
        await edge.confirm()
    untouched = [edge for edge in new if claimed[edge] == Checkpoint(found[edge].epoch + 1)]
    return [claimed[edge] for edge in edges], untouched


async def begin(flow: str, edges: Sequence[Edge], front: Checkpoint, hooks: Hooks) -> None:
    """Let storages begin behind what the others have; durable when this returns."""
    for edge in edges:
        await edge.skip_to(front)
    await hooks.retrying(_note, hooks, flow, {})


async def _has_another_name(source: str, edge: Edge, edges: Sequence[Edge], hooks: Hooks) -> bool:
    """Let the flow go on by the name that the storage has for it; returns whether it is another one."""
    held = await hooks.retrying(held_flows, edge.backend, source, hooks.state)
    backend = edge.report.backend
    current = {each.flow for each in edges if each.report.backend == backend}
    name = name_at(backend, source, edge.flow, current, held)
    edge.go_on_as(name)
    return name != edge.flow


def _name(edge: Edge) -> str:
    return f"{edge.report.flow}>{edge.report.backend}"


async def _noted(hooks: Hooks, flow: str) -> dict[str, int]:
    def read(database: Database) -> dict[str, int]:
        with database.transaction():
            database.execute(_TABLE)
        rows = database.execute("select edge, seq from _collectors_beginnings where flow = ?", (flow,))
        return {str(edge): int(seq) for edge, seq in rows}

    return await hooks.state.call(read)


async def _note(hooks: Hooks, flow: str, notes: Mapping[str, int]) -> None:
    """Note which storages are to begin behind which chunk, in the place of what was noted before."""

    def write(database: Database) -> None:
        with database.transaction():
            database.execute("delete from _collectors_beginnings where flow = ?", (flow,))
            database.executemany(
                "insert into _collectors_beginnings values (?, ?, ?)",
                [(flow, edge, seq) for edge, seq in notes.items()],
            )

    await hooks.state.call(write)
