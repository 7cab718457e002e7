"""What an author of a backend subclasses: write `write(table, key)`; the same key twice stores once.

A backend that can keep the position of a flow beside its rows, in one commit, also has `claim` and `commit`
(`KeepsPosition`); one with room for dead letters in that commit has `dead_letters` (`KeepsDeadLetters`). For all
others the runtime keeps both in its own state file, written behind the rows: at least once.
"""

from __future__ import annotations

import asyncio
import inspect
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, cast, runtime_checkable

import pyarrow as pa
from msgspec import Struct

from collectors.chunks import Attempt, Checkpoint, ChunkKey, Counts, DeadLetter, Delivery, Drift
from collectors.enums import ErrorType
from collectors.errors import CollectorsError, DataError, FatalError, TransientError
from collectors.interfaces.storage import IStorageBackend
from collectors.models import QueryCriteria, StorageLocation
from collectors.settings import Name, Settings, settings_class
from collectors.storage.commits import CommitQueue
from collectors.storage.positions import SOURCE, table_of
from collectors.workers import Workers

__all__ = [
    "AcknowledgesLater",
    "Backend",
    "BackendConfig",
    "CommitsTogether",
    "Compacted",
    "Compacts",
    "HasTables",
    "KeepsDeadLetters",
    "KeepsLedger",
    "KeepsPosition",
    "KeepsSchema",
    "ListsFlows",
    "Recovers",
    "Rehearses",
    "SendsAgain",
    "as_table",
    "source_of",
]


class BackendConfig(Settings):
    """Settings that every backend has."""

    id: Name | None = None
    """Name of the backend in the ledger and in messages; its type when left out."""

    def scratch(self, folder: Path) -> Self | None:
        """Return the settings for an empty store of the same kind in this folder, for `chaos`; None: there is none."""
        return None

    def replaces(self) -> bool:
        """Return whether a row can take the place of another, so that fewer are there than were stored."""
        return False

    def replaces_readings(self) -> bool:
        """Return whether the rows of one reading take the place of those of the reading before."""
        return False


ConfigT = TypeVar("ConfigT", bound=BackendConfig)


@runtime_checkable
class KeepsPosition(Protocol):
    """A backend that commits rows and position together. Both methods run in the backend's thread."""

    def claim(self, flow: str) -> Checkpoint:
        """Take the flow over: raise its epoch by one, durably, and return how far it is stored."""

    def commit(self, delivery: Delivery) -> int:
        """Store a delivery as a whole or not at all and return the highest seq that is durable now.

        A seq below `delivery.key.seq` means that the rest is buffered; `flush` makes it durable. Raises FencedError
        when the epoch or the stored seq is another than the delivery expects, TransientError when it may work later
        (nothing was stored, or the outcome is unknown: the caller asks `stored` again), DataError with `rows`.
        """

    def stored(self, flow: str) -> Checkpoint:
        """Return how far the flow is durably stored, without taking it over; epoch 0 for one that was never claimed."""


@runtime_checkable
class Recovers(Protocol):
    """A backend that keeps positions, in transactions that outlive their owner and hide meanwhile what is stored."""

    def recover(self, flow: str) -> Checkpoint:
        """Return what `stored` does, to who is about to claim the flow: a transaction that a dead owner left is aborted.

        One that an owner may still commit gets the time for it.
        """


@runtime_checkable
class ListsFlows(Protocol):
    """A backend that keeps positions and knows of which flows: a route that was renamed is noticed then."""

    def flows(self, source: str) -> list[str]:
        """Return the flows `source`, which is `pipeline/source`, and `source/…` of which anything is stored."""


@runtime_checkable
class CommitsTogether(Protocol):
    """A backend that keeps positions and can commit for many flows at the cost of one."""

    def commit_together(self, deliveries: Sequence[Delivery]) -> list[int]:
        """Do what `commit` does with deliveries of different flows, all of them or none; returns the seq of each.

        Raises what `commit` raises when any of them is to blame; they are then committed one by one.
        """


