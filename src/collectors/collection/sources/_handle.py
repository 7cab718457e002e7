"""An open file, read at offsets and known by device and inode, whatever its name is by now."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Protocol, TypeVar

from msgspec import Struct

from collectors.collection.base import Room
from collectors.collection.sources._bookmarks import Bookmark, Key, imprint
from collectors.errors import FatalError, TransientError

__all__ = ["HEAD_BYTES", "LAST_BYTES", "Content", "ContentT", "FileReader", "Handle", "Part", "ReplacedError"]

HEAD_BYTES = 1024
"""The imprint of a file is taken of so many of its first bytes …"""
LAST_BYTES = 64
"""… and of so many before the place that it is about."""


class ReplacedError(Exception):
    """The file is not, or no longer, the one that was read: truncated, rewritten, or another under its inode."""


class Part(Struct):
    """What a reader gives: the bytes of a chunk, where it begins in the file, and the bookmark behind it.

    `lead` counts the bytes in front that are repeated from the head of the file; with a `reason` it is refused.
    `size` is that of the file, where it can be compared with `start`.
    """

    raw: bytes
    start: int
    mark: Bookmark
    reason: str | None = None
    lead: int = 0
    data_format: str | None = None
    size: int | None = None


class Content(Protocol):
    """What readers need of what they read: bytes at offsets, and a way to see that they are still the same."""

    path: str
    key: Key

    def read_at(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from the offset, less only at the end. Raises TransientError."""

    def size(self) -> int:
        """Return how many bytes there are now."""

    def imprint(self, size: int) -> str:
        """Return what the first `size` bytes are known again by."""

    def check(self, size: int) -> None:
        """Raise ReplacedError when there are less than `size` bytes, or others than before."""


ContentT = TypeVar("ContentT", bound=Content)


class Handle:
    """An open file; read only at given offsets, so that nothing depends on where it stood before.

    Raises FileNotFoundError when there is none, FatalError when it may not be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115  # closed by close()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise FatalError(f"cannot read '{path}': {error.strerror or error}") from error
        stat = os.fstat(self._file.fileno())
        self.key: Key = (stat.st_dev, stat.st_ino)
        self._seen = b""

    def read_at(self, size: int, offset: int) -> bytes:
        """Return `size` bytes from the offset, less only where the file ends. Raises TransientError."""
        parts: list[bytes] = []
        try:
            while size > 0 and (data := os.pread(self._file.fileno(), size, offset)):
                parts.append(data)
                size -= len(data)
                offset += len(data)
        except OSError as error:
            raise TransientError(f"cannot read '{self.path}': {error.strerror or error}") from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def size(self) -> int:
        """Return how long the file is now."""
        return os.fstat(self._file.fileno()).st_size

    def modified(self) -> float:
        """Return when the file was last written, in seconds since 1970."""
        return os.fstat(self._file.fileno()).st_mtime

    def imprint(self, size: int) -> str:
        """Return the imprint of the first `size` bytes."""
        last = min(LAST_BYTES, size)
        return imprint(self.read_at(min(HEAD_BYTES, size), 0), self.read_at(last, size - last))

    def check(self, size: int) -> None:
        """Raise ReplacedError when the file is shorter than `size` or begins otherwise than at the last check.

        To be called after a read: then what was read is from before the file was replaced, if it was.
        """
        head = self.read_at(HEAD_BYTES, 0)
        if not head.startswith(self._seen) or self.size() < size:
            raise ReplacedError(self.path)
        self._seen = head

    def renew(self) -> None:
        """Take the file as it is now for the one that was opened."""
        self._seen = b""

    def close(self) -> None:
        """Close the file; twice is fine."""
        self._file.close()


class FileReader(Protocol):
    """Reads one open file from a bookmark on; made with one, it raises ReplacedError when the file is another."""

    handle: Handle
    finished: bool

    def at(self, mark: Bookmark | None) -> bool:
        """Return whether it stands at this bookmark (None: at the beginning), so that it can go on from there."""

    def check(self) -> None:
        """Raise ReplacedError when the file is no longer the one that was opened."""

    def read(self, path: str, *, final: bool, wait: bool) -> Iterator[Part | Room]:
        """Yield what there is, under a bookmark that keeps `path` as its name; ask again when the file has grown.

        With `final` the file gets no more: what is left at its end is the last record; with `wait` only if nothing
        has come since the reading before. `finished` tells whether the end was taken. Raises ReplacedError.
        """

    def settled(self, path: str) -> Bookmark | None:
        """Return the bookmark of the finished file, None while nothing was read of it."""

    def torn(self, path: str, reason: str) -> Part:
        """Return what is left of damaged data as a refused record; the file counts as read to its end."""

    def again(self, start: int, mark: Bookmark, reason: str | None) -> Part:
        """Return once more what was yielded from `start` to the bookmark, refused for the reason if there is one."""

    def skip_to_end(self, path: str) -> Bookmark:
        """Return the bookmark behind the last whole record of the file as it is now; nothing of it is read."""
