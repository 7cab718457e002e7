"""What the state file keeps of one flow at a storage that has no place for it, and when it learns of it.

Behind each `write` it gets the position; where the storage makes rows durable later, once that has happened. What it could
not get before the flow was stopped, it gets in front of the next claim of this process: no row is written twice. For a storage
that numbers what it sends, so that it is known again, it also has how many rows were under way: after a crash as many come
in one delivery, with the same numbers, before anything else.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from collectors.chunks import Attempt, Checkpoint, Counts, Delivery
from collectors.errors import FencedError, TransientError
from collectors.runtime.preparing import Prepared
from collectors.runtime.state import State
from collectors.storage.base import AcknowledgesLater, Backend, SendsAgain
from collectors.storage.sqlite_store import Database

__all__ = ["StateSide"]

PATIENCE_SECONDS = 10.0
"""When nothing comes for so long, what was under way before is not waited for any more."""

LONGEST_SECONDS = 60.0
"""Nor longer than this when others come in its place, a few at a time."""

_ATTEMPTS = """
create table if not exists _collectors_attempts (
    flow text primary key, seq integer not null, token text not null, ends text not null
) without rowid
"""

Take = Callable[[], Awaitable[list[Prepared]]]


class StateSide:
    """One flow's. `rows` is how many are to come in one delivery, since they were under way before; mostly none.

    `sends_again` says whether the backend has to be told in front of each `write`: then `expect` is called.
    """

    def __init__(self, backend: Backend[Any], state: State) -> None:
        self.rows = 0
        self._backend: Any = backend
        self._state = state
        self._later = isinstance(backend, AcknowledgesLater)
        self.sends_again = isinstance(backend, SendsAgain)
        self._waiting: deque[Delivery] = deque()
        self._durable = 0
        self._unsure = False
        self._cleared = 0
        self._behind = -1
        self._attempt = Attempt("", [])
        self._flow = ""

    async def claim(self, flow: str) -> Checkpoint:
        """Take the flow over, and look what was under way."""
        await self._catch_up(flow)
        checkpoint = await self._state.claim(flow)
        self._waiting.clear()
        self._durable, self._unsure = checkpoint.seq, False
        self._flow = flow
        if self.sends_again:
            self._behind, self._attempt = await self._state.call(lambda database: _noted(database, flow))
            self.rows = max(self._attempt.ends, default=0) if self._behind == checkpoint.seq else 0
        return checkpoint

    async def expect(self, delivery: Delivery) -> None:
        """Note how many rows are about to be written, and tell the storage of it and of earlier tries."""
        if not delivery.table.num_rows:
            return
        flow, behind, rows = delivery.key.flow, delivery.first_seq - 1, delivery.table.num_rows
        if behind != self._behind:
            self._behind, self._attempt = behind, Attempt(str(uuid.uuid4()), [])
        if rows not in self._attempt.ends:
            attempt = Attempt(self._attempt.token, sorted([*self._attempt.ends, rows]))
            await self._state.call(lambda database: _note(database, flow, behind, attempt))
            self._attempt = attempt
        await self._backend.call(self._backend.expect, delivery.key, self._attempt)

    async def keep_letters(self, owner: str, delivery: Delivery) -> None:
        """Keep a delivery's letters; those that an earlier try left for its chunks, or later ones, are gone then.

        Where the delivery has none, there can be some of before only at the first one behind a claim.
        """
        if delivery.dead_letters or delivery.key.epoch != self._cleared:
            await self._state.replace_letters(owner, delivery)
            self._cleared = delivery.key.epoch

    async def put(self, delivery: Delivery) -> int:
        """Remember a delivery whose rows were written, once they are durable; returns the last seq that is."""
        key = delivery.key
        if not self._later:
            self._backend.unnoted[key.flow] = delivery
            self._durable = await self._state.commit(delivery)
            del self._backend.unnoted[key.flow]
            return self._durable
        if not self._waiting or self._waiting[-1].key.seq < key.seq:
            await self.keep_letters(f"{key.flow}@", delivery)
            self._waiting.append(replace(delivery, dead_letters=[]))
        return await self.settle(key.flow)

    async def _catch_up(self, flow: str) -> None:
        """Remember what was written by an earlier owner in this process, unless another one has taken the flow over."""
        written: Delivery | None = self._backend.unnoted.get(flow)
        if written is not None:
            with suppress(FencedError):
                await self._state.commit(written)
            del self._backend.unnoted[flow]

    async def settle(self, flow: str) -> int:
        """Remember what has become durable since; returns the last seq that is."""
        if not self._later:
            return self._durable
        if self._unsure:
            self._durable = (await self._state.stored(flow)).seq
            while self._waiting and self._waiting[0].key.seq <= self._durable:
                self._waiting.popleft()
        pending: int | None = await self._backend.call(self._backend.pending, flow)
        done = [each for each in self._waiting if pending is None or each.key.seq < pending]
        if done:
            self._unsure = True
            self._durable = await self._state.commit(_joined(done))
            for _ in done:
                self._waiting.popleft()
        self._unsure = False
        return self._durable

    async def groups(self, take: Take, route: int) -> AsyncGenerator[list[Prepared], None]:
        """Yield what `take` gives, up to its end, which is an empty list; what was under way before as one.

        What is stored here, and comes again since another storage lacks it, passes as it comes.
        """
        following: asyncio.Future[list[Prepared]] | None = None
        try:
            while group := await (following or take()):
                following = None
                if self.rows and group[-1].seq > self._behind:
                    group, following = await self._repeated(group, take, route)
                    self.rows = 0
                yield group
            await self._forget()
        finally:
            if following is not None:
                following.cancel()

    async def _forget(self) -> None:
        """Let go of what was under way, once it is stored."""
        if 0 <= self._behind < self._durable:
            with suppress(TransientError):  # it is not in the way of anything
                await self._state.call(lambda database: _forget(database, self._flow))
            self._behind = -1

    async def _repeated(
        self, held: list[Prepared], take: Take, route: int
    ) -> tuple[list[Prepared], asyncio.Future[list[Prepared]] | None]:
        """Return what has as many rows as were under way, or all that comes; and what is being taken behind that."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + LONGEST_SECONDS
        while sum(each.parts[route].table.num_rows for each in held if each.seq > self._behind) < self.rows:
            taking = asyncio.ensure_future(take())
            try:
                await asyncio.wait([taking], timeout=min(PATIENCE_SECONDS, max(0.0, latest - loop.time())))
            except asyncio.CancelledError:
                taking.cancel()
                raise
            if not taking.done() or not taking.result():
                return held, taking
            held += taking.result()
        return held, None


def _joined(deliveries: Sequence[Delivery]) -> Delivery:
    """Return deliveries that follow each other as one."""
    counts = sum((each.counts for each in deliveries), Counts())
    return replace(deliveries[-1], first_seq=deliveries[0].first_seq, counts=counts)


def _noted(database: Database, flow: str) -> tuple[int, Attempt]:
    with database.transaction():
        database.execute(_ATTEMPTS)
    row = database.execute(
        "select seq, token, ends from _collectors_attempts where flow = ?", (flow,)
    ).fetchone()
    return (-1, Attempt("", [])) if row is None else (int(row[0]), Attempt(row[1], json.loads(row[2])))


def _note(database: Database, flow: str, seq: int, attempt: Attempt) -> None:
    with database.transaction():
        database.execute(
            "insert or replace into _collectors_attempts values (?, ?, ?, ?)",
            (flow, seq, attempt.token, json.dumps(attempt.ends)),
        )


def _forget(database: Database, flow: str) -> None:
    with database.transaction():
        database.execute("delete from _collectors_attempts where flow = ?", (flow,))
