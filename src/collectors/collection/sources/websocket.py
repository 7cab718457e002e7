"""WebSocket: messages that a server sends as long as somebody is connected.

    source:
      type: websocket
      url: wss://stream.example.com/feed
      subscribe: {op: subscribe, channels: [trades]}

A text or binary message is a record in `format`, JSON if not said. `subscribe` is sent after every connect, one message
or several, in order: a mapping as JSON, a text as it is; texts are kept as secrets. `add: {received: time}` makes a
column of the time of receipt in JSON records. A message that cannot be a record is set aside; one of more than
`max_record`, also decompressed, ends the connection and is counted as lost.

The server is pinged when nothing came for `ping`, and the connection counts as broken when nothing comes for as long
again, not even the answer; `silence` is how long no message may come. Whatever ended a connection is told, with the
server's code and reason, and then it connects again.

As with `http`, only addresses of the public internet are asked, unless `allow_private` is set; at most five redirects
are followed, each checked, and another origin gets no credentials, and nothing of `subscribe`. A handshake that is
refused with a status of 408, 425, 429 or 5xx is tried again, when `Retry-After` says; with any other, the source stops.

Delivery: exactly once from the spool on. What the server sends while nobody is connected is lost, unless it sends it
again by itself; so is what was received and not yet written to the spool when the process dies. On a stop, what has
arrived is stored.
Position: none; the spool has one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from collectors.collection.base import ByteSourceConfig, Source
from collectors.collection.sources._broker_records import Add, Payload, check_add, groups, record_of
from collectors.errors import FatalError, TransientError
from collectors.http_client.settings import RemoteConfig
from collectors.models import CollectedData, Position
from collectors.settings import Duration, OneOrMore

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

    from collectors.collection.sources._websocket_connection import Connection, Message
    from collectors.http_client.client import Client, WebSocket

__all__ = ["COMPONENT", "WebsocketConfig", "WebsocketSource"]

_MAX_BODY = 2**20
"""So large may a response be that is no WebSocket: a token."""
_WINDOW_BITS = 15
_SEPARATORS = '()<>@,;:\\"/[]?={} \t'


def _is_token(text: str) -> str:
    if not text or not text.isascii() or not text.isprintable() or any(sign in _SEPARATORS for sign in text):
        raise ValueError("expected a name such as graphql-transport-ws")
    return text


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, (str, dict, SecretStr)) else value


Subscribe = Annotated[
    list[SecretStr | dict[str, Any]],
    BeforeValidator(_as_list, json_schema_input_type=str | dict[str, Any] | list[str | dict[str, Any]]),
]


class WebsocketConfig(ByteSourceConfig, RemoteConfig):
    """Settings of the websocket source."""

    schemes: ClassVar[tuple[str, str]] = ("ws", "wss")

    url: str
    """The address, ws or wss."""
    subprotocols: OneOrMore[Annotated[str, AfterValidator(_is_token)]] = []
    """The subprotocols to choose from, the best one first; the server must take one of them."""
    subscribe: Subscribe = []
    """What to send after every connect: a mapping as JSON, a text as it is, or several of them."""
    add: Add = {}
    """Columns for JSON records: name → `time` (of receipt)."""
    compression: bool = True
    """Let the server compress messages (`permessage-deflate`)."""
    ping: Duration = 20.0
    """Ask whether the server is still there when nothing came for so long; 0: never."""
    silence: Duration = 0.0
    """Connect again when no message comes for so long, though the server is there; 0: never."""
    timeout: Annotated[Duration, Field(gt=0)] = 30.0
    """Give up, and try again later, when connecting takes longer."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_add(self.add, ("time",), self.format)
        return self


