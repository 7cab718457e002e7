"""How far which file was read: the position of the file source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from collectors.errors import FatalError
from collectors.models import Position

__all__ = ["Bookmark", "Bookmarks", "Key", "imprint"]

REMEMBERED = 256
"""So many finished files are remembered one by one."""
FOLLOWED = 10_000
"""So many files can be followed."""

Key = tuple[int, int]
"""Device and inode."""


class Bookmark(NamedTuple):
    """One file: where it was first seen, what it is, and how far it was read.

    `offset` counts decompressed bytes (slices, for formats that are read as a whole). `size` is that of the file when
    it was read to its end, None before. `imprint` is taken of the bytes of the file up to `size`, of the content up to
    `offset` while `size` is None.
    """

    path: str
    device: int
    inode: int
    offset: int
    imprint: str
    size: int | None

    @property
    def key(self) -> Key:
        """What the file system knows the file by."""
        return self.device, self.inode


def imprint(*parts: bytes) -> str:
    """Return a short hash of what was read, by which a file is known again under another name or inode."""
    return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()


class Bookmarks:
    """The bookmarks of all files, in the order in which the files were first read.

    Where more than `REMEMBERED` files are finished, those that sort first are only counted: every file up to the name
    `through` is finished, `count` of them with `bytes` bytes in all. `folded` are their keys, as far as this process
    knows them.
    """

    def __init__(self, position: Position | None) -> None:
        stored: dict[str, Any] = position or {}
        self._marks = {mark.key: mark for mark in (Bookmark(*row) for row in stored.get("files", []))}
        self._folded: dict[str, Any] | None = stored.get("folded")

    def __iter__(self) -> Iterator[Bookmark]:
        return iter(list(self._marks.values()))

    def __contains__(self, key: Key) -> bool:
        return key in self._marks

    def __len__(self) -> int:
        return len(self._marks)

    def get(self, key: Key) -> Bookmark | None:
        """Return the bookmark of a file."""
        return self._marks.get(key)

    def put(self, mark: Bookmark, instead_of: Key | None = None) -> None:
        """Set a bookmark, keeping its place in the order; `instead_of` is the key that the content had before."""
        if instead_of is not None and instead_of != mark.key:
            self._marks = {
                mark.key if key == instead_of else key: old
                for key, old in self._marks.items()
                if key != mark.key
            }
        self._marks[mark.key] = mark

    def drop(self, key: Key) -> None:
        """Forget a file."""
        self._marks.pop(key, None)

    def position(self, mark: Bookmark, start: int, refused: str | None) -> Position:
        """Return the position behind a chunk of this file that began at `start`."""
        position: Position = {"path": mark.path, "offset": mark.offset, "start": start}
        position["at"] = list(mark.key)
        position["files"] = [list(each) for each in self._marks.values()]
        if refused is not None:
            position["refused"] = refused
        if self._folded is not None:
            position["folded"] = self._folded
        return position

    def fold(self, before: str, known: set[Key]) -> None:
        """Count the finished files that sort first instead of remembering each; all before `before` are finished."""
        if len(self._marks) <= REMEMBERED:
            return
        finished = [mark for mark in self._marks.values() if mark.size is not None and mark.path < before]
        finished.sort(key=lambda mark: mark.path)
        surplus = finished[: len(self._marks) - REMEMBERED // 2]
        if not surplus:
            return
        folded = self._folded or {"through": "", "count": 0, "bytes": 0}
        for mark in surplus:
            del self._marks[mark.key]
            known.add(mark.key)
        self._folded = {
            "through": max(folded["through"], surplus[-1].path),
            "count": folded["count"] + len(surplus),
            "bytes": folded["bytes"] + sum(mark.size or 0 for mark in surplus),
        }

    def is_folded(self, path: str) -> bool:
        """Return whether the name lies among those that were only counted."""
        return self._folded is not None and path <= self._folded["through"]

    def check_folded(self, files: Iterable[tuple[str, int]]) -> None:
        """Raise FatalError when there is more among the counted files (names and sizes) than was finished."""
        folded = self._folded
        if folded is None:
            return
        sizes = [size for path, size in files if path <= folded["through"]]
        if len(sizes) > folded["count"] or sum(sizes) > folded["bytes"]:
            raise FatalError(
                f"{folded['count']} files ({folded['bytes']} bytes) up to '{folded['through']}' were read to their end, "
                f"but there are {len(sizes)} ({sum(sizes)} bytes) now: some are new or have grown, and only the last "
                f"{REMEMBERED} files are remembered one by one. Give new files names that sort behind the old ones, "
                "or read them with a source of their own"
            )
