"""What an author of a source subclasses: write `read(since)`, the rest is done.

A source never retries, sleeps, batches, counts or logs progress; the runtime does that for all of them.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast, runtime_checkable

from msgspec import Struct

from collectors.errors import CollectorsError, ConfigurationError, TransientError
from collectors.interfaces.collection import IDataSource
from collectors.models import CollectedData, Position
from collectors.settings import ByteSize, Duration, Name, Settings, Share, settings_class
from collectors.workers import in_thread

__all__ = [
    "Answers",
    "ByteSourceConfig",
    "Framing",
    "LineFraming",
    "Remembers",
    "Replays",
    "Room",
    "Source",
    "SourceConfig",
    "Stream",
]

_END = object()
Resource = TypeVar("Resource")


class SourceConfig(Settings):
    """Settings that every source has."""

    id: Name | None = None
    """Name of the source in positions, the ledger and messages; its type when left out."""
    every: Duration | None = None
    """Read again and again, at fixed times this far apart, for example `5s`; a time that comes before the last reading
    has ended is left out, and counted in the report."""
    jitter: Duration = 0.0
    """Wait up to this much longer, at random, so that many sources do not read at the same instant."""
    cron: str | None = None
    """Read at these times, in cron's five fields, local time; instead of `every`."""
    group: Name | None = None
    """Share spool, commits, position and the line in the report with all sources of the same group, under its name: for
    many small sources that are polled and cannot be read again."""
    stop_above: Share | None = None
    """Stop this source when a larger share of its records than this is set aside in a run, for example `1%`; in place
    of the pipeline's `stop_above`."""


class ByteSourceConfig(SourceConfig):
    """Settings of sources whose bytes can be in any format."""

    format: str | dict[str, Any] | None = None
    """How records are written: the name of a codec, or its settings, for example `{type: csv, delimiter: ";"}`."""
    chunk_size: ByteSize = 4 * 2**20
    """Hand records on in pieces of about this many bytes."""
    max_record: ByteSize = 8 * 2**20
    """Set a record aside when it is longer than this many bytes."""


ConfigT = TypeVar("ConfigT", bound=SourceConfig)


class Framing(Protocol):
    """What a source of bytes must know of its format, handed in by the runtime; a codec has both methods."""

    def preamble(self, head: bytes) -> int:
        """Return how many first bytes of a stream every chunk needs in front (the header line of a CSV file)."""

    def cut(self, data: bytes, *, final: bool) -> int:
        """Return how many leading bytes of `data` are whole records; with `final` the stream ends here."""


class LineFraming:
    """One record a line; the last line of a stream may lack its newline."""

    def preamble(self, head: bytes) -> int:
        """No chunk needs anything in front."""
        return 0

    def cut(self, data: bytes, *, final: bool) -> int:
        """Cut behind the last newline."""
        return len(data) if final else data.rfind(b"\n") + 1


class Replays(Protocol):
    """A source that can give the very chunk again that lay between two of its positions."""

    def replay(self, since: Position | None, until: Position) -> CollectedData:
        """Return that chunk. Called in a worker thread after a crash, when one backend is behind another."""


@runtime_checkable
class Answers(Protocol):
    """A source whose senders wait for an answer and send again what they were not told is kept."""

    def turn_away(self, position: Position, reason: str) -> None:
        """Answer that the chunks up to this position, except those committed before, could not be kept (disk full).

        Called in the event loop. The runtime has forgotten those chunks, and tries again with the next ones.
        """


@runtime_checkable
class Remembers(Protocol):
    """A source that needs the spool and has to know, in a new process, what it handed on before."""

    def remember(self, folder: Path, kept: Iterable[CollectedData]) -> None:
        """Learn what is kept: called once, in a worker thread, before the first reading.

        `folder` is a place for files of its own. `kept` are the latest chunks that are durable, oldest first: at least
        those that were not yet committed to it when a process before died. Small ones with the same metadata may have
        become one.
        """


class Room(Struct, frozen=True):
    """What `read` yields before it reads much: the runtime goes on with it once so many bytes fit its memory budget."""

    size: int


class Stream(AsyncIterator[CollectedData]):
    """What `read` yields, with room made for it; to be closed by who does not read it to its end.

    No generator: the event loop keeps a list of those, and small sources begin one of these for each record.
    """

    def __init__(
        self, chunks: AsyncIterator[CollectedData | Room], make_room: Callable[[int], Awaitable[None]]
    ) -> None:
        self._chunks = chunks
        self._make_room = make_room

    async def __anext__(self) -> CollectedData:
        data = await anext(self._chunks)
        while isinstance(data, Room):
            await self._make_room(data.size)
            data = await anext(self._chunks)
        return data

    async def aclose(self) -> None:
        """Let `read` end where it is."""
        if inspect.isasyncgen(self._chunks):
            await self._chunks.aclose()


