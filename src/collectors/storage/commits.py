"""Commits of many flows into one backend: those that wait while one is under way go together, in one transaction.

So a thousand flows that bring a row each cost a few transactions instead of a thousand. Nothing waits for others by a
timer: a commit that finds the backend idle begins at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from collectors.chunks import Delivery
from collectors.errors import DataError, FatalError

if TYPE_CHECKING:
    from collectors.storage.base import Backend

__all__ = ["CommitQueue"]

TOGETHER_ROWS = 64 * 1024
TOGETHER_BYTES = 16 * 2**20
Waiting = tuple[Delivery, "asyncio.Future[int]"]


class CommitQueue:
    """What waits to be committed at one backend; `together`: it has `commit_together`."""

    def __init__(self, backend: Backend[Any], *, together: bool) -> None:
        self._backend: Any = backend
        self._together = together
        self._waiting: deque[Waiting] = deque()
        self._working: asyncio.Task[None] | None = None

    async def commit(self, delivery: Delivery) -> int:
        """Commit, beside what else waits; returns and raises what the backend's `commit` would for this one alone."""
        if not self._together:
            return cast("int", await self._backend.call(self._backend.commit, delivery))
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, future))
        if self._working is None or self._working.done():
            self._working = asyncio.ensure_future(self._work())
        return await future

    async def _work(self) -> None:
        while group := self._take():
            try:
                await self._commit(group)
            except Exception as error:  # noqa: BLE001  # each flow decides what it means for itself
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)

    def _take(self) -> list[Waiting]:
        """Return the next ones, as many as a transaction should hold; not those whose flow has ended meanwhile."""
        group: list[Waiting] = []
        rows = size = 0
        while self._waiting and rows < TOGETHER_ROWS and size < TOGETHER_BYTES:
            delivery, future = self._waiting.popleft()
            if not future.done():
                group.append((delivery, future))
                rows += delivery.table.num_rows
                size += delivery.table.nbytes
        return group

    async def _commit(self, group: list[Waiting]) -> None:
        backend = self._backend
        if len(group) > 1:
            try:
                seqs = await backend.call(backend.commit_together, [delivery for delivery, _ in group])
            except (DataError, FatalError):
                pass  # nothing was stored because of one of them: each alone shows which
            else:
                _answer(group, seqs)
                return
        for one in group:
            try:
                _answer([one], [await backend.call(backend.commit, one[0])])
            except (DataError, FatalError) as error:
                if not one[1].done():
                    one[1].set_exception(error)


def _answer(group: list[Waiting], seqs: list[int]) -> None:
    for (_, future), seq in zip(group, seqs, strict=True):
        if not future.done():
            future.set_result(seq)
