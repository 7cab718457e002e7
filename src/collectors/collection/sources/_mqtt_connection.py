"""One connection to a broker: from TLS and CONNECT to DISCONNECT, with pings; and what its refusals mean."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Collection
from contextlib import suppress
from urllib.parse import urlsplit

from msgspec import Struct

from collectors.collection.sources import _mqtt_packets as wire
from collectors.collection.sources._listening import Address
from collectors.collection.sources._mqtt_packets import BrokenPacketError, Packet, Properties, Splitter
from collectors.errors import FatalError, TransientError

__all__ = ["Broker", "Connection", "Welcome", "parse_url"]

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_READ_BYTES = 256 * 1024
_CLOSE_SECONDS = 2.0

_REFUSALS = {
    1: "it does not speak this version of MQTT",
    2: "it does not accept the client id",
    3: "it is not available",
    4: "it does not know the user, or the password is wrong",
    5: "the user may not connect",
    0x80: "it does not say why",
    0x81: "it could not read the packet",
    0x82: "it saw a protocol error",
    0x84: "it does not speak this version of MQTT",
    0x85: "it does not accept the client id",
    0x86: "it does not know the user, or the password is wrong",
    0x87: "the user may not do that",
    0x88: "it is not available",
    0x89: "it is busy",
    0x8A: "this client is banned",
    0x8B: "it is shutting down",
    0x8C: "it wants another method of authentication",
    0x8D: "it has heard nothing for too long",
    0x8E: "another program has connected with the same client id",
    0x8F: "it does not accept the topic filter",
    0x93: "it has more unacknowledged messages than it may",
    0x95: "the packet is too large",
    0x97: "a quota is exceeded",
    0x98: "an administrator ended the connection",
    0x9C: "another server is to be used for now",
    0x9D: "another server is to be used",
    0x9E: "it does not support shared subscriptions",
    0x9F: "there are too many connections a second",
    0xA2: "it does not support wildcards",
}
_LATER = {3, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8B, 0x8D, 0x93, 0x95, 0x97, 0x98, 0x9C, 0x9F}
"""Reasons that may have gone when it is tried again."""


def parse_url(text: str) -> tuple[str, Address]:
    """Return scheme and address. Raises ValueError."""
    hint = "expected mqtt://host:port or mqtts://host:port (TLS), for example mqtts://broker.example.com:8883"
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        raise ValueError(hint) from None
    if "@" in parts.netloc:
        raise ValueError("write user and password as `username` and `password`, not in the URL")
    if scheme not in _PORTS or not host or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(hint)
    return scheme, Address(host, port if port is not None else _PORTS[scheme])


def _reason(error: OSError) -> str:
    return error.strerror if error.strerror and not isinstance(error, ssl.SSLError) else str(error)


class Broker(Struct, frozen=True):
    """Where and how to connect. `client_id` names the session that the broker keeps, unless it is to be `clean`."""

    address: Address
    context: ssl.SSLContext | None
    v5: bool
    client_id: str
    clean: bool
    username: str | None
    password: str | None
    session_expiry: int
    receive_maximum: int
    keep_alive: int
    timeout: float
    limit: int
    """Bytes of a packet that are kept."""

    def __str__(self) -> str:
        return str(self.address)

    def hello(self) -> bytes:
        """Return the CONNECT."""
        return wire.connect(
            self.client_id,
            v5=self.v5,
            clean=self.clean,
            keep_alive=self.keep_alive,
            username=self.username,
            password=self.password,
            session_expiry=0 if self.clean else self.session_expiry,
            receive_maximum=self.receive_maximum,
        )


class Welcome(Struct):
    """What the broker answered to CONNECT."""

    present: bool
    """Whether it goes on with a session that it kept."""
    properties: Properties


class Connection:
    """A connection that is open; made by `connect`. `backlog` are packets that came while an answer was waited for."""

    def __init__(self, broker: Broker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.broker = broker
        self.backlog: list[Packet] = []
        self._reader = reader
        self._writer = writer
        self._splitter = Splitter(broker.limit)
        self._keep_alive = float(broker.keep_alive)
        self._timer: asyncio.TimerHandle | None = None
        version = "5" if broker.v5 else "3.1.1"
        wants = "" if broker.context is None else ", and does it want a certificate of ours"
        self._if_closed = self._if_broken = (
            f" without an answer to CONNECT; does it speak MQTT {version} there{wants}?"
        )

    @classmethod
    async def connect(cls, broker: Broker) -> tuple[Connection, Welcome]:
        """Connect and say hello. Raises TransientError, FatalError."""
        try:
            async with asyncio.timeout(broker.timeout):
                host = broker.address.host
                reader, writer = await asyncio.open_connection(
                    host, broker.address.port, ssl=broker.context, limit=_READ_BYTES
                )
        except TimeoutError:
            raise TransientError(f"no connection to {broker} within {broker.timeout:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise FatalError(
                f"the certificate of {broker} is not to be trusted: {error.verify_message}; "
                "`tls: {ca: …}` names the authority it comes from"
            ) from error
        except ssl.SSLError as error:
            raise FatalError(
                f"no TLS with {broker}: {error.reason or error}; is this its port for TLS, and does it want a "
                "certificate (`tls: {cert: …, key: …}`)?"
            ) from error
        except OSError as error:
            hint = "; is this its port for TLS?" if isinstance(error, ConnectionResetError) else ""
            raise TransientError(f"cannot connect to {broker}: {error.strerror or error}{hint}") from error
        connection = cls(broker, reader, writer)
        try:
            connection.send(broker.hello())
            packet = await connection.answer({wire.CONNACK}, "CONNECT")
            assert packet is not None  # noqa: S101  # nothing else ends the wait
            welcome = connection._welcome(packet)
        except BrokenPacketError as error:
            await connection.close()
            raise TransientError(f"{broker} sent {error}") from error
        except BaseException:
            await connection.close()
            raise
        connection._start_pings()
        return connection, welcome

    def _welcome(self, packet: Packet) -> Welcome:
        _, body, _ = packet
        if len(body) < 2:
            raise TransientError(f"{self.broker} sent a CONNACK that is cut short")
        code = body[1]
        properties = wire.read_properties(body, 2) if self.broker.v5 else Properties()
        if code:
            raise self._refusal(code, properties, "refuses the connection")
        self._keep_alive = float(properties.number(0x13, self.broker.keep_alive))
        self._if_broken = ""
        self._if_closed = f"; it does so when another program has the client id '{self.broker.client_id}'"
        return Welcome(present=bool(body[0] & 1), properties=properties)

    def _refusal(self, code: int, properties: Properties, what: str) -> Exception:
        """Return the error for a reason code: whether trying again can help."""
        why = properties.reason or _REFUSALS.get(code, "it does not say why")
        hint = ""
        if code in {1, 0x84}:
            hint = "; set `version: 3.1.1`" if self.broker.v5 else "; set `version: 5`"
        elif code in {4, 5, 0x86, 0x87}:
            hint = "; look at `username` and `password`, and what the broker allows this client"
        elif code == 0x8E:
            hint = f" '{self.broker.client_id}'; give each its own `client_id`"
        message = f"{self.broker} {what}: {why}{hint} (code {code})"
        return TransientError(message) if code in _LATER else FatalError(message)

    async def answer(self, kinds: Collection[int], to: str, unless: int | None = None) -> Packet | None:
        """Return the next packet of these kinds; the others stay in the backlog, and one of the kind `unless` ends the wait.

        Raises as `read`, and when it takes too long.
        """
        try:
            async with asyncio.timeout(self.broker.timeout):
                while True:
                    for number, packet in enumerate(self.backlog):
                        if packet[0] >> 4 in kinds:
                            return self.backlog.pop(number)
                        if packet[0] >> 4 == unless:
                            return None
                    self.backlog += await self._packets()
        except TimeoutError:
            raise TransientError(
                f"{self.broker} does not answer to {to} within {self.broker.timeout:g} s; does it speak MQTT there?"
            ) from None

    async def read(self) -> list[Packet]:
        """Return the next packets. Raises TransientError when the connection is over, FatalError when it is for good."""
        if self.backlog:
            packets, self.backlog = self.backlog, []
            return packets
        if not self._keep_alive:
            return await self._packets()
        try:
            async with asyncio.timeout(1.5 * self._keep_alive):
                return await self._packets()
        except TimeoutError:
            raise TransientError(
                f"nothing came from {self.broker} for {1.5 * self._keep_alive:g} s, not even an answer to a ping"
            ) from None

    async def _packets(self) -> list[Packet]:
        try:
            data = await self._reader.read(_READ_BYTES)
        except (
            OSError
        ) as error:  # ssl.SSLError is one: with TLS 1.3 a certificate of ours is refused only now
            raise TransientError(
                f"the connection to {self.broker} broke ({_reason(error)}){self._if_broken}"
            ) from error
        if not data:
            raise TransientError(f"{self.broker} has closed the connection{self._if_closed}")
        try:
            packets = self._splitter.feed(data)
            for first, body, _ in packets:
                if first >> 4 == wire.DISCONNECT and self.broker.v5:
                    code = body[0] if body else 0x80
                    raise self._refusal(code, wire.read_properties(body, 1), "ended the connection")
        except BrokenPacketError as error:
            raise TransientError(f"{self.broker} sent {error}") from error
        return packets

    def send(self, data: bytes) -> bool:
        """Hand bytes to the system; return False when the connection is over."""
        if self._writer.is_closing():
            return False
        self._writer.write(data)
        return True

    def _start_pings(self) -> None:
        if self._keep_alive:
            self._timer = asyncio.get_running_loop().call_later(self._keep_alive / 2, self._ping)

    def _ping(self) -> None:
        self._timer = None
        if self.send(wire.PINGREQ):
            self._start_pings()

    async def close(self) -> None:
        """Say goodbye, which the session outlives, and close; takes no longer than a moment."""
        if self._timer is not None:
            self._timer.cancel()
        self.send(wire.disconnect(v5=self.broker.v5))
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._writer.drain()
        self._writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._writer.wait_closed()
