"""A TCP proxy that does to connections what networks do, when a test says so.

    with Proxy("127.0.0.1", server_port) as proxy:
        connect("127.0.0.1", proxy.port)
        proxy.hangs()
        ...
        proxy.passes()

It listens on a free loopback port and runs in a thread of its own; its methods may be called from any thread, and have
taken effect when they return.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Any, Literal, Self

__all__ = ["Moment", "Proxy"]

Moment = Literal["before", "with", "answered"]
"""When to cut a connection on which a pattern goes by: before the server gets it, as soon as it was forwarded, or
once the server has answered to it, with the answer lost."""

_PIECE = 64 * 1024
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on and zero: closing sends RST in place of FIN (https://man7.org/linux/man-pages/man7/socket.7.html)."""


class _Link:
    """One connection through the proxy: the client's socket, the server's once there is one, and what moves bytes."""

    def __init__(self, client: socket.socket) -> None:
        self.sockets = [client]
        self.tasks: list[asyncio.Task[None]] = []
        self.swallows = False
        """Whether the next bytes from the server are kept from the client, and the connection ends with them."""
        self.tail = b""
        """The last bytes towards the server, where the beginning of a pattern may be."""

    def reset(self) -> None:
        """End both connections by RST."""
        current = asyncio.current_task()
        for task in self.tasks:
            if task is not current:
                task.cancel()
        for end in self.sockets:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()


class Proxy:
    """Forwards connections to `host`, `port`; enter it as a context."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._links: set[_Link] = set()
        self._listener: socket.socket | None = None
        self._listens = False
        self._flows = asyncio.Event()
        self._changed = asyncio.Event()
        self._resets = False
        self._speed: float | None = None
        self._pattern = b""
        self._moment: Moment = "before"
        self._which: Container[int] = ()
        self.port = 0
        """Where to connect to, on 127.0.0.1."""
        self.connections = 0
        """How many connections were accepted."""
        self.to_server = 0
        """How many bytes were forwarded to the server."""
        self.to_client = 0
        """How many bytes were forwarded to clients."""
        self.seen = 0
        """How often the pattern has come by since `cuts` was called."""
        self.cut = 0
        """How many connections were cut because of it."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen)
        self.passes()
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._stop_listening)
        self._do(self._drop_all)
        asyncio.run_coroutine_threadsafe(_end_all(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def passes(self) -> None:
        """Forward everything; what was held back by `hangs` goes on its way."""
        self._do(lambda: self._behave(flows=True, listens=True))

    def refuses(self) -> None:
        """Close the port: end all connections, refuse new ones."""
        self._do(lambda: self._behave(flows=True, listens=False))
        self._do(self._drop_all)

    def hangs(self) -> None:
        """Accept connections and forward nothing, in both directions, on old connections and new ones."""
        self._do(lambda: self._behave(flows=False, listens=True))

    def resets(self) -> None:
        """End all connections by RST, and new ones as soon as they are accepted."""
        self._do(lambda: self._behave(flows=True, listens=True, resets=True))
        self._do(self._drop_all)

    def slows_to(self, bytes_per_second: float) -> None:
        """Forward so many bytes a second on each connection, in each direction."""
        self._do(lambda: self._behave(flows=True, listens=True, speed=bytes_per_second))

    def drops(self) -> None:
        """End the connections that there are by RST; new ones are treated as before."""
        self._do(self._drop_all)

    def cuts(self, pattern: bytes, moment: Moment, which: Container[int]) -> None:
        """Cut the connection when the pattern goes by towards the server for the n-th time, for n in `which`.

        Counted from 1 over all connections; only the connection on which it goes by is cut, by RST at both ends.
        """

        def behave() -> None:
            self._pattern, self._moment, self._which = pattern, moment, which
            self.seen = self.cut = 0

        self._do(behave)

    def _do(self, action: Callable[[], Any]) -> None:
        """Run the action in the proxy's loop and wait for it."""

        async def act() -> None:
            action()

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)

    def _behave(
        self, *, flows: bool, listens: bool, resets: bool = False, speed: float | None = None
    ) -> None:
        self._resets, self._speed = resets, speed
        self._changed.set()
        self._changed = asyncio.Event()
        if flows:
            self._flows.set()
        else:
            self._flows.clear()
        if listens and not self._listens:
            self._listen()
        elif not listens:
            self._stop_listening()
            self._bind()

    def _bind(self) -> socket.socket:
        """Take the port; while nobody listens on it, connections to it are refused."""
        if self._listener is not None:
            self._listener.close()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.setblocking(False)
        self._listener, self.port = listener, listener.getsockname()[1]
        return listener

    def _listen(self) -> None:
        listener = self._bind()
        listener.listen(128)
        self._loop.add_reader(listener, self._accept, listener)
        self._listens = True

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        self._listens = False

    def _drop_all(self) -> None:
        links, self._links = self._links, set()
        for link in links:
            link.reset()

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:  # it has gone away again
            return
        client.setblocking(False)
        self.connections += 1
        link = _Link(client)
        if self._resets:
            link.reset()
        else:
            self._links.add(link)
            link.tasks.append(self._loop.create_task(self._connect(link)))

    async def _connect(self, link: _Link) -> None:
        await self._flows.wait()
        server = socket.socket()
        server.setblocking(False)
        link.sockets.append(server)
        try:
            await self._loop.sock_connect(server, self._target)
        except OSError:
            self._end(link)
            return
        client = link.sockets[0]
        for source, sink, to_server in ((client, server, True), (server, client, False)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.tasks.append(self._loop.create_task(self._pump(link, source, sink, to_server=to_server)))

    async def _pump(
        self, link: _Link, source: socket.socket, sink: socket.socket, *, to_server: bool
    ) -> None:
        try:
            while data := await self._loop.sock_recv(source, _PIECE):
                await self._flows.wait()
                moment = self._found(link, data) if to_server else None
                if moment == "before" or (link.swallows and not to_server):
                    self._cut(link)
                    return
                link.swallows = link.swallows or moment == "answered"
                await self._forward(data, sink, to_server=to_server)
                if moment == "with":
                    self._cut(link)
                    return
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._end(link)

    def _found(self, link: _Link, data: bytes) -> Moment | None:
        """Return when to cut the link because of the pattern, if it is in these bytes and its turn has come."""
        if not self._pattern:
            return None
        text = link.tail + data
        link.tail = text[-(len(self._pattern) - 1) :] if len(self._pattern) > 1 else b""
        first = self.seen + 1
        self.seen += text.count(self._pattern)
        return self._moment if any(n in self._which for n in range(first, self.seen + 1)) else None

    async def _forward(self, data: bytes, sink: socket.socket, *, to_server: bool) -> None:
        while data:
            size = len(data) if self._speed is None else max(1, int(self._speed / 20))
            piece, data = data[:size], data[size:]
            if self._speed is not None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), len(piece) / self._speed)
                await self._flows.wait()
            if to_server:  # counted first: the other end may look at the figure as soon as it has the bytes
                self.to_server += len(piece)
            else:
                self.to_client += len(piece)
            await self._loop.sock_sendall(sink, piece)

    def _cut(self, link: _Link) -> None:
        self.cut += 1
        self._end(link)

    def _end(self, link: _Link) -> None:
        self._links.discard(link)
        link.reset()


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
