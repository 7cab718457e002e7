"""Asks no faster than allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from collectors.http_client.settings import RateLimitConfig

__all__ = ["Pace", "pause"]


async def pause(seconds: float) -> None:
    """Wait, and leave nothing behind when that is cancelled."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = loop.call_later(seconds, over.set_result, None)
    try:
        await over
    finally:
        timer.cancel()


class Pace:
    """Spreads requests, and the bytes of responses, evenly over time."""

    def __init__(
        self,
        limit: RateLimitConfig | None,
        clock: Callable[[], float],
        wait: Callable[[float], Awaitable[None]] = pause,
    ) -> None:
        self._requests = limit.requests_per_second if limit is not None else None
        self._bytes = limit.bytes_per_second if limit is not None else None
        self._clock = clock
        self._wait = wait
        self._next_request = self._next_bytes = clock()

    async def request(self) -> None:
        """Wait until another request may begin."""
        now = self._clock()
        begin = max(now, self._next_request)
        if self._requests is not None:
            self._next_request = begin + 1 / self._requests
        begin = max(begin, self._next_bytes)
        if begin > now:
            await self._wait(begin - now)

    async def received(self, size: int) -> None:
        """Wait as long as these bytes may take."""
        if self._bytes is None:
            return
        now = self._clock()
        self._next_bytes = max(now, self._next_bytes) + size / self._bytes
        await self._wait(self._next_bytes - now)