class Source(IDataSource, Generic[ConfigT]):
    """Base of sources: the subclass says how to read, this class does connection, position and threads.

        class Numbers(Source[NumbersConfig]):
            def read(self, since):
                for n in range(since["n"] if since else 0, self.config.limit):
                    yield self.chunk(b'{"n": %d}' % n, {"n": n + 1})

    Made with its settings as keyword arguments, or with one settings object.
    """

    config_class: ClassVar[type[SourceConfig]] = SourceConfig
    data_format: str = "ndjson"
    """The codec of the chunks, unless `chunk` is told another."""
    framing: Framing = LineFraming()
    endless: ClassVar[bool] = False
    """Whether `read` goes on until a stop is asked for, as one that listens does."""
    lost_before_spool: str = "what it had read and not yet written there when the process died is lost"
    """For a source that needs the spool: what a crash costs before the spool has it; for `guarantee`. Empty: nothing,
    since what it has not acknowledged is sent again."""
    doubled_before_spool: str = ""
    """For one that loses nothing: what a crash can double before the spool has it; for `guarantee`."""

    may_repeat: str = ""
    """For a source that may give some records once more when it is read again: which; for `guarantee`."""

    reads_everything: bool = False
    """Whether each reading gives all that there is, not what has come since the one before."""
    marks_readings: bool = False
    """Whether somebody needs to know where such a reading begins and ends; set before the first `read`. The source then
    makes its chunks with `reading="within"`, and yields one without records in front, `reading="begins"`, and one behind,
    `reading="ends"`. A reading that breaks off is not ended; one that finds that nothing has changed is not begun."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declared = settings_class(cls, Source)
        if declared is not None:
            cls.config_class = cast("type[SourceConfig]", declared)

    def __init__(self, config: ConfigT | None = None, **settings: Any) -> None:
        self.config = cast("ConfigT", config if config is not None else self.config_class(**settings))
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.make_room: Callable[[int], Awaitable[None]] = _any_room
        self.linger: Callable[..., Awaitable[None]] = _not_at_all
        """Waited for by an async `read` before it takes all that has come, by one that hands that on as few chunks: small
        pieces gather meanwhile, where that pays. Not for one whose senders send no more before they are answered. Takes the
        number of bytes of the last take, where these may have become no chunk yet."""
        self.tell: Callable[[str], None] = _to_nobody
        """Takes one line for people; it is shown, and stands in the report of the run."""
        self.cannot_keep: Callable[[], str | None] = _keeps
        """Says why what comes in now cannot be kept; None when it can."""
        self.count_lost: Callable[[int], None] = _to_nobody
        """Takes the number of records that were lost before this source could have them."""
        self._resources: AsyncExitStack | None = None
        self._position: Position | None = None

    async def open(self) -> None:
        """Open what reading needs, once, before the first `read`; give it to `enter` so that it gets closed."""

    @abstractmethod
    def read(
        self, since: Position | None
    ) -> AsyncIterator[CollectedData | Room] | Iterator[CollectedData | Room]:
        """Yield the chunks behind the position `since` (None: from the beginning), in order, and return at the end.

        A source that knows how much it is about to read yields `Room` first, so that many of them at once stay within
        the memory budget; what others hand over is charged when it is there.
        A plain generator is driven from a worker thread, one `next` at a time; an async one runs in the event loop.
        Called again, on the same object, with the position of its last chunk: after `poll_interval`, after an error,
        or in a later process. Each chunk's position must be enough to go on from there and survive JSON.
        Raises TransientError (the runtime tries again), FatalError, or DataError when a chunk cannot be cut.
        """

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the chunks as settings have it: a name, or a mapping with `type`."""
        return self.data_format

    def needs_spool(self) -> bool:
        """Return whether what was read cannot be read again.

        The runtime then writes every chunk to its spool on disk first, calls `commit` as soon as it is durable there,
        and reads the spool in the source's place. Such a source is always read from `since=None` in a new process.
        """
        return False

    def scratch(self, folder: Path, size: int) -> ConfigT | None:
        """Return the settings for a finite copy, of about so many bytes, of what this source reads; None: there is none.

        For `chaos`, which reads it many times. Makes the copy in the folder and changes nothing else.
        """
        return None

    async def rest(self) -> AsyncIterator[CollectedData]:
        """Yield what was received and nobody can be asked for again, once `read` is over.

        Called when a stop was asked for: `read` is closed behind the chunk that it has yielded, or where it waits. Comes to
        an end soon, however much goes on coming.
        """
        for nothing in list[CollectedData]():
            yield nothing

    async def commit(self, position: Position) -> None:
        """Everything up to this position is stored durably; brokers are acknowledged here. May be called late or never."""

    def poll_interval(self) -> float | None:
        """Seconds from one call of `read` to the next, if the first is over by then; None: the source has come to its end."""
        return self.config.every

    async def enter(
        self, resource: AbstractAsyncContextManager[Resource] | AbstractContextManager[Resource]
    ) -> Resource:
        """Enter a context manager that is left on disconnect; for use in `open`."""
        if self._resources is None:
            raise RuntimeError("enter() is for open(): the source is not being connected")
        if isinstance(resource, AbstractAsyncContextManager):
            return await self._resources.enter_async_context(resource)
        return self._resources.enter_context(resource)

    def chunk(
        self, raw: bytes, position: Position | None, *, data_format: str | None = None, **metadata: Any
    ) -> CollectedData:
        """Return a chunk with this source's id and the time; `position` is the place behind it."""
        return CollectedData(
            source_id=self.get_source_id(),
            timestamp=self.now(),
            data_format=data_format or self.data_format,
            collection_method=type(self).__name__,
            raw_data=raw,
            metadata=metadata,
            position=position,
        )

    def refuse(self, raw: bytes, position: Position | None, reason: str, **metadata: Any) -> CollectedData:
        """Return a chunk for one record that cannot be handed on (too long, torn): it becomes a dead letter."""
        return self.chunk(raw, position, data_format="rejected", reason=reason, **metadata)

    async def connect(self) -> None:
        """Open the source. Raises ConnectionError when it cannot be reached, ConfigurationError, FatalError."""
        if self._resources is not None:
            return
        self._resources = AsyncExitStack()
        try:
            await self.open()
        except BaseException as error:
            await self.disconnect()
            if isinstance(error, (CollectorsError, ConnectionError)) or not isinstance(error, Exception):
                raise
            raise TransientError(f"{self.get_source_id()}: {error}") from error

    async def disconnect(self) -> None:
        """Close everything that was opened; safe at any time and twice."""
        resources, self._resources = self._resources, None
        if resources is not None:
            await resources.aclose()

    async def collect(self) -> CollectedData:
        """Return the next chunk behind the last one. Raises ConnectionError, and ValueError when there is none."""
        stream = self.collect_stream()
        try:
            async for data in stream:
                return data
        finally:
            await stream.aclose()  # type: ignore[attr-defined]  # collect_stream is an async generator
        raise ConfigurationError(f"{self.get_source_id()}: there is nothing to collect at the moment")

    async def collect_stream(self) -> AsyncIterator[CollectedData]:
        """Yield the chunks behind the last one that was handed out."""
        async with aclosing(self.stream(self._position)) as stream:
            async for data in stream:
                self._position = data.position
                yield data

    def stream(self, since: Position | None) -> Stream:
        """Return the chunks behind `since`, whether `read` is plain or async. Raises ConnectionError if not connected."""
        if self._resources is None:
            raise TransientError(f"{self.get_source_id()}: not connected; call connect() first")
        chunks = self.read(since)
        return Stream(chunks if isinstance(chunks, AsyncIterator) else _from_thread(chunks), self.make_room)

    def get_source_id(self) -> str:
        """Return `id` of the settings, or the type's name."""
        return self.config.id or type(self).__module__.rpartition(".")[2]


async def _any_room(size: int) -> None:
    """Outside of a pipeline there is no budget."""


async def _not_at_all(received: int | None = None) -> None:
    """Outside of a pipeline nothing is saved by that."""


def _to_nobody(what: object) -> None:
    """Outside of a pipeline there is no report."""


def _keeps() -> None:
    """Outside of a pipeline there is no spool that could be full."""


async def _from_thread(
    chunks: Iterator[CollectedData | Room],
) -> AsyncGenerator[CollectedData | Room, None]:
    """Drive a plain generator from worker threads; when cancelled, wait for the step under way, then close it."""
    step: asyncio.Future[Any] | None = None
    try:
        while True:
            step = in_thread(next, chunks, _END)
            data = await asyncio.shield(step)
            step = None
            if data is _END:
                return
            yield data
    finally:
        if step is not None:
            await asyncio.wait([step])
            if not step.cancelled():
                step.exception()
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
