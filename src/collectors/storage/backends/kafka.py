"""Kafka: each row a message of a topic, acknowledged by all replicas before the source goes on.

    storage:
      type: kafka
      brokers: [kafka-1.example:9092, kafka-2.example:9092]
      topic: orders
      key: customer

A message is a JSON object of the row: times in ISO 8601, decimals as exact text, bytes in base64. With `value` it is one
column as it is; where a row has nothing there, its message is a tombstone, which needs a key. Keys and headers are text in
UTF-8; keys that are bytes stay bytes. Messages of one key are in one partition, the same one that Kafka's own clients choose.

`topic: orders-{region}` has a column in it. `topics` says which ones there may be then; a row for another one is set
aside, as is one that is larger than `message.max.bytes` (an option; 1,000,000) or that the brokers refuse for good. Where the
limit of a topic is smaller than that, set the option `batch.size` to it: batches that are refused are sent row by row. No
topic is made: they have to be there.

With `positions`, every delivery is a transaction of Kafka, together with the position behind it, in that topic. It is made
when it is not there: one partition, compacted. The transactional ids begin with its name. Consumers see each row once if
they read with `isolation.level=read_committed`.

Delivery: with `positions` exactly once. Without it at least once: the producer is idempotent, so what it sends again by
itself comes once; what was not acknowledged within `timeout`, or not noted when the process died, is sent again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException
from msgspec.structs import replace
from pydantic import Field, field_validator, model_validator

from collectors.chunks import Checkpoint, ChunkKey, Delivery
from collectors.errors import ConfigurationError, DataError, TransientError
from collectors.kafka_client import KafkaSettings, Topic
from collectors.settings import Duration, meant
from collectors.storage.backends._kafka_positions import MOMENT, OpenTransactionError, Positions, Session
from collectors.storage.backends._kafka_sending import (
    FENCED,
    OWNED,
    REFUSED,
    TOO_LARGE,
    Messages,
    Progress,
    Sender,
    meaning,
    worst,
)
from collectors.storage.base import Backend, BackendConfig
from collectors.storage.messages import (
    MessageSettings,
    Template,
    bytes_of,
    headers_of,
    missing,
    payloads,
    refused,
)
from collectors.storage.positions import check_follows, is_of

__all__ = ["COMPONENT", "KafkaBackend", "KafkaConfig"]

_SHOWN = 100


class KafkaConfig(KafkaSettings, MessageSettings, BackendConfig):
    """Settings of the kafka storage."""

    topic: str
    """Where rows go; `{column}` in it stands for what a row has in that column."""
    topics: list[Topic] = []
    """Where they may go, if `topic` has columns in it."""
    key: str | None = None
    """The column with the key of the message; none where a row has nothing there."""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    """How batches of messages are compressed."""
    positions: Topic | None = None
    """Store exactly once, in transactions, with the position of each flow in this topic."""
    timeout: Annotated[Duration, Field(ge=1)] = 30.0
    """How long to wait until a message is acknowledged, and for any other answer of the brokers."""

    @field_validator("topic")
    @classmethod
    def _topic(cls, text: str) -> str:
        Template.parse(text)
        return text

    @model_validator(mode="after")
    def _check(self) -> Self:
        template = Template.parse(self.topic)
        if template.columns and not self.topics:
            raise ValueError(
                f"topics: expected all topics that '{self.topic}' may stand for; rows for others are set aside"
            )
        if not template.columns and self.topics:
            raise ValueError("topics: means nothing where `topic` has no column in it")
        if self.positions is not None and self.positions in (self.topics or [self.topic]):
            raise ValueError("positions: expected a topic of its own")
        self.check_message()
        self.check_options(OWNED)
        return self


class KafkaBackend(Backend[KafkaConfig]):
    """Sends; remembers what was acknowledged, so that it is not sent again while this process lives."""

    def __new__(cls, config: KafkaConfig | None = None, **settings: Any) -> KafkaBackend:
        """Return one that keeps positions if it is to."""
        wanted = settings.get("positions") if config is None else config.positions
        return super().__new__(_Transactional if wanted and cls is KafkaBackend else cls)

    def __init__(self, config: KafkaConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._template = Template.parse(self.config.topic)
        self._topics = set(self.config.topics or [self.config.topic])
        self._sender: Sender | None = None
        self._progress = Progress()

    def open(self) -> None:
        """Connect, and see that there are such topics."""
        with self._meant():
            there = {topic for topic in self._connected().topics() if not topic.startswith("__")}
        for topic in sorted(self._topics - there):
            setting = "topics" if self.config.topics else "topic"
            raise ConfigurationError(f"{setting}: there is no topic '{topic}'{meant(topic, there)}")

    def close(self) -> None:
        """Disconnect."""
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.close()

    def write(self, table: pa.Table, key: ChunkKey) -> int:
        """Send the rows and return their number, once all of them are acknowledged."""
        acknowledged = self._progress.of(key, table.num_rows)
        new = acknowledged.count(0)
        if not new:
            return 0
        try:
            messages = self._messages(table)
            with self._meant():
                errors = self._send(messages, acknowledged)
            self._raise(errors, messages)
        except DataError as error:
            self._progress.leave_out(key, error.rows)
            raise
        return new

    def preview(self, table: pa.Table, flow: str) -> list[str]:
        """Return what a message would be made of."""
        used = {"topic": self._template.columns, "key": [self.config.key] if self.config.key else []}
        return missing(table.schema, used) + self.config.describe_message(table.schema)

    def describe(self) -> str:
        """Return topic and brokers."""
        return f"topic {self.config.topic} at {', '.join(self.config.brokers)}"

    def place(self, source: str) -> str:
        """Return topic and brokers, these in a fixed order."""
        return f"kafka {','.join(sorted(self.config.brokers))} {self.config.topic}"

    def _connected(self) -> Sender:
        """Return the producer, a new one where the last one failed."""
        if self._sender is None:
            self._sender = Sender(self.config, self.get_backend_id())
        return self._sender

    def _send(self, messages: Messages, acknowledged: bytearray) -> dict[int, KafkaError]:
        """Send what is not acknowledged and return why some was not; what is too large is sent again by itself.

        A batch of small messages can be too large for the brokers, too.
        """
        try:
            errors = self._connected().send(messages, acknowledged)
        except (KafkaException, TransientError):
            KafkaBackend.close(self)
            raise
        if not any(error.code() == TOO_LARGE for error in errors.values()):
            return errors
        alone = Sender(self.config, self.get_backend_id(), careful=True)
        try:
            return alone.send(messages, acknowledged)
        finally:
            alone.close()

    def _messages(self, table: pa.Table) -> Messages:
        """Return the rows as messages. Raises DataError for those that cannot be one."""
        config = self.config
        bad: dict[int, str] = {}
        topics = self._template.fill(table, bad)
        if self._template.columns:
            for row, topic in enumerate(topics):
                if topic not in self._topics:
                    bad.setdefault(row, f"topic '{topic[:_SHOWN]}' is not one of `topics`")
        keys: list[bytes | None] = [None] * len(topics) if config.key is None else bytes_of(table, config.key)
        values = payloads(table, config)
        if config.value is not None:
            for row, (key, value) in enumerate(zip(keys, values, strict=True)):
                if key is None and value is None:
                    bad.setdefault(
                        row, f"column '{config.value}' has no value: that is a tombstone, which needs a key"
                    )
        if bad:
            raise refused(bad)
        return Messages(topics, keys, values, headers_of(table, config.headers))

    def _raise(self, errors: dict[int, KafkaError], messages: Messages) -> None:
        """Raise what the errors of messages mean, if there are any: first what is not about a message."""
        left = {row: error for row, error in errors.items() if error.code() not in REFUSED}
        if left:
            raise worst({messages.topics[row]: error for row, error in left.items()})
        if errors:
            raise refused(
                {
                    row: f"topic '{messages.topics[row]}' does not take it, {messages.size(row):,} bytes: {error.str()}"
                    for row, error in errors.items()
                }
            )

    @contextmanager
    def _meant(self) -> Iterator[None]:
        """Raise what errors of librdkafka mean."""
        try:
            yield
        except KafkaException as error:
            raise meaning(error.args[0], self.config.about()) from None


class _Transactional(KafkaBackend):
    """Sends each delivery in a transaction, together with the position behind it."""

    def __init__(self, config: KafkaConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._positions: Positions | None = None
        self._sessions: dict[str, Session] = {}
        self._unsure: set[str] = set()

    def close(self) -> None:
        """Disconnect, and abort what is under way."""
        for flow in list(self._sessions):
            self._drop(flow)
        positions, self._positions = self._positions, None
        if positions is not None:
            positions.close()
        super().close()

    def claim(self, flow: str) -> Checkpoint:
        """Raise the flow's epoch, and have the brokers refuse its earlier owners."""
        with self._meant():
            self._known().make()
            self._drop(flow)
            session = self._session(flow)
            claimed = replace(session.checkpoint, epoch=session.checkpoint.epoch + 1)
            self._commit(session, Messages([], [], [], None), claimed)
            return claimed

    def commit(self, delivery: Delivery) -> int:
        """Send rows and position in a transaction."""
        key = delivery.key
        messages = self._messages(delivery.table)
        behind = Checkpoint(key.epoch, key.seq, delivery.position, delivery.schema)
        careful = fenced = False
        with self._meant():
            while True:
                session = self._session(key.flow, careful=careful)
                if not check_follows(session.checkpoint, delivery):
                    return session.checkpoint.seq
                try:
                    errors = self._commit(session, messages, behind)
                except KafkaException as error:
                    if fenced or error.args[0].code() not in FENCED:
                        raise
                    fenced = True
                    # By an owner, which is not disturbed then; or by one that was about to claim the flow and did not.
                    check_follows(self._known().stored(key.flow), delivery)
                    continue
                if careful or not any(error.code() == TOO_LARGE for error in errors.values()):
                    break
                careful = True
        self._raise(errors, messages)
        return key.seq

    def stored(self, flow: str) -> Checkpoint:
        """Return how far the flow is stored; where the outcome of our own commit is unknown, it is decided first."""
        if flow in self._unsure:
            return self.recover(flow)
        with self._meant():
            return self._known().stored(flow)

    def recover(self, flow: str) -> Checkpoint:
        """Return how far the flow is stored; a transaction that hides it for more than a moment is aborted."""
        with self._meant():
            try:
                found = self._known().stored(flow, MOMENT)
            except OpenTransactionError:
                self._drop(flow)
                found = self._session(flow, patience=MOMENT).checkpoint  # others may have to recover, too
        self._unsure.discard(flow)
        return found

    def flows(self, source: str) -> list[str]:
        """Return the flows of a source of which anything is stored."""
        with self._meant():
            return [flow for flow in self._known().flows() if is_of(flow, source)]

    def _known(self) -> Positions:
        if self._positions is None:
            self._positions = Positions(self.config, self.get_backend_id())
        return self._positions

    def _session(self, flow: str, *, careful: bool = False, patience: float | None = None) -> Session:
        """Return the session of a flow, a new one where the last one failed: it ends what that one has left open."""
        session = self._sessions.get(flow)
        if session is None or session.sender.careful != careful:
            self._drop(flow)
            session = Session(self.config, self.get_backend_id(), flow, careful=careful)
            try:
                session.begin(self._known(), patience)
            except BaseException:
                session.sender.close()
                raise
            self._sessions[flow] = session
            self._unsure.discard(flow)
        return session

    def _commit(self, session: Session, messages: Messages, behind: Checkpoint) -> dict[int, KafkaError]:
        """Commit, unless there are errors of messages, which are returned."""
        try:
            errors = session.commit(messages, behind)
        except BaseException as error:
            self._give_up(session, error)
            raise
        if errors:
            self._give_up(session)
        return errors

    def _give_up(self, session: Session, error: BaseException | None = None) -> None:
        """End a session; what became of its transaction is to be decided, unless it was fenced, which ended it."""
        fenced = isinstance(error, KafkaException) and error.args[0].code() in FENCED
        if not fenced:
            self._unsure.add(session.flow)
        self._drop(session.flow)

    def _drop(self, flow: str) -> None:
        session = self._sessions.pop(flow, None)
        if session is not None:
            session.sender.close()


COMPONENT = KafkaBackend
