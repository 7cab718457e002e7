"""A connection to a WebSocket server: what comes is kept until it is taken, within bounds; silence is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import aiohttp
from msgspec import Struct

from collectors.collection.sources._arrived import receive_what_is_there
from collectors.collection.sources._intake import Intake
from collectors.errors import CollectorsError, TransientError
from collectors.http_client.client import WebSocket

__all__ = ["Connection", "Message", "Patience"]

_MESSAGES = {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}
_AROUND_BYTES = 128
_MOMENT = 0.01
_CODES = {
    1000: "normal closure",
    1001: "going away",
    1002: "protocol error",
    1003: "unsupported data",
    1005: "no code",
    1007: "invalid payload",
    1008: "policy violation",
    1009: "message too big",
    1010: "an extension is missing",
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
    1014: "bad gateway",
}


class Patience(Struct, frozen=True):
    """After how many seconds of silence to ask whether the server is there, and to give up without a message; 0: never."""

    ping: float
    silence: float


class Message(Struct):
    """The payload of a text or binary message."""

    data: bytes

    @property
    def size(self) -> int:
        """Bytes that it takes here."""
        return len(self.data) + _AROUND_BYTES


class Connection:
    """Entered, it receives; `error` says why it is over. `limit` is how many bytes may wait, and how many a message has."""

    def __init__(
        self,
        socket: WebSocket,
        name: str,
        patience: Patience,
        limit: tuple[int, int],
        *,
        clean: Callable[[str], str],
        count_lost: Callable[[int], None],
    ) -> None:
        self.error: Exception | None = None
        self._socket = socket
        self._name = name
        self._patience = patience
        most, self._max_record = limit
        self._clean = clean
        self._count_lost = count_lost
        self._intake: Intake[Message] = Intake(most)
        self._pending: Message | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def take(self) -> list[Message]:
        """Return all that came since the last time, waiting for the first; an empty list when the connection is over."""
        return await self._intake.take()

    async def rest(self) -> list[Message]:
        """Return what has come and was not taken, and receive no more."""
        await self._stop()
        self._intake.end()
        messages = await self._intake.take()
        if self._pending is not None:
            messages.append(self._pending)

        async def receive() -> int | None:
            message = await self._socket.receive()
            if message.type in _MESSAGES:
                messages.append(Message(message.data))
                return messages[-1].size
            return 0 if message.type in {aiohttp.WSMsgType.PING, aiohttp.WSMsgType.PONG} else None

        if self.error is None:
            await receive_what_is_there(receive)
        return messages

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            await self._receive()
        except CollectorsError as error:
            self.error = error
        except (aiohttp.ClientError, OSError) as error:
            self.error = TransientError(f"{self._name}: the connection broke: {self._clean(str(error))}")
        except Exception as error:  # noqa: BLE001  # raised to who reads
            self.error = error
        finally:
            if self.error is not None:
                self._intake.end()

    async def _receive(self) -> None:
        """Take over message after message; raises TransientError when the connection is over."""
        clock = asyncio.get_running_loop().time
        ping, silence = self._patience.ping, self._patience.silence
        quiet_since, pinged, wait = clock(), False, ping or None
        while True:
            if silence:
                left = max(quiet_since + silence - clock(), _MOMENT)
                wait = min(ping, left) if ping else left
            try:
                message = await self._socket.receive(wait)
            except TimeoutError:
                if silence and clock() - quiet_since >= silence:
                    raise TransientError(f"{self._name}: no message came for {silence:g} s") from None
                if pinged:
                    raise TransientError(
                        f"{self._name}: nothing came for {2 * ping:g} s, not even an answer to a ping"
                    ) from None
                await self._socket.ping()
                pinged = True
                continue
            pinged = False
            if message.type in _MESSAGES:
                self._pending = Message(message.data)
                await self._intake.put_soon(self._pending)
                self._pending = None
                if silence:
                    quiet_since = clock()
            elif message.type is aiohttp.WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type is not aiohttp.WSMsgType.PONG:
                raise self._end(message)

    def _end(self, message: Any) -> TransientError:
        """Return what the last message means."""
        if message.type is aiohttp.WSMsgType.CLOSE:
            code = message.data or 1005
            said = self._clean(f": {message.extra}") if message.extra else ""
            about = f"{code} ({_CODES[code]})" if code in _CODES else f"{code}"
            return TransientError(f"{self._name} has closed the connection: {about}{said}")
        error = message.data if message.type is aiohttp.WSMsgType.ERROR else None
        if isinstance(error, aiohttp.WebSocketError) and error.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
            self._count_lost(1)
            return TransientError(
                f"{self._name} sent a message of more than max_record ({self._max_record:,} bytes), which is lost, and the "
                "connection with it; set `max_record`"
            )
        if error is not None:
            return TransientError(f"{self._name}: the connection broke: {self._clean(str(error))}")
        return TransientError(f"{self._name}: the connection broke")
