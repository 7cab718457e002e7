"""What has arrived when a stop is asked for: in the buffers of a library and of the system."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

__all__ = ["receive_what_is_there"]

_MOMENT = 0.05
"""What was sent before is there when nothing comes for so long."""
_MOST_SECONDS = 1.0
_MOST_BYTES = 4 * 2**20


async def receive_what_is_there(receive: Callable[[], Awaitable[int | None]]) -> None:
    """Call `receive` until nothing comes for a moment. It takes the next piece over, and returns its bytes; None at the end.

    Whoever goes on sending is not listened to for longer than a second, or more than a few MiB.
    """
    left = _MOST_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(_MOST_SECONDS):
            while left > 0:
                async with asyncio.timeout(_MOMENT):
                    size = await receive()
                if size is None:
                    return
                left -= size