class WebsocketSource(Source[WebsocketConfig]):
    """Hands on what came together as one chunk."""

    endless = True
    lost_before_spool = "what is sent while nobody is connected, or was received and not yet written there when the process died, is lost"

    def __init__(self, config: WebsocketConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        spec = self.format()
        self.data_format = spec if isinstance(spec, str) else str(spec.get("type"))
        self.resolver: AbstractResolver | None = None
        """Resolves names; that of the system when there is none."""
        self._number = 0
        self._ready: deque[CollectedData] = deque()
        self._client: Client | None = None
        self._connection: Connection | None = None

    def needs_spool(self) -> bool:
        """Return True: what was sent is not sent again."""
        return True

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the settings, else one JSON object a message."""
        return self.config.format or "ndjson"

    async def open(self) -> None:
        """Connect and subscribe."""
        self._connection = await self.enter(self._connected())

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        from collectors.collection.sources._websocket_connection import Connection, Patience
        from collectors.http_client.connecting import connected

        config = self.config
        connecting = connected(
            config,
            resolver=self.resolver,
            now=self.now,
            patience=config.timeout,
            most=_MAX_BODY,
            before=self._client,
        )
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(connecting)
            self._client = client
            try:
                async with asyncio.timeout(config.timeout):
                    socket = await self._shake_hands(client, stack)
            except TimeoutError:
                raise TransientError(f"{config.shown()}: no connection within {config.timeout:g} s") from None
            connection = Connection(
                socket,
                config.shown(),
                Patience(config.ping, config.silence),
                (config.chunk_size, config.max_record),
                clean=client.clean,
                count_lost=self.count_lost,
            )
            yield await stack.enter_async_context(connection)

    async def _shake_hands(self, client: Client, stack: AsyncExitStack) -> WebSocket:
        """Connect and send what subscribes."""
        import msgspec
        from yarl import URL

        from collectors.http_client.guard import origin_of, shown

        config = self.config
        url = URL(config.url)
        url = url.with_scheme("https" if url.scheme == "wss" else "http")
        connecting = client.websocket(
            url,
            protocols=config.subprotocols,
            autoping=False,
            compress=_WINDOW_BITS if config.compression else 0,
            max_msg_size=config.max_record + 1,
        )
        socket, found = await stack.enter_async_context(connecting)
        if config.subscribe and origin_of(found) != origin_of(url):
            raise FatalError(
                f"{config.shown()}: `subscribe` is not sent to another origin, {shown(found)}; set `url` to where it leads"
            )
        if config.subprotocols and socket.protocol is None:
            raise FatalError(
                f"{config.shown()}: the server takes none of the subprotocols {', '.join(config.subprotocols)}"
            )
        with client.errors_of(url):
            for each in config.subscribe:
                if isinstance(each, SecretStr):
                    await socket.send_str(each.get_secret_value())
                else:
                    await socket.send_str(msgspec.json.encode(each).decode())
        return socket

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Yield messages as they come, all that are there as few chunks."""
        connection = self._connection
        assert connection is not None  # noqa: S101  # the source is open
        while True:
            while self._ready:
                yield self._ready.popleft()
            await self.linger()
            messages = await connection.take()
            if not messages:
                raise connection.error or TransientError(f"{self.config.shown()}: the connection is over")
            self._ready.extend(self._chunks(messages))

    async def rest(self) -> AsyncIterator[CollectedData]:
        """Yield what was received and not handed on."""
        if self._connection is not None:
            self._ready.extend(self._chunks(await self._connection.rest()))
        while self._ready:
            yield self._ready.popleft()

    def _chunks(self, messages: list[Message]) -> Iterator[CollectedData]:
        joinable = bool(getattr(self.framing, "joinable", True))
        extra = dict.fromkeys(self.config.add, self.now()) if self.config.add else {}
        payloads = [self._payload(each, extra) for each in messages]
        for group in groups(payloads, self.config.chunk_size, joinable=joinable):
            self._number += len(group.origins)
            position = {"message": self._number}
            if group.reason is not None:
                yield self.refuse(group.raw, position, group.reason)
            else:
                yield self.chunk(group.raw, position)

    def _payload(self, message: Message, extra: dict[str, Any]) -> Payload[Message]:
        raw, reason = record_of(
            message.data,
            "the message",
            self.config.max_record,
            json=self.data_format == "ndjson",
            extra=extra,
        )
        return Payload(raw, message, reason)


COMPONENT = WebsocketSource
