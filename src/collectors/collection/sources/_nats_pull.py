"""Messages of a JetStream consumer, pulled: so many as the reader has room for, and no more.

The protocol is that of NATS' ADR-13 (pull requests and their statuses) and ADR-15 (what a reply subject says).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
import nats.errors
from msgspec import Struct

from collectors.errors import CollectorsError, TransientError
from collectors.nats_client import Connection

__all__ = ["Delivered", "Puller"]

_MESSAGES = 4096
"""So many messages are asked for at once."""
_EXPIRES_SECONDS = 30
_HEARTBEAT_SECONDS = 5
_SILENCE_SECONDS = 2.5 * _HEARTBEAT_SECONDS
_NANO = 10**9


class Delivered(Struct):
    """A message as the consumer gave it; `run` is one more than that of the message given before it."""

    data: bytes
    subject: str
    headers: dict[str, str] | None
    reply: str
    seq: int
    run: int
    again: bool
    nanoseconds: int


class Puller:
    """Asks for messages before those run out that were asked for, and keeps those that came until they are taken.

    So at most half as much again as `size` bytes is on its way. A larger message is asked for alone.
    """

    def __init__(
        self, connection: Connection, stream: str, consumer: str, size: int, batch: int = _MESSAGES
    ) -> None:
        self._connection = connection
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = connection.client.new_inbox()
        self._size = size
        self._batch = batch
        self._messages: list[Delivered] = []
        self._came = asyncio.Event()
        self._error: CollectorsError | None = None
        self._subscription: Any = None
        self._number = 0
        self._messages_left = 0
        self._bytes_left = 0
        self._alone = False

    async def open(self) -> None:
        """Subscribe to the answers."""
        try:
            self._subscription = await self._connection.client.subscribe(
                f"{self._inbox}.*", cb=self._receive, pending_msgs_limit=0, pending_bytes_limit=0
            )
        except nats.errors.Error as error:
            raise TransientError(f"the connection is lost: {error}") from error

    async def close(self) -> None:
        """Ask for nothing more; what has come is still there for `rest`."""
        with suppress(nats.errors.Error):
            await self._subscription.unsubscribe()

    def fail(self, error: CollectorsError) -> None:
        """End the wait for messages with an error, once those that came are taken."""
        self._error = self._error or error
        self._came.set()

    def rest(self) -> list[Delivered]:
        """Return what came and was not taken."""
        messages, self._messages = self._messages, []
        return messages

    async def take(self) -> list[Delivered]:
        """Return all that came since the last time, waiting for the first. Raises TransientError."""
        while True:
            if self._error is not None and not self._messages:
                raise self._error
            if self._error is None and not self._alone:
                await self._ask()
            if self._messages:
                return self.rest()
            self._came.clear()
            try:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    await self._came.wait()
            except TimeoutError:
                raise TransientError(
                    f"JetStream: nothing came for {_SILENCE_SECONDS:g} s, not even a heartbeat"
                ) from None

    async def _ask(self) -> None:
        """Ask for more, if half of what was asked for has come."""
        if self._messages_left > self._batch // 2 and self._bytes_left > self._size // 2:
            return
        await self._request(self._batch, max_bytes=self._size)
        self._messages_left += self._batch
        self._bytes_left += self._size

    async def _request(self, batch: int, **limit: int) -> None:
        self._number += 1
        request = {
            "batch": batch,
            "expires": _EXPIRES_SECONDS * _NANO,
            "idle_heartbeat": _HEARTBEAT_SECONDS * _NANO,
            **limit,
        }
        reply = f"{self._inbox}.{self._number}"
        await self._connection.publish(self._subject, msgspec.json.encode(request), reply)

    async def _receive(self, message: Any) -> None:
        parts = message.reply.split(".")
        if len(parts) >= 9 and parts[1] == "ACK":
            self._take_in(message, parts)
        elif (status := (message.headers or {}).get("Status")) != "100":
            await self._hear(str(status), message.headers or {}, message.subject)
        self._came.set()

    def _take_in(self, message: Any, parts: list[str]) -> None:
        # $JS.ACK.[domain.account.]stream.consumer.delivered.stream_seq.consumer_seq.time.pending[.token]
        at = 2 if len(parts) == 9 else 4
        delivered, seq, run, nanoseconds = map(int, parts[at + 2 : at + 6])
        headers, data = message.headers, message.data
        self._messages.append(
            Delivered(data, message.subject, headers, message.reply, seq, run, delivered > 1, nanoseconds)
        )
        self._alone = False
        self._messages_left -= 1
        self._bytes_left -= len(data) + len(message.subject) + len(message.reply)
        if headers:
            self._bytes_left -= sum(len(name) + len(value) + 4 for name, value in headers.items()) + 12

    async def _hear(self, status: str, headers: dict[str, str], subject: str) -> None:
        """Take in that a request has ended, and why."""
        said = headers.get("Description", "")
        unused = int(headers.get("Nats-Pending-Bytes", 0))
        self._alone = False
        if subject.endswith(f".{self._number}"):  # the last one, so that nothing is on its way any more
            self._messages_left = self._bytes_left = 0
        else:
            self._messages_left -= int(headers.get("Nats-Pending-Messages", 0))
            self._bytes_left -= unused
        if said.startswith("Message Size Exceeds MaxBytes"):
            if unused >= self._size:
                self._alone = True
                await self._request(1)
        elif status not in {"404", "408"} and said != "Batch Completed":
            self.fail(TransientError(f"JetStream: {said.lower() or 'no such consumer'} (status {status})"))
