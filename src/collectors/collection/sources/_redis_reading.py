"""The two ways to read a Redis stream: by the ids alone, or as a member of a consumer group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct
from redis.exceptions import ResponseError

from collectors.collection.sources._redis_connection import Connection
from collectors.collection.sources._redis_stream import (
    Entry,
    Id,
    StreamState,
    entries_of,
    id_text,
    last_delivered,
    listed,
    look,
    parse_id,
)
from collectors.errors import FatalError
from collectors.models import Position

__all__ = ["BLOCK_SECONDS", "ByGroup", "ById", "Held", "Reading", "Wanted"]

BLOCK_SECONDS = 2.0
"""So long the server waits for an entry before it answers that there is none."""
_FIRST_ENTRIES = 64
_MOST_ENTRIES = 4096
_AT_ONCE = 1000
_MOST_HELD = 10_000


class Wanted(Struct, frozen=True):
    """What is to be read, and who is told what of it is gone."""

    stream: str
    start: str
    size: int
    tell: Callable[[str], None]
    count_lost: Callable[[int], None]

    def report_removed(self, count: int, behind: str) -> None:
        """Say how many entries are not there any more."""
        self.count_lost(count)
        self.tell(
            f"stream '{self.stream}': {count:,} entries {behind} were removed, trimmed or deleted, before they were read"
        )


class _Count:
    """So many entries to ask for that they have about `size` bytes, as those before had them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.value = _FIRST_ENTRIES

    def learn(self, entries: Sequence[Entry]) -> None:
        """Take the size of what came as the measure."""
        weight = sum(len(each) for entry in entries for each in entry.fields or ())
        if entries:
            fitting = self._size * len(entries) // max(1, weight)
            self.value = max(1, min(fitting, 4 * self.value, _MOST_ENTRIES))


class Reading(Protocol):
    """One reading of a stream."""

    async def begin(self, since: Position | None) -> Position | None:
        """Go on behind a position; return one that is to be noted before anything is read."""

    async def take(self) -> list[Entry]:
        """Return the next entries, none that was handed on before; maybe none, after a while."""

    def position(self, entries: Sequence[Entry]) -> Position:
        """Return the position behind entries that are handed on."""


class ById:
    """Reads what is behind an id. How many entries were read so far tells how many were removed before that."""

    def __init__(self, connection: Connection, wanted: Wanted) -> None:
        self._connection = connection
        self._wanted = wanted
        self._behind: Id = (0, 0)
        self._seen: Id = (0, 0)
        """The last entry that was read; where reading begins there need not be one."""
        self._read: int | None = None
        self._handed: int | None = None
        self._is_gone = False
        self._count = _Count(wanted.size)

    async def begin(self, since: Position | None) -> Position | None:
        """Find out where to begin."""
        if since is not None and "group" in since:
            raise FatalError(
                f"until now this source read as a member of the group '{since['group']}', which has entries that were not "
                f"stored yet; set `consumer_group: {since['group']}` again, or give the source a new `id`"
            )
        state = await look(self._connection, self._wanted.stream)
        if since is not None:
            self._behind = self._seen = parse_id(since["id"])
            self._read = since["read"]
        elif self._wanted.start == "all":
            self._read = 0 if state is None else _before(state)
        elif self._wanted.start == "new":
            self._behind = (0, 0) if state is None else state.last
            self._read = 0 if state is None else state.added
        else:
            self._behind = parse_id(_before_id(self._wanted.start))
        self._handed = self._read
        return self.position([]) if since is None and self._wanted.start == "new" else None

    async def take(self) -> list[Entry]:
        """Return the next entries; look before whether some were removed in front of us."""
        self._look_for_removed(await look(self._connection, self._wanted.stream))
        answer = await self._connection.call(
            "XREAD", "COUNT", self._count.value, "BLOCK", int(BLOCK_SECONDS * 1000), "STREAMS", self._wanted.stream, id_text(self._behind)
        )  # fmt: skip
        entries = entries_of(answer)
        self._count.learn(entries)
        if entries:
            self._behind = self._seen = entries[-1].id
            self._read = None if self._read is None else self._read + len(entries)
        return entries

    def position(self, entries: Sequence[Entry]) -> Position:
        """Return the position behind the entries."""
        if entries and self._handed is not None:
            self._handed += len(entries)
        return {"id": id_text(entries[-1].id if entries else self._behind), "read": self._handed}

    def _look_for_removed(self, state: StreamState | None) -> None:
        behind = f"behind {id_text(self._behind)}"
        if state is None:
            if self._seen > (0, 0) and not self._is_gone:
                self._wanted.tell(
                    f"stream '{self._wanted.stream}' is gone; entries {behind} that were in it are lost"
                )
            self._is_gone = True
            return
        state.check(self._wanted.stream, self._seen)
        if self._read is None or state.added is None:
            return
        if self._is_gone or state.added < self._read:
            lost = 0  # made anew, with larger ids: all of it is behind us
            self._is_gone, self._read = False, state.added - state.length
        elif state.last == self._behind:
            lost = state.added - self._read
        elif state.first is None or state.first > self._behind:
            lost = state.added - self._read - state.length
        else:
            return
        if lost > 0:
            self._wanted.report_removed(lost, behind)
            self._read += lost
        self._handed = self._read


