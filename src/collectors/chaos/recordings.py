"""Recorded sources, in the place of those that cannot be read many times over."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec

from collectors.collection.base import Source, SourceConfig
from collectors.models import CollectedData, Position

__all__ = [
    "Chunk",
    "Recording",
    "RecordingConfig",
    "Sender",
    "SenderConfig",
    "handed_over",
    "read_chunks",
    "write_chunks",
]

WINDOW = 2
"""How many chunks a sender hands over before it waits for the first one to be acknowledged."""


class Chunk(msgspec.Struct):
    """A recorded chunk."""

    raw: bytes
    data_format: str
    metadata: dict[str, Any] = {}


def write_chunks(path: Path, chunks: list[Chunk]) -> None:
    """Write a recording."""
    path.write_bytes(msgspec.json.encode(chunks))


def read_chunks(path: str | Path) -> list[Chunk]:
    """Read a recording."""
    return msgspec.json.decode(Path(path).read_bytes(), type=list[Chunk])


class RecordingConfig(SourceConfig):
    """Settings of a recording."""

    recording: str
    """The file of `write_chunks`."""
    codec: str | dict[str, Any]
    """The format of the chunks."""
    only: list[int] | None = None
    """Which chunks, counted from 1; all when left out."""


class Recording(Source[RecordingConfig]):
    """Gives recorded chunks, and gives them again from any position; can make one again when the original can."""

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the original."""
        return self.config.codec

    def read(self, since: Position | None) -> Iterator[CollectedData]:
        """Yield the chunks behind the position."""
        for number in range((since["n"] if since else 0) + 1, len(self._chunks) + 1):
            if self.config.only is None or number in self.config.only:
                yield self._chunk(number)

    def replay(self, since: Position | None, until: Position) -> CollectedData:
        """Return one chunk again."""
        return self._chunk(until["n"])

    @property
    def _chunks(self) -> list[Chunk]:
        if not hasattr(self, "_read_chunks"):
            self._read_chunks = read_chunks(self.config.recording)
        return self._read_chunks

    def _chunk(self, number: int) -> CollectedData:
        chunk = self._chunks[number - 1]
        return self.chunk(chunk.raw, {"n": number}, data_format=chunk.data_format, **chunk.metadata)


class SenderConfig(RecordingConfig):
    """Settings of a sender."""

    marks: str
    """The file in which the sender notes what it handed over and what was acknowledged; it is not killed."""


class Sender(Recording):
    """Hands each recorded chunk over once, as something outside that does not wait and does not send again.

    What was acknowledged must be stored once; what was handed over and not acknowledged may be stored, once.
    """

    def __init__(self, config: SenderConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._given: list[int] = []
        self._acknowledged = asyncio.Event()

    def needs_spool(self) -> bool:
        """Return True: nothing is handed over twice."""
        return True

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:  # type: ignore[override]
        """Yield the chunks that were never handed over, a few ahead of their acknowledgement."""
        handed, _ = handed_over(Path(self._marks))
        for number in range(max(handed, default=0) + 1, len(self._chunks) + 1):
            while len(self._given) >= WINDOW:
                self._acknowledged.clear()
                await self._acknowledged.wait()
            self._note(f"handed {number}\n")
            self._given.append(number)
            yield self._chunk(number)

    async def commit(self, position: Position) -> None:
        """Note what is acknowledged."""
        done = [number for number in self._given if number <= position["n"]]
        self._note("".join(f"acknowledged {number}\n" for number in done))
        self._given = self._given[len(done) :]
        self._acknowledged.set()

    @property
    def _marks(self) -> str:
        assert isinstance(self.config, SenderConfig)  # noqa: S101  # given in its own constructor
        return self.config.marks

    def _note(self, text: str) -> None:
        file = os.open(self._marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(file, text.encode())
        os.close(file)


def handed_over(marks: Path) -> tuple[list[int], list[int]]:
    """Return the chunks that a sender handed over, and those of them that were acknowledged."""
    lines = [line.split() for line in marks.read_text().splitlines()] if marks.exists() else []
    handed = [int(number) for what, number in lines if what == "handed"]
    return handed, [int(number) for what, number in lines if what == "acknowledged"]
