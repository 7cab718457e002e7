"""The state file of a pipeline, `.collectors/<name>/state.db`: what no backend keeps.

Positions, letters and counts for backends that cannot keep them in their commit; letters alone for those that keep
only the position; and, for flows with several backends, where each chunk ended until all of them have it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from collectors.chunks import Checkpoint, Delivery
from collectors.models import Position
from collectors.runtime.env import Env
from collectors.storage.sqlite_store import Database, DeliveryTables, open_database

__all__ = ["STATE_HINT", "State"]

STATE_HINT = "set `state:` in the pipeline to a folder that this user may write"
"""What to do when the folder of state cannot be used."""

Result = TypeVar("Result")

_BOUNDARIES = """
create table if not exists _collectors_boundaries (
    flow text not null, seq integer not null, position text not null, primary key (flow, seq)
) without rowid
"""


class State:
    """The open state file. Its methods run in one thread of its own, each in one transaction."""

    def __init__(self, path: Path, env: Env, *, read_only: bool = False) -> None:
        self._path = path
        self._read_only = read_only
        self._thread = env.own_threads("collectors-state")
        self._connection: Database | None = None
        self._tables: DeliveryTables | None = None

    async def open(self) -> None:
        """Open the file, made anew if it is not there, unless it is only to be read.

        Raises ConfigurationError when it is no SQLite database.
        """
        await self._call(self._open)

    def _open(self) -> None:
        self._connection = open_database(self._path, read_only=self._read_only)
        self._tables = DeliveryTables(self._connection)
        if self._read_only:
            return
        self._tables.create()
        with self._connection.translated():
            self._connection.execute(_BOUNDARIES)

    async def close(self) -> None:
        """Close the file; safe twice."""
        if self._connection is not None:
            await self._call(self._connection.close)
            self._connection = None
        self._thread.close()

    async def call(self, function: Callable[[Database], Result]) -> Result:
        """Run a function on the open file, for those who keep tables of their own in it."""

        def run() -> Result:
            database = self._open_connection()
            with database.translated():
                return function(database)

        return await self._call(run)

    async def claim(self, flow: str) -> Checkpoint:
        """Take a flow over, for a backend that keeps no position."""
        return await self._call(self._open_tables().claim, flow)

    async def stored(self, flow: str) -> Checkpoint:
        """Return how far a flow is stored, for a backend that keeps no position."""
        return await self._call(self._open_tables().stored, flow)

    async def flows(self, source: str, backend: str) -> list[str]:
        """Return the flows of a source of which a backend that keeps no position has anything."""
        found = [*await self._call(self._open_tables().flows, f"{source}@{backend}")]
        found += await self._call(self._open_tables().flows, source)
        return [flow.removesuffix(f"@{backend}") for flow in found if flow.endswith(f"@{backend}")]

    async def commit(self, delivery: Delivery) -> int:
        """Remember position, letters and counts of rows that are stored; returns the seq."""
        return await self._call(self._open_tables().commit, delivery)

    async def replace_letters(self, flow: str, delivery: Delivery) -> None:
        """Keep the letters of a delivery that is about to be committed elsewhere."""
        await self._call(
            self._open_tables().replace_dead_letters, flow, delivery.first_seq, delivery.dead_letters
        )

    async def record_boundary(self, flow: str, seq: int, position: Position) -> None:
        """Remember, before any backend stores the chunk, where it ends, so that a replay makes the same chunk."""
        await self._write(
            "insert or replace into _collectors_boundaries values (?, ?, ?)",
            (flow, seq, json.dumps(position)),
        )

    async def forget_boundaries(self, flow: str, seq: int) -> None:
        """Forget the chunks up to this one: every backend has them."""
        await self._write("delete from _collectors_boundaries where flow = ? and seq <= ?", (flow, seq))

    async def forget_boundaries_behind(self, flow: str, seq: int) -> None:
        """Forget the chunks behind this one: no backend has them, and they will be cut anew."""
        await self._write("delete from _collectors_boundaries where flow = ? and seq > ?", (flow, seq))

    async def boundaries(self, flow: str, after: int) -> list[tuple[int, Position]]:
        """Return the chunks behind `after` that were read, in order, with the position behind each."""

        def read() -> list[tuple[int, Position]]:
            with self._open_connection().translated():
                rows = self._open_connection().execute(
                    "select seq, position from _collectors_boundaries where flow = ? and seq > ? order by seq",
                    (flow, after),
                )
                return [(int(seq), cast("Position", json.loads(position))) for seq, position in rows]

        return await self._call(read)

    async def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        def write() -> None:
            with self._open_connection().translated():
                self._open_connection().execute(statement, values)

        await self._call(write)

    async def _call(self, function: Callable[..., Result], *args: Any) -> Result:
        return await self._thread.call(function, *args)

    def _open_connection(self) -> Database:
        assert self._connection is not None, "the state file is not open"  # noqa: S101
        return self._connection

    def _open_tables(self) -> DeliveryTables:
        assert self._tables is not None, "the state file is not open"  # noqa: S101
        return self._tables
