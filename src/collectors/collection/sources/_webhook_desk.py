"""Bodies between the requests that brought them and the runtime that keeps them, bounded in bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from collectors.collection.sources._webhook_keys import Key

__all__ = ["Body", "Desk"]


class Body(Struct):
    """One request's records. `answer` becomes None when they are durable, else the reason why they could not be kept."""

    number: int
    raw: bytes
    keys: list[Key]
    answer: asyncio.Future[str | None]

    def checksum(self, digest: bytes) -> int | None:
        """Return the checksum under one of its keys."""
        return dict(self.keys).get(digest)


class Desk:
    """Numbers bodies as they come, hands them out in order, and answers them; for one event loop.

    `waiting` are the bytes of requests that have no answer yet, from the first one received on. `opened` is set when
    bodies are asked for, or refused: before that nobody can know which requests were kept already. Numbers are never
    used again, since an answer may come after the desk was closed and opened again.
    """

    def __init__(self, limit: int) -> None:
        self.waiting = 0
        self.refusing: str | None = None
        self.opened = asyncio.Event()
        self._limit = limit
        self._number = 0
        self._new: deque[Body] = deque()
        self._taken: deque[Body] = deque()
        self._under_way: dict[bytes, Body] = {}
        self._something = asyncio.Event()

    def has_room(self, size: int) -> bool:
        """Return whether so many more bytes may come in."""
        return self.waiting + size <= self._limit

    def under_way(self, digest: bytes) -> Body | None:
        """Return the body with this key that has no answer yet."""
        return self._under_way.get(digest)

    def hand_in(self, raw: bytes, keys: list[Key]) -> asyncio.Future[str | None]:
        """Add a body; the runtime gets it, and its answer comes when it is durable, or cannot be kept."""
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        if self.refusing is not None:
            answer.set_result(self.refusing)
            return answer
        self._number += 1
        body = Body(self._number, raw, keys, answer)
        self._new.append(body)
        self._under_way |= {digest: body for digest, _ in keys}
        self._something.set()
        return answer

    def open(self, number: int) -> None:
        """Begin to hand out; again what lies behind a number and has no answer."""
        self.opened.set()
        while self._taken and self._taken[-1].number > number:
            self._new.appendleft(self._taken.pop())

    async def take(self, size: int) -> list[Body]:
        """Return what is there, about `size` bytes of it, waiting for the first."""
        while not self._new:
            self._something.clear()
            await self._something.wait()
        bodies: list[Body] = []
        while self._new and size > 0:
            bodies.append(self._new.popleft())
            size -= len(bodies[-1].raw)
        self._taken += bodies
        return bodies

    def settle(self, number: int, reason: str | None, before: Callable[[list[Body]], None]) -> None:
        """Answer everything handed out up to a number, after `before` has been told of it."""
        settled: list[Body] = []
        while self._taken and self._taken[0].number <= number:
            settled.append(self._taken.popleft())
        before(settled)
        self._answer(settled, reason)

    def close(self, reason: str) -> None:
        """Turn away everything that has no answer, and what comes later."""
        self.refusing = reason
        self.opened.set()
        self._answer([*self._taken, *self._new], reason)
        self._taken.clear()
        self._new.clear()

    def _answer(self, bodies: list[Body], reason: str | None) -> None:
        for body in bodies:
            for digest, _ in body.keys:
                self._under_way.pop(digest, None)
            if not body.answer.done():
                body.answer.set_result(reason)
