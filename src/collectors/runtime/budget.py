"""Bytes in flight: what has been read and is not stored yet, over all flows of the process.

Queues are bounded by this and by nothing else; when it is spent, sources wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

__all__ = ["Budget", "Share"]

DECODING = 16
"""So many times less than the limit is decoded at once: for a moment that takes a multiple of its size."""


class Budget:
    """The process's budget. Half of it is set apart in equal floors, one a flow, the rest is for all.

    So a flow whose backend is slow can fill the common part, and the others still move within their floors.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        """Bytes in flight now."""
        self.peak = 0
        self._above = 0
        self._floor = 0
        self._turn = asyncio.Lock()
        self._decoding = 0
        self._decoded = asyncio.Event()
        self._shares: list[Share] = []
        self._waiting: deque[tuple[Share, int, asyncio.Future[None]]] = deque()

    def share(self) -> Share:
        """Return a new flow's share."""
        share = Share(self)
        self._shares.append(share)
        self._floor = self.limit // 2 // len(self._shares)
        if self.used:
            self._above = sum(max(0, other.used - self._floor) for other in self._shares)
        return share

    def fits(self, share: Share, size: int) -> bool:
        """Return whether the share may take this much more now. Something too large for the budget may, alone."""
        if self.used == 0:
            return True
        common = self.limit - self._floor * len(self._shares)
        others = self._above - max(0, share.used - self._floor)
        return others + max(0, share.used + size - self._floor) <= common

    @asynccontextmanager
    async def decoding(self, size: int) -> AsyncIterator[None]:
        """Decode chunks of so many bytes, of all flows, as long as they are few; a large one alone. In the order of asking."""
        async with self._turn:
            while self._decoding and self._decoding + size > self.limit // DECODING:
                self._decoded.clear()
                await self._decoded.wait()
            self._decoding += size
        try:
            yield
        finally:
            self._decoding -= size
            self._decoded.set()

    async def wait(self, share: Share, size: int) -> None:
        """Charge the share as soon as it fits; first come, first served among those that do not fit."""
        if self.fits(share, size):
            self.charge(share, size)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (share, size, future)
        self._waiting.append(entry)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                share.release(size)
            elif entry in self._waiting:
                self._waiting.remove(entry)
            raise

    def charge(self, share: Share, size: int) -> None:
        """Charge without waiting, or give back with a negative size, and let those in who fit now."""
        self._above -= max(0, share.used - self._floor)
        share.used += size
        self._above += max(0, share.used - self._floor)
        self.used += size
        self.peak = max(self.peak, self.used)
        if size >= 0 or not self._waiting:
            return
        for entry in list(self._waiting):
            waiting, wanted, future = entry
            if self.fits(waiting, wanted):
                self._waiting.remove(entry)
                if not future.done():
                    self.charge(waiting, wanted)
                    future.set_result(None)


class Share:
    """What one flow has charged."""

    def __init__(self, budget: Budget) -> None:
        self.used = 0
        self._budget = budget

    def decoding(self, size: int) -> AbstractAsyncContextManager[None]:
        """Decode chunks of so many bytes when it is their turn."""
        return self._budget.decoding(size)

    async def acquire(self, size: int) -> None:
        """Wait until this many bytes fit, and charge them."""
        await self._budget.wait(self, size)

    def adjust(self, size: int) -> None:
        """Charge more, or less, for something that is in flight already and has changed its size."""
        self._budget.charge(self, size)

    def release(self, size: int) -> None:
        """Give back."""
        self._budget.charge(self, -size)

    def release_all(self) -> None:
        """Give everything back, when the flow has ended or starts again."""
        self._budget.charge(self, -self.used)
