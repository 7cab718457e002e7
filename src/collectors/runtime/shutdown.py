"""Stopping: the first signal stops intake and drains, the second one ends the process at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from collectors.runtime.env import Env

__all__ = ["Shutdown"]


class Shutdown:
    """Whether to stop, and how patiently.

    `requested` is set by the first SIGINT or SIGTERM, by `request`, or when the time of `limit` is over; then
    `deadline` seconds are left for draining before `expired` is set; a second signal sets it at once.
    """

    def __init__(self, env: Env, *, deadline: float = 30.0, limit: float | None = None) -> None:
        self.requested = asyncio.Event()
        self.expired = asyncio.Event()
        self._env = env
        self._deadline = deadline
        self._limit = limit
        self._timers: list[asyncio.Task[None]] = []
        self._restore_signals: Callable[[], None] = lambda: None

    def __enter__(self) -> Shutdown:
        self._restore_signals = self._env.on_signals(self.request)
        if self._limit is not None:
            self._after(self._limit, self.request)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore_signals()
        for timer in self._timers:
            timer.cancel()

    def request(self) -> None:
        """Ask for a stop; a second time: now."""
        if self.requested.is_set():
            self.expired.set()
            return
        self.requested.set()
        self._after(self._deadline, self.expired.set)

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        async def wait() -> None:
            await self._env.sleep(seconds)
            action()

        self._timers.append(asyncio.get_running_loop().create_task(wait()))
