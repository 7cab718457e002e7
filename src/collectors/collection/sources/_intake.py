"""A buffer between a producer and a reader in the event loop, bounded in bytes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from typing import Generic, Protocol, TypeVar

__all__ = ["Intake"]


class _Sized(Protocol):
    @property
    def size(self) -> int: ...


Item = TypeVar("Item", bound=_Sized)


class Intake(Generic[Item]):
    """The producer waits while `limit` bytes lie here; the reader takes what is there, at once, in order.

    So batches are small while little comes and large under load, without a timer.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[Item] = deque()
        self._size = 0
        self._closed = False
        self._changed = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._waking = False

    def put(self, item: Item) -> bool:
        """Add an item from a thread, waiting for room; False when nobody reads any more."""
        with self._changed:
            while self._size >= self._limit and not self._closed:
                self._changed.wait()
            return self._add(item)

    async def put_soon(self, item: Item) -> bool:
        """Add an item from the event loop, waiting for room; False when nobody reads any more."""
        while self._size >= self._limit and not self._closed:
            self._room.clear()
            await self._room.wait()
        with self._changed:
            return self._add(item)

    def end(self) -> None:
        """Let nothing more in; what lies here can still be taken. Callable from any thread, and twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._wake()

    async def take(self) -> list[Item]:
        """Return all that is there, waiting for the first; an empty list after the end. For the event loop."""
        while True:
            await self._something.wait()
            with self._changed:
                items = list(self._items)
                self._items.clear()
                self._size = 0
                if not self._closed:
                    self._something.clear()
                self._changed.notify_all()
            self._room.set()
            if items or self._closed:
                return items

    def _add(self, item: Item) -> bool:
        if self._closed:
            return False
        self._items.append(item)
        self._size += item.size
        if len(self._items) == 1:  # else the reader has been woken already and has not come yet
            self._wake()
        return True

    def _wake(self) -> None:
        """Wake the reader, and a producer in the event loop that has to see the end; once for all that comes until then."""
        if not self._waking:
            self._waking = True
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody reads any more
                self._loop.call_soon_threadsafe(self._awake)

    def _awake(self) -> None:
        self._waking = False  # before looking: what comes from now on wakes anew
        self._something.set()
        if self._closed:
            self._room.set()