class Held:
    """Ids that were handed on, so that they are not handed on again; `hand_on` and `committed` are told of chunks in order."""

    def __init__(self) -> None:
        self.last: Id = (0, 0)
        """The highest id that was handed on."""
        self.ids: dict[Id, None] = {}
        """What was handed on of what lies behind `until`; everything up to there is stored."""
        self._until: Id = (0, 0)
        self._reading: deque[tuple[Position, list[Id]]] = deque()
        self._waiting: set[Id] = set()
        self._stored: list[Id] = []

    def begin(self, since: Position | None, group: str) -> None:
        """Go on behind a position. Raises FatalError when that is one of another group."""
        if since is None:
            return
        self.last = max(self.last, parse_id(since["id"]))
        if "group" not in since:  # all of it is stored
            self._until = self.last
            return
        if since["group"] != group:
            raise FatalError(
                f"until now this source was a member of the group '{since['group']}', which has entries that were not stored "
                f"yet; set `consumer_group: {since['group']}` again, or give the source a new `id`"
            )
        self._until = parse_id(since["until"])
        self.ids |= {parse_id(each): None for each in since["held"]}

    def __contains__(self, entry: Entry) -> bool:
        return entry.id in self.ids or entry.id <= self._until

    def is_stored(self, entry: Entry) -> bool:
        """Return whether an entry that was handed on is stored: then it can be acknowledged at once."""
        return entry.id not in self._waiting

    def hand_on(self, entries: Sequence[Entry], group: str) -> Position:
        """Return the position behind entries that are handed on now."""
        ids = [entry.id for entry in entries]
        self.ids |= dict.fromkeys(ids)
        self._waiting |= set(ids)
        self.last = max(self.last, *ids)
        position = {
            "group": group,
            "id": id_text(self.last),
            "until": id_text(self._until),
            "held": [id_text(each) for each in self.ids],
        }
        self._reading.append((position, ids))
        return position

    def committed(self, position: Position) -> None:
        """Everything up to the position is stored; `acknowledge` tells the server."""
        if not any(each == position for each, _ in self._reading):
            return
        while True:
            each, ids = self._reading.popleft()
            self._waiting -= set(ids)
            self._stored += ids
            if each == position:
                return

    def add_stored(self, entry: Entry) -> None:
        """Have an entry acknowledged that is stored, and was given again."""
        self._stored.append(entry.id)

    async def acknowledge(self, connection: Connection, stream: str, group: str) -> None:
        """Acknowledge what is stored. Raises TransientError."""
        if not self._stored:
            return
        while self._stored:
            some = self._stored[:_AT_ONCE]
            await connection.call("XACK", stream, group, *map(id_text, some))
            del self._stored[: len(some)]
        await self.settle(connection, stream, group, self.last)

    async def settle(self, connection: Connection, stream: str, group: str, delivered: Id) -> None:
        """Take as stored what was given to members, up to `delivered`, and is not pending: somebody has acknowledged it.

        So the position stays short, and what a server that dies forgets of the acknowledgements does no harm.
        """
        pending = await connection.call("XPENDING", stream, group)
        until = min(self.last, delivered)
        if pending[0]:
            until = min(until, parse_id(_before_id(pending[1])))
        self._until = max(self._until, until)
        self.ids = {each: None for each in self.ids if each > self._until or each in self._waiting}


