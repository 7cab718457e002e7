"""MQTT 3.1.1 and 5: messages of a broker, acknowledged when they are on disk here.

    source:
      type: mqtt
      url: mqtts://broker.example.com
      topics: ["sensors/{site}/{device}/temperature", {topic: "alarms/#", qos: 2}]

`topics` are filters with `+` and `#`; a level in braces is a `+` whose value becomes a column. With MQTT 5 there are
shared subscriptions, `$share/GROUP/FILTER`. What else of a message becomes a column is in `add`.

`format: json` takes the payload as one JSON value: the members of an object are columns, any other value is in the
column `value`, of an array each element is a record, and of an empty payload `value` is null. `ndjson` is so for each
line of the payload; with `lines` each line is text in the column `line`. In any other format the payload is what the
codec reads, and the topic is no column. A payload that cannot be read is set aside with its topic.

The broker keeps a session for `client_id`: what comes in while nobody is here, and what was not acknowledged. A message
is acknowledged when it is durable in the spool; what the broker may have on its way at once (its window, with MQTT 5
`receive_maximum`) bounds the memory. After a reconnect it is not subscribed again, so retained messages do not come again.

A password (`password: ${MQTT_PASSWORD}`) is not sent without TLS to another machine. Two programs with one `client_id`
end each other's connections; the messages say so.

Delivery: QoS 2: exactly once, over kills of this process and cut connections. Restarts of the broker cost nothing; but
Mosquitto 2.0 sends some messages of QoS 2 anew that it had got an answer to before, and those are stored again. QoS 1: at
least once: a message whose acknowledgement did not reach the broker is stored again. QoS 0: what was received and not
yet written to the spool when the process dies is lost; most brokers keep none for later.
Position: none; the spool has one, and the session is the broker's.
"""

from __future__ import annotations

import math
import secrets
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from collectors.client_tls import ClientTls, client_context, is_this_machine
from collectors.collection.base import ByteSourceConfig, Source
from collectors.collection.sources import _mqtt_packets as wire
from collectors.collection.sources._arrived import receive_what_is_there
from collectors.collection.sources._cutting import SAMPLE_BYTES
from collectors.collection.sources._mqtt_connection import Broker, Connection, parse_url
from collectors.collection.sources._mqtt_exchanges import Exchange
from collectors.collection.sources._mqtt_packets import Packet
from collectors.collection.sources._mqtt_records import (
    About,
    Lines,
    PayloadError,
    PayloadFormat,
    Piece,
    Pieces,
)
from collectors.collection.sources._mqtt_session import Session
from collectors.collection.sources._mqtt_topics import Filter, parse_filter
from collectors.errors import CollectorsError, TransientError
from collectors.models import CollectedData, Position
from collectors.settings import Duration, Name, Settings

__all__ = ["COMPONENT", "MqttConfig", "MqttSource", "TopicConfig"]

_AROUND = 128 * 1024
"""How many bytes topic and properties may have beside a payload that is taken whole."""
QoS = Literal[0, 1, 2]


def _is_url(text: str) -> str:
    parse_url(text)
    return text


def _is_filter(text: str) -> str:
    parse_filter(text)
    return text


def _is_text(text: str) -> str:
    if not text or "\0" in text or len(text.encode()) > wire.MOST_BYTES:
        raise ValueError("expected a text of 1 to 65,535 bytes")
    return text


