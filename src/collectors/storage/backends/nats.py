"""NATS: each row a message of a JetStream stream, acknowledged by the server before the source goes on.

    storage:
      type: nats
      servers: nats://127.0.0.1:4222
      stream: ORDERS
      subject: orders.{region}

A message is a JSON object of the row: times in ISO 8601, decimals as exact text, bytes in base64. With `value` it is one
column as it is. A column in `subject` is one part of it: text without dots, spaces, `*` and `>`; where the subject is that
column alone, `{column}`, it may have dots. A row is set aside where the stream does not take its subject, where it is larger
than the server or the stream allows, in its subject and its headers, too, or where a header would have a line break.

No stream is made: it has to be there. The position of each flow is in the bucket `positions` of the key-value store,
made when it is not there, and changed behind the rows only by who has seen the last change.

Every message has a `Nats-Msg-Id` of the flow, the number of the row in the flow, and its content. What is published again,
since an acknowledgement was lost or the process died before the position was noted, has the same one if the source gives
the same rows in the same order, and the server drops it as long as it remembers it: for the stream's `duplicate_window`,
two minutes if not said. Core NATS, without a stream, is not written to: nobody would say that a message has arrived.

Delivery: exactly once within the stream's duplicate window. At least once beyond it, and for sources that give rows in
another order when they are read again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Container, Sequence
from typing import Any, Self

import pyarrow as pa
from msgspec import Struct
from msgspec.structs import replace
from pydantic import field_validator, model_validator

from collectors.chunks import Checkpoint, ChunkKey, Delivery
from collectors.client_tls import ClientTls, client_context
from collectors.errors import CollectorsError, ConfigurationError, DataError, TransientError
from collectors.nats_client import Connection, NatsSettings, StreamName
from collectors.settings import meant
from collectors.storage.backends._nats_positions import Place, Positions
from collectors.storage.backends._nats_publishing import Message, Publisher, meaning
from collectors.storage.base import Backend, BackendConfig
from collectors.storage.messages import (
    MessageSettings,
    Template,
    headers_of,
    missing,
    payloads,
    refused,
    texts_of,
)
from collectors.storage.positions import check_follows, is_of

__all__ = ["COMPONENT", "NatsBackend", "NatsConfig"]

_BUCKET = re.compile(r"[A-Za-z0-9_-]{1,200}")
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PART = re.compile(r"[^\s.*>\x00-\x1f\x7f]+")
_SUBJECT = re.compile(rf"{_PART.pattern}(\.{_PART.pattern})*")
_SUBJECT_BYTES = 3900
"""A server ends the connection for a line that is longer than 4096; the subject is not all of it."""
_SHOWN = 100
_TRIES = 10
_NOT_FOUND = 404


class NatsConfig(NatsSettings, MessageSettings, BackendConfig):
    """Settings of the nats storage."""

    stream: StreamName
    """The JetStream stream."""
    subject: str
    """What rows are published to; `{column}` in it stands for what a row has in that column."""
    positions: str = "collectors-positions"
    """The bucket of the key-value store with the position of each flow."""

    @field_validator("subject")
    @classmethod
    def _subject(cls, text: str) -> str:
        sample = re.sub(r"\{[^{}]+\}", "x", Template.parse(text).text)
        if not _SUBJECT.fullmatch(sample):
            raise ValueError("expected a subject such as orders.new or orders.{region}, without * and >")
        return text

    @field_validator("positions")
    @classmethod
    def _bucket(cls, text: str) -> str:
        if not _BUCKET.fullmatch(text):
            raise ValueError("expected a name of letters, digits, '_' and '-'")
        return text

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.headers:
            if not _HEADER.fullmatch(name) or name.lower().startswith("nats-"):
                raise ValueError(f"headers: '{name}': expected a name of letters, digits and '-', not Nats-…")
        self.check_message()
        return self


class _Stream(Struct, frozen=True):
    """What a stream takes."""

    subjects: tuple[tuple[str, ...], ...]
    most_bytes: int
    replicas: int

    def takes(self, subject: str) -> bool:
        """Return whether the subject is one of the stream's."""
        parts = subject.split(".")
        return any(_matches(pattern, parts) for pattern in self.subjects)


class _Link(Struct):
    """A connection and what works through it; `broken` when it is no more."""

    connection: Connection
    publisher: Publisher
    positions: Positions
    stream: _Stream
    broken: CollectorsError | None = None


class _Numbers(Struct):
    """Which numbers the rows have that are left of a delivery.

    Where some were refused the others keep theirs, and the next delivery begins behind all of them: read again after a
    crash, and with other ends, every row has the same number.
    """

    key: ChunkKey
    rows: int
    """How many it had in the beginning."""
    left: Sequence[int]

    def without(self, bad: Container[int]) -> None:
        """Leave rows out."""
        self.left = [number for row, number in enumerate(self.left) if row not in bad]


