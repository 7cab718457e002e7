"""Reads files whose format needs all of the file: one JSON document, Parquet, Arrow."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any, Generic

import pyarrow as pa

from collectors.collection.base import Framing, Room
from collectors.collection.sources._bookmarks import Bookmark
from collectors.collection.sources._compressed import BrokenDataError, compression_of, open_stream
from collectors.collection.sources._cutting import SAMPLE_BYTES
from collectors.collection.sources._handle import Content, ContentT, Part, ReplacedError
from collectors.errors import CollectorsError, ConfigurationError

__all__ = ["DOCUMENTS", "TABLES", "WholeReader"]

DOCUMENTS = {"json"}
"""Formats of which a file is one document."""
TABLES = {"parquet", "arrow"}
"""Formats whose codec gives the slices of a file as Arrow."""
_DOCUMENT_BYTES = 256 * 2**20
_HASHED_BYTES = 16 * 2**20
_SLICE_BYTES = 4 * 2**20
_USUAL_RATIO = 8


class WholeReader(Generic[ContentT]):
    """Reads a file slice by slice; the offsets of its bookmarks count slices, and a changed file is another file."""

    def __init__(
        self, handle: ContentT, mark: Bookmark | None, *, framing: Framing, kind: str, compression: str
    ) -> None:
        self.handle = handle
        self.finished = False
        self._framing = framing
        self._kind = kind
        self._compression = compression
        if compression == "auto":
            self._compression = compression_of(handle.read_at(4, 0))
        self._size = handle.size()
        self._imprint = self._take_imprint()
        self._index = mark.offset if mark is not None else 0
        if mark is not None and mark.imprint != self._imprint:
            raise ReplacedError(handle.path)
        self._done = mark is not None and mark.size is not None

    def _take_imprint(self) -> str:
        """Return a hash of all bytes; of a large file of its size and both its ends (Parquet's footer knows the rest)."""
        digest = hashlib.blake2b(str(self._size).encode(), digest_size=8)
        if self._size <= _HASHED_BYTES:
            for start in range(0, self._size, 2**20):
                digest.update(self.handle.read_at(2**20, start))
        else:
            digest.update(self.handle.read_at(2**20, 0))
            digest.update(self.handle.read_at(2**20, self._size - 2**20))
        return digest.hexdigest()

    def at(self, mark: Bookmark | None) -> bool:
        """Return whether it stands at this bookmark (None: at the beginning), so that it can go on from there."""
        return self._index == (mark.offset if mark else 0)

    def check(self) -> None:
        """Raise ReplacedError when the file is no longer as it was opened."""
        if self.handle.size() != self._size or self._take_imprint() != self._imprint:
            raise ReplacedError(self.handle.path)

    def read(self, path: str, *, final: bool, wait: bool) -> Iterator[Part | Room]:
        """Yield the slices behind the bookmark; a file that cannot be read is one refused record."""
        if self._done:
            self.finished = True
            return
        yield Room(self._bytes_to_come())
        try:
            for raw, index, data_format in self._slices():
                start, self._index = self._index, index
                yield Part(raw, start, self._mark(path, None), data_format=data_format)
        except (CollectorsError, pa.ArrowException, OSError, ValueError, EOFError, BrokenDataError) as error:
            if isinstance(error, ConfigurationError):
                raise
            yield self.torn(path, f"{self.handle.path}: {error}")
        self.finished = self._done = True

    def settled(self, path: str) -> Bookmark | None:
        """Return the bookmark of the finished file, None while nothing was read of it."""
        return self._mark(path, self._size) if self._index else None

    def torn(self, path: str, reason: str) -> Part:
        """Return the beginning of the file as a refused record; the file counts as read to its end."""
        self.finished = self._done = True
        return Part(self.handle.read_at(SAMPLE_BYTES, 0), self._index, self._mark(path, self._size), reason)

    def again(self, start: int, mark: Bookmark, reason: str | None) -> Part:
        """Return once more what was yielded from `start` to the bookmark, refused for the reason if there is one."""
        if reason is not None:
            return self.torn(mark.path, reason)
        self._index = start
        raw, _, data_format = next(self._slices())
        return Part(raw, start, mark, data_format=data_format)

    def skip_to_end(self, path: str) -> Bookmark:
        """Return the bookmark behind the last whole record of the file as it is now; nothing of it is read."""
        return self._mark(path, self._size)

    def _mark(self, path: str, size: int | None) -> Bookmark:
        return Bookmark(path, *self.handle.key, self._index, self._imprint, size)

    def _slices(self) -> Iterator[tuple[bytes, int, str | None]]:
        if self._kind in DOCUMENTS:
            if self._index == 0:
                raw = self._document()
                if raw:
                    yield raw, 1, None
            return
        slices: Any = getattr(self._framing, "slices", None)
        if slices is None:
            raise ConfigurationError(
                f"{self.handle.path}: to read {self._kind} outside of a pipeline, set the source's `framing` to its codec"
            )
        if self._compression != "none":
            raise ValueError(
                f"{self._kind} inside of {self._compression} cannot be read; it is compressed in itself"
            )
        for index, raw in slices(_Seekable.open(self.handle), self._index):
            yield raw, index, "arrow"

    def _bytes_to_come(self) -> int:
        """Return about how many bytes the first slice brings into memory; gzip says so at its end (RFC 1952, ISIZE)."""
        if self._kind in TABLES:
            return min(self._size, _SLICE_BYTES)
        size = self._size
        if self._compression == "gzip":
            size = max(size, int.from_bytes(self.handle.read_at(4, max(0, size - 4)), "little"))
        elif self._compression == "zstd":
            size *= _USUAL_RATIO
        return min(size, _DOCUMENT_BYTES)

    def _document(self) -> bytes:
        limit = _DOCUMENT_BYTES
        if self._compression == "none":
            raw = self.handle.read_at(limit + 1, 0)
        else:
            stream = open_stream(self.handle.read_at, self._compression)
            raw = stream.read(limit + 1)
            stream.read(1)
        if len(raw) > limit:
            raise ValueError(
                "a JSON document of more than 256 MiB is not read as a whole; write it as NDJSON, one record a line"
            )
        return raw


class _Seekable(io.RawIOBase):
    """The file as a seekable stream of its own, for readers that want one."""

    def __init__(self, handle: Content) -> None:
        self._handle = handle
        self._offset = 0

    @classmethod
    def open(cls, handle: Content) -> io.BufferedReader:
        return io.BufferedReader(cls(handle))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._handle.read_at(len(buffer), self._offset)
        buffer[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._handle.size()}[whence]
        self._offset = base + offset
        return self._offset
