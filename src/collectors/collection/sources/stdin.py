"""Standard input: what another program writes into a pipe, or a file handed in with `<`.

    source:
      type: stdin
      format: ndjson

Records are handed on as soon as they are there; the end of the input ends the source.

Delivery: exactly once from the spool on. What was read from a pipe cannot be read again, so it is written to the spool
first; in a crash, the last that was read and was not there yet is lost. On a stop, what is in the pipe is stored. To lose
nothing, write to a file and follow it.
Position: none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

from collectors.collection.base import ByteSourceConfig, Source
from collectors.collection.sources._arrived import receive_what_is_there
from collectors.collection.sources._cutting import Cutter
from collectors.errors import TransientError
from collectors.models import CollectedData, Position
from collectors.workers import in_thread

__all__ = ["COMPONENT", "StdinConfig", "StdinSource"]


class StdinConfig(ByteSourceConfig):
    """Settings of the stdin source."""


class StdinSource(Source[StdinConfig]):
    """Reads a binary stream to its end; `file` is another than standard input, for programs and tests."""

    def __init__(self, config: StdinConfig | None = None, *, file: Any = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        spec = self.format()
        self.data_format = spec if isinstance(spec, str) else str(spec.get("type"))
        self._file = file
        self._cutter: Cutter | None = None
        self._ended = False
        self._wake: _Wake | None = None

    def needs_spool(self) -> bool:
        """Return True: what a pipe gave cannot be read again."""
        return True

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the settings, else one JSON object a line."""
        return self.config.format or "ndjson"

    async def open(self) -> None:
        """Make the pipe that wakes a waiting read when it is cancelled."""
        await self.enter(self._waking())

    @contextlib.contextmanager
    def _waking(self) -> Iterator[None]:
        with contextlib.closing(_Wake()) as wake:
            self._wake = wake
            try:
                yield
            finally:
                self._wake = None

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Yield whole records as they come; all of it is kept when reading stops half-way, and given at the next time."""
        if self._cutter is None:
            self._cutter = Cutter(self.framing, self.config.max_record)
        size: int | None = None
        while True:
            for chunk in self._chunks(self._cutter):
                yield chunk
            if self._ended:
                return
            await self.linger(size)
            size = await self._feed(self._cutter)

    async def rest(self) -> AsyncIterator[CollectedData]:
        """Yield what was read and what is in the pipe: who has written it does not write it again."""
        cutter = self._cutter
        if cutter is None:
            return
        chunks = [*self._chunks(cutter)]

        async def receive() -> int | None:
            size = await self._feed(cutter)
            chunks.extend(self._chunks(cutter))
            return size

        with contextlib.suppress(TransientError):
            await receive_what_is_there(receive)
        for chunk in (*chunks, *self._chunks(cutter)):  # the last may have been read when the time was over
            yield chunk

    def _chunks(self, cutter: Cutter) -> Iterator[CollectedData]:
        while (piece := cutter.take()) is not None:
            offset = piece.start - piece.lead
            if piece.reason is not None:
                yield self.refuse(piece.raw, None, piece.reason, offset=offset)
            else:
                yield self.chunk(piece.raw, None, offset=offset)

    async def _feed(self, cutter: Cutter) -> int | None:
        """Read what is there, in a thread, and return its size, None at the end of the input.

        When cancelled, wake that thread and wait for it, keeping what it has read.
        """
        if (wake := self._wake) is None or self._ended:
            return None
        block = min(self.config.chunk_size, self.config.max_record)
        step = in_thread(self._take, block, wake)
        try:
            found = await asyncio.shield(step)
            return len(found) if found else None
        finally:
            if not step.done():
                wake.set()
                await asyncio.wait([step])
            if not step.cancelled() and step.exception() is None:
                data = step.result()
                if data:
                    cutter.feed(data)
                elif data == b"":
                    cutter.finish()
                    self._ended = True

    def _take(self, block: int, wake: _Wake) -> bytes | None:
        """Return what is there, waiting for the first bytes; none at the end of the input, None when woken."""
        file = self._file if self._file is not None else sys.stdin.buffer
        try:
            number = file.fileno()
        except (AttributeError, OSError):
            return bytes(file.read(block))
        parts: list[bytes] = []
        size = 0
        try:
            while size < block and wake.ready(number, wait=not parts):
                data = os.read(number, block - size)
                parts.append(data)
                size += len(data)
                if not data:
                    break
        except OSError as error:
            raise TransientError(f"cannot read standard input: {error.strerror or error}") from error
        return b"".join(parts) if parts else None


class _Wake:
    """Lets a thread wait for a file and be woken."""

    def __init__(self) -> None:
        self._receiver, self._sender = os.pipe()

    def set(self) -> None:
        """Wake the thread that waits."""
        os.write(self._sender, b"!")

    def ready(self, number: int, *, wait: bool) -> bool:
        """Return whether there is something to read; with `wait`, wait for it, False when woken."""
        poll = select.poll()
        poll.register(number, select.POLLIN)
        poll.register(self._receiver, select.POLLIN)
        found = dict(poll.poll(None if wait else 0))
        if self._receiver in found:
            os.read(self._receiver, 1)
            return False
        return number in found

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._receiver)
        os.close(self._sender)


COMPONENT = StdinSource