class NatsBackend(Backend[NatsConfig]):
    """Publishes, then notes the position; connects anew where the connection has ended."""

    may_repeat = (
        "what is published again after the stream's duplicate window, or in another order, is there twice"
    )

    def __init__(self, config: NatsConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._template = Template.parse(self.config.subject)
        self._link: _Link | None = None
        self._opening = asyncio.Lock()
        self._places: dict[str, Place] = {}
        self._numbers: dict[str, _Numbers] = {}

    async def open(self) -> None:
        """Connect, and see that there is such a stream."""
        await self._connected()

    async def close(self) -> None:
        """Disconnect."""
        link, self._link = self._link, None
        if link is not None:
            await link.connection.close()

    async def write(self, table: pa.Table, key: ChunkKey) -> int:
        """Publish the rows and return their number; the server drops those that it has under the same key."""
        link = await self._connected()
        await self._publish(link, table, key, f"{key.flow}:{key.seq}")
        del self._numbers[key.flow]
        return int(table.num_rows)

    async def claim(self, flow: str) -> Checkpoint:
        """Raise the flow's epoch: no earlier owner can note a position any more."""
        link = await self._connected()
        await link.positions.make(link.stream.replicas)
        for _ in range(_TRIES):
            place = await link.positions.read(flow)
            claimed = replace(place.checkpoint, epoch=place.checkpoint.epoch + 1)
            found = await link.positions.write(flow, place, claimed, place.rows)
            if found is not None:
                self._places[flow] = found
                return claimed
        raise TransientError(f"positions: others change the position of {flow} at the same time")

    async def commit(self, delivery: Delivery) -> int:
        """Publish the rows, then note the position behind them."""
        key, table = delivery.key, delivery.table
        link = await self._connected()
        place = self._places.pop(key.flow, None) or await link.positions.read(key.flow)
        if not check_follows(place.checkpoint, delivery):
            self._places[key.flow] = place
            return place.checkpoint.seq
        rows = place.rows + await self._publish(link, table, key, place.life, place.rows)
        behind = Checkpoint(key.epoch, key.seq, delivery.position, delivery.schema)
        found = await link.positions.write(key.flow, place, behind, rows)
        if found is None:
            found = await link.positions.read(key.flow)
            if check_follows(found.checkpoint, delivery):
                raise TransientError(f"positions: that of {key.flow} was changed by hand")
        self._places[key.flow] = found
        return found.checkpoint.seq

    async def stored(self, flow: str) -> Checkpoint:
        """Return how far the flow is stored."""
        self._places.pop(flow, None)
        return (await (await self._connected()).positions.read(flow)).checkpoint

    async def flows(self, source: str) -> list[str]:
        """Return the flows of a source of which anything is stored."""
        return [flow for flow in await (await self._connected()).positions.flows() if is_of(flow, source)]

    def preview(self, table: pa.Table, flow: str) -> list[str]:
        """Return what a message would be made of."""
        used = {"subject": self._template.columns}
        return missing(table.schema, used) + self.config.describe_message(table.schema)

    def describe(self) -> str:
        """Return subject, stream and servers."""
        config = self.config
        return f"subject {config.subject} of stream {config.stream} at {', '.join(config.all_servers())}"

    def place(self, source: str) -> str:
        """Return stream and subject, and the servers in a fixed order."""
        config = self.config
        return f"nats {','.join(sorted(config.all_servers()))} {config.stream} {config.subject}"

    async def _connected(self) -> _Link:
        """Return the connection, a new one where the last one has ended."""
        async with self._opening:
            if self._link is not None and self._link.broken is not None:
                await self.close()
            if self._link is None:
                self._link = await self._open()
            return self._link

    async def _open(self) -> _Link:
        config = self.config
        context = client_context(config.tls or ClientTls()) if config.wants_tls() else None
        link: _Link | None = None

        def lose(error: CollectorsError) -> None:
            if link is not None:
                link.broken = error
                link.publisher.fail(error)

        connection = await Connection.open(
            config.all_servers(), config.timeout, context, lose, config.secrets(), **config.keys()
        )
        try:
            publisher = Publisher(connection, config.timeout)
            await publisher.open()
            stream = await self._look(connection)
        except BaseException:
            await connection.close()
            raise
        positions = Positions(connection, config.positions, config.stream, config.subject)
        link = _Link(connection, publisher, positions, stream)
        return link

    async def _look(self, connection: Connection) -> _Stream:
        """Return what the stream takes. Raises ConfigurationError when it is not there, or takes nothing."""
        name = self.config.stream
        answer = await connection.api(f"STREAM.INFO.{name}")
        error = answer.get("error")
        if error is not None and error.get("code") == _NOT_FOUND:
            names = (await connection.api("STREAM.NAMES")).get("streams") or []
            there = [each for each in names if not each.startswith(("KV_", "OBJ_"))]
            raise ConfigurationError(f"stream: there is no stream '{name}'{meant(name, there)}")
        if error is not None:
            raise TransientError(f"stream '{name}': {error.get('description', 'unknown error')}")
        config = answer["config"]
        if not config.get("subjects") or config.get("sealed"):
            raise ConfigurationError(
                f"stream: '{name}' is a mirror, or sealed: nothing can be published to it"
            )
        if config.get("no_ack"):
            raise ConfigurationError(f"stream: '{name}' acknowledges nothing; set its no_ack to false")
        return _Stream(
            tuple(tuple(subject.split(".")) for subject in config["subjects"]),
            (config.get("max_msg_size") or -1) % 2**31,
            config.get("num_replicas", 1),
        )

    def _numbers_of(self, key: ChunkKey, rows: int) -> _Numbers:
        """Return those of a delivery, which may have been tried before, with rows that were refused then."""
        known = self._numbers.get(key.flow)
        if known is None or known.key != key or len(known.left) != rows:
            known = self._numbers[key.flow] = _Numbers(key, rows, range(rows))
        return known

    async def _publish(self, link: _Link, table: pa.Table, key: ChunkKey, life: str, behind: int = 0) -> int:
        """Publish the rows, numbered behind those of the `life`; return how many there were before any was refused.

        Raises DataError for those that are refused; the others may be there then.
        """
        numbers = self._numbers_of(key, table.num_rows)
        try:
            messages = await self.call(
                self._messages, table, life, [behind + number for number in numbers.left]
            )
            await self._send(link, messages)
        except DataError as error:
            numbers.without(error.rows)
            raise
        return numbers.rows

    async def _send(self, link: _Link, messages: Sequence[Message]) -> None:
        bad = _unfit(messages, link)
        if bad:  # the stream may have been changed
            link.stream = await self._look(link.connection)
            bad = _unfit(messages, link)
        if bad:
            raise refused(bad)
        refusals = await link.publisher.publish(messages)
        for row, refusal in refusals.items():
            if not refusal.is_about_the_message():
                raise meaning(refusal, messages[row].subject)
        if refusals:
            raise refused({row: each.description for row, each in refusals.items()})

    def _messages(self, table: pa.Table, life: str, numbers: Sequence[int]) -> list[Message]:
        """Return the rows as messages. Raises DataError for those that cannot be one."""
        bad: dict[int, str] = {}
        subjects = self._template.fill(table, bad)
        alone = self._template.text == f"{{{self._template.columns[0]}}}" if self._template.columns else False
        if self._template.columns:
            self._check_parts(table, bad, dots=alone)
        values = payloads(table, self.config)
        headers = headers_of(table, self.config.headers)
        messages = []
        for row, (subject, value, number) in enumerate(zip(subjects, values, numbers, strict=True)):
            own = dict(headers[row]) if headers is not None else {}
            for name, text in own.items():
                if "\n" in text or "\r" in text:
                    bad.setdefault(row, f"header '{name}' has a line break")
            payload = value or b""
            digest = hashlib.blake2b(
                repr((subject, own)).encode("utf-8", "surrogatepass") + payload, digest_size=12
            )
            own["Nats-Msg-Id"] = f"{life}-{number}-{digest.hexdigest()}"
            own["Nats-Expected-Stream"] = self.config.stream
            messages.append(Message.of(subject, payload, own))
        if bad:
            raise refused(bad)
        return messages

    def _check_parts(self, table: pa.Table, bad: dict[int, str], *, dots: bool) -> None:
        """Find the rows whose columns cannot be a part of a subject."""
        allowed = _SUBJECT if dots else _PART
        for column in self._template.columns:
            for row, text in enumerate(texts_of(table, column)):
                if text and not allowed.fullmatch(text):
                    bad.setdefault(
                        row,
                        f"column '{column}': {text[:_SHOWN]!r} cannot be a part of a subject: no dots, spaces, * and >",
                    )


def _unfit(messages: Sequence[Message], link: _Link) -> dict[int, str]:
    """Return why the stream, or the server, does not take messages."""
    stream, most = link.stream, min(link.stream.most_bytes, link.connection.client.max_payload)
    bad: dict[int, str] = {}
    known: dict[str, bool] = {}
    for row, message in enumerate(messages):
        subject = message.subject
        if subject not in known:
            known[subject] = stream.takes(subject)
        if len(subject.encode("utf-8", "surrogatepass")) > _SUBJECT_BYTES:
            bad[row] = (
                f"subject '{subject[:_SHOWN]}…' is longer than the {_SUBJECT_BYTES:,} bytes that it may have"
            )
        elif not known[subject]:
            bad[row] = f"subject '{subject[:_SHOWN]}' is none of the stream's"
        elif message.size > most:
            bad[row] = f"the message has {message.size:,} bytes; the limit is {most:,}"
    return bad


def _matches(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    """Return whether a subject, in its parts, is one of a pattern with `*` and `>`."""
    for number, part in enumerate(pattern):
        if part == ">":
            return len(parts) > number
        if number >= len(parts) or part not in {"*", parts[number]}:
            return False
    return len(parts) == len(pattern)


COMPONENT = NatsBackend
