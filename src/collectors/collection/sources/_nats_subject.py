"""What is published to subjects, as long as somebody listens: core NATS, without acknowledgements."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import nats.errors
from msgspec import Struct

from collectors.errors import CollectorsError, TransientError
from collectors.nats_client import Connection

__all__ = ["Listener", "Published"]

_BUFFER_BYTES = 64 * 2**20
_BUFFER_MESSAGES = 256 * 1024


class Published(Struct):
    """A message as it came."""

    data: bytes
    subject: str
    headers: dict[str, str] | None


class Listener:
    """Keeps what comes until it is taken, within bounds: what does not fit is dropped by the library, which counts it."""

    def __init__(self, connection: Connection, subjects: list[str], queue: str | None, size: int) -> None:
        self._connection = connection
        self._subjects = subjects
        self._queue = queue or ""
        self._size = size
        self._messages: list[Published] = []
        self._held = 0
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._error: CollectorsError | None = None
        self._subscriptions: list[Any] = []

    async def open(self) -> None:
        """Subscribe, and return when the server knows."""
        try:
            for subject in self._subjects:
                made = await self._connection.client.subscribe(
                    subject,
                    queue=self._queue,
                    cb=self._receive,
                    pending_msgs_limit=_BUFFER_MESSAGES,
                    pending_bytes_limit=_BUFFER_BYTES,
                )
                self._subscriptions.append(made)
            for _ in range(2):  # the first ping may overtake what is being sent, the second one cannot
                await self._connection.client.flush()
        except nats.errors.Error as error:
            raise TransientError(f"the connection is lost: {error}") from error

    async def close(self) -> None:
        """Listen no more; what the server has sent by then has come."""
        with suppress(nats.errors.Error, TimeoutError):
            for each in self._subscriptions:
                self._room.set()
                self._size = 1 << 62
                await each.drain()

    def fail(self, error: CollectorsError) -> None:
        """End the wait for messages with an error, once those that came are taken."""
        self._error = self._error or error
        self._came.set()

    async def take(self) -> list[Published]:
        """Return all that came since the last time, waiting for the first. Raises TransientError."""
        while not self._messages:
            if self._error is not None:
                raise self._error
            self._came.clear()
            await self._came.wait()
        return self.rest()

    def rest(self) -> list[Published]:
        """Return all that came since the last time, and wait for nothing."""
        messages, self._messages, self._held = self._messages, [], 0
        self._room.set()
        return messages

    async def _receive(self, message: Any) -> None:
        while self._held >= self._size:
            self._room.clear()
            await self._room.wait()
        self._messages.append(Published(message.data, message.subject, message.headers))
        self._held += len(message.data)
        self._came.set()
