"""Syslog and lines over UDP, TCP and unix sockets, from senders that do not wait for an answer.

    source:
      type: socket
      listen: udp://127.0.0.1:5514
      framing: syslog
      format: syslog

`listen` is `udp://`, `tcp://` (with `tls`: syslog over TLS, RFC 5425), `unix://` (a stream) or `unixgram://` with a
path. With `framing: syslog` a datagram is a record, and a stream has records by octet counts or by lines (RFC 6587),
as it begins; a line feed within a record becomes `#012`. With `framing: lines` records are as `format` has them.

An address that others can reach needs `allow`, the networks that may send (UDP senders can lie about theirs).

Delivery: exactly once from the spool on. Before that nothing can be asked for again: what was received and not yet
written when the process dies is lost. So is what the kernel drops when a burst is faster than its buffer
(`receive_buffer`, `sysctl net.core.rmem_max`); it counts those datagrams, and the report says how many. TCP and unix
senders are held up instead. On a stop, what has arrived is stored.
Position: none; the spool has one.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, IPvAnyNetwork, model_validator

from collectors.collection.base import ByteSourceConfig, Source
from collectors.collection.sources._listening import TlsConfig, parse_address, server_context
from collectors.collection.sources._socket_binding import Guests, inet_socket, unix_socket
from collectors.collection.sources._socket_frames import stream_frames
from collectors.collection.sources._socket_listeners import Basket, Datagrams, Listener, Piece, Streams
from collectors.models import CollectedData, Position
from collectors.settings import ByteSize, Duration

__all__ = ["COMPONENT", "SocketConfig", "SocketSource"]

_BASKET_BYTES = 8 * 2**20
_MOST_PEERS = 100
_LONGEST_DATAGRAM = 2**16


def _is_place(text: str) -> str:
    scheme, found, rest = text.partition("://")
    if found and scheme in {"udp", "tcp"}:
        parse_address(rest)
    elif not found or scheme not in {"unix", "unixgram"} or not rest.startswith("/") or "\0" in rest:
        raise ValueError(
            "expected udp://host:port, tcp://host:port, unix:///path or unixgram:///path, for example udp://127.0.0.1:5514"
        )
    return text


class SocketConfig(ByteSourceConfig):
    """Settings of the socket source."""

    listen: Annotated[str, AfterValidator(_is_place)]
    """Where to listen: `udp://127.0.0.1:5514`, `tcp://[::1]:6514`, `unix:///run/x.sock`, `unixgram:///run/x.sock`."""
    framing: Literal["lines", "syslog"] = "lines"
    """How records are told apart: as `format` has them, or as syslog does."""
    allow: list[IPvAnyNetwork] = []
    """Who may send, for example `[10.0.0.0/8, 2001:db8::/32]`; everybody when left out."""
    tls: TlsConfig | None = None
    """With `tcp`: TLS 1.2 or newer."""
    mode: Annotated[str, Field(pattern="^0?[0-7]{3}$")] = "0600"
    """The permissions of a unix socket."""
    receive_buffer: ByteSize = 8 * 2**20
    """With `udp`: ask the kernel for a buffer of this size."""
    max_record: ByteSize = 256 * 2**10
    """Set a record aside when it is longer than this many bytes."""
    max_connections: Annotated[int, Field(ge=1)] = 500
    """Turn further connections away."""
    idle_timeout: Annotated[Duration, Field(gt=0)] = 600.0
    """Close a connection over which nothing comes for so long."""

    @property
    def scheme(self) -> str:
        """What kind of socket it is."""
        return self.listen.partition("://")[0]

    @property
    def place(self) -> str:
        """The address or the path."""
        return self.listen.partition("://")[2]

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.tls is not None and self.scheme != "tcp":
            raise ValueError("tls: only with tcp://")
        if self.scheme in {"udp", "tcp"} and not parse_address(self.place).is_local and not self.allow:
            raise ValueError(
                f"listen: others can reach {self.place}, so say in `allow` which networks may send, "
                "for example [10.0.0.0/8], or listen on 127.0.0.1"
            )
        return self


class SocketSource(Source[SocketConfig]):
    """Gives what is there as one chunk, so that chunks grow under load."""

    endless = True
    lost_before_spool = (
        "what was received and not yet written there when the process died, or dropped by the kernel, is lost"
    )

    def __init__(self, config: SocketConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        spec = self.format()
        self.data_format = spec if isinstance(spec, str) else str(spec.get("type"))
        self.address: Any = None
        self._basket = Basket(_BASKET_BYTES)
        self._listener: Listener | None = None

    def needs_spool(self) -> bool:
        """Return True: senders do not send again."""
        return True

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the settings, else plain lines."""
        return self.config.format or "lines"

    async def open(self) -> None:
        """Listen."""
        self._listener = await self.enter(self._listening())

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[Listener]:
        config, guests = self.config, Guests(self.config.allow)
        context = server_context(config.tls) if config.tls is not None else None
        with self._bound() as bound:
            self.address = bound.getsockname()
            datagrams = bound.type == socket.SOCK_DGRAM
            listener = self._datagrams(bound, guests) if datagrams else self._streams(bound, guests, context)
            await listener.start()
            try:
                yield listener
            finally:
                await listener.stop()
        for remark in listener.remarks():
            self.tell(remark)
        if guests.refused:
            self.tell(
                f"{guests.refused:,} datagrams or connections were refused: not of a network in `allow`"
            )

    def _bound(self) -> AbstractContextManager[socket.socket]:
        config = self.config
        kind = socket.SOCK_DGRAM if config.scheme in {"udp", "unixgram"} else socket.SOCK_STREAM
        if config.scheme.startswith("unix"):
            return unix_socket(kind, Path(config.place), int(config.mode, 8))
        address = parse_address(config.place)
        return inet_socket(kind, address.host, address.port)

    def _datagrams(self, bound: socket.socket, guests: Guests) -> Listener:
        config = self.config
        limit = min(config.max_record, _LONGEST_DATAGRAM) if config.scheme == "udp" else config.max_record
        made = Datagrams(bound, self._basket, guests, syslog=config.framing == "syslog", limit=limit)
        given = made.enlarge(config.receive_buffer) if config.scheme == "udp" else config.receive_buffer
        if given < config.receive_buffer:
            self.tell(
                f"the kernel gave a receive buffer of {given:,} bytes instead of {config.receive_buffer:,}; bursts may "
                "overrun it: sysctl net.core.rmem_max sets the limit"
            )
        return made

    def _streams(self, bound: socket.socket, guests: Guests, context: Any) -> Listener:
        config = self.config
        frames = partial(
            stream_frames, self.framing, syslog=config.framing == "syslog", limit=config.max_record
        )
        return Streams(
            bound,
            self._basket,
            guests,
            frames=frames,
            most=config.max_connections,
            idle=config.idle_timeout,
            context=context,
        )

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Yield what is received, as it comes; what is not handed on when reading stops is kept."""
        while True:
            await self._basket.wait()
            await self.linger()
            for chunk in self._taken():
                yield chunk

    async def rest(self) -> AsyncIterator[CollectedData]:
        """Yield what has been received and what has arrived, and receive nothing more."""
        for chunk in self._taken():
            yield chunk
        if self._listener is not None:
            await self._listener.stop()
        for chunk in self._taken():
            yield chunk

    def _taken(self) -> Iterator[CollectedData]:
        """Yield what is in the basket as few chunks; put back what is not asked for."""
        if self._listener is not None and (lost := self._listener.lost()):
            self.count_lost(lost)
        pieces = self._basket.take()
        done = 0
        try:
            while done < len(pieces):
                group = self._group(pieces, done)
                done += len(group)
                yield self._chunk(group)
        finally:
            self._basket.give_back(pieces[done:])

    def _group(self, pieces: list[Piece], start: int) -> list[Piece]:
        """Return the next pieces that make one chunk."""
        first, size = pieces[start], 0
        if first.reason is not None or not getattr(self.framing, "joinable", True):
            return [first]
        group: list[Piece] = []
        for piece in pieces[start:]:
            size += len(piece.raw)
            if piece.reason is not None or (group and size > self.config.chunk_size):
                break
            group.append(piece)
        return group

    def _chunk(self, group: list[Piece]) -> CollectedData:
        peers: Counter[str] = Counter()
        for piece in group:
            peers.update(piece.peers)
        senders = dict(peers.most_common(_MOST_PEERS))
        if group[0].reason is not None:
            return self.refuse(group[0].raw, None, group[0].reason, peers=senders)
        raw = group[0].raw
        if len(group) > 1:
            raw = b"".join(each.raw if each.raw.endswith(b"\n") else each.raw + b"\n" for each in group)
        return self.chunk(raw, None, peers=senders)


COMPONENT = SocketSource