class ByGroup:
    """Reads as a member of a group: first what it has not acknowledged, then new entries and those of dead members."""

    def __init__(
        self,
        connection: Connection,
        wanted: Wanted,
        group: str,
        consumer: str,
        claim_after: float,
        held: Held,
    ) -> None:
        self._connection = connection
        self._wanted = wanted
        self._group = group
        self._consumer = consumer
        self._claim_after = claim_after
        self._held = held
        self._own: Id | None = (0, 0)
        self._claims = "0-0"
        self._count = _Count(wanted.size)
        self._clock = asyncio.get_running_loop().time
        self._next_claim = self._clock()

    async def begin(self, since: Position | None) -> Position | None:
        """Find the group, or make it when nothing was read so far."""
        wanted = self._wanted
        self._held.begin(since, self._group)
        state = await look(self._connection, wanted.stream)
        if state is not None and since is not None:
            state.check(wanted.stream, self._held.last)
        delivered = await last_delivered(self._connection, wanted.stream, self._group)
        if delivered is None:
            if since is not None and "group" in since:
                raise FatalError(
                    f"the group '{self._group}' of stream '{wanted.stream}' is gone, and with it what was not acknowledged; "
                    f"make it again so that it begins where you want: XGROUP CREATE {wanted.stream} {self._group} "
                    f"{since['id']} begins behind the last entry that was read; or give the source a new `id`"
                )
            await self._make_group(since)
        await self._held.acknowledge(self._connection, wanted.stream, self._group)
        await self._held.settle(self._connection, wanted.stream, self._group, delivered or (0, 0))
        return None

    async def _make_group(self, since: Position | None) -> None:
        start = {"all": "0", "new": "$"}.get(self._wanted.start)
        if since is not None:
            start = since["id"]
        elif start is None:
            start = _before_id(self._wanted.start)
        try:
            await self._connection.call(
                "XGROUP", "CREATE", self._wanted.stream, self._group, start, "MKSTREAM"
            )
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # another member has made it just now
                raise FatalError(
                    f"group '{self._group}' of stream '{self._wanted.stream}': {error}"
                ) from error

    async def take(self) -> list[Entry]:
        """Return the next entries that were not handed on before; acknowledge those that are stored already."""
        given = await self._next()
        fresh: dict[Id, Entry] = {}
        removed: list[Entry] = []
        for entry in given:
            if entry in self._held:
                if self._held.is_stored(entry):
                    self._held.add_stored(entry)
            elif entry.fields is None:
                removed.append(entry)
                self._held.add_stored(entry)
            else:
                fresh[entry.id] = entry
        if removed:
            self._wanted.report_removed(
                len(removed), f"from {id_text(removed[0].id)} on, which were given to a member,"
            )
        await self._held.acknowledge(self._connection, self._wanted.stream, self._group)
        return [*fresh.values()]

    async def _next(self) -> list[Entry]:
        """Ask for own entries from before, or those of dead members, or new ones."""
        try:
            if self._own is not None:
                own = await self._read(id_text(self._own))
                self._own = own[-1].id if own else None
                return own
            if self._clock() >= self._next_claim:
                return await self._claim()
            return await self._read(">")
        except ResponseError as error:
            raise FatalError(f"stream '{self._wanted.stream}', group '{self._group}': {error}") from error

    async def _read(self, behind: str) -> list[Entry]:
        answer = await self._connection.call(
            "XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", self._count.value, "BLOCK", int(BLOCK_SECONDS * 1000),
            "STREAMS", self._wanted.stream, behind,
        )  # fmt: skip
        entries = entries_of(answer)
        self._count.learn(entries)
        return entries

    async def _claim(self) -> list[Entry]:
        answer = await self._connection.call(
            "XAUTOCLAIM", self._wanted.stream, self._group, self._consumer, int(self._claim_after * 1000), self._claims,
            "COUNT", self._count.value,
        )  # fmt: skip
        self._claims = answer[0].decode()
        if self._claims == "0-0":
            self._next_claim = self._clock() + self._claim_after / 2
        removed = [Entry(parse_id(each), None) for each in (answer[2] if len(answer) > 2 else [])]
        return removed + listed(answer[1])

    def position(self, entries: Sequence[Entry]) -> Position:
        """Return the position behind the entries, and know them again."""
        return self._held.hand_on(entries, self._group)

    def is_full(self) -> bool:
        """Return whether so much waits for its commit that nothing more should be read."""
        return len(self._held.ids) >= _MOST_HELD


def _before(state: StreamState) -> int | None:
    """Return how many entries were removed before anybody could look."""
    return None if state.added is None else state.added - state.length


def _before_id(start: str | bytes) -> str:
    """Return the id before another one."""
    first, second = parse_id(start)
    if second:
        return id_text((first, second - 1))
    return id_text((first - 1, 2**64 - 1)) if first else "0-0"
