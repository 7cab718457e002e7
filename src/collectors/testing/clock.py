"""Time that moves only when told."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta

from collectors.runtime.env import Env

__all__ = ["ManualEnv"]


class ManualEnv(Env):
    """An `Env` whose clocks stand still; `advance` moves them and wakes who has slept long enough.

    With `hurry` a sleep takes no time: the clock jumps ahead instead, for tests that only want the end.
    """

    def __init__(self, start: datetime | None = None, *, hurry: bool = False) -> None:
        super().__init__()
        self._start = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._elapsed = 0.0
        self._hurry = hurry
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Return the seconds that were advanced so far."""
        return self._elapsed

    def now(self) -> datetime:
        """Return the start and what was advanced."""
        return self._start + timedelta(seconds=self._elapsed)

    def random(self) -> float:
        """Return a half, always."""
        return 0.5

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced by so much."""
        self.slept.append(seconds)
        if self._hurry:
            self._elapsed += seconds
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._elapsed + seconds, self._count, future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move the clock; sleepers wake in order, each at its time."""
        end = self._elapsed + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            self._elapsed, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
            await asyncio.sleep(0)
        self._elapsed = end
        await asyncio.sleep(0)
