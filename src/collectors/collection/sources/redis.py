"""Redis and Valkey streams: from a position on, or as a member of a consumer group.

    source:
      type: redis
      url: redis://127.0.0.1:6379/0
      stream: readings
      field: payload
      format: ndjson

Without `consumer_group`, entries are read from where the storage has them: nobody else is disturbed. With it, a member of
the group acknowledges entries when they are stored; the group is made when it is not there. A member begins with what it
was given and has not acknowledged, and takes over what another member was given more than `claim_after` ago.

An entry is a record, its fields are text columns. With `field`, the value of that field is a record in `format`, and the
others are left out. `add` puts more into columns of JSON records:

    add: {entry: id, at: time}

What cannot be a record is set aside, and acknowledged. Entries that were trimmed or deleted before they were read are
counted as lost, where the server counts what it had (7.0 or newer). A stream that ends before what was read stops the
source. Passwords are not sent without TLS (`rediss://`) to another machine.

Delivery: exactly once. With `consumer_group` the order changes when entries are given again; shared by several processes
it is at least once, since what one has stored and not acknowledged when it dies, or has not stored for `claim_after`, is
given to another.
Position: the id of the last entry; with `consumer_group` also which entries were read, where that does not say it.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ssl import TLSVersion
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from collectors.client_tls import ClientTls, client_context, is_this_machine
from collectors.collection.base import ByteSourceConfig, Source
from collectors.collection.sources._broker_records import Add, Payload, check_add, groups, record_of
from collectors.collection.sources._cutting import SAMPLE_BYTES
from collectors.collection.sources._redis_connection import Connection
from collectors.collection.sources._redis_reading import BLOCK_SECONDS, ByGroup, ById, Held, Reading, Wanted
from collectors.collection.sources._redis_stream import Entry, id_text, look
from collectors.errors import TransientError
from collectors.models import CollectedData, Position
from collectors.settings import Duration

__all__ = ["COMPONENT", "RedisConfig", "RedisSource"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_to_json = msgspec.json.Encoder().encode


def _is_url(text: str) -> str:
    parts = urlsplit(text)
    number = parts.path.strip("/")
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname or not (number or "0").isdigit():
        raise ValueError(
            "expected redis://host:port/database or rediss://…, for example redis://127.0.0.1:6379/0"
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError("expected no password in the address; set `username` and `password`")
    return text


def _start(value: Any) -> str:
    if value in {"all", "new"}:
        return str(value)
    if isinstance(value, str) and re.fullmatch(r"\d{1,19}(-\d{1,19})?", value):
        return value
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return f"{max(0, (time - _EPOCH) // timedelta(milliseconds=1))}-0"
    except (TypeError, ValueError):
        pass
    raise ValueError(
        'expected all, new, an id such as "1700000000000-0", or a time with its zone such as 2026-11-29T08:00:00Z'
    )


class RedisConfig(ByteSourceConfig):
    """Settings of the redis source."""

    url: Annotated[str, AfterValidator(_is_url)] = "redis://127.0.0.1:6379/0"
    """Where the server is, with the number of the database; `rediss://` is TLS."""
    stream: Annotated[str, Field(min_length=1)]
    """The key of the stream."""
    consumer_group: Annotated[str, Field(min_length=1)] | None = None
    """The consumer group, where entries are acknowledged once they are stored."""
    consumer: Annotated[str, Field(min_length=1)] | None = None
    """With `consumer_group`: the name of this member, unlike that of any other; left out: the source's id and the machine's
    name."""
    claim_after: Annotated[Duration, Field(ge=0.1)] = 300.0
    """With `consumer_group`: take over what another member has not acknowledged for so long; longer than a storage may be
    away."""
    start: Annotated[str, BeforeValidator(_start)] = "all"
    """Where the first reading begins: `all`, `new`, an id, or a time such as 2026-11-29T08:00:00Z."""
    field: str | None = None
    """The field that holds the record in `format`; left out: all fields are columns."""
    add: Add = {}
    """Columns for JSON records: name → `id`, `time` or `stream`."""
    username: str | None = None
    """Who to log in as."""
    password: SecretStr | None = None
    """The password of that user."""
    tls: ClientTls | None = None
    """With `rediss://`: own authorities, or an own certificate."""
    insecure: bool = False
    """Send `password` to another machine without TLS."""
    timeout: Annotated[Duration, Field(ge=0.1, le=600)] = 10.0
    """How long the server may take for an answer."""

    def options(self) -> dict[str, Any]:
        """Return what the library connects by; the password is in it."""
        parts = urlsplit(self.url)
        given: dict[str, Any] = {
            "host": parts.hostname,
            "port": parts.port or 6379,
            "db": int(parts.path.strip("/") or 0),
            "username": self.username,
            "password": self.password.get_secret_value() if self.password is not None else None,
        }
        if parts.scheme == "rediss":
            tls = self.tls or ClientTls()
            client_context(tls)  # says which file cannot be used
            given |= {
                "ssl": True,
                "ssl_cert_reqs": "required",
                "ssl_check_hostname": True,
                "ssl_min_version": TLSVersion.TLSv1_2,
                "ssl_ca_certs": tls.ca,
                "ssl_certfile": tls.cert,
                "ssl_keyfile": tls.key,
            }
        return given

    @model_validator(mode="after")
    def _fits(self) -> Self:
        kind = self.format.get("type") if isinstance(self.format, dict) else self.format
        if self.field is None and kind not in {None, "ndjson"}:
            raise ValueError(f"format: {kind} needs `field`, the field that holds the record")
        for name in ("consumer", "claim_after"):
            if self.consumer_group is None and name in self.model_fields_set:
                raise ValueError(f"{name}: only with `consumer_group`")
        check_add(self.add, ("id", "time", "stream"), self.format)
        return self

    @model_validator(mode="after")
    def _safe(self) -> Self:
        parts = urlsplit(self.url)
        if self.tls is not None and parts.scheme != "rediss":
            raise ValueError("tls: only with rediss://")
        if self.username is not None and self.password is None:
            raise ValueError("username: expected `password` as well")
        far = not is_this_machine(parts.hostname or "")
        if far and self.password is not None and parts.scheme == "redis" and not self.insecure:
            raise ValueError(
                f"url: {parts.hostname} is another machine, and the password would go there in clear text; use rediss://, or "
                "set `insecure: true`"
            )
        return self


class RedisSource(Source[RedisConfig]):
    """Reads a stream."""

    endless = True

    def __init__(self, config: RedisConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        spec = self.format()
        self.data_format = spec if isinstance(spec, str) else str(spec.get("type"))
        self._connection: Connection | None = None
        self._held = Held()
        self._committed = asyncio.Event()
        self._field = None if self.config.field is None else self.config.field.encode()

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the settings, else one JSON object an entry."""
        return self.config.format or "ndjson"

    async def open(self) -> None:
        """Connect."""
        self._connection = await self.enter(self._connected())
        await look(self._connection, self.config.stream)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        config = self.config
        where = urlsplit(config.url).netloc
        connection = Connection(where, config.timeout, BLOCK_SECONDS, **config.options())
        try:
            yield connection
        finally:
            self._connection = None
            await connection.close()

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Yield entries as they come, all that are there as few chunks."""
        if self._connection is None:
            raise TransientError("the connection is lost")
        reading = self._reading(self._connection)
        first = await reading.begin(since)
        if first is not None:
            yield self.chunk(b"", first)
        while True:
            while isinstance(reading, ByGroup) and reading.is_full():
                self._committed.clear()
                await self._committed.wait()
            await self.linger()
            for chunk in self._chunks(await reading.take(), reading.position):
                yield chunk

    async def commit(self, position: Position) -> None:
        """Acknowledge everything up to the position, if it is a group's."""
        config = self.config
        if config.consumer_group is None:
            return
        self._held.committed(position)
        if self._connection is not None:
            await self._held.acknowledge(self._connection, config.stream, config.consumer_group)
        self._committed.set()

    def _reading(self, connection: Connection) -> Reading:
        config = self.config
        wanted = Wanted(config.stream, config.start, config.chunk_size, self.tell, self.count_lost)
        if config.consumer_group is None:
            return ById(connection, wanted)
        consumer = config.consumer or f"{self.get_source_id()}@{socket.gethostname()}"
        return ByGroup(connection, wanted, config.consumer_group, consumer, config.claim_after, self._held)

    def _chunks(
        self, entries: list[Entry], position: Callable[[Sequence[Entry]], Position]
    ) -> Iterator[CollectedData]:
        """Yield entries as few chunks."""
        joinable = bool(getattr(self.framing, "joinable", True))
        payloads = [self._payload(entry) for entry in entries]
        for group in groups(payloads, self.config.chunk_size, joinable=joinable):
            place = position(group.origins)
            if group.reason is not None:
                yield self.refuse(group.raw, place, group.reason)
            else:
                yield self.chunk(group.raw, place)

    def _payload(self, entry: Entry) -> Payload[Entry]:
        fields = entry.fields or []
        extra = {column: self._value(entry, what) for column, what in self.config.add.items()}
        name = f"entry {id_text(entry.id)} of stream '{self.config.stream}'"
        if self._field is None:
            raw, reason = _row(fields, name)
        else:
            values = [
                value for key, value in zip(fields[::2], fields[1::2], strict=True) if key == self._field
            ]
            if len(values) != 1:
                raw, _ = _row(fields, name)
                reason = (
                    f"{name} has {len(values) or 'no'} field{'s' * (len(values) > 1)} '{self.config.field}'"
                )
            else:
                raw, reason = values[0], None
        if reason is not None:
            return Payload(raw[:SAMPLE_BYTES], entry, reason)
        json = self.data_format == "ndjson"
        raw, reason = record_of(raw, name, self.config.max_record, json=json, extra=extra)
        return Payload(raw, entry, reason)

    def _value(self, entry: Entry, what: str) -> Any:
        if what == "id":
            return id_text(entry.id)
        return self.config.stream if what == "stream" else _EPOCH + timedelta(milliseconds=entry.id[0])


def _row(fields: list[bytes], name: str) -> tuple[bytes, str | None]:
    """Return the fields as a JSON object, a name that is there twice included; and why that cannot be."""
    texts: list[bytes] = []
    for number, raw in enumerate(fields):
        try:
            texts.append(_to_json(raw.decode()))
        except UnicodeDecodeError:
            reason = f"{name}: field {number // 2 + 1} is not UTF-8; with `field` and `format` it can be read"
            return b"\n".join(fields), reason
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return b"{" + b",".join(b":".join(pair) for pair in pairs) + b"}", None


COMPONENT = RedisSource
