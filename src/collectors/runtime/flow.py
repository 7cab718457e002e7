"""One source's way through everything: read, prepare, store; three hops that run at the same time.

    Reader ──Item──▶ Preparer (worker thread) ──Prepared──▶ Edge, one a backend

Chunk n+1 is decoded while chunk n is stored. Reading and preparing go ahead only as far as keeps the fastest storage
busy; behind a storage that is slower than the others the queue grows, bounded by the byte budget.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any

from collectors.chunks import Checkpoint
from collectors.collection.base import Source
from collectors.errors import FatalError, TransientError
from collectors.models import CollectedData, Position
from collectors.runtime import beginnings, deaths
from collectors.runtime.batching import Ahead, End, take_waiting
from collectors.runtime.budget import Share
from collectors.runtime.deaths import DEATHS
from collectors.runtime.delivery import Edge
from collectors.runtime.error_budget import check_budget
from collectors.runtime.hooks import Hooks
from collectors.runtime.intake import Intake, SpoolSource
from collectors.runtime.ledger import FlowReport
from collectors.runtime.preparing import Item, Prepared, Preparer
from collectors.runtime.reading import Reader
from collectors.runtime.replaying import LetterSource

__all__ = ["Flow"]

READ_AHEAD = 8 * 2**20
"""Bytes that are read and not yet being decoded."""
PREPARED_AHEAD = 6
"""Groups that are decoded and wait at the storage that has the fewest, unless it takes more of them at a time."""
OBJECTS = 2048
"""Bytes that a chunk takes in memory beside its own."""


class Flow:
    """Runs one source to its end, or to a stop. Made by the engine, run once by the supervisor."""

    def __init__(
        self,
        *,
        name: str,
        source: Source[Any],
        preparer: Preparer,
        edges: list[Edge],
        share: Share,
        hooks: Hooks,
        report: FlowReport,
        on_event: Callable[[str, FlowReport], None],
        intake: Intake | None = None,
        isolate: Callable[[Preparer], Preparer] | None = None,
        stop_above: float | None = None,
    ) -> None:
        self.name = name
        self.report = report
        self._source = source
        self._preparer = preparer
        self._edges = edges
        self._share = share
        self._hooks = hooks
        self._on_event = on_event
        self._intake = intake
        self._isolate = isolate
        self._prepaid = 0
        source.make_room = self._make_room
        self._items: asyncio.Queue[Item | End] = asyncio.Queue()
        self._read_ahead = Ahead(READ_AHEAD)
        self._taken = asyncio.Event()
        self._unprepared = 0
        self._positions: deque[tuple[int, Position | None]] = deque()
        self._replays = len(edges) > 1 and hasattr(source, "replay")
        self._seq = 0
        self._behind = 0
        self._ends: dict[int, Position | None] = {}
        self._reading_error: Exception | None = None
        self._stop_above = stop_above
        self._over_budget: Exception | None = None
        self._intaking: list[asyncio.Task[None]] = []

    @property
    def expired(self) -> bool:
        """Whether the time for draining is over."""
        return self._hooks.shutdown.expired.is_set()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._hooks.shutdown.requested.is_set()

    async def run(self) -> None:
        """Run until the source has ended and everything is stored. Raises what stopped it, with the rest drained."""
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._intake is not None:
                    await self._intake.open()
                    self._intaking.append(tasks.create_task(self._intake.run()))
                since, replay = await self._resume()
                self.report.status = "running"
                self._on_event("start", self.report)
                self._intaking.append(tasks.create_task(self._read(since, replay)))
                tasks.create_task(self._prepare())
                for edge in self._edges:
                    tasks.create_task(edge.run(self._release))
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            self._share.release_all()
            await self._source.disconnect()
            with suppress(TransientError):  # then the next start counts a death too many
                await deaths.ended(self._hooks.state, self.name)
        self._check_budget(at_end=True)
        error = (
            self._over_budget
            or self._reading_error
            or (self._intake.error if self._intake is not None else None)
        )
        if error is not None:
            raise error

    async def _resume(self) -> tuple[Position | None, list[Position]]:
        """Claim the flow at every backend; return where to read from, and what an earlier run read but not all stored."""
        checkpoints, new = await beginnings.claim(self.name, self._edges, self._hooks)
        self._check_same_chunks(checkpoints)
        if new:
            front = max(checkpoints, key=lambda checkpoint: checkpoint.seq)
            await beginnings.begin(self.name, new, front, self._hooks)
            self._notice_skipped("is new and begins", new, "what they have from before is not in it")
            checkpoints = [
                front if edge in new else checkpoint
                for edge, checkpoint in zip(self._edges, checkpoints, strict=True)
            ]
        for edge in self._edges:
            edge.on_durable = self._on_durable
            edge.on_commit = self._check_budget
            edge.on_taken = self._on_taken
        first: Checkpoint = min(checkpoints, key=lambda checkpoint: checkpoint.seq)
        last: Checkpoint = max(checkpoints, key=lambda checkpoint: checkpoint.seq)
        self._seq, self._behind = first.seq, last.seq
        self._preparer.restore(first.schema or last.schema)
        await self._look_out(first.seq)
        since, replay = first.position, []
        if isinstance(self._source, SpoolSource | LetterSource) and not self._source.knows(last.position):
            what = "spool" if isinstance(self._source, SpoolSource) else "queue of replays"
            self.report.notices.append(
                f"the {what} of source '{self.report.source}' is another one than before; it is read from its beginning"
            )
            since = None
            await self._skip_to(last)
        elif first.seq < last.seq:
            recorded = await self._hooks.retrying(self._hooks.state.boundaries, self.name, first.seq - 1)
            if _lead_to(recorded, first, checkpoints):
                replay = [position for seq, position in recorded if seq > first.seq]
            elif self._replays:
                self._ends = {checkpoint.seq: checkpoint.position for checkpoint in checkpoints}
                if isinstance(self._source, SpoolSource):
                    self._source.keep_apart(self._ends.values())
            else:
                await self._skip_to(last)
                since = last.position
        if not replay:
            await self._hooks.retrying(self._hooks.state.forget_boundaries_behind, self.name, self._seq)
        if self._seq:
            self.report.resumed_at = since
        return since, replay

    def _check_same_chunks(self, checkpoints: list[Checkpoint]) -> None:
        """Raise FatalError when storages have different chunks under one number."""
        ends: dict[int, Position | None] = {}
        for checkpoint in checkpoints:
            if _end(ends.setdefault(checkpoint.seq, checkpoint.position)) != _end(checkpoint.position):
                raise FatalError(
                    f"the storages of source '{self.report.source}' have different records as chunk {checkpoint.seq}: "
                    f"one up to {ends[checkpoint.seq]}, another up to {checkpoint.position}; give all but one of them a "
                    "new place: there they begin where that one is"
                )

    def _next_seq(self, position: Position | None) -> int:
        """Return the number of a chunk; of one that is read again with no record of where it ended, by where it ends."""
        seq = self._seq + 1
        for end, place in self._ends.items():
            if seq <= end and _end(place) == _end(position):
                return end
        if seq in self._ends:
            raise self._not_as_it_was()
        return seq

    def _not_as_it_was(self) -> FatalError:
        late = [edge.report.backend for edge in self._edges if edge.seq < self._behind]
        return FatalError(
            f"storage {', '.join(late)} is behind the others of source '{self.report.source}', and what it lacks cannot "
            "be read again as it was without the state folder of the run before; start where that folder is, or give "
            "that storage a new place: there it begins where the others are"
        )

    async def _look_out(self, seq: int) -> None:
        """Have another process prepare the chunks when this one has died again and again without getting further."""
        count = await self._hooks.retrying(deaths.started, self._hooks.state, self.name, seq)
        if count < DEATHS:
            return
        if isinstance(self._source, LetterSource):
            what = "if one of the letters does it: replay some of them at a time to find which, and discard that one"
        elif self._isolate is None:
            what = "a pipeline that is not from a file cannot be looked at in a process of its own"
        else:
            self._preparer = self._isolate(self._preparer)
            what = "its chunks are prepared in a process of their own, to find the record that does it"
        self.report.notices.append(f"the process died {count} times without getting further; {what}")

    async def _skip_to(self, last: Checkpoint) -> None:
        """Go on from the front: the chunks that a backend behind it lacks cannot be read again as they were."""
        late = [edge for edge in self._edges if edge.seq < last.seq]
        for edge in late:
            await edge.skip_to(last)
        if late:
            self._notice_skipped("goes on", late, "the records between are not in it")
        self._seq = self._behind = last.seq

    def _notice_skipped(self, how: str, edges: list[Edge], what: str) -> None:
        names = ", ".join(edge.report.backend for edge in edges)
        self.report.notices.append(
            f"storage {names} {how} where the others of source '{self.report.source}' are; {what}"
        )

    async def _read(self, since: Position | None, replay: list[Position]) -> None:
        hooks = self._hooks
        reader = Reader(
            self._source,
            hooks.env,
            hooks.shutdown,
            patience=hooks.patience,
            notify=self._set_waiting,
            until=hooks.shutdown.requested if self._intake is None else hooks.shutdown.expired,
            # What has lingered in front of the spool comes further apart than this.
            linger=hooks.linger if self._intake is None else hooks.linger / 2,
        )
        try:
            async with aclosing(reader.chunks(since, replay)) as chunks:
                async for data in chunks:
                    self._seq = self._next_seq(data.position)
                    size = len(data.raw_data) + OBJECTS
                    await self._pay(size)
                    self._count(data)
                    if self._replays and data.position is not None and self._seq > self._behind:
                        await hooks.retrying(hooks.state.record_boundary, self.name, self._seq, data.position)
                    await self._items.put(Item(self._seq, since, data, size))
                    self._read_ahead.add(size)
                    self._unprepared += 1
                    since = data.position
                    del data  # the wait for the next chunk must not keep this one in memory
                    await self._read_ahead.wait()
            if self._ends and self._seq < self._behind and not hooks.shutdown.requested.is_set():
                raise self._not_as_it_was()
        except Exception as error:  # noqa: BLE001  # what was read before it is stored first, then `run` raises it
            self._reading_error = error
        finally:
            self._items.put_nowait(End())
        await self._make_room(0)
        self._on_event("read", self.report)

    async def _make_room(self, size: int) -> None:
        """Charge what the source is about to read, when it fits, instead of what it said before."""
        self._share.release(self._prepaid)
        self._prepaid = 0
        if size:
            await self._share.acquire(size)
        self._prepaid = size

    async def _pay(self, size: int) -> None:
        """Charge a chunk; what exceeds the room that the source has asked for does not wait, since it is there."""
        if self._prepaid:
            self._share.adjust(max(0, size - self._prepaid))
            self._prepaid = max(0, self._prepaid - size)
        else:
            await self._share.acquire(size)

    def _count(self, data: CollectedData) -> None:
        size = len(data.raw_data)
        self.report.chunks += 1
        self.report.bytes_read += size
        total = data.metadata.get("size")
        if isinstance(total, int):
            self.report.lag_bytes = max(0, total - data.metadata.get("offset", 0) - size)

    async def _prepare(self) -> None:
        held: list[Item | End] = []
        while group := await take_waiting(self._items, held, self._joining):
            size = sum(item.size for item in group)
            self._read_ahead.take(size)
            if self._over_budget is not None:
                self._unprepared -= len(group)
                continue
            async with self._share.decoding(size):
                prepared, size = await self._hooks.env.in_thread(self._prepare_group, group)
            self.report.read += prepared.read
            self._share.adjust(size - prepared.size)
            prepared.size = size
            prepared.takers = len(self._edges)
            self._positions.append((prepared.seq, prepared.position))
            for edge in self._edges:
                await edge.queue.put(prepared)
            self._unprepared -= len(group)
            del group, prepared  # a flow that waits must not keep what it has handed on
            await self._some_storage_wants_more()
        for edge in self._edges:
            await edge.queue.put(End())

    def _prepare_group(self, group: list[Item]) -> tuple[Prepared, int]:
        prepared = self._preparer.prepare(group)
        return prepared, prepared.held

    def _on_taken(self) -> bool:
        """Go on if that is what was waited for; returns whether more is on its way to the storages."""
        self._taken.set()
        return self._unprepared > 0

    async def _some_storage_wants_more(self) -> None:
        while all(edge.queue.qsize() > max(PREPARED_AHEAD, edge.ahead) for edge in self._edges):
            self._taken.clear()
            await self._taken.wait()

    def _joining(self, first: Item) -> Callable[[Item], bool]:
        if first.seq <= self._behind:
            return lambda _: False
        return self._preparer.joining(first)

    def _release(self, prepared: Prepared) -> None:
        prepared.takers -= 1
        if prepared.takers == 0:
            self._share.release(prepared.size)

    async def _on_durable(self) -> None:
        """Tell the source how far every backend has stored it; it may forget what is before."""
        durable = min(edge.durable for edge in self._edges)
        position: Position | None = None
        moved = False
        while self._positions and self._positions[0][0] <= durable:
            _, position = self._positions.popleft()
            moved = True
        if not moved:
            return
        try:
            if self._replays:
                await self._hooks.state.forget_boundaries(self.name, durable)
            if position is not None:
                await self._source.commit(position)
        except TransientError as error:  # advisory: the next time covers it, or a replay
            self._hooks.notify(f"cannot acknowledge: {error}")
        self._on_event("stored", self.report)

    def _check_budget(self, *, at_end: bool = False) -> None:
        """When too much was set aside, read no more; every backend gets what one of them has, and nothing behind it."""
        if self._over_budget is not None:
            if at_end:  # with what was under way then
                self._over_budget = (
                    check_budget(self._stop_above, self.report.worst, at_end=True) or self._over_budget
                )
            return
        self._over_budget = check_budget(self._stop_above, self.report.worst, at_end=at_end)
        if self._over_budget is None:
            return
        front = max(edge.reaching for edge in self._edges)
        for edge in self._edges:
            edge.stop_behind = front
        for task in self._intaking:
            task.cancel()

    def _set_waiting(self, problem: str | None) -> None:
        self.report.status = "waiting" if problem else "running"
        self._hooks.notify_reading(problem)


def _end(position: Position | None) -> Position | None:
    """Return the place behind a chunk, without where the chunk began."""
    return None if position is None else {key: value for key, value in position.items() if key != "start"}


def _lead_to(recorded: list[tuple[int, Position]], first: Checkpoint, others: list[Checkpoint]) -> bool:
    """Return whether the recorded chunks begin where `first` is and end where all others are: not so when another machine
    made theirs. That at `first` itself is not recorded any more where this machine knew that all have it.
    """
    ends = {first.seq: first.position, **dict(recorded)}
    gapless = sorted(ends) == list(range(first.seq, first.seq + len(ends)))
    return gapless and all(
        other.seq in ends and _end(ends[other.seq]) == _end(other.position) for other in (first, *others)
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
