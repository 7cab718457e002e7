"""The hop before the first one, for sources that cannot replay: read, make durable in the spool, acknowledge.

    Source ──chunk──▶ Intake ──fsync──▶ Spool ──▶ Reader …

While one group of chunks is being written the next one gathers, so the disk's fsync rate limits how often chunks
become durable, not how many. What happens behind the spool (a storage that is away) does not reach the intake.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from collectors.collection.base import Answers, Remembers, Room, Source, SourceConfig
from collectors.errors import FatalError, TransientError
from collectors.models import CollectedData, Position
from collectors.runtime.batching import join_chunks
from collectors.runtime.budget import Share
from collectors.runtime.env import Env
from collectors.runtime.reading import Reader, race
from collectors.runtime.retry import Backoff, Patience
from collectors.runtime.shutdown import Shutdown

if TYPE_CHECKING:
    from collectors.runtime.spool import Spool
from collectors.workers import Workers

__all__ = ["Intake", "SpoolSource"]

_FRAME_BYTES = 64 * 1024
"""So much of small chunks is one frame of the spool; damage to it costs all of them."""


class SpoolSource(Source[SourceConfig]):
    """Reads a spool in the place of the source that fills it; its chunks can be read again as they were.

    What the spool has by then of small chunks is one chunk, where the format allows that. After a stop was asked for it goes on to the spool's end, unless more than a segment is left: that stays for the
    next run.
    """

    def __init__(self, source: Source[Any], spool: Spool, disk: Workers, shutdown: Shutdown) -> None:
        super().__init__(SourceConfig(id=source.get_source_id()))
        self.data_format = source.data_format
        self.framing = source.framing
        self.spool = spool
        self.closed = False
        self._ends: set[int] = set()
        self.grown = asyncio.Event()
        self._format = source.format()
        self.disk = disk
        self._shutdown = shutdown

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the source's chunks."""
        return self._format

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData | Room]:
        """Yield what is durable in the spool and what becomes so, until nothing more can come."""
        from collectors.runtime.spool import READ_BYTES, SEGMENT_BYTES

        while True:
            self.grown.clear()
            closed = (
                self.closed
            )  # before looking: what is written last may come while the spool is being read
            waiting = self.spool.behind(since)
            if closed and waiting > SEGMENT_BYTES and self._shutdown.requested.is_set():
                return
            if waiting:
                yield Room(min(waiting, READ_BYTES))
            if not closed:
                await self.linger()
            chunks = await self.disk.call(self._read, since)
            for chunk in chunks:
                since = chunk.position
                yield chunk
            if not chunks:
                if closed:
                    return
                await self.grown.wait()

    def replay(self, since: Position | None, until: Position) -> CollectedData:
        """Return the chunk between two positions. Raises FatalError when the spool does not have it any more."""
        frames: list[CollectedData] = []
        place = since
        while _frame(place) < until["frame"] and (found := self.spool.read(place)):
            frames += [frame for frame in found if _frame(frame.position) <= until["frame"]]
            place = found[-1].position
        whole = bool(frames) and _frame(frames[-1].position) == until["frame"]
        if not whole or any(frame.data_format != frames[0].data_format for frame in frames):
            raise FatalError(
                f"the spool of source '{self.get_source_id()}' does not have the chunk up to {until} any more, "
                "which one storage has and another lacks; was a file of it removed?"
            )
        (chunk,) = join_chunks(frames, lambda before, frame: True)
        return chunk

    def keep(self, chunks: Sequence[CollectedData]) -> None:
        """Make chunks durable, small ones that are alike in one frame. Raises TransientError, with nothing kept."""
        self.spool.append(join_chunks(chunks, self._are_alike, _FRAME_BYTES))

    def _read(self, since: Position | None) -> list[CollectedData]:
        return join_chunks(self.spool.read(since), self._joins)

    def _joins(self, before: CollectedData, frame: CollectedData) -> bool:
        return self._are_alike(before, frame) and _frame(before.position) not in self._ends

    def _are_alike(self, before: CollectedData, chunk: CollectedData) -> bool:
        return (
            chunk.data_format == before.data_format == self.data_format
            and bool(getattr(self.framing, "joinable", False))
            and chunk.metadata == before.metadata
        )

    async def commit(self, position: Position) -> None:
        """Forget what every backend has."""
        await self.disk.call(partial(self.spool.trim, position, ended=self.closed))

    def keep_apart(self, positions: Iterable[Position | None]) -> None:
        """Let a chunk end at each of these positions: a storage has one that does."""
        self._ends |= {_frame(position) for position in positions}

    def wake(self) -> None:
        """Let `read` look again."""
        self.grown.set()

    def knows(self, position: Position | None) -> bool:
        """Return whether reading can go on at a position: it belongs to this spool, not to one that was removed."""
        return position is None or self.spool.knows(position)


