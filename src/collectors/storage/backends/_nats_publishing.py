"""Messages into a JetStream stream: many under way at a time, each waited for until the server has acknowledged it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import nats.errors
from msgspec import Struct

from collectors.errors import CollectorsError, FatalError, TransientError
from collectors.nats_client import Connection

__all__ = ["Message", "Publisher", "Refusal", "meaning"]

MOST_MESSAGES = 1024
MOST_BYTES = 16 * 2**20
"""So much may be under way, not acknowledged yet."""
_TOO_LARGE = {10054, 10097}
"""What the server says of a message, and of its headers."""
_HEAD_BYTES = len("NATS/1.0\r\n\r\n")
_NO_STREAM = "503"


class Message(Struct):
    """What is published."""

    subject: str
    payload: bytes
    headers: dict[str, str]
    size: int
    """The bytes of payload and headers, as the server counts them."""

    @classmethod
    def of(cls, subject: str, payload: bytes, headers: dict[str, str]) -> Message:
        """Return a message."""
        lines = sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())
        return cls(subject, payload, headers, len(payload) + _HEAD_BYTES + lines)


class Refusal(Struct):
    """What the server said instead of an acknowledgement."""

    code: int = 0
    err_code: int = 0
    description: str = "unknown error"

    def is_about_the_message(self) -> bool:
        """Return whether it would refuse this message again, and not others."""
        return self.err_code in _TOO_LARGE


class _Answer(Struct):
    seq: int = 0
    error: Refusal | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Publisher:
    """Publishes through one connection."""

    def __init__(self, connection: Connection, patience: float) -> None:
        self._connection = connection
        self._patience = patience
        self._inbox = connection.client.new_inbox()
        self._waiting: dict[str, tuple[int, int]] = {}
        self._bytes = self._count = 0
        self._refused: dict[int, Refusal] = {}
        self._changed = asyncio.Event()
        self._failed: CollectorsError | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Listen for acknowledgements."""
        try:
            await self._connection.client.subscribe(f"{self._inbox}.*", cb=self._take)
        except nats.errors.Error as error:
            raise TransientError(f"the connection is lost: {error}") from error

    def fail(self, error: CollectorsError) -> None:
        """End all waiting with an error."""
        self._failed = self._failed or error
        self._changed.set()

    async def publish(self, messages: Sequence[Message]) -> dict[int, Refusal]:
        """Publish all and wait for their acknowledgements; return those that were refused, by their number.

        Raises TransientError when acknowledgements are missing: those messages may be there, or not.
        """
        async with self._lock:
            self._refused = {}
            try:
                for number, message in enumerate(messages):
                    size = message.size
                    while self._waiting and (
                        len(self._waiting) >= MOST_MESSAGES or self._bytes + size > MOST_BYTES
                    ):
                        await self._change()
                    self._count += 1
                    reply = f"{self._inbox}.{self._count}"
                    self._waiting[reply] = number, size
                    self._bytes += size
                    await self._connection.publish(
                        message.subject, message.payload, reply, headers=message.headers
                    )
                while self._waiting:
                    await self._change()
                return self._refused
            finally:
                self._waiting.clear()
                self._bytes = 0

    async def _change(self) -> None:
        """Wait until some were answered."""
        if self._failed is None:
            self._changed.clear()
            try:
                async with asyncio.timeout(self._patience):
                    await self._changed.wait()
            except TimeoutError:
                raise self._connection.silence() from None
        if self._failed is not None:
            raise self._failed

    async def _take(self, answer: Any) -> None:
        number, size = self._waiting.pop(answer.subject, (-1, 0))
        if number < 0:
            return  # of a delivery that was given up
        self._bytes -= size
        refusal = _refusal(answer)
        if refusal is not None:
            self._refused[number] = refusal
        self._changed.set()


def _refusal(answer: Any) -> Refusal | None:
    if (answer.headers or {}).get("Status") == _NO_STREAM:
        return Refusal(503, 0, "no stream takes it at the moment")
    try:
        return _decode(answer.data).error
    except msgspec.DecodeError:
        return Refusal(500, 0, "the answer is none of JetStream")


def meaning(refusal: Refusal, subject: str) -> CollectorsError:
    """Return what to raise for a refusal that is not about the message: what is the client's fault stays so."""
    kind: type[CollectorsError] = FatalError if refusal.code in {400, 401, 403} else TransientError
    return kind(f"subject '{subject}': {refusal.description}")
