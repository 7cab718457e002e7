"""Letters that are being replayed, in the state file: what has been asked for, durable and in order, until it is stored.

A replay that was killed goes on from here. The queue says what to do, the position that each backend keeps of the
replay's flow says how far it is done, as for any other source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from collectors.chunks import DeadLetter
from collectors.runtime.env import Env
from collectors.runtime.state import State
from collectors.storage.letters import LETTER_COLUMNS, letter_values, read_letter
from collectors.storage.sqlite_store import Database, delete_letters

__all__ = ["LetterQueue", "Queued", "Settled"]

BATCH_LETTERS = 1000
BATCH_BYTES = 4 * 2**20
_COLUMNS = ", ".join(LETTER_COLUMNS)
_MARKS = ", ?" * len(LETTER_COLUMNS)
_TABLES = f"""
create table if not exists _collectors_replays (
    number integer primary key autoincrement, way text not null, from_start integer not null, {_COLUMNS}
);
create index if not exists _collectors_replays_letter on _collectors_replays (letter_id, run);
create table if not exists _collectors_replay_queue (id text not null);
create table if not exists _collectors_settled (
    letter_id text not null, run text not null, outcome text not null, reason text not null, settled_by text not null,
    settled_at text not null, primary key (letter_id, run)
) without rowid
"""


class Queued(Struct, frozen=True):
    """A letter that waits: through which part of the pipeline, and whether from the route's start."""

    number: int
    way: str
    from_start: bool
    letter: DeadLetter


class Settled(Struct, frozen=True):
    """The letters that have left, by id and the run that had set them aside: `replayed` or `discarded`."""

    outcomes: dict[tuple[str, str], str]
    discards: Sequence[tuple[str, str, int]] = ()
    """When (UTC, ISO 8601), why, and how many were discarded together."""

    def count(self, outcome: str) -> int:
        """Return how many ended so."""
        return sum(each == outcome for each in self.outcomes.values())


class LetterQueue:
    """The queue in an open state file."""

    def __init__(self, state: State, env: Env) -> None:
        self.id = ""
        self._state = state
        self._env = env

    async def open(self) -> None:
        """Make what is missing of the queue."""
        self.id = await self._state.call(self._open)

    def _open(self, database: Database) -> str:
        with database.transaction():
            for statement in _TABLES.split(";"):
                database.execute(statement)
            row = database.execute("select id from _collectors_replay_queue").fetchone()
            name = str(row[0]) if row else self._env.new_id()
            if not row:
                database.execute("insert into _collectors_replay_queue values (?)", (name,))
        return name

    async def put(self, letters: Sequence[tuple[str, bool, DeadLetter]]) -> None:
        """Queue letters, each with its way and whether to start at its route's start."""

        def write(database: Database) -> None:
            with database.transaction():
                database.executemany(
                    f"insert into _collectors_replays (way, from_start, {_COLUMNS}) values (?, ?{_MARKS})",  # noqa: S608
                    [(way, int(start), *letter_values(letter)) for way, start, letter in letters],
                )

        await self._state.call(write)

    async def ways(self) -> list[tuple[str, str]]:
        """Return for which sources, by which ways, letters wait."""

        def read(database: Database) -> list[tuple[str, str]]:
            return list(
                database.execute(
                    "select source, way from _collectors_replays group by source, way order by min(number)"
                )
            )

        return await self._state.call(read)

    async def read(
        self, source: str, way: str, after: int, until: int | None = None, *, limited: bool = True
    ) -> list[Queued]:
        """Return the next letters behind a number: a batch, or all up to `until`."""

        def read(database: Database) -> list[Queued]:
            found: list[Queued] = []
            size = 0
            for number, start, *values in database.execute(
                f"select number, from_start, {_COLUMNS} from _collectors_replays "  # noqa: S608  # our names
                "where source = ? and way = ? and number > ? and number <= ? order by number",
                (source, way, after, 2**62 if until is None else until),
            ):
                found.append(Queued(number, way, bool(start), read_letter(values)))
                size += len(found[-1].letter.raw)
                if limited and (len(found) == BATCH_LETTERS or size >= BATCH_BYTES):
                    break
            return found

        return await self._state.call(read)

    async def give_back(self, source: str, way: str, behind: int) -> None:
        """Take out the letters behind a number: nobody has stored any of them."""
        await self._state.call(
            lambda database: database.execute(
                "delete from _collectors_replays where source = ? and way = ? and number > ?",
                (source, way, behind),
            )
        )

    async def settle(self, letters: Sequence[DeadLetter], run: str) -> None:
        """Take letters out that every backend has stored, or set aside anew."""
        await self._state.call(lambda database: self._settle(database, letters, "replayed", "", run))

    async def discard(self, letters: Sequence[DeadLetter], reason: str, run: str) -> None:
        """Remember that letters were given up, and why; the state file gives up its own."""
        await self._state.call(lambda database: self._settle(database, letters, "discarded", reason, run))

    def _settle(
        self, database: Database, letters: Sequence[DeadLetter], outcome: str, reason: str, run: str
    ) -> None:
        at = self._env.now().isoformat()
        with database.transaction():
            database.executemany(
                "insert or ignore into _collectors_settled values (?, ?, ?, ?, ?, ?)",
                [(letter.letter_id, letter.run, outcome, reason, run, at) for letter in letters],
            )
            database.executemany(
                "delete from _collectors_replays where letter_id = ? and run = ?",
                [(letter.letter_id, letter.run) for letter in letters],
            )
            delete_letters(database, letters)

    async def waiting(self) -> list[DeadLetter]:
        """Return all letters in the queue."""

        def read(database: Database) -> list[DeadLetter]:
            if not _is_there(database):
                return []
            rows = database.execute(f"select {_COLUMNS} from _collectors_replays order by number")  # noqa: S608
            return [read_letter(values) for values in rows]

        return await self._state.call(read)

    async def settled(self) -> Settled:
        """Return the letters that have left."""

        def read(database: Database) -> Settled:
            if not _is_there(database):
                return Settled({})
            rows: Any = database.execute("select letter_id, run, outcome from _collectors_settled")
            outcomes = {(name, run): outcome for name, run, outcome in rows}
            discards: Any = database.execute(
                "select settled_at, reason, count(*) from _collectors_settled where outcome = 'discarded' "
                "group by settled_by order by settled_at"
            )
            return Settled(outcomes, [(at, reason, count) for at, reason, count in discards])

        return await self._state.call(read)


def _is_there(database: Database) -> bool:
    found = database.execute("select 1 from sqlite_schema where name = '_collectors_settled'")
    return found.fetchone() is not None
