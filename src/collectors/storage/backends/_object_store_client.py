"""The few things that are asked of an object store, with errors that say what to do next.

Objects are put under names that nobody has had before, or under a name only if nobody has put it; nothing is changed.
Each request blocks, and may be repeated: whoever asks cannot know what became of one whose answer was lost.
"""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from collectors.enums import ErrorType
from collectors.errors import ConfigurationError, FatalError, TransientError
from collectors.object_stores import MAY_PASS, Place, StoreSettings, open_store, said, status_of

__all__ = ["Objects", "RangeFile"]

_AT_ONCE = 8
"""So many requests are under way at the same time, where there are many to make."""
_PART_BYTES = 5 * 2**20
"""Objects that are larger are put in parts of this size, two at a time: with `_AT_ONCE` at most 80 MiB in memory …"""
_MOST_PARTS = 9_000
"""… or in larger ones, so that they are no more than a store takes."""
_READ_BYTES = 8 * 2**20
_WHOLE_BYTES = 2**20

Item = TypeVar("Item")
Result = TypeVar("Result")


class Objects:
    """The objects of a folder, by their names in it.

    Raises TransientError for what may work later (it may have been done all the same), FatalError for what will not.
    """

    def __init__(self, place: Place, settings: StoreSettings) -> None:
        self.place = place
        folder = place.folder
        if place.scheme == "file":  # the folder may not be there yet
            folder, place = place.bucket.strip("/"), Place("file", "/", "")
        self._prefix = f"{folder}/" if folder else ""
        self._uploading = threading.Semaphore(_AT_ONCE)
        try:
            self._store: Any = open_store(place, settings)
        except (BaseError, ValueError, OSError) as error:
            raise ConfigurationError(f"cannot open {self.url('')}: {said(error)}") from error

    def url(self, name: str) -> str:
        """Return what an object is called."""
        return self.place.url(f"{self.place.folder}/{name}" if self.place.folder else name)

    def put_new(self, name: str, content: bytes) -> bool:
        """Put an object, if there is none of this name; False when there is one, maybe from this very request."""
        with self._told("write", name):
            try:
                obstore.put(self._store, self._prefix + name, content, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
            return True

    def put(self, name: str, content: bytes) -> None:
        """Put an object under a name that is always for the same content."""
        with self._told("write", name):
            obstore.put(self._store, self._prefix + name, content, use_multipart=False)

    def upload(self, name: str, path: Path, size: int) -> None:
        """Put a file, a large one in parts, under a name that is always for the same content."""
        part = max(_PART_BYTES, size // _MOST_PARTS + 1)
        with self._told("write", name), self._uploading, path.open("rb") as file:
            obstore.put(self._store, self._prefix + name, file, chunk_size=part, max_concurrency=2)

    def get(self, name: str) -> bytes | None:
        """Return the content of an object; None: there is none."""
        with self._told("read", name):
            try:
                return bytes(obstore.get(self._store, self._prefix + name).bytes())
            except FileNotFoundError:
                return None

    def size(self, name: str) -> int | None:
        """Return how large an object is; None: there is none."""
        with self._told("read", name):
            try:
                return int(obstore.head(self._store, self._prefix + name)["size"])
            except FileNotFoundError:
                return None

    def range(self, name: str, start: int, end: int) -> bytes:
        """Return bytes of an object that has so many. Raises FileNotFoundError."""
        with self._told("read", name):
            try:
                return bytes(obstore.get_range(self._store, self._prefix + name, start=start, end=end))
            except FileNotFoundError:
                pass
        raise FileNotFoundError(errno.ENOENT, "there is no such object", self.url(name))

    def names(self, folder: str) -> list[str]:
        """Return the names of all objects in a folder, sorted."""
        with self._told("list", folder):
            pages = obstore.list(self._store, self._prefix + folder, chunk_size=1000)
            found = [item["path"][len(self._prefix) :] for page in pages for item in page]
        return sorted(found)

    def first(self, folder: str) -> str | None:
        """Return the name of the object in a folder that sorts before all others."""
        if self.place.scheme == "file":
            return next(iter(self.names(folder)), None)
        with self._told("list", folder):
            page = next(iter(obstore.list(self._store, self._prefix + folder, chunk_size=1)), None)
        return page[0]["path"][len(self._prefix) :] if page else None

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder, sorted."""
        with self._told("list", folder):
            found = obstore.list_with_delimiter(self._store, self._prefix + folder)["common_prefixes"]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects, where they are there."""

        def delete(name: str) -> None:
            with self._told("delete", name), suppress(FileNotFoundError):
                obstore.delete(self._store, self._prefix + name)

        self.each(delete, list(names))

    def each(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return what the function gives for each item, some at the same time; when it fails for one, after all others."""
        if len(items) < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(min(_AT_ONCE, len(items)), "object-store") as threads:
            done = [threads.submit(function, item) for item in items]
        return [each.result() for each in done]

    @contextmanager
    def _told(self, doing: str, name: str) -> Iterator[None]:
        """Raise what an error of the store means for what was being done."""
        try:
            yield
        except (BaseError, ValueError, OSError) as error:
            what = f"cannot {doing} {self.url(name)}"
            raise _meaning(what, error) from error


class RangeFile(io.RawIOBase):
    """An object as a file that can be read at any place; `size` is known from the log."""

    def __init__(self, objects: Objects, name: str, size: int) -> None:
        super().__init__()
        self._objects, self._name, self._size, self._at = objects, name, size, 0
        self._whole: bytes | None = None

    def __str__(self) -> str:
        return self._objects.url(self._name)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read from any place."""
        return True

    def tell(self) -> int:
        """Return where the next bytes come from."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, as far as there is something; a small object is read once."""
        view = memoryview(buffer).cast("B")
        start, stop = self._at, min(self._at + len(view), self._size)
        if self._size <= _WHOLE_BYTES and self._whole is None:
            self._whole = self._objects.range(self._name, 0, self._size)
        for begin in range(start, stop, _READ_BYTES):
            end = min(begin + _READ_BYTES, stop)
            data = self._whole[begin:end] if self._whole else self._objects.range(self._name, begin, end)
            if len(data) != end - begin:
                raise OSError(f"it has not the {self._size} bytes that were put")
            view[begin - start : end - start] = data
            self._at = end
        return self._at - start


def _meaning(what: str, error: Exception) -> Exception:
    reason, text, status = said(error), str(error), status_of(error)
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or "(os error 13)" in text:
        return _fatal(
            f"{what}: {reason}; these credentials need the right to list, read, write and delete in the folder"
        )
    if (isinstance(error, NotSupportedError) or status == 501) and "write" in what:
        return _fatal(
            f"{what}: {reason}; the store must take conditional writes (If-None-Match), without which two runs "
            "could overwrite each other: use another store, or one of the other backends"
        )
    if "builder error" in text:
        return _fatal(f"{what}: an address without TLS, http://, has to be set as `endpoint`")
    if "invalid path" in text or "configured region" in text:
        return _fatal(f"{what}: {reason}")
    if isinstance(error, ValueError) or (
        status is not None and 300 <= status < 500 and status not in MAY_PASS
    ):
        return _fatal(f"{what}: {reason}")
    return TransientError(f"{what} now: {reason}", error_type=ErrorType.STORAGE)


def _fatal(message: str) -> FatalError:
    return FatalError(message, error_type=ErrorType.STORAGE)
