"""How long a source lets small pieces gather before it takes them: what a piece costs on its way, many cost together.

There is no waiting when it is quiet, and none when much comes anyway: the first piece behind a pause goes on at once, and
so does all that comes in pieces of `ENOUGH_BYTES`, or half of what the source takes at once. What comes again and again in
small ones is taken at such distances.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

__all__ = ["ENOUGH_BYTES", "LINGER_SECONDS", "Linger"]

LINGER_SECONDS = {"normal": 0.01, "low": 0.004}
"""By `latency` in the pipeline file. Without any, records are stored later, not sooner: the threads of so many commits wait
for one another."""
ENOUGH_BYTES = 32 * 1024
_STEADY = 1.25
"""What comes no later than so many times that behind the last piece is a stream of them."""


class Linger:
    """One source's; `now` is a clock in seconds, `sleep` waits, or returns early when there is a reason to hurry.

    `most` is how many bytes the source takes at once.
    """

    def __init__(
        self,
        seconds: float,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        most: float = inf,
    ) -> None:
        self._seconds = seconds
        self._enough = min(ENOUGH_BYTES, most / 2)
        self._now = now
        self._sleep = sleep
        self._size = 0
        self._last = float("-inf")

    def count(self, size: int) -> None:
        """Take note of bytes that the source has given since it lingered last."""
        self._size += size

    async def wait(self, received: int | None = None) -> None:
        """Let what comes gather, where that pays. Called by a source before it takes what is there.

        `received` are the bytes of its last take, where they may have become no chunk yet.
        """
        steady = self._now() - self._last < self._seconds * _STEADY
        if steady and max(self._size, received or 0) < self._enough:
            await self._sleep(self._seconds)
        self._size = 0
        self._last = self._now()
