"""Cuts a stream of bytes into pieces of whole records, in bounded memory."""

from __future__ import annotations

from msgspec import Struct

from collectors.collection.base import Framing

__all__ = ["SAMPLE_BYTES", "Cutter", "Piece"]

SAMPLE_BYTES = 64 * 1024
"""So much of a record that is too long is kept, for its dead letter."""
_LAST_BYTES = 64
_RESUMED = "the line had no end when it was read and was taken for whole; this is the rest of it: compare with the record before"


class Piece(Struct, frozen=True):
    """Whole records, and where they lie in the stream; with a `reason`, one record that is refused.

    `raw` begins with `lead` bytes that are repeated from the head of the stream, as the format needs them.
    """

    raw: bytes
    start: int
    end: int
    reason: str | None = None
    lead: int = 0


class _TooLong(Struct):
    """A record that is being skipped: how it begins, where, how many of its bytes went by; and why, if not for its length."""

    sample: bytes
    start: int
    size: int
    reason: str | None = None


class Cutter:
    """Feed it at most `limit` bytes, take pieces until there are none, feed it again; `finish` at the stream's end.

    It holds at most `limit` bytes beside what was fed last. A record of more than `limit` bytes, its newline not
    counted, is refused with its first bytes and skipped up to its newline, whatever the format. So is the rest of one that
    was taken for whole at the end of the stream, when the stream goes on after all. `offset` is where
    in the stream the next piece begins; `last` are up to 64 bytes before it, and `head` is how the stream begins, where
    it was begun before.
    """

    def __init__(
        self, framing: Framing, limit: int, offset: int = 0, last: bytes = b"", head: bytes = b""
    ) -> None:
        self.offset = offset
        self.last = last
        self._framing = framing
        self._limit = limit
        self._held = b""
        self._too_long: _TooLong | None = None
        self._final = False
        self._unended = bool(last) and not last.endswith((b"\n", b"\r"))
        self._preamble = head[: framing.preamble(head)] if head else None

    @property
    def end(self) -> int:
        """Where in the stream the bytes end that were fed so far."""
        skipped = self._too_long.size if self._too_long else 0
        return self.offset + skipped + len(self._held)

    def feed(self, data: bytes) -> None:
        """Take over the next bytes of the stream; it has not ended after all."""
        self._final = False
        self._held = self._held + data if self._held else data

    def finish(self) -> None:
        """Take what is left as the last record: the stream ends here."""
        self._final = True

    def take(self) -> Piece | None:
        """Return the next piece, None when more bytes are needed (after `finish`: when there is nothing left)."""
        if self._unended and self._held:
            self._unended = False
            if not self._held.startswith((b"\n", b"\r")):
                self._too_long = _TooLong(b"", self.offset, 0, _RESUMED)
        if self._too_long is None and self._first_is_too_long():
            self._too_long = _TooLong(b"", self.offset, 0)
        if self._too_long is not None:
            return self._skip(self._too_long)
        size = self._framing.cut(self._held, final=self._final)
        if size == 0 and self._final:
            size = len(self._held)
        if not size:
            return None
        raw = self._consume(size)
        self._unended = self._final and not raw.endswith((b"\n", b"\r"))
        return self._records(raw)

    def tear(self, reason: str) -> Piece:
        """Return what is left, maybe nothing, as a record that is refused: the stream broke off inside it."""
        start, size = self.offset, self.end - self.offset
        sample = self._too_long.sample if self._too_long else self._held[:SAMPLE_BYTES]
        self._consume(len(self._held))
        self._too_long = None
        return self._refused(sample, start, size, reason)

    def _records(self, raw: bytes) -> Piece:
        start, self.offset = self.offset, self.offset + len(raw)
        if self._preamble is None:
            self._preamble = raw[: self._framing.preamble(raw)] if start == 0 else b""
            return Piece(raw, start, self.offset)
        lead = self._preamble
        return Piece(lead + raw if lead else raw, start, self.offset, None, len(lead))

    def _consume(self, size: int) -> bytes:
        raw = self._held[:size]
        self._held = self._held[size:]
        self.last = raw[-_LAST_BYTES:] if size >= _LAST_BYTES else (self.last + raw)[-_LAST_BYTES:]
        return raw

    def _first_is_too_long(self) -> bool:
        if len(self._held) <= self._limit:
            return False
        return self._framing.cut(self._held[: self._limit + 1], final=False) == 0

    def _skip(self, record: _TooLong) -> Piece | None:
        first = max(0, self._limit - record.size) if record.reason is None else 0
        newline = self._held.find(b"\n", first)
        skipped = self._consume(newline + 1 if newline >= 0 else len(self._held))
        record.sample += skipped[: SAMPLE_BYTES - len(record.sample)]
        record.size += len(skipped)
        if newline < 0 and not self._final:
            return None
        self._too_long = None
        length = record.size - (newline >= 0)
        reason = record.reason or (
            f"record of {length} bytes is longer than max_record ({_readable(self._limit)})"
        )
        return self._refused(record.sample[:length], record.start, record.size, reason)

    def _refused(self, sample: bytes, start: int, size: int, reason: str) -> Piece:
        self.offset = start + size
        if self._preamble is None:
            self._preamble = b""
        return Piece(sample, start, self.offset, reason)


def _readable(size: int) -> str:
    """Return a size as settings have it, in the largest unit that divides it."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} bytes"
