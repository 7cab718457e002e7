"""How often the process has died in a flow without getting far, in the state file."""

from __future__ import annotations

from collectors.runtime.state import State
from collectors.storage.sqlite_store import Database

__all__ = ["DEATHS", "ended", "started"]

DEATHS = 3
"""So many deaths without progress are put up with before a flow is isolated."""

FAR = 1000
"""Chunks that a flow stores between two deaths when those have nothing to do with each other; fewer are in flight at once."""

_TABLE = """
create table if not exists _collectors_starts (
    flow text not null primary key, seq integer not null, deaths integer not null
) without rowid
"""


async def started(state: State, flow: str, seq: int) -> int:
    """Remember that a flow starts behind a chunk; return how often the process has died without getting far from it."""

    def count(database: Database) -> int:
        with database.transaction():
            database.execute(_TABLE)
            row = database.execute(
                "select seq, deaths from _collectors_starts where flow = ?", (flow,)
            ).fetchone()
            deaths = 0 if row is None else row[1] + 1 if seq - row[0] <= FAR else 1
            database.execute(
                "insert or replace into _collectors_starts values (?, ?, ?)", (flow, seq, deaths)
            )
        return int(deaths)

    return await state.call(count)


async def ended(state: State, flow: str) -> None:
    """Remember that a flow came to an end, or was stopped, without the death of the process."""

    def forget(database: Database) -> None:
        with database.transaction():
            database.execute(_TABLE)
            database.execute("delete from _collectors_starts where flow = ?", (flow,))

    await state.call(forget)
