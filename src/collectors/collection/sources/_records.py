"""Reads the records of one file, plain or compressed, from a bookmark on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic

from collectors.collection.base import Framing, Room
from collectors.collection.sources._bookmarks import Bookmark, imprint
from collectors.collection.sources._compressed import BrokenDataError, Stream, compression_of, open_stream
from collectors.collection.sources._cutting import SAMPLE_BYTES, Cutter, Piece
from collectors.collection.sources._handle import HEAD_BYTES, LAST_BYTES, ContentT, Part, ReplacedError

__all__ = ["RecordReader"]

_BEGINNING_BYTES = 64 * 1024
_SKIP_BYTES = 2**20
_LINE_BYTES = 16 * 1024
"""Most lines are shorter; the last one of a block is looked for in so many bytes."""


class RecordReader(Generic[ContentT]):
    """Reads whole records from one file; it can be asked again when the file has grown.

    Made with a bookmark it goes on from there, and raises ReplacedError when the file is another than that of the bookmark.
    Offsets are in decompressed bytes.
    """

    def __init__(
        self,
        handle: ContentT,
        mark: Bookmark | None,
        *,
        framing: Framing,
        block: int,
        limit: int,
        compression: str = "auto",
    ) -> None:
        self.handle = handle
        self._framing = framing
        self._block = min(block, limit)
        self._quiet_at = -1
        self._raw_size = 0
        self._ahead: bytes | None = None
        self._broken: BrokenDataError | None = None
        self.finished = False
        handle.check(0)
        if compression == "auto":
            compression = compression_of(handle.read_at(4, 0))
        self._compression = compression
        self._stream: Stream | None = None
        self._head = b""
        last = self._go_to(mark) if mark is not None else self._restart()
        offset = mark.offset if mark is not None else 0
        self._cutter = Cutter(framing, limit, offset, last, self._beginning(offset))

    def _restart(self) -> bytes:
        if self._compression != "none":
            self._stream = open_stream(self.handle.read_at, self._compression)
        return b""

    def _go_to(self, mark: Bookmark) -> bytes:
        """Go behind what was read, check that it is the same, and return its last bytes."""
        same_file = mark.size is not None and self.handle.imprint(mark.size) == mark.imprint
        self._restart()
        if self._stream is None:
            self._head = self.handle.read_at(min(HEAD_BYTES, mark.offset), 0)
            size = min(LAST_BYTES, mark.offset)
            last = self.handle.read_at(size, mark.offset - size)
        else:
            last = self._skip(self._stream, mark.offset)
        if not same_file and imprint(self._head, last) != mark.imprint:
            raise ReplacedError(self.handle.path)
        if self.handle.key != mark.key and self._stream is None and not last.endswith(b"\n"):
            following = self.handle.read_at(1, mark.offset)
            if following not in {b"", b"\r", b"\n"}:
                raise ReplacedError(
                    self.handle.path
                )  # another file that happens to begin with the same characters
        self.handle.check(mark.offset if self._stream is None else 0)
        return last

    def _skip(self, stream: Stream, size: int) -> bytes:
        last = b""
        try:
            while size > 0 and (data := stream.read(min(size, _SKIP_BYTES))):
                self._head += data[: HEAD_BYTES - len(self._head)]
                last = (last + data)[-LAST_BYTES:]
                size -= len(data)
        except BrokenDataError as error:
            raise ReplacedError(self.handle.path) from error
        if size:
            raise ReplacedError(self.handle.path)
        return last

    def at(self, mark: Bookmark | None) -> bool:
        """Return whether it stands at this bookmark (None: at the beginning), so that it can go on from there."""
        return self._cutter.offset == (mark.offset if mark else 0)

    def check(self) -> None:
        """Raise ReplacedError when the file is no longer the one that was opened."""
        self.handle.check(self._cutter.end if self._stream is None else 0)

    def read(self, path: str, *, final: bool, wait: bool) -> Iterator[Part | Room]:
        """Yield the whole records there are; see `FileReader`. Also raises BrokenDataError, behind what is whole."""
        self.finished = False
        more = True
        while more:
            while (whole := self._cutter.take()) is not None:
                yield self._part(whole, path)
            if size := self._next_size():
                yield Room(size)
            more = self._fill()
        if self._stream is not None or (final and (not wait or self._quiet_at == self._cutter.end)):
            self._cutter.finish()
            self.finished = True
        piece = self._cutter.take()
        while piece is not None:
            part = self._part(piece, path)
            piece = self._cutter.take()
            if self.finished and piece is None:
                part.mark = self._at_end(path)
            yield part
        self._quiet_at = self._cutter.end if final else -1

    def settled(self, path: str) -> Bookmark | None:
        """Return the bookmark of the finished file, None while nothing was read of it."""
        return self._at_end(path) if self._cutter.offset else None

    def _at_end(self, path: str) -> Bookmark:
        size = self._cutter.offset if self._stream is None else self._raw_size
        return Bookmark(path, *self.handle.key, self._cutter.offset, self.handle.imprint(size), size)

    def torn(self, path: str, reason: str) -> Part:
        """Return what is left of damaged data as a refused record; the file counts as read to its end."""
        self.finished = True
        part = self._part(self._cutter.tear(reason), path)
        part.mark = self._at_end(path)
        return part

    def again(self, start: int, mark: Bookmark, reason: str | None) -> Part:
        """Return once more what was yielded from `start` to the bookmark, refused for the reason if there is one."""
        size = mark.offset - start if reason is None else min(mark.offset - start, SAMPLE_BYTES)
        if self._stream is None:
            raw = self.handle.read_at(size, start)
        else:
            self._skip(self._stream, start)
            raw = self._stream.read(size) if size else b""
        if len(raw) != size:
            raise ReplacedError(self.handle.path)
        if reason is not None:
            return Part(raw.removesuffix(b"\n"), start, mark, reason)
        head = self._beginning(start)
        lead = head[: self._framing.preamble(head)]
        return Part(lead + raw, start, mark, lead=len(lead))

    def skip_to_end(self, path: str) -> Bookmark:
        """Return the bookmark behind the last whole record of the file as it is now; nothing of it is read."""
        size = self.handle.size()
        if self._stream is not None:
            return Bookmark(path, *self.handle.key, 0, self.handle.imprint(size), size)
        offset = size
        while offset > 0:
            start = max(0, offset - self._block)
            newline = self.handle.read_at(offset - start, start).rfind(b"\n")
            offset = start + newline + 1 if newline >= 0 else start
            if newline >= 0:
                break
        return Bookmark(path, *self.handle.key, offset, self.handle.imprint(offset), None)

    def _next_size(self) -> int:
        """Return about how many bytes the next block brings into memory."""
        if self._stream is not None:
            return self._block if self._ahead is not None else 2 * self._block
        return max(0, min(self._block, self.handle.size() - self._cutter.end))

    def _fill(self) -> bool:
        """Read a block; return whether there may be more."""
        if self._stream is not None:
            data, more = self._decompress(self._stream)
        else:
            size = self._whole_lines()
            data = self.handle.read_at(size, self._cutter.end)
            more = len(data) == size
            self.handle.check(self._cutter.end + len(data))
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        self._cutter.feed(data)
        return more

    def _whole_lines(self) -> int:
        """Return how many bytes of the next block end with a line: what is read up to there need not be copied to be cut."""
        size = self._block - _LINE_BYTES
        if size <= 0:
            return self._block
        newline = self.handle.read_at(_LINE_BYTES, self._cutter.end + size).rfind(b"\n")
        return size + newline + 1 if newline >= 0 else self._block

    def _decompress(self, stream: Stream) -> tuple[bytes, bool]:
        """Return the next block and whether there is more: one block ahead, so that the last chunk is known as such."""
        if self._broken is not None:
            raise self._broken
        data = stream.read(self._block) if self._ahead is None else self._ahead
        self._raw_size = self.handle.size()
        self._ahead = b""
        try:
            self._ahead = stream.read(self._block)
        except BrokenDataError as error:
            self._broken = error
        return data, bool(self._ahead) or self._broken is not None

    def _part(self, piece: Piece, path: str) -> Part:
        made = imprint(self._head[: piece.end], self._cutter.last)
        mark = Bookmark(path, *self.handle.key, piece.end, made, None)
        if piece.reason is not None:
            return Part(piece.raw, piece.start, mark, piece.reason)
        size = self.handle.size() if self._stream is None else None
        return Part(piece.raw, piece.start, mark, lead=piece.lead, size=size)

    def _beginning(self, offset: int) -> bytes:
        """Return how the content begins, as far as it lies before the offset; header lines are in there."""
        size = min(offset, _BEGINNING_BYTES)
        if self._compression == "none":
            return self.handle.read_at(size, 0)
        return open_stream(self.handle.read_at, self._compression).read(size) if size else b""