def _as_version(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class TopicConfig(Settings):
    """What is subscribed to."""

    topic: Annotated[str, AfterValidator(_is_filter)]
    """The topic filter."""
    qos: QoS | None = None
    """The highest quality of service for it, in place of that of all."""


class MqttConfig(ByteSourceConfig):
    """Settings of the mqtt source."""

    url: Annotated[str, AfterValidator(_is_url)]
    """The broker: `mqtt://host:1883`, or `mqtts://host:8883` with TLS; the port can be left out."""
    topics: Annotated[list[Annotated[str, AfterValidator(_is_filter)] | TopicConfig], Field(min_length=1)]
    """Topic filters, for example `sensors/{site}/+/temperature` or `{topic: "alarms/#", qos: 2}`."""
    qos: QoS = 1
    """The highest quality of service: 0, 1 or 2."""
    add: dict[Name, About] | None = None
    """Columns about the message: name → `topic`, `qos`, `retain` or `time` (of receipt). Left out: `{topic: topic}`. A
    payload with a member of such a name is set aside."""
    version: Annotated[Literal["3.1.1", "5"], BeforeValidator(_as_version)] = "3.1.1"
    """The version of MQTT."""
    client_id: Annotated[str, AfterValidator(_is_text)] | None = None
    """Names the session at the broker, so no other program may have it; left out: one that is made up at the first run
    and kept beside the spool."""
    session_expiry: Annotated[Duration, Field(ge=1, le=2**32 - 2)] = 7 * 86_400.0
    """With MQTT 5: how long the broker keeps the session while nobody is connected. With 3.1.1 the broker decides."""
    receive_maximum: Annotated[int, Field(ge=1, le=wire.MOST_BYTES)] = 100
    """With MQTT 5: how many messages the broker may send before the first is acknowledged. With 3.1.1 the broker decides."""
    username: Annotated[str, AfterValidator(_is_text)] | None = None
    """Who to log in as."""
    password: SecretStr | None = None
    """The password of that user."""
    tls: ClientTls | None = None
    """With `mqtts`: own authorities, or an own certificate."""
    insecure: bool = False
    """Send `password` to another machine without TLS."""
    keep_alive: Annotated[Duration, Field(le=wire.MOST_BYTES)] = 60.0
    """The connection counts as broken when nothing, not even the answer to a ping, comes for one and a half times as
    long; 0: never."""
    timeout: Annotated[Duration, Field(ge=0.1, le=600)] = 10.0
    """How long connecting, and an answer of the broker, may take."""

    def filters(self) -> list[tuple[Filter, int]]:
        """Return the filters, each with its QoS."""
        return [
            (parse_filter(each), self.qos)
            if isinstance(each, str)
            else (parse_filter(each.topic), self.qos if each.qos is None else each.qos)
            for each in self.topics
        ]

    def payload(self) -> PayloadFormat | None:
        """Return which kind of lines payloads are made into; None when the codec gets them as they are."""
        spec = {"type": "json"} if self.format is None else self.format
        spec = {"type": spec} if isinstance(spec, str) else spec
        kind = str(spec.get("type"))
        others = {*spec} - ({"type"} if kind == "lines" else {"type", "columns"})
        return cast("PayloadFormat", kind) if kind in {"json", "ndjson", "lines"} and not others else None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        scheme, address = parse_url(self.url)
        filters = [each for each, _ in self.filters()]
        texts = [each.text for each in filters]
        if twice := next((text for text in texts if texts.count(text) > 1), None):
            raise ValueError(f"topics: {twice!r} is there twice")
        if self.version != "5" and any(each.shared for each in filters):
            raise ValueError("topics: $share/… needs `version: 5`")
        names = {name for each in filters for _, name in each.names}
        if self.payload() is None and (self.add or names):
            raise ValueError(
                "add, topics: only payloads in format json, ndjson or lines (as they are, without a pattern or a path) "
                "can get columns; leave out `add`, and write + in place of a name in braces"
            )
        if both := sorted(names & {*(self.add or {"topic": "topic"})}):
            raise ValueError(f"add, topics: both name a column '{both[0]}'")
        if self.tls is not None and scheme != "mqtts":
            raise ValueError("tls: only with mqtts://")
        if self.password is not None and len(self.password.get_secret_value().encode()) > wire.MOST_BYTES:
            raise ValueError("password: expected a text of at most 65,535 bytes")
        if self.password is not None and self.username is None and self.version != "5":
            raise ValueError("password: a password without `username` needs `version: 5`")
        if (
            self.password is not None
            and scheme != "mqtts"
            and not (self.insecure or is_this_machine(address.host))
        ):
            raise ValueError(
                f"password: it would go to {address} as it is; use mqtts://, or set `insecure: true`"
            )
        return self


class MqttSource(Source[MqttConfig]):
    """Gives what came in one piece from the network as one chunk, and answers the broker when that is durable."""

    endless = True

    def __init__(self, config: MqttConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        config, spec = self.config, self.format()
        self.data_format = spec if isinstance(spec, str) else str(spec.get("type"))
        self._v5 = config.version == "5"
        self._filters = config.filters()
        kind = config.payload()
        add: dict[str, About] = {"topic": "topic"} if config.add is None else config.add
        self._lines = Lines(kind, add, [each for each, _ in self._filters]) if kind is not None else None
        self._session = Session(
            str(parse_url(config.url)[1]), config.client_id, _made_up(), lambda line: self.tell(line)
        )
        lowest, highest = (choose(qos for _, qos in self._filters) for choose in (min, max))
        self._sent_once = lowest == 0
        self._unanswered = highest == 0
        self.lost_before_spool = (
            "what came with QoS 0 and was not yet written there when the process died is lost"
            if self._sent_once
            else ""
        )
        if 1 in {lowest, highest}:
            self.doubled_before_spool = (
                "of QoS 1, a message whose acknowledgement did not arrive is stored again"
            )
        self._connection: Connection | None = None
        self._ready: deque[CollectedData] = deque()
        self._handed: deque[CollectedData] = deque()

    def needs_spool(self) -> bool:
        """Return True: what was acknowledged does not come again."""
        return True

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the chunks: lines of JSON, unless the payload is another codec's."""
        spec = self.config.format
        if self.config.payload() is None:
            return spec or "ndjson"
        return {**spec, "type": "ndjson"} if isinstance(spec, dict) else "ndjson"

    def remember(self, folder: Path, kept: Iterable[CollectedData]) -> None:
        """Learn who we are for the broker, and which messages of QoS 2 are kept and not over."""
        self._session.remember(folder, kept)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        retained = 0x10 if self._v5 else 0  # with MQTT 5: those only of what was not subscribed to before
        wanted = {each.text: qos | (0 if each.shared else retained) for each, qos in self._filters}
        connection, welcome = await Connection.connect(self._broker())
        try:
            if self._v5 and self._session.lasts and not welcome.properties.number(0x11, 1):
                self.tell(
                    f"{connection.broker} keeps no session: what comes while nobody is connected is lost"
                )
            await self._session.begin(connection, welcome, wanted)
            yield connection
        finally:
            self._connection = None
            await self._session.end()
            await connection.close()

    def _broker(self) -> Broker:
        config = self.config
        scheme, address = parse_url(config.url)
        lasts = self._session.lasts  # a look from outside of a run must not take over the session of a run
        return Broker(
            address=address,
            context=client_context(config.tls or ClientTls()) if scheme == "mqtts" else None,
            v5=self._v5,
            client_id=self._session.client_id if lasts else _made_up(),
            clean=not lasts,
            username=config.username,
            password=config.password.get_secret_value() if config.password is not None else None,
            session_expiry=math.ceil(config.session_expiry),
            receive_maximum=config.receive_maximum,
            keep_alive=math.ceil(config.keep_alive),
            timeout=config.timeout,
            limit=config.max_record + _AROUND,
        )

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Yield what comes; first again what was handed on behind `since` and is not known to be durable."""
        if self._connection is None:  # not in `open`, which comes before `remember`
            self._connection = await self.enter(self._connected())
        last = since["message"] if since is not None else 0
        for chunk in [each for each in self._handed if _number(each) > last]:
            yield chunk
        size = 0
        while True:
            for chunk in self._taken():
                yield chunk
            if self._unanswered:
                await self.linger(size)
            size = await self._receive(self._connection)

    async def rest(self) -> AsyncIterator[CollectedData]:
        """Yield what was received and not handed on; with QoS 0 also what has arrived, since it does not come again."""
        connection = self._connection
        if self._sent_once and connection is not None:
            with suppress(CollectorsError):
                await receive_what_is_there(lambda: self._receive(connection))
        for chunk in self._taken():
            yield chunk

    def _taken(self) -> Iterator[CollectedData]:
        while self._ready:
            chunk = self._ready.popleft()
            self._handed.append(chunk)
            yield chunk

    async def commit(self, position: Position) -> None:
        """Tell the broker of everything up to the position."""
        while self._handed and _number(self._handed[0]) <= position["message"]:
            self._handed.popleft()
        await self._session.answer(self._session.exchanges.settle(position["message"]))

    async def _receive(self, connection: Connection) -> int:
        """Wait for packets, do what each of them asks for, and return their size."""
        packets = await connection.read()
        if self._lines is not None:
            self._lines.at(self.now())
        pieces = Pieces(self.config.chunk_size)
        again: list[Exchange] = []
        over: list[int] = []
        subscribed: list[Packet] = []
        try:
            for packet in packets:
                kind = packet[0] >> 4
                if kind == wire.PUBLISH:
                    self._take(packet, pieces, again)
                elif kind == wire.PUBREL:
                    over.append(int.from_bytes(packet[1][:2], "big"))
                elif kind in {wire.SUBACK, wire.UNSUBACK}:
                    subscribed.append(packet)
                elif kind != wire.PINGRESP:
                    raise wire.BrokenPacketError(f"a packet of kind {kind}, which no client should get")
        except wire.BrokenPacketError as error:
            raise TransientError(f"{connection.broker} sent {error}") from error
        finally:
            self._ready += map(self._chunk, pieces.all())
        if again:
            await self._session.answer(again)
        if over:
            await self._session.over(over)
        for packet in subscribed:
            await self._session.subscribed(packet)
        return sum(size for _, _, size in packets)

    def _take(self, packet: Packet, pieces: Pieces, again: list[Exchange]) -> None:
        """Add a message to the pieces, unless it was handed on before."""
        first, body, size = packet
        topic, mid, at = wire.read_publish(first, body, v5=self._v5)
        payload, exchange = body[at:], None
        if first & 6:
            checksum = zlib.crc32(payload, zlib.crc32(topic))
            exchange = self._session.exchanges.take(mid, first >> 1 & 3, checksum, again)
            if exchange is None:
                return
        number = exchange.number if exchange is not None else self._session.exchanges.count()
        most = self.config.max_record
        if size - at > most:
            reason = f"the message has {size - at:,} bytes, more than max_record ({most:,})"
            pieces.add_alone(payload[:SAMPLE_BYTES], number, exchange, topic, reason)
        elif self._lines is None:
            pieces.add_alone(payload, number, exchange, topic)
        else:
            try:
                lines = self._lines.make(topic, first, payload)
            except PayloadError as error:
                pieces.add_alone(payload, number, exchange, topic, str(error))
            else:
                pieces.add(lines, number, exchange)

    def _chunk(self, piece: Piece) -> CollectedData:
        position, about = {"message": piece.number}, dict[str, Any]()
        if piece.exchanges:
            about |= {"session": self._session.name, "exchanges": piece.exchanges}
        if piece.topic is not None:
            about["path"] = piece.topic
        if piece.reason is not None:
            return self.refuse(piece.raw, position, piece.reason, **about)
        return self.chunk(piece.raw, position, messages=piece.messages, **about)


def _number(chunk: CollectedData) -> int:
    return int(chunk.position["message"]) if chunk.position is not None else 0


def _made_up() -> str:
    """Return a client id of 22 letters and digits, which every broker takes."""
    return f"collectors{secrets.token_hex(6)}"


COMPONENT = MqttSource
