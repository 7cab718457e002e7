"""Cuts what comes over a socket into records, one a line, as codecs of lines want them.

Streams of syslog are framed as in RFC 6587: by octet counts (`5 <1>ab`) or by line feeds; how is seen at the first
byte. A line feed within a record becomes `#012`, as rsyslog writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from collectors.collection.base import Framing, LineFraming
from collectors.collection.sources._cutting import SAMPLE_BYTES, Cutter

__all__ = ["Frames", "FramingLostError", "one_line", "stream_frames"]


class FramingLostError(Exception):
    """Nothing more can be had from a stream."""


_COUNT = re.compile(rb"([1-9][0-9]{0,8}) (?=<)")
_MAY_BE_COUNT = re.compile(rb"[1-9][0-9]{0,8}( <?)?\Z")


class Frames(Protocol):
    """Cuts one stream."""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, str | None]]:
        """Yield what is whole now: records, or with a reason one that is refused. Raises FramingLostError."""

    def finish(self, reason: str | None) -> Iterator[tuple[bytes, str | None]]:
        """Yield what is left at the end of the stream; with a reason it was broken off inside a record."""


def one_line(record: bytes) -> bytes:
    """Return a record of syslog as one line, its line feed included; nothing for one that is empty."""
    record = record.rstrip(b"\n\r\0")
    if b"\n" in record:
        record = record.replace(b"\n", b"#012")
    return record + b"\n" if record else b""


def stream_frames(framing: Framing, *, syslog: bool, limit: int) -> Frames:
    """Return what cuts a stream of records of at most `limit` bytes."""
    return _SyslogFrames(limit) if syslog else _CodecFrames(framing, limit)


class _CodecFrames:
    """Records as the codec frames them."""

    def __init__(self, framing: Framing, limit: int) -> None:
        self._cutter = Cutter(framing, limit)
        self._limit = limit

    def feed(self, data: bytes) -> Iterator[tuple[bytes, str | None]]:
        for start in range(0, len(data), self._limit):
            self._cutter.feed(data[start : start + self._limit])
            yield from self._taken()

    def finish(self, reason: str | None) -> Iterator[tuple[bytes, str | None]]:
        if reason is not None:
            if (torn := self._cutter.tear(reason)).raw:
                yield torn.raw, torn.reason
            return
        self._cutter.finish()
        yield from self._taken()

    def _taken(self) -> Iterator[tuple[bytes, str | None]]:
        while (piece := self._cutter.take()) is not None:
            yield piece.raw, piece.reason


class _SyslogFrames:
    """Decides at the first bytes how the stream is framed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._head = b""
        self._frames: Frames | None = None

    def feed(self, data: bytes) -> Iterator[tuple[bytes, str | None]]:
        if self._frames is None:
            data = self._head + data
            self._head = b""
            if not data or _MAY_BE_COUNT.match(data):
                self._head = data
                return
            self._frames = self._chosen(data)
        yield from self._frames.feed(data)

    def finish(self, reason: str | None) -> Iterator[tuple[bytes, str | None]]:
        frames = self._frames or self._chosen(self._head)
        yield from frames.feed(self._head)
        yield from frames.finish(reason)

    def _chosen(self, head: bytes) -> Frames:
        return _Counted(self._limit) if _COUNT.match(head) else _CodecFrames(LineFraming(), self._limit)


class _Counted:
    """RFC 6587, section 3.4.1."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = b""
        self._at = 0
        self._skip = 0

    def feed(self, data: bytes) -> Iterator[tuple[bytes, str | None]]:
        self._held = self._held[self._at :] + data
        self._at = 0
        lines: list[bytes] = []
        for record, reason in self._records():
            if reason is None:
                lines.append(one_line(record))
                continue
            if any(lines):
                yield b"".join(lines), None
            lines = []
            yield record, reason
        if any(lines):
            yield b"".join(lines), None

    def finish(self, reason: str | None) -> Iterator[tuple[bytes, str | None]]:
        if self._held[self._at :]:
            yield self._held[self._at :][:SAMPLE_BYTES], reason or "the connection ended inside a record"

    def _records(self) -> Iterator[tuple[bytes, str | None]]:
        while True:
            skipped = min(self._skip, len(self._held) - self._at)
            self._skip -= skipped
            self._at += skipped
            count = _COUNT.match(self._held, self._at)
            if count is None:
                break
            begin, size = count.end(), int(count[1])
            record = self._held[begin : begin + size]
            if size > self._limit:
                self._at, self._skip = begin, size
                yield (
                    record[:SAMPLE_BYTES],
                    f"record of {size} bytes is longer than max_record ({self._limit} bytes)",
                )
            elif len(record) < size:
                return
            else:
                self._at = begin + size
                yield record, None
        rest = self._held[self._at :]
        if rest and not _MAY_BE_COUNT.match(rest):
            self._at = len(self._held)
            yield (
                rest[:SAMPLE_BYTES],
                "expected the length of the next record; it cannot be told where one begins",
            )
            raise FramingLostError