class Intake:
    """Reads a source into its spool until the source ends or a stop is asked for.

    When a group cannot be kept (the disk is full, the quota is reached), senders who wait for an answer are turned
    away and the next group is tried; other sources wait until it can be kept. `keeping` is the patience with the spool.
    A group of sources has a reader for each; when one of them cannot go on, the others do.
    """

    def __init__(
        self,
        source: Source[Any],
        spooled: SpoolSource,
        share: Share,
        env: Env,
        shutdown: Shutdown,
        *,
        readers: Sequence[Reader],
        keeping: Patience,
        notify: Callable[[str | None], None],
    ) -> None:
        self.spooled = spooled
        self.error: Exception | None = None
        self._source = source
        self._share = share
        self._env = env
        self._shutdown = shutdown
        self._backoff = Backoff(env, keeping)
        self._readers = readers
        self._reading = len(readers)
        self._notify = notify
        self._group: list[CollectedData] = []
        self._arrived = asyncio.Event()

    async def open(self) -> None:
        """Open the spool, trying until that works. Raises what stops it for good."""
        while True:
            try:
                await self.spooled.disk.call(self._open)
                return
            except TransientError as error:
                await self._wait(error)

    def _open(self) -> None:
        spool = self.spooled.spool
        spool.open()
        if isinstance(self._source, Remembers):
            self._source.remember(spool.folder, spool.recent())

    async def run(self) -> None:
        """Return when the source has ended and all of it is durable; what went wrong then is in `error`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for reader in self._readers:
                    tasks.create_task(self._read(reader))
                tasks.create_task(self._write())
        finally:
            self._share.release_all()
            self.spooled.closed = True
            self.spooled.wake()
            self.spooled.spool.close()
            await self._source.disconnect()

    async def _read(self, reader: Reader) -> None:
        try:
            async with aclosing(reader.chunks(None, [])) as chunks:
                async for data in chunks:
                    await self._share.acquire(len(data.raw_data))
                    self._group.append(data)
                    self._arrived.set()
        except Exception as error:  # noqa: BLE001  # what was read before it is kept and stored first
            if self._reading > 1:
                reader.notify(f"{error}; it is read no more, the others of its group are")
            self.error = self.error or error
        self._reading -= 1
        self._arrived.set()

    async def _write(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            group, self._group = self._group, []
            if group:
                await self._keep(group)
                self._share.release(sum(len(data.raw_data) for data in group))
                self._arrived.set()
            elif not self._reading:
                return

    async def _keep(self, group: list[CollectedData]) -> None:
        """Make a group durable and acknowledge it, or turn it away."""
        while True:
            try:
                await _to_its_end(self.spooled.disk.call(self.spooled.keep, group))
            except TransientError as error:
                position = _last_position(group)
                if isinstance(self._source, Answers) and position is not None:
                    self._notify(str(error))
                    self._source.turn_away(position, str(error))
                    return
                await self._wait(error)
            else:
                break
        self._backoff.succeeded()
        self._notify(None)
        self.spooled.wake()
        position = _last_position(group)
        if position is not None:
            try:
                await self._source.commit(position)
            except TransientError as error:
                self._notify(f"cannot acknowledge: {error}")  # it will be sent again

    async def _wait(self, error: TransientError) -> None:
        wait = self._backoff.failed(error)
        if wait is None or self._shutdown.expired.is_set():
            raise error
        self._notify(f"{error}; trying again in {wait:.1f} s")
        await race(self._env.sleep(wait), self._shutdown.expired)


def _frame(position: Position | None) -> int:
    return 0 if position is None else int(position["frame"])


def _last_position(group: list[CollectedData]) -> Position | None:
    return next((data.position for data in reversed(group) if data.position is not None), None)


async def _to_its_end(work: Awaitable[None]) -> None:
    """Await; when cancelled, first wait until the work is over: its thread must not go on behind our back."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    finally:
        if not task.done():
            await asyncio.wait([task])
