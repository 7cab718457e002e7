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
        self._parts: list[Shutdown] = []
        self._restore_signals: Callable[[], None] = lambda: None

    def __enter__(self) -> Shutdown:
        self._restore_signals = self._env.on_signals(self.request)
        if self._limit is not None:
            self._after(self._limit, self.request)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore_signals()
        for timer in (*self._timers, *(timer for part in self._parts for timer in part._timers)):  # noqa: SLF001
            timer.cancel()

    def part(self) -> Shutdown:
        """Return one for a part of the whole: it stops when the whole does, or alone when it is asked to."""
        part = Shutdown(self._env, deadline=self._deadline)
        self._parts = [known for known in self._parts if not known.expired.is_set()]
        self._parts.append(part)
        for mine, its in ((self.requested, part.requested), (self.expired, part.expired)):
            if mine.is_set():
                its.set()
        return part

    def request(self) -> None:
        """Ask for a stop; a second time: now."""
        if self.requested.is_set():
            self._expire()
            return
        self.requested.set()
        for part in self._parts:
            part.requested.set()
        self._after(self._deadline, self._expire)

    def _expire(self) -> None:
        self.expired.set()
        for part in self._parts:
            part.expired.set()

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        async def wait() -> None:
            await self._env.sleep(seconds)
            action()

        self._timers.append(asyncio.get_running_loop().create_task(wait()))
