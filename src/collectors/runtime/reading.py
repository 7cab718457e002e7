"""The first hop: a source's chunks, on its schedule, over failures, until it ends or a stop is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from itertools import count
from math import inf
from typing import Any, TypeVar

from collectors.collection.base import ByteSourceConfig, Source
from collectors.models import CollectedData, Position
from collectors.runtime.env import Env
from collectors.runtime.lingering import Linger
from collectors.runtime.retry import Backoff, Patience, decide
from collectors.runtime.scheduler import Schedule
from collectors.runtime.shutdown import Shutdown

__all__ = ["Interrupt", "Reader", "race"]

Result = TypeVar("Result")
IN_A_ROW = 16
"""So many chunks may come from a source that never waits before others have their turn."""


async def race(work: Awaitable[Result], event: asyncio.Event) -> Result | None:
    """Return what the work gives, or None when the event is set first; the work is cancelled and awaited then."""
    task = asyncio.ensure_future(work)
    waiter = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    finally:  # also when we are cancelled: nobody else would wait until the work is over
        task.cancel()
        waiter.cancel()
        await asyncio.wait({task, waiter})
        if not task.cancelled():
            task.exception()
    return None if task.cancelled() else task.result()


def _to_nobody(readings: int) -> None:
    """Most sources can be asked later for what they had at any time."""


class Interrupt:
    """Cuts what the task that makes it awaits short when an event is set; for one who awaits often: no task is made for it.

    The task itself is cancelled then and goes on behind `cut`; as `asyncio.timeout` does it.
    """

    def __init__(self, event: asyncio.Event) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # it is made by a coroutine that runs in a task
        self._task = task
        self._awaiting = self._was_cut = False
        self._waiter = asyncio.ensure_future(event.wait())
        self._waiter.add_done_callback(self._cancel)

    async def cut(self, work: Awaitable[Result]) -> Result | None:
        """Return what the work gives, or None when the event is set first."""
        task = self._task
        before, self._awaiting = task.cancelling(), True
        if self._waiter.done():
            self._waiter.add_done_callback(self._cancel)  # called soon, so work that need not wait is done
        try:
            return await work
        except asyncio.CancelledError:
            if self._was_cut and task.cancelling() - 1 <= before:
                return None
            raise
        finally:
            self._awaiting = False
            if self._was_cut:
                self._was_cut = False
                task.uncancel()

    def _cancel(self, waiter: asyncio.Future[Any]) -> None:
        if self._awaiting and not self._was_cut and not waiter.cancelled():
            self._was_cut = True
            self._task.cancel()

    def close(self) -> None:
        """Let go of the event."""
        self._waiter.cancel()


class Reader:
    """Reads one source.

    A TransientError reconnects the source and goes on behind the last chunk, after a back-off. `notify` is told of
    each failure and the wait, and None when it works again, `count_missed` of readings that were left out because the
    one before took longer than the interval. Reading stops when `until` is set: when a stop is asked for, unless told
    otherwise, however much more is ready; what the source has received by then (`rest`) is its last chunks. A source that
    asks for it lets small pieces gather for `linger` seconds.
    """

    def __init__(
        self,
        source: Source[Any],
        env: Env,
        shutdown: Shutdown,
        *,
        patience: Patience,
        notify: Callable[[str | None], None],
        count_missed: Callable[[int], None] = _to_nobody,
        until: asyncio.Event | None = None,
        linger: float = 0.0,
    ) -> None:
        self._source = source
        config = source.config
        most = min(config.chunk_size, config.max_record) if isinstance(config, ByteSourceConfig) else inf
        self._linger = Linger(linger, env.monotonic, self._until_stop, most)
        self._stop = shutdown.requested
        source.linger = self._linger.wait
        self._env = env
        self._until = until or shutdown.requested
        self._backoff = Backoff(env, patience)
        self.notify = notify
        self._schedule = Schedule(source, env, count_missed)

    async def chunks(
        self, since: Position | None, replay: list[Position]
    ) -> AsyncGenerator[CollectedData, None]:
        """Yield the chunks behind `since`: first those that end at the given positions, then what follows."""
        interrupt = Interrupt(self._until)
        try:
            for until in replay:
                data = await self._again(interrupt, since, until)
                if data is None:
                    break
                yield data
                since = until
            while not self._until.is_set():
                self._schedule.begin(anew=self._backoff.failures > 0)
                try:
                    await interrupt.cut(self._source.connect())
                    if self._until.is_set():
                        break
                    async with aclosing(self._source.stream(since)) as stream:
                        for number in count(1):
                            data = await interrupt.cut(anext(stream, None))
                            if data is None:
                                break
                            self._succeeded()
                            since = data.position if data.position is not None else since
                            self._linger.count(len(data.raw_data))
                            yield data
                            del data
                            if self._until.is_set():  # whatever else it has ready is for `rest`
                                break
                            if number % IN_A_ROW == 0:
                                await asyncio.sleep(0)
                    self._succeeded()
                    wait = self._schedule.seconds_to_next()
                except Exception as error:  # noqa: BLE001  # _after raises what is not to be tried again
                    wait = self._after(error)
                    await self._source.disconnect()
                if wait is None:
                    break
                await interrupt.cut(self._env.sleep(wait))
        finally:
            interrupt.close()
        async for data in self._source.rest():
            yield data

    async def _again(
        self, interrupt: Interrupt, since: Position | None, until: Position
    ) -> CollectedData | None:
        """Return a chunk once more, over failures; None when a stop was asked for while that did not work."""
        while True:
            try:
                data: CollectedData = await self._env.in_thread(self._source.replay, since, until)  # type: ignore[attr-defined]
            except Exception as error:  # noqa: BLE001  # _after raises what is not to be tried again
                wait = self._after(error)
            else:
                self._succeeded()
                return data
            await interrupt.cut(self._env.sleep(wait))
            if self._until.is_set():
                return None

    async def _until_stop(self, seconds: float) -> None:
        await race(self._env.sleep(seconds), self._stop)

    def _succeeded(self) -> None:
        self._backoff.succeeded()
        self.notify(None)

    def _after(self, error: Exception) -> float:
        wait = self._backoff.failed(error) if decide(error) == "again" else None
        if wait is None:
            raise error
        self.notify(f"{error}; reading again in {wait:.1f} s")
        return wait