@runtime_checkable
class KeepsDeadLetters(Protocol):
    """A backend that stores a delivery's dead letters and counts in the same commit as its rows.

    In that commit it also deletes the letters that the delivery has `resolved`.
    """

    def dead_letters(self, pipeline: str) -> Iterator[DeadLetter]:
        """Yield the letters of a pipeline in the order in which they were set aside."""

    def forget_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Delete these letters, durably; those that are not there are left out."""


@runtime_checkable
class KeepsLedger(Protocol):
    """A backend that keeps the counts of every commit."""

    def ledger(self, run: str) -> dict[str, Counts]:
        """Return what a run has durably stored, by flow."""


@runtime_checkable
class KeepsSchema(Protocol):
    """A backend that writes down, in the commit of the rows, with which columns a table was made and what they became."""

    def schema_history(self) -> list[Drift]:
        """Return what was written down, in that order; `Drift.action` is never that of a commit that was refused."""


class Compacted(Struct, frozen=True):
    """Files of one flow that became fewer; `bytes_after` is 0 where that was only planned."""

    flow: str
    files_before: int
    files_after: int
    rows: int
    bytes_before: int
    bytes_after: int


@runtime_checkable
class Compacts(Protocol):
    """A backend that can make few large files of many small ones."""

    def compact(
        self, pipeline: str, target: int, tell: Callable[[Compacted], None], *, dry_run: bool
    ) -> list[Compacted]:
        """Merge files of the pipeline's flows until they have about `target` bytes; `tell` is told of each step.

        Raises FencedError when another process stores something of a flow meanwhile, FatalError, TransientError: what
        was told is done then, and the rest is as it was.
        """


@runtime_checkable
class HasTables(Protocol):
    """A backend that keeps rows in tables with names."""

    def tables(self) -> list[str]:
        """Return the names of those that can be queried; none where there is none yet."""


@runtime_checkable
class Rehearses(Protocol):
    """A backend whose `commit` may refuse rows without naming them: the runtime finds them by rehearsing parts."""

    def rehearse(self, delivery: Delivery) -> None:
        """Do all that `commit` does with the rows and take it back. Raises what `commit` would raise for them."""


@runtime_checkable
class AcknowledgesLater(Protocol):
    """A backend without positions whose `write` may return before the rows are durable; `flush` makes them so.

    Its DataError always has `rows`.
    """

    def pending(self, flow: str) -> int | None:
        """Return the seq of the first write of a flow that is not durable yet; None: all are."""


@runtime_checkable
class SendsAgain(Protocol):
    """A backend without positions that tells what it sends by keys, so that the other side knows it again.

    After a crash the rows that were under way come again, in the front of one delivery.
    """

    def expect(self, key: ChunkKey, attempt: Attempt) -> None:
        """Take what the keys of the delivery that is written next have to be made from; called once, in front of `write`."""


class Backend(IStorageBackend, Generic[ConfigT]):
    """Base of backends. Plain methods run in one thread that belongs to the backend; `async def` ones in the loop."""

    config_class: ClassVar[type[BackendConfig]] = BackendConfig
    durable: ClassVar[bool] = True
    """Whether what was stored is still there when the process has died."""
    may_repeat: ClassVar[str] = ""
    """When rows are there twice although the position is kept in the commit, in words; empty: never."""
    commit_rows: int = 0
    """A commit of fewer rows waits for those that are being decoded; 0: what waits already is enough."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declared = settings_class(cls, Backend)
        if declared is not None:
            cls.config_class = cast("type[BackendConfig]", declared)

    def __init__(self, config: ConfigT | None = None, **settings: Any) -> None:
        self.config = cast("ConfigT", config if config is not None else self.config_class(**settings))
        self._thread: Workers | None = None
        self._connecting = asyncio.Lock()
        self.commits = CommitQueue(self, together=isinstance(self, CommitsTogether))
        """Runs `commit` for the runtime."""
        self.drifts: dict[str, list[Drift]] = {}
        """What the last commit of each flow found about columns, for who called it to take out."""
        self.unnoted: dict[str, Delivery] = {}
        """What `write` stored last of each flow, without its rows, as long as the state file has not got the position."""

    def open(self) -> Any:
        """Open the store. Raises TransientError when it is away, ConfigurationError or FatalError when it cannot be."""

    def close(self) -> Any:
        """Release what `open` opened; also called after an `open` that failed half-way."""

    @abstractmethod
    def write(self, table: pa.Table, key: ChunkKey) -> Any:
        """Store the rows durably and return their number; rows under a key that is stored already are left out.

        Raises DataError with `rows` for rows that it cannot hold (nothing was stored), TransientError, FatalError.
        """

    def select(self, criteria: QueryCriteria) -> Any:
        """Return the matching rows as dicts. Raises ValueError for an unknown column or operator."""
        raise FatalError(
            f"the backend '{self.get_backend_id()}' cannot be queried", error_type=ErrorType.STORAGE
        )

    def remove(self, location_id: str) -> Any:
        """Delete what was stored under the location. Raises KeyError when there is none."""
        raise FatalError(f"the backend '{self.get_backend_id()}' cannot delete", error_type=ErrorType.STORAGE)

    def flush(self) -> Any:
        """Make everything durable that was handed over; called when a flow pauses and before `close`.

        Raises FencedError when one of the flows is another's now; what it had of that one is dropped, so that the next
        call goes on with the others.
        """

    def flush_interval(self) -> float | None:
        """Seconds after which buffered rows should be flushed even when no more come; None: nothing is buffered."""
        return None

    def preview(self, table: pa.Table, flow: str) -> Any:
        """Return what storing a flow's table would change, as lines for people; for `check`.

        A line begins with `+` for what is new, `=` for what stays, `~` for what changes or needs a look, and `! ` for
        what a run could not store: it would stop there. Called without a connection; makes and changes nothing. Raises
        FatalError or TransientError when nothing could be stored at all.
        """
        return [f"{field.name}: {field.type}" for field in table.schema]

    def location(self, key: ChunkKey) -> str:
        """Return the location id of what is written under the key."""
        return f"{key.flow}:{key.seq}"

    def describe(self) -> str:
        """Return where the data goes, for people: a path, an address without secrets."""
        return self.get_backend_id()

    def place(self, source: str) -> str | None:
        """Return where the rows of a source go, in the same words however the settings say it; None: to nobody else.

        Of the storages that a pipeline sends a source to, no two may have the same place. Opens and connects nothing.
        """
        return None

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run one of the methods above: a plain one in the backend's thread. Raises ConnectionError if not connected."""
        if self._thread is None:
            raise TransientError(
                f"{self.get_backend_id()}: not connected; call connect() first",
                error_type=ErrorType.CONNECTION,
            )
        if inspect.iscoroutinefunction(function):
            return await function(*args)
        return await self._thread.call(function, *args)

    async def connect(self) -> None:
        """Open the store; nothing to do when it is open. Raises ConnectionError, or ValueError for a bad configuration."""
        async with self._connecting:
            if self._thread is not None:
                return
            self._thread = Workers(f"backend-{self.get_backend_id()}")
            try:
                await self.call(self.open)
            except BaseException as error:
                await self.disconnect()
                if isinstance(error, (CollectorsError, ConnectionError)) or not isinstance(error, Exception):
                    raise
                raise TransientError(f"{self.get_backend_id()}: {error}") from error

    async def disconnect(self) -> None:
        """Close the store; safe at any time and twice."""
        if self._thread is None:
            return
        try:
            await self.call(self.close)
        finally:
            thread, self._thread = self._thread, None
            if thread is not None:
                thread.close()

    async def store(self, data: Any) -> StorageLocation:
        """Store a dict, a list of dicts or a table under a new location."""
        key = ChunkKey(f"store-{uuid.uuid4().hex}", 0, 1)
        table = as_table(data)
        await self.call(self.write, table, key)
        await self.call(self.flush)
        location_id = self.location(key)
        return StorageLocation(
            backend_id=self.get_backend_id(),
            location_id=location_id,
            path=f"{self.describe()}#{location_id}",
            created_at=datetime.now(UTC),
        )

    async def query(self, criteria: QueryCriteria) -> list[Any]:
        """Return the matching rows as dicts."""
        return cast("list[Any]", await self.call(self.select, criteria))

    async def delete(self, location_id: str) -> None:
        """Delete what was stored under the location."""
        await self.call(self.remove, location_id)

    def get_backend_id(self) -> str:
        """Return `id` of the settings, or the type's name."""
        return self.config.id or type(self).__module__.rpartition(".")[2]


def source_of(flow: str) -> str:
    """Return the id of the source in a flow's name, `pipeline/source`; `records` for what `store` was given."""
    return table_of(SOURCE, flow)


def as_table(data: Any) -> pa.Table:
    """Return data as a caller of `store` may have it as a table. Raises DataError (a ValueError) for anything else."""
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    records = [data] if isinstance(data, dict) else data
    if isinstance(records, list) and records and all(isinstance(item, dict) for item in records):
        names = list(dict.fromkeys(name for record in records for name in record))
        try:
            return pa.table({name: pa.array([record.get(name) for record in records]) for name in names})
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise DataError(
                f"the data do not fit in columns: {error}", error_type=ErrorType.STORAGE
            ) from error
    raise DataError(
        f"expected a dict, a list of dicts or an Arrow table, got {type(data).__name__}",
        error_type=ErrorType.STORAGE,
    )
