"""Sockets that take in records and cannot ask for them again: datagrams, and streams of any number of clients.

Everything here runs in the event loop. Nobody reads from a socket while the basket is full: datagrams then wait in the
kernel's buffer, streams hold up their senders.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

from msgspec import Struct

from collectors.collection.sources._socket_binding import Guests
from collectors.collection.sources._socket_frames import Frames, FramingLostError, one_line

__all__ = ["Basket", "Datagrams", "Listener", "Piece", "Streams"]

LOCAL = "local"
"""What senders over a unix socket are called."""
_MOST_AT_ONCE = 512
_BACKLOG = 512
_HANDSHAKE_SECONDS = 10.0
_LAST_ROUNDS = 3
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("9I")
_MEMINFO_DROPS = 8


class Piece(Struct, frozen=True):
    """Whole records and how many times each host has sent some; with a `reason`, one record that is refused."""

    raw: bytes
    peers: dict[str, int]
    reason: str | None = None


class Basket:
    """What was received and not yet taken; full at `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._pieces: deque[Piece] = deque()
        self._something = asyncio.Event()
        self._waiting: list[Callable[[], None]] = []

    @property
    def full(self) -> bool:
        """Whether nothing more should be put in."""
        return self._size >= self._limit

    def put(self, piece: Piece) -> None:
        """Add what is there already, even to a full basket."""
        self._pieces.append(piece)
        self._size += len(piece.raw)
        self._something.set()

    def when_taken(self, go_on: Callable[[], None]) -> None:
        """Have this called once there is room."""
        self._waiting.append(go_on)

    async def wait(self) -> None:
        """Return when there is something."""
        await self._something.wait()

    def take(self) -> list[Piece]:
        """Return all that is there."""
        pieces = list(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._something.clear()
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on()
        return pieces

    def give_back(self, pieces: Iterable[Piece]) -> None:
        """Put pieces that were taken in front again."""
        for piece in reversed(list(pieces)):
            self._pieces.appendleft(piece)
            self._size += len(piece.raw)
            self._something.set()


class Listener(Protocol):
    """Puts what it receives into the basket."""

    async def start(self) -> None:
        """Begin to receive."""

    async def stop(self) -> None:
        """Take in what has arrived, then close; safe twice."""

    def lost(self) -> int:
        """Return how many records the kernel has dropped since the last call."""

    def remarks(self) -> list[str]:
        """Return what people should know at the end."""


class Datagrams:
    """A datagram is a record of syslog, or with `syslog` false any number of lines."""

    def __init__(
        self, bound: socket.socket, basket: Basket, guests: Guests, *, syslog: bool, limit: int
    ) -> None:
        self._socket = bound
        self._basket = basket
        self._guests = guests
        self._syslog = syslog
        self._limit = limit
        self._buffer = bytearray(limit + 1)
        self._dropped = 0
        self._loop = asyncio.get_running_loop()

    def enlarge(self, size: int) -> int:
        """Ask for a receive buffer of so many bytes; return what was given.

        Where the process may (as root), beyond the limit of the machine.
        """
        given = 0
        for option in (socket.SO_RCVBUF, _SO_RCVBUFFORCE):
            if given < size:
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.SOL_SOCKET, option, size)
                given = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        return given

    async def start(self) -> None:
        """Begin to receive."""
        self._listen()

    def _listen(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket, self._receive)

    def _receive(self) -> bool:
        """Take what is there, some hundred datagrams at most; return whether there was any."""
        lines: list[bytes] = []
        peers: Counter[str] = Counter()
        view = memoryview(self._buffer)
        for _ in range(_MOST_AT_ONCE):
            try:
                size, address = self._socket.recvfrom_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                break
            host = address[0] if isinstance(address, tuple) else LOCAL
            if not self._guests.welcome(host):
                continue
            peers[host] += 1
            record = bytes(view[:size])
            if size > self._limit:
                reason = f"a datagram is longer than max_record ({self._limit} bytes)"
                self._basket.put(Piece(record, {host: 1}, reason))
            elif self._syslog:
                lines.append(one_line(record))
            else:
                lines.append(record if record.endswith(b"\n") or not record else record + b"\n")
        if any(lines):
            self._basket.put(Piece(b"".join(lines), dict(peers)))
        if self._basket.full:
            self._loop.remove_reader(self._socket)
            self._basket.when_taken(self._listen)
        return bool(peers)

    async def stop(self) -> None:
        """Take in what has arrived, then close."""
        if self._socket.fileno() < 0:
            return
        while self._receive():
            pass
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def lost(self) -> int:
        """Return how many datagrams the kernel has dropped since the last call: its buffer was full."""
        try:
            data = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
            total = _MEMINFO.unpack(data)[_MEMINFO_DROPS]
        except (OSError, struct.error):  # closed, or not Linux
            return 0
        new, self._dropped = (total - self._dropped) % 2**32, total
        return int(new)

    def remarks(self) -> list[str]:
        """Return nothing: what was lost is counted."""
        return []


class Streams:
    """Clients that connect and send one record after the other."""

    def __init__(
        self,
        bound: socket.socket,
        basket: Basket,
        guests: Guests,
        *,
        frames: Callable[[], Frames],
        most: int,
        idle: float,
        context: ssl.SSLContext | None,
    ) -> None:
        self.basket = basket
        self.guests = guests
        self.frames = frames
        self.idle = idle
        self.clients: set[_Client] = set()
        self._most = most
        self._socket = bound
        self._context = context
        self._server: asyncio.Server | None = None
        self._turned_away = 0
        self._silent = 0

    async def start(self) -> None:
        """Begin to receive."""
        loop = asyncio.get_running_loop()
        make = loop.create_unix_server if self._socket.family == socket.AF_UNIX else loop.create_server
        self._server = await cast("Any", make)(
            lambda: _Client(self),
            sock=self._socket,
            backlog=_BACKLOG,
            ssl=self._context,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._context else None,
        )

    def admit(self, client: _Client) -> bool:
        """Return whether one more client may send; count it if it may not."""
        if len(self.clients) >= self._most:
            self._turned_away += 1
            return False
        self.clients.add(client)
        return True

    def left_silent(self) -> None:
        """Count a client that was let go since it sent nothing for too long."""
        self._silent += 1

    async def stop(self) -> None:
        """Accept nobody, take in what has arrived, then close."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for _ in range(_LAST_ROUNDS):
            await asyncio.sleep(0)  # the event loop reads from every connection
        for client in list(self.clients):
            client.end("the receiver stopped inside this record")

    def lost(self) -> int:
        """Return 0: a stream drops nothing."""
        return 0

    def remarks(self) -> list[str]:
        """Return how many clients were turned away or let go."""
        counts = (
            (self._turned_away, "connections were turned away: more than max_connections"),
            (self._silent, "connections were closed: they sent nothing for longer than idle_timeout"),
        )
        return [f"{count:,} {what}" for count, what in counts if count]


class _Client(asyncio.Protocol):
    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._frames = streams.frames()
        self._host = LOCAL
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self._host = address[0] if isinstance(address, tuple) else LOCAL
        if not self._streams.guests.welcome(self._host) or not self._streams.admit(self):
            self._close()
            return
        self._heard = self._loop.time()
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        self._heard = self._loop.time()
        try:
            self._put(self._frames.feed(data))
        except FramingLostError:
            self._close()
            return
        if self._streams.basket.full:
            self._transport.pause_reading()
            self._streams.basket.when_taken(self._go_on)

    def eof_received(self) -> None:
        self.end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end("the connection broke inside this record")

    def end(self, reason: str | None) -> None:
        """Take what is left as the last record, or refuse it with a reason, and close; the second time do nothing."""
        if self._transport is not None:
            with contextlib.suppress(FramingLostError):
                self._put(self._frames.finish(reason))
            self._close()

    def _put(self, records: Iterable[tuple[bytes, str | None]]) -> None:
        for raw, reason in records:
            self._streams.basket.put(Piece(raw, {self._host: max(1, raw.count(b"\n"))}, reason))

    def _go_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._heard = self._loop.time()
            self._transport.resume_reading()

    def _watch(self) -> None:
        """Close a connection that is silent, unless it is us who do not read."""
        left = self._heard + self._streams.idle - self._loop.time()
        if left > 0 or (self._transport is not None and not self._transport.is_reading()):
            self._timer = self._loop.call_later(max(left, 1.0), self._watch)
            return
        self._streams.left_silent()
        self.end("the connection was silent inside this record")

    def _close(self) -> None:
        transport, self._transport = self._transport, None
        self._streams.clients.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if transport is not None:
            transport.close()
