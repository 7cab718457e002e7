"""Kafka: topics read from where the storage is, each record with its key, headers and place as columns.

    source:
      type: kafka
      brokers: [kafka-1.example:9092, kafka-2.example:9092]
      topics: [orders]

A message is one record. Beside the members of its JSON object it has the columns `kafka_topic`, `kafka_partition`,
`kafka_offset`, `kafka_timestamp`, `kafka_key` and `kafka_headers` (a JSON object). A key that is no UTF-8 is in
`kafka_key_base64`, JSON that is no object in `value`; without a payload `kafka_tombstone` is true. `format: lines` is
for plain text, in `line`, with the same columns. Payloads in other formats are decoded as they are, without them.
A payload that cannot be decoded is set aside, with its topic, partition and offset.

Without `share` the process reads all partitions, or those of `partitions`; new ones are found while it reads, and read
from their beginning. With `share: true` the processes of the group `group_id` have the partitions between them
(cooperative-sticky); give each its own pipeline name or source id. One that has to hand partitions over stores first
what it has read of them, up to 20 s.

Delivery: exactly once; transactions that were aborted are not read. With `share` exactly once while partitions stay with
their process, however often it dies; at least once when they move: what a process has stored and not yet committed to
the group, when it dies or is cut off, is read again by the one that takes over. Nothing is lost.
Position: the next offset of each partition. The group's committed offsets follow it, for tools that show the lag; only
with `share` are they where a new owner begins. An offset that the brokers do not have stops the source, or is counted; a
topic that was made anew and has become longer than that cannot be told from the old one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any, Literal, Self, TypeVar

from confluent_kafka import KafkaException
from pydantic import AwareDatetime, Field, model_validator

from collectors.collection.base import ByteSourceConfig, Source
from collectors.collection.sources._kafka_feed import Feed, Piece
from collectors.collection.sources._kafka_options import OWNED
from collectors.collection.sources._kafka_records import kind_of, line_format
from collectors.kafka_client import KafkaSettings, Topic, explained
from collectors.models import CollectedData, Position
from collectors.workers import in_thread

__all__ = ["COMPONENT", "KafkaConfig", "KafkaSource"]

Result = TypeVar("Result")
_MOVED = (
    "what a process has stored and not yet committed to the group when its partitions move is stored again"
)
_PATIENCE_SECONDS = 3.0
"""How long brokers that do not answer are waited for when reading stops; the thread then ends when they do, or fail."""


def _forget(work: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more."""
    if not work.cancelled():
        work.exception()


Partition = Annotated[int, Field(ge=0)]
Start = Literal["earliest", "latest"] | AwareDatetime | dict[Topic, dict[Partition, Partition]]


class KafkaConfig(KafkaSettings, ByteSourceConfig):
    """Settings of the kafka source."""

    topics: Annotated[list[Topic], Field(min_length=1)]
    """What to read."""
    partitions: Annotated[list[Partition], Field(min_length=1)] | None = None
    """Which partitions of each topic to read; all when left out."""
    group_id: str | None = None
    """Commit what is stored to this consumer group."""
    share: bool = False
    """Read only the partitions that the group gives this process, one of several."""
    start: Start = "earliest"
    """Where to begin with a topic for the first time: `earliest`, `latest`, a time like `2026-11-29T08:00:00Z`, or
    offsets, `{orders: {0: 17, 1: 40}}`; partitions that are not named there are read from their beginning."""
    follow: bool = True
    """Wait for more; `false`: read what is there, and end."""
    out_of_range: Literal["stop", "earliest"] = "stop"
    """What to do when the brokers do not have the next offset any more: stop the source, or go on at the earliest that
    they have, and count what was deleted in between as lost."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.topics)) < len(self.topics):
            raise ValueError("topics: each topic once")
        if self.chunk_size == 0 or self.max_record == 0:
            raise ValueError("chunk_size, max_record: expected more than 0 bytes")
        if self.share and self.group_id is None:
            raise ValueError(
                "share: needs `group_id`, the group between whose processes the partitions are shared"
            )
        if self.share and (self.partitions is not None or not self.follow):
            raise ValueError(
                "share: the group chooses the partitions, for as long as it likes; take away "
                f"`{'partitions' if self.partitions is not None else 'follow: false'}`"
            )
        if self.group_id == "":
            raise ValueError("group_id: expected a name")
        strangers = sorted(set(self.start) - set(self.topics)) if isinstance(self.start, dict) else []
        if strangers:
            raise ValueError(f"start: '{strangers[0]}' is not one of `topics`")
        self.check_options(OWNED)
        return self


class KafkaSource(Source[KafkaConfig]):
    """Hands on what a consumer in a worker thread reads."""

    def __init__(self, config: KafkaConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        spec = self.format()
        self.data_format = spec if isinstance(spec, str) else str(spec.get("type"))
        if self.config.share:
            self.may_repeat = _MOVED
        self._feed: Feed | None = None
        self._known = False

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the chunks: lines of JSON with the message's columns, or the payload's own."""
        return line_format(self.config.format or "ndjson")

    def poll_interval(self) -> float | None:
        """Go on at once where reading never ends."""
        return 0.0 if self.config.follow else self.config.every

    async def open(self) -> None:
        """Connect, and see that there are such topics."""
        feed = self._make_feed(self.config)
        stack = await self.enter(contextlib.AsyncExitStack())
        stack.push_async_callback(self._close)
        self._feed = feed
        await self._do(partial(feed.connect, known=self._known))
        self._known = True

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Yield what there is behind the position, and what comes."""
        feed = self._feed
        assert feed is not None  # noqa: S101  # it is read between `open` and its end
        await self._do(partial(feed.start, since))
        while not feed.ended:
            await self.linger()
            for piece in await self._do(feed.take):
                yield self._chunk(piece)

    async def commit(self, position: Position) -> None:
        """Have the group know, soon, what is stored."""
        if self._feed is not None:
            self._feed.stored(position)

    def replay(self, since: Position | None, until: Position) -> CollectedData:
        """Return the chunk that ended at `until` once more. Raises FatalError when its messages were deleted."""
        config = self.config.model_copy(update={"share": False, "follow": False, "group_id": None})
        feed = self._make_feed(config)
        try:
            return self._chunk(feed.again(since, until))
        except KafkaException as error:
            raise explained(error.args[0], "brokers") from None
        finally:
            feed.close()

    def _make_feed(self, config: KafkaConfig) -> Feed:
        joins = kind_of(config.format or "ndjson") != "other" or getattr(self.framing, "joinable", True)
        return Feed(config, self.get_source_id(), joins=joins, tell=self.tell, count_lost=self.count_lost)

    def _chunk(self, piece: Piece) -> CollectedData:
        about = {"path": piece.place} if piece.place else {}
        if piece.reason is not None:
            return self.refuse(piece.raw, piece.position, piece.reason, **about)
        return self.chunk(piece.raw, piece.position, **about)

    async def _do(self, step: Callable[[], Result]) -> Result:
        """Do a step of the feed in a thread; who is cancelled meanwhile goes when it is over, which is soon."""
        work = in_thread(step)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if self._feed is not None:
                self._feed.hurry()
            await asyncio.wait([work], timeout=_PATIENCE_SECONDS)
            work.add_done_callback(_forget)
            raise
        except KafkaException as error:
            raise explained(error.args[0], self.config.about()) from None

    async def _close(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.hurry()
            closing = in_thread(feed.close)
            await asyncio.wait([closing], timeout=_PATIENCE_SECONDS)
            closing.add_done_callback(_forget)


COMPONENT = KafkaSource
