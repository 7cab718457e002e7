"""Objects of S3, Google Cloud Storage, Azure and stores compatible with them, or files in a folder, in any format.

    source:
      type: object_store
      url: s3://my-bucket/readings/
      pattern: "**/*.ndjson.gz"
      every: 1m

What is new is read, each object once, in the order of names, or of the times when they were last written (`order`).
The format follows from the pattern's last letters (`.ndjson .jsonl .json .csv .tsv .parquet .arrow .feather .log .txt`,
also in front of `.gz` and `.zst`); `format` says it where they do not. Objects are read in ranges of 4 MiB, several of
them and the next objects ahead: some 60 MiB of memory, however many and however large they are.

`order: name` fits names that grow, as those with a date do: an object that comes later with a name before the last one
is not read, and neither is one that is replaced after it was finished. `order: time` reads those as well, and lists all
objects each time for it. Stores that count whole seconds or write long uploads under the time of their beginning need
`lag`: what comes with a time so much before the newest one is still read. What comes later than that is told, as far as
the numbers of objects show it; for `order: name` they are seen only with `file://`, which has to list all.

An object that is replaced or deleted while it is being read becomes a dead letter with the place up to which it was
read; the one in its place is read from its beginning. So does one that is damaged, with what could be read handed on. One
that may not be read stops the source.

Without keys in the settings those of the environment are used, as AWS_ACCESS_KEY_ID, AZURE_STORAGE_ACCOUNT_NAME and
GOOGLE_APPLICATION_CREDENTIALS, or those of the machine. An `endpoint` may be without TLS only when it is set here. Names
with empty parts, as `a//b`, cannot be read by the library underneath: the source stops and says so.

Delivery: exactly once, with a backend that keeps the position.
Position: the last object with its tag, and the offset behind the last record in decompressed bytes (rows, for Parquet and
Arrow). For `order: time` also a short hash of each object that was written within `lag` before the newest, 20,000 at most.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Annotated, Any, Literal

from msgspec import Struct
from pydantic import AfterValidator, model_validator

from collectors.collection.base import ByteSourceConfig, Room, Source
from collectors.collection.sources._bookmarks import Bookmark
from collectors.collection.sources._compressed import BrokenDataError, compression_of
from collectors.collection.sources._formats import format_of
from collectors.collection.sources._handle import LAST_BYTES, Part, ReplacedError
from collectors.collection.sources._object_bucket import Bucket, Found, GoneError
from collectors.collection.sources._object_orders import ByName, ByTime, Order, Selection
from collectors.collection.sources._object_reading import Fetcher, ObjectHandle, ObjectWholeReader
from collectors.collection.sources._records import RecordReader
from collectors.collection.sources._whole import DOCUMENTS, TABLES
from collectors.errors import ConfigurationError, FatalError, TransientError
from collectors.models import CollectedData, Position
from collectors.object_stores import Place, StoreSettings
from collectors.settings import Duration

__all__ = ["COMPONENT", "ObjectStoreConfig", "ObjectStoreSource"]

_ATTEMPTS = 3
"""So often an object that is always another one is begun with before the runtime waits a while."""


def _url(url: str) -> str:
    Place.parse(url)
    return url


class ObjectStoreConfig(StoreSettings, ByteSourceConfig):
    """Settings of the object store source."""

    url: Annotated[str, AfterValidator(_url)]
    """The folder: `s3://bucket/folder/`, `gs://bucket/folder/`, `az://container/folder/` or `file:///folder/`."""
    pattern: str = "**"
    """Which objects below the folder, for example `2026/**/*.csv`: `*`, `?`, `[a-z]`, `**` for any folders."""
    order: Literal["name", "time"] = "name"
    """What new objects are found by: a name behind the last one, or a time since the last one."""
    lag: Duration = 60.0
    """For `order: time`: how much earlier than the newest one an object may be written and still be found."""
    compression: Literal["auto", "none", "gzip", "zstd"] = "auto"
    """How the objects are compressed; `auto` looks at their first bytes."""

    @property
    def place(self) -> Place:
        """The folder that the URL names."""
        return Place.parse(self.url)

    @property
    def codec(self) -> str | dict[str, Any]:
        """The format, as set or as the pattern says it. Raises ValueError."""
        return self.format if self.format is not None else format_of(self.pattern)

    @property
    def kind(self) -> str:
        """The name of the codec."""
        codec = self.codec
        return codec if isinstance(codec, str) else str(codec.get("type"))

    @model_validator(mode="after")
    def _check(self) -> ObjectStoreConfig:
        if self.chunk_size == 0 or self.max_record == 0:
            raise ValueError("chunk_size, max_record: expected more than 0 bytes")
        if not self.pattern or self.pattern.startswith("/"):
            raise ValueError("pattern: expected a name or a pattern below the folder, as `**/*.csv`")
        if not self.kind:
            raise ValueError("format: expected the name of a codec")
        self.check_for(self.place.scheme)
        return self


class _Job(Struct):
    """An object that is being read, and how far it was: `mark` is None while nothing was handed on."""

    found: Found
    mark: Bookmark | None = None
    compressed: bool = True


class ObjectStoreSource(Source[ObjectStoreConfig]):
    """Reads objects one after the other: first the one that was half read, then the new ones, in order."""

    def __init__(self, config: ObjectStoreConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self.data_format = self.config.kind
        self._place = self.config.place
        self._fetcher: Fetcher | None = None

    async def open(self) -> None:
        """Reach the store, and check that there is something to read, or that it may come."""
        self._fetcher = await asyncio.to_thread(self._connect)
        await self.enter(self._closing())

    def _connect(self) -> Fetcher:
        bucket = Bucket(self._place, self.config)
        once = self.poll_interval() is None and self.config.cron is None
        if not Selection(bucket, self.config.pattern).reach(matching=once) and once:
            raise ConfigurationError(
                f"no object with anything in it matches '{self.config.pattern}' in {self._place.url(self._place.folder)}"
            )
        return Fetcher(bucket)

    @contextlib.asynccontextmanager
    async def _closing(self) -> AsyncIterator[None]:
        """Wait for what is under way, in a thread; connections end with the last that knows the store."""
        try:
            yield
        finally:
            fetcher, self._fetcher = self._connected(), None
            await asyncio.to_thread(fetcher.close)

    def format(self) -> str | dict[str, Any]:
        """Return the codec that the settings or the pattern say."""
        return self.config.codec

    def read(self, since: Position | None) -> Iterator[CollectedData | Room]:
        """Yield what there is behind the position; a further round is for objects that were replaced meanwhile."""
        fetcher, order = self._connected(), self._order(since)
        if since is not None and not since["done"]:
            yield from self._read_object(_half_read(since), None, order)
        for _ in range(_ATTEMPTS):
            replaced = False
            with contextlib.closing(fetcher.ahead(order.new())) as handles:
                for handle in handles:
                    if handle is None:  # a long listing may be left in between
                        yield Room(0)
                        continue
                    replaced |= yield from self._read_object(_Job(handle.found), handle, order)
            if not replaced:
                return
        raise TransientError(
            f"{self._place.url(self._place.folder)}: objects are replaced again and again while they are being read"
        )

    def replay(self, since: Position | None, until: Position) -> CollectedData:
        """Return the chunk that ended at `until` once more. Raises FatalError when its object is another now."""
        job = _half_read(until)
        url = self._place.url(job.found.key)
        if "lost" in until:
            return self.refuse(b"", until, until["lost"], path=url, offset=until["start"])
        with contextlib.closing(Fetcher(Bucket(self._place, self.config))) as fetcher:
            try:
                handle = self._handle(job, fetcher)
                reader = self._reader(_Job(job.found), handle)
                mark = job.mark or Bookmark(job.found.key, 0, 0, 0, "", None)
                part = reader.again(int(until["start"]), mark, until.get("refused"))
                handle.check()
            except (GoneError, ReplacedError):
                raise FatalError(f"cannot read '{url}' once more: it is gone, or another now") from None
        return self._chunk(part, url, until)

    def _connected(self) -> Fetcher:
        if self._fetcher is None:
            raise TransientError(f"{self.get_source_id()}: not connected; call connect() first")
        return self._fetcher

    def _order(self, since: Position | None) -> Order:
        """Return what was finished. Raises FatalError when the position is one of other settings."""
        place, selection = self._place, Selection(self._connected().bucket, self.config.pattern)
        if since is not None and (since["in"], since["order"]) != (
            place.url(place.folder),
            self.config.order,
        ):
            raise FatalError(
                f"the stored position is one of {since['in']} with `order: {since['order']}`, and means nothing for "
                f"{place.url(place.folder)} with `order: {self.config.order}`; give the source another `id` to begin anew"
            )
        if self.config.order == "name":
            return ByName(selection, since or {}, self.tell)
        return ByTime(selection, since or {}, self.config.lag, self.tell)

    def _read_object(
        self, job: _Job, handle: ObjectHandle | None, order: Order
    ) -> Generator[CollectedData | Room, None, bool]:
        """Yield what an object has; return whether what has taken its place is still to be found."""
        for _ in range(_ATTEMPTS):
            try:
                with contextlib.closing(handle or self._handle(job, self._connected())) as opened:
                    yield from self._read(job, opened, order)
                return False
            except (GoneError, ReplacedError) as error:
                replaced = isinstance(error, ReplacedError)
            at_once, handle = replaced and order.at_once, None
            if not at_once:
                order.finish(job.found)
            if job.mark is not None:
                yield self._lost(job.found, job.mark.offset, order, replaced=replaced, done=not at_once)
            elif not replaced:
                self.tell(f"{self._place.url(job.found.key)} was deleted before it could be read")
            if not at_once:
                return replaced
            job = _Job(_any(job.found))
        raise TransientError(
            f"{self._place.url(job.found.key)} is replaced again and again while it is being read"
        )

    def _read(
        self, job: _Job, handle: ObjectHandle, order: Order
    ) -> Generator[CollectedData | Room, None, None]:
        reader = self._reader(job, handle)
        done = False
        for part in self._parts(reader, handle):
            if isinstance(part, Room):
                yield part
                continue
            job.mark = part.mark
            done = part.mark.size is not None or (not job.compressed and part.mark.offset >= job.found.size)
            if done:
                order.finish(job.found)
            yield self._chunk(part, handle.path, self._behind(job, order, part, done=done))
        if not done:
            order.finish(job.found)

    def _parts(
        self, reader: RecordReader[ObjectHandle] | ObjectWholeReader, handle: ObjectHandle
    ) -> Iterator[Part | Room]:
        """Yield what a reader gives; what could not be had of the store is no fault of the content."""
        try:
            yield from reader.read(handle.found.key, final=True, wait=False)
        except BrokenDataError as error:
            handle.check()
            yield reader.torn(handle.found.key, f"{handle.path}: {error}")

    def _handle(self, job: _Job, fetcher: Fetcher) -> ObjectHandle:
        """Return what reads an object as it is now; `job` has it then. Raises GoneError, ReplacedError."""
        found = fetcher.bucket.head(job.found.key)
        if job.found.tag not in {"", found.tag}:
            raise ReplacedError(found.key)
        job.found = found
        return ObjectHandle(fetcher, found)

    def _reader(self, job: _Job, handle: ObjectHandle) -> RecordReader[ObjectHandle] | ObjectWholeReader:
        config, kind = self.config, self.data_format
        if kind in DOCUMENTS | TABLES:
            handle.keep = 0
            return ObjectWholeReader(
                handle, job.mark, framing=self.framing, kind=kind, compression=config.compression
            )
        compression: str = config.compression
        if compression == "auto":
            compression = compression_of(handle.read_at(4, 0))
        job.compressed = compression != "none"
        block = handle.keep = min(config.chunk_size, config.max_record)
        if not handle.asked:
            handle.begin(0 if job.compressed or job.mark is None else max(0, job.mark.offset - LAST_BYTES))
        return RecordReader(
            handle,
            job.mark,
            framing=self.framing,
            block=block,
            limit=config.max_record,
            compression=compression,
        )

    def _behind(self, job: _Job, order: Order, part: Part, *, done: bool) -> Position:
        mark = part.mark
        about = {"offset": mark.offset, "imprint": mark.imprint, "start": part.start}
        if part.reason is not None:
            about["refused"] = part.reason
        return self._place_of(job.found, order, done=done) | about

    def _place_of(self, found: Found, order: Order, *, done: bool) -> Position:
        place = {"in": self._place.url(self._place.folder), "order": self.config.order, **order.state()}
        return place | {"key": found.key, "tag": found.tag, "modified": found.modified, "done": done}

    def _lost(self, found: Found, offset: int, order: Order, *, replaced: bool, done: bool) -> CollectedData:
        """Return the rest of an object that nobody has any more, as a refused record; reading goes on behind it."""
        url = self._place.url(found.key)
        unit = "row" if self.data_format in TABLES else "byte"
        how = "replaced by another one" if replaced else "deleted"
        reason = f"{url} was {how} while it was being read; what it had behind {unit} {offset} is lost"
        position = self._place_of(found if done else _any(found), order, done=done)
        position |= {"offset": 0, "imprint": "", "start": offset, "lost": reason}
        return self.refuse(b"", position, reason, path=url, offset=offset)

    def _chunk(self, part: Part, url: str, position: Position) -> CollectedData:
        about: dict[str, Any] = {"path": url, "offset": part.start - part.lead}
        if part.size is not None:
            about["size"] = part.size
        if part.reason is not None:
            return self.refuse(part.raw, position, part.reason, **about)
        return self.chunk(part.raw, position, data_format=part.data_format, **about)


def _any(found: Found) -> Found:
    """Return the object of that name, whatever it is by now."""
    return Found(found.key, 0, found.modified, "")


def _half_read(position: Position) -> _Job:
    """Return the object of a position, and how far it was read."""
    key, offset = position["key"], position["offset"]
    mark = Bookmark(key, 0, 0, offset, position["imprint"], None) if offset else None
    return _Job(Found(key, 0, position["modified"], position["tag"]), mark)


COMPONENT = ObjectStoreSource
"""One file a source; the file's name is its type."""
