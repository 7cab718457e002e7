"""The last hop: one flow into one backend, each chunk exactly once where the backend can commit position and rows.

1. `claim` raises the epoch and says how far the backend has stored this flow.
2. A commit carries rows, dead letters, counts and the position behind them; the backend refuses it unless the epoch
   is still ours and the stored seq is the one before.
3. After a failure the stored seq is asked for before anything is tried again: a commit whose outcome is unknown is
   never repeated blindly.

A backend that keeps no position gets its rows first, then the state file the position behind them (`state_side`). Dead
letters that a backend has no room for go to the state file before the commit, replacing what an earlier try left there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar, cast

import pyarrow as pa
from msgspec.structs import replace

from collectors.bisection import Culprits, search
from collectors.chunks import Checkpoint, ChunkKey, Counts, DeadLetter, Delivery, Rejected
from collectors.enums import ErrorType
from collectors.errors import DataError, FatalError, FencedError, TransientError
from collectors.processing.base import rows_bytes
from collectors.runtime.batching import End, concat, take_waiting
from collectors.runtime.grouping import Grouping
from collectors.runtime.hooks import Hooks
from collectors.runtime.ledger import EdgeReport
from collectors.runtime.preparing import Prepared
from collectors.runtime.runs import stored_counts
from collectors.runtime.state_side import StateSide
from collectors.storage.base import Backend, KeepsDeadLetters, KeepsPosition, Recovers, Rehearses

__all__ = ["Edge"]

MOST_TRIES = 2048
"""So many parts of a delivery are tried to find rows that a backend refuses without naming them; then the flow stops."""
MOST_ROUNDS = 1024
Result = TypeVar("Result")


class Edge:
    """One flow's way into one backend.

    `flow` is its name by the route of today; `route` says which part of a prepared group is for this backend.
    `keeps_route_letters` and `keeps_decode_letters` are set by the flow on one edge of each route, and on one edge of
    the flow. `reaching` is the last chunk of the delivery under way; chunks behind `stop_behind` are not delivered any
    more. `on_taken` is told that something was taken from the queue, and says whether more is on its way. So many as
    `ahead` should be there for the next delivery.
    """

    def __init__(
        self, flow: str, backend: Backend[Any], route: int, hooks: Hooks, *, route_name: str = ""
    ) -> None:
        self.backend = backend
        self.flow = flow
        self.route_name = route_name
        self.route = route
        self.seq = self.durable = self.reaching = self.ahead = 0
        self.queue: asyncio.Queue[Prepared | End] = asyncio.Queue()
        self.keeps_route_letters = self.keeps_decode_letters = False
        self.on_durable: Callable[[], Awaitable[None]] | None = None
        self.on_commit: Callable[[], None] | None = None
        self.on_taken: Callable[[], bool] | None = None
        self.stop_behind: int | None = None
        self._transactional = isinstance(backend, KeepsPosition)
        self._side = StateSide(backend, hooks.state)
        self.holds_letters = self._transactional and isinstance(backend, KeepsDeadLetters)
        """Whether the backend itself has room for dead letters."""
        self.report = EdgeReport(backend.get_backend_id(), backend.describe())
        self.go_on_as(flow)
        self._hooks = hooks
        self._grouping = Grouping(route, backend.commit_rows, hooks.env.monotonic)
        self._epoch = 0
        self._oldest = 0.0
        self._buffered: deque[tuple[int, Counts]] = deque()
        self._lock = asyncio.Lock()

    def go_on_as(self, flow: str) -> None:
        """Take the name by which the backend has the flow from an earlier run."""
        self._flow = flow if self._transactional else f"{flow}@{self.backend.get_backend_id()}"
        self.report.flow = self._flow

    async def claim(self) -> Checkpoint:
        """Take the flow over at this backend; returns how far it is stored."""
        checkpoint = await self._retrying(self._claim)
        self._epoch, self.seq, self.durable = checkpoint.epoch, checkpoint.seq, checkpoint.seq
        if self.report.before is None:
            self.report.before = await self._retrying(self._counted)
        return checkpoint

    async def stored(self) -> Checkpoint:
        """Return how far the flow is stored at this backend, to who is about to claim it."""
        return await self._retrying(self._look)

    async def skip_to(self, front: Checkpoint) -> None:
        """Make the backend go on where another one is, durably, without what lies between.

        Dead letters stay, also those in the state file: they are of records from before.
        """
        delivery = Delivery(
            key=ChunkKey(self._flow, self._epoch, front.seq),
            first_seq=self.seq + 1,
            table=pa.table({}),
            position=front.position,
            schema=front.schema,
            run=self._hooks.letters.run,
            counts=Counts(),
        )
        await self._retrying(partial(self._put, delivery), front.seq)
        await self._retrying(self._flush)
        self.seq = self.durable = (await self._retrying(self._stored_by_us)).seq

    async def confirm(self) -> None:
        """Raise FencedError when another process has taken the flow over since `claim`."""
        await self._retrying(self._stored_by_us)

    async def run(self, release: Callable[[Prepared], None]) -> None:
        """Store what comes through the queue until its end; `release` is told of each group once it is handed over."""
        async with asyncio.TaskGroup() as tasks:
            flusher = tasks.create_task(self._flush_in_time())
            await self._store(release)
            flusher.cancel()

    async def _store(self, release: Callable[[Prepared], None]) -> None:
        held: list[Prepared | End] = []
        take = partial(take_waiting, self.queue, held, self._begin, self._taken)
        async with aclosing(self._side.groups(take, self.route)) as groups:
            async for group in groups:
                self.ahead = len(group) if self.backend.commit_rows else 0
                last = group[-1].seq if self.stop_behind is None else self.stop_behind
                fresh = [item for item in group if self.seq < item.seq <= last]
                self.report.skipped += sum(item.read for item in group if item.seq <= self.seq)
                if fresh:
                    async with self._lock:
                        await self._deliver(fresh)
                while group:
                    release(group.pop(0))
                del fresh  # while waiting for more, nothing of this is kept
        await self.flush()

    def _begin(self, first: Prepared) -> Callable[[Prepared], bool]:
        joins = self._grouping.begin(first)
        return joins if not self._side.rows else lambda _: False

    async def flush(self) -> None:
        """Make durable what the backend holds in its buffer."""
        async with self._lock:
            if self._buffered:
                await self._retrying(self._flush)
                await self._acknowledge((await self._retrying(self._stored_by_us)).seq)

    async def _flush(self) -> None:
        try:
            await self.backend.call(self.backend.flush)
            await self._side.settle(self._flow)
        except FencedError as error:
            await self._stored_by_us()
            # another flow is meant; the backend has dropped what it had of it
            raise TransientError(str(error)) from error

    async def _flush_in_time(self) -> None:
        interval = self.backend.flush_interval()
        while interval is not None:
            await self._hooks.env.sleep(interval / 4)
            if self._buffered and self._hooks.env.monotonic() - self._oldest >= interval:
                await self.flush()

    def _taken(self) -> bool:
        return self.on_taken is not None and self.on_taken() and self._grouping.wants_more()

    async def _deliver(self, group: list[Prepared]) -> None:
        last = group[-1]
        parts = [item.parts[self.route] for item in group]
        table = concat([part.table for part in parts])
        decoding = [letter for item in group for letter in item.letters]
        processing = [letter for part in parts for letter in part.letters]
        letters = [
            *(decoding if self.keeps_decode_letters else []),
            *(processing if self.keeps_route_letters else []),
        ]
        delivery = Delivery(
            key=ChunkKey(self._flow, self._epoch, last.seq),
            first_seq=self.seq + 1,
            table=table,
            position=last.position,
            schema=last.schema,
            run=self._hooks.letters.run,
            counts=sum((part.counts for part in parts), Counts(stored=table.num_rows)),
            dead_letters=letters,
            resolved=[letter for item in group for letter in item.resolved] if self.holds_letters else [],
            reading=last.reading,
        )
        self.reaching = last.seq
        if self._side.sends_again:
            await self._retrying(partial(self._side.expect, delivery))
        origins = [letter for part in parts for letter in part.origins]
        delivery, durable = await self._commit_all_it_can(delivery, origins)
        self.seq = delivery.key.seq
        self.report.note(delivery.counts, [*decoding, *processing], delivery.dead_letters[len(letters) :])
        if self.on_commit is not None:
            self.on_commit()
        if not self._buffered:
            self._oldest = self._hooks.env.monotonic()
        self._buffered.append((delivery.key.seq, delivery.counts))
        await self._acknowledge(durable)

    async def _commit_all_it_can(
        self, delivery: Delivery, origins: Sequence[DeadLetter]
    ) -> tuple[Delivery, int]:
        """Commit; rows that the backend refuses become dead letters and the rest is committed.

        `rows` are the numbers that the rows had before any was refused, so that no two letters get the same id.
        """
        rows: Sequence[int] = range(delivery.table.num_rows)
        written = False
        for _ in range(MOST_ROUNDS):
            stored = False
            try:
                durable = await self._retrying(
                    partial(self._commit, delivery, written=written), delivery.key.seq
                )
                stored = True
                return delivery, durable
            except DataError as error:
                if not delivery.table.num_rows:
                    raise
                bad = error.rows
                if not bad:
                    bad = await self._find_refused(delivery, str(error))
                    written = not self._transactional
                if not bad:
                    raise
            finally:
                if news := self.report.news(self.backend.drifts.pop(self._flow, []), stored=stored):
                    self._hooks.tell_drifts(news)
            delivery = self._without(delivery, bad, rows, origins)
            rows = [row for number, row in enumerate(rows) if number not in bad]
        raise FatalError(
            f"{self.report.backend} refused rows of chunks {delivery.first_seq} to {delivery.key.seq} {MOST_ROUNDS} "
            "times over, each time others; none of them was stored",
            error_type=ErrorType.STORAGE,
        )

    async def _find_refused(self, delivery: Delivery, reason: str) -> Culprits:
        """Return the rows that a backend refuses without naming them.

        One with transactions rehearses parts of the delivery; any other stores the parts that it takes.
        """
        if self._transactional and not isinstance(self.backend, Rehearses):
            raise FatalError(
                f"{self.report.backend} refuses chunks {delivery.first_seq} to {delivery.key.seq} without saying for "
                f"which rows, and cannot rehearse parts of them: {reason}; nothing of them was stored",
                error_type=ErrorType.STORAGE,
            )
        found = await self._search(delivery, reason, together=False)
        if not found and self._transactional:
            found = await self._search(delivery, reason, together=True)
        return found

    async def _search(self, delivery: Delivery, reason: str, *, together: bool) -> Culprits:
        """Try parts of a delivery, each alone or, where rows are refused because of others, with all that passed."""
        trying = search(delivery.table.num_rows, reason, MOST_TRIES)
        passed: list[tuple[int, int]] = []
        try:
            part = next(trying)
            while True:
                told = await self._try(delivery, part, passed if together else [])
                if told is None:
                    passed.append(part)
                part = trying.send(told)
        except StopIteration as done:
            return cast("Culprits", done.value)

    async def _try(
        self, delivery: Delivery, part: tuple[int, int], beside: Sequence[tuple[int, int]]
    ) -> str | None:
        """Return why the backend refuses a part of a delivery, None when it takes it."""
        rows = delivery.table
        table = pa.concat_tables([rows.slice(start, end - start) for start, end in [*beside, part]])
        backend: Any = self.backend
        if self._transactional:
            rehearsed = replace(delivery, table=table, dead_letters=[], resolved=[])
            attempt = partial(backend.call, backend.rehearse, rehearsed)
        else:
            key = replace(delivery.key, flow=f"{delivery.key.flow}/{part[0]}-{part[1]}")
            attempt = partial(backend.call, backend.write, table, key)
        try:
            await self._retrying(attempt)
        except DataError as error:
            return str(error)
        return None

    async def _acknowledge(self, seq: int) -> None:
        self.durable = max(self.durable, seq)
        while self._buffered and self._buffered[0][0] <= self.durable:
            self.report.counts += self._buffered.popleft()[1]
        if self.on_durable is not None:
            await self.on_durable()

    async def _commit(self, delivery: Delivery, *, written: bool = False) -> int:
        """Store a delivery; `written` says that its rows are in a backend without transactions already."""
        if not self._transactional:
            if delivery.table.num_rows and not written:
                await self.backend.call(self.backend.write, delivery.table, delivery.key)
        elif not self.holds_letters:
            owner = f"{self._flow}@{self.report.backend}"  # two such backends must not replace each other's letters
            await self._side.keep_letters(owner, delivery)
            delivery = replace(delivery, dead_letters=[])
        return await self._put(delivery)

    async def _put(self, delivery: Delivery) -> int:
        """Commit where the position is kept."""
        if not self._transactional:
            return await self._side.put(replace(delivery, table=pa.table({})))
        return await self.backend.commits.commit(delivery)

    async def _look(self) -> Checkpoint:
        await self.backend.connect()
        if isinstance(self.backend, Recovers):
            return await self.backend.call(self.backend.recover, self._flow)  # type: ignore[no-any-return]
        return await self._stored()

    async def _claim(self) -> Checkpoint:
        await self.backend.connect()
        if self._transactional:
            return await self.backend.call(self.backend.claim, self._flow)  # type: ignore[attr-defined,no-any-return]
        return await self._side.claim(self._flow)

    async def _counted(self) -> Counts:
        run, state = self._hooks.letters.run, self._hooks.state
        return await stored_counts(self.backend, self._flow, run, state) or Counts()

    async def _stored(self) -> Checkpoint:
        if self._transactional:
            return await self.backend.call(self.backend.stored, self._flow)  # type: ignore[attr-defined,no-any-return]
        return await self._hooks.state.stored(self._flow)

    async def _stored_by_us(self) -> Checkpoint:
        """Return how far the flow is stored. Raises FencedError when that is no longer our doing."""
        checkpoint = await self._stored()
        if checkpoint.epoch != self._epoch:
            raise FencedError(
                f"{self._flow}: another process has taken this flow over (epoch {checkpoint.epoch}, "
                f"ours is {self._epoch}); stop one of the two"
            )
        return checkpoint

    def _without(
        self,
        delivery: Delivery,
        bad: Mapping[int, str],
        rows: Sequence[int],
        origins: Sequence[DeadLetter],
    ) -> Delivery:
        """Return the delivery with the rows that the backend refused as dead letters."""
        table = delivery.table
        numbers = sorted(bad)
        raw = rows_bytes(table, numbers)
        rejected = [Rejected(line, bad[row], rows[row]) for row, line in zip(numbers, raw, strict=True)]
        keep = [row for row in range(table.num_rows) if row not in bad]
        step = f"store {self.report.backend}"
        letters = self._hooks.letters
        if origins:
            replayed = [origins[item.record] for item in rejected]
            made = letters.again(rejected, step, delivery.first_seq, replayed, route=self.route_name)
        else:
            place = {"behind_seq": self.seq}
            made = letters.make(rejected, step, delivery.first_seq, lambda _: place, route=self.route_name)
        return replace(
            delivery,
            table=table.take(pa.array(keep, pa.int64())),
            counts=delivery.counts + Counts(stored=-len(bad), set_aside=len(bad)),
            dead_letters=[*delivery.dead_letters, *made],
        )

    async def _retrying(
        self, attempt: Callable[[], Awaitable[Result]], seq: int | None = None
    ) -> Result | Any:
        """Attempt until it works, as `Hooks.retrying` does.

        With `seq`, the outcome of a failed attempt is asked for first: when that chunk is stored, its seq is the result.
        """
        tried = False

        async def checked() -> Result | int:
            nonlocal tried
            if seq is not None and tried:
                checkpoint = await self._stored_by_us()
                if checkpoint.seq >= seq:
                    return checkpoint.seq
            tried = True
            return await attempt()

        return await self._hooks.retrying(checked)
