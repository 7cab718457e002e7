"""NATS: a JetStream stream from a position on, or what is published to subjects while this listens.

    source:
      type: nats
      servers: nats://127.0.0.1:4222
      stream: ORDERS
      subject: orders.>

With `stream`, messages are read from where the storage has them: nothing is acknowledged, nobody else is disturbed. With
`durable` as well they come from that consumer of the stream, made when it is not there, and are acknowledged when they are
stored: for streams with `workqueue` or `interest` retention, for lag that is seen in `nats consumer info`, and for
several processes that share the work. Without `stream` it is core NATS: `queue` shares messages with others.

The payload of a message is a record in `format`, JSON if not said. `add` puts more into columns of JSON records:

    add: {subject: subject, published_at: time, trace: "header:Traceparent"}

What cannot be a record is set aside, and acknowledged. What was given and not acknowledged when a process dies is given
again after the consumer's `ack_wait`. Messages that a limit of the stream, or a purge, has removed
before they were read are counted as lost; with `subject` it is only said that there may be some. A stream that was
deleted and made anew, or has lost its end, stops the source.

Passwords and tokens are not sent without TLS to another machine; a server that does not offer it gets nothing.

Delivery: exactly once from a stream. With `durable` the order changes when messages are given again; shared by several
processes it is at least once, since what one has stored and not acknowledged when it dies is given to another. Core
NATS: exactly once from the spool on.
Position: the sequence in the stream; with `durable` also which of those before it were read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, model_validator

from collectors.client_tls import ClientTls, client_context
from collectors.collection.base import ByteSourceConfig, Source
from collectors.collection.sources._broker_records import Add, Payload, check_add, groups, record_of
from collectors.collection.sources._nats_held import Held
from collectors.collection.sources._nats_pull import Delivered
from collectors.collection.sources._nats_reading import ByConsumer, BySequence, Reading, Wanted, look_at
from collectors.collection.sources._nats_stream import Start
from collectors.collection.sources._nats_subject import Listener, Published
from collectors.errors import CollectorsError, TransientError
from collectors.models import CollectedData, Position
from collectors.nats_client import Connection, NatsSettings, StreamName

__all__ = ["COMPONENT", "NatsConfig", "NatsSource"]

Message = Delivered | Published
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OF_STREAMS = ("subject", "time", "headers", "sequence")
_OF_SUBJECTS = ("subject", "time", "headers")


def _is_subject(text: str) -> str:
    parts = text.split(".")
    odd = not all(parts) or any(sign.isspace() for sign in text) or ">" in parts[:-1]
    if odd or any(("*" in part or ">" in part) and len(part) > 1 for part in parts):
        raise ValueError("expected a subject such as orders.new, orders.* or orders.>")
    return text


def _start(value: Any) -> Any:
    if value in {"all", "new"} or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError(
            "expected all, new, a sequence from 1 on, or a time with its zone such as 2026-11-29T08:00:00Z"
        )
    return time


StartingPoint = Annotated[Start, BeforeValidator(_start, json_schema_input_type=int | str)]
Subject = Annotated[str, AfterValidator(_is_subject)]


class NatsConfig(NatsSettings, ByteSourceConfig):
    """Settings of the nats source."""

    stream: StreamName | None = None
    """The JetStream stream; left out: core NATS, which keeps nothing for who is not there."""
    subject: Subject | list[Subject] = []
    """Which subjects, for example `orders.>`; with `stream`, all of it when left out."""
    durable: StreamName | None = None
    """With `stream`: the durable pull consumer, where messages are acknowledged once they are stored."""
    start: StartingPoint = "all"
    """With `stream`, where the first reading begins: `all`, `new`, a sequence, or a time such as 2026-11-29T08:00:00Z."""
    queue: StreamName | None = None
    """Without `stream`: the queue group, whose members get each message once among them."""
    add: Add = {}
    """Columns for JSON records: name → `subject`, `sequence`, `time`, `headers` or `header:NAME`."""

    def all_subjects(self) -> list[str]:
        """Return the subjects."""
        return self.subject if isinstance(self.subject, list) else [self.subject]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.stream is None and not self.all_subjects():
            raise ValueError("expected `stream` (JetStream), or `subject` (core NATS)")
        for name in ("durable", "start"):
            if self.stream is None and name in self.model_fields_set:
                raise ValueError(f"{name}: only with `stream`")
        if self.stream is not None and self.queue is not None:
            raise ValueError("queue: only without `stream`; processes share a stream by `durable`")
        check_add(self.add, _OF_STREAMS if self.stream is not None else _OF_SUBJECTS, self.format)
        return self


class NatsSource(Source[NatsConfig]):
    """Reads a stream, or listens to subjects."""

    endless = True
    lost_before_spool = "what is published while nobody listens, or was received and not yet written there when the process died, is lost"

    def __init__(self, config: NatsConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        spec = self.format()
        self.data_format = spec if isinstance(spec, str) else str(spec.get("type"))
        self._connection: Connection | None = None
        self._listener: Listener | None = None
        self._reading: Reading | None = None
        self._broken: CollectorsError | None = None
        self._held = Held()
        self._ready: deque[CollectedData] = deque()

    def needs_spool(self) -> bool:
        """Return whether it is core NATS: what is published there is sent once."""
        return self.config.stream is None

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the settings, else one JSON object a message."""
        return self.config.format or "ndjson"

    async def open(self) -> None:
        """Connect."""
        config = self.config
        context = client_context(config.tls or ClientTls()) if config.wants_tls() else None
        self._broken = None
        self._connection = await self.enter(self._connected(context))
        if config.stream is None:
            self._listener = await self.enter(self._listening(self._connection))
        else:
            await look_at(self._connection, config.stream, durable=config.durable is not None)

    @asynccontextmanager
    async def _connected(self, context: Any) -> AsyncIterator[Connection]:
        config = self.config
        connection = await Connection.open(
            config.all_servers(), config.timeout, context, self._lose, config.secrets(), **config.keys()
        )
        try:
            yield connection
        finally:
            self._connection = None
            await connection.close()

    @asynccontextmanager
    async def _listening(self, connection: Connection) -> AsyncIterator[Listener]:
        config = self.config
        listener = Listener(connection, config.all_subjects(), config.queue, config.chunk_size)
        await listener.open()
        try:
            yield listener
        finally:
            self._listener = None
            self._count_dropped(connection)

    def _lose(self, error: CollectorsError) -> None:
        """Have the reading end with the error."""
        self._broken = error
        if self._listener is not None:
            self._listener.fail(error)
            self.tell(f"{error}; what was published to its subjects until it is there again is lost")
        if self._reading is not None and self._reading.puller is not None:
            self._reading.puller.fail(error)

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Yield messages as they come, all that are there as few chunks."""
        if self._broken is not None or self._connection is None:
            raise self._broken or TransientError("the connection is lost")
        if self._listener is not None:
            while True:
                while self._ready:
                    yield self._ready.popleft()
                await self.linger()
                messages = await self._listener.take()
                self._count_dropped(self._connection)
                self._ready.extend(self._chunks(messages, lambda _: None))
        reading = self._reading = self._stream_reading(self._connection)
        left: list[Delivered] = []
        try:
            first = await reading.begin(since)
            if first is not None:
                yield self.chunk(b"", first)
            while True:
                await self.linger()
                left = await reading.take()
                for chunk in self._chunks(left, reading.position):
                    yield chunk
        finally:
            self._reading = None
            await reading.end(left)

    async def commit(self, position: Position) -> None:
        """Acknowledge everything up to the position, if it is from a durable consumer."""
        if self.config.durable is not None:
            self._held.committed(position)
            if self._connection is not None and self._broken is None:
                await self._held.acknowledge(self._connection)

    async def rest(self) -> AsyncIterator[CollectedData]:
        """Yield what was published to subjects and has come, and listen no more."""
        if self._listener is not None:
            await self._listener.close()
            self._ready.extend(self._chunks(self._listener.rest(), lambda _: None))
        while self._ready:
            yield self._ready.popleft()

    def _stream_reading(self, connection: Connection) -> Reading:
        config = self.config
        wanted = Wanted(
            config.stream or "",
            config.all_subjects(),
            config.start,
            config.chunk_size,
            self.tell,
            self.count_lost,
        )
        if config.durable is None:
            return BySequence(connection, wanted)
        return ByConsumer(connection, wanted, config.durable, self._held)

    def _chunks(
        self, messages: list[Any], position: Callable[[Sequence[Any]], Position | None]
    ) -> Iterator[CollectedData]:
        """Yield messages as few chunks."""
        joinable = bool(getattr(self.framing, "joinable", True))
        payloads = [self._payload(message) for message in messages]
        for group in groups(payloads, self.config.chunk_size, joinable=joinable):
            place = position(group.origins)
            if group.reason is not None:
                yield self.refuse(group.raw, place, group.reason)
            else:
                yield self.chunk(group.raw, place)

    def _payload(self, message: Message) -> Payload[Message]:
        number = f" {message.seq:,}" if isinstance(message, Delivered) else ""
        name = f"message{number} of subject '{message.subject}'"
        raw, reason = record_of(
            message.data,
            name,
            self.config.max_record,
            json=self.data_format == "ndjson",
            extra={column: self._value(message, what) for column, what in self.config.add.items()},
        )
        return Payload(raw, message, reason)

    def _value(self, message: Message, what: str) -> Any:
        headers = message.headers or {}
        if what == "subject":
            return message.subject
        if what == "headers":
            return headers
        if isinstance(message, Delivered):
            if what == "sequence":
                return message.seq
            if what == "time":
                return _EPOCH + timedelta(microseconds=message.nanoseconds // 1000)
        elif what == "time":
            return self.now()
        return headers.get(what.removeprefix("header:"))

    def _count_dropped(self, connection: Connection) -> None:
        dropped, connection.dropped = connection.dropped, 0
        if dropped:
            self.count_lost(dropped)


COMPONENT = NatsSource
