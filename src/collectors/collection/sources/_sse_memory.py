"""How far an event stream was read: it stands in the spool with each chunk, and in a file for when the spool is empty."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from collectors.collection.sources._durable_file import write_durably
from collectors.errors import TransientError
from collectors.models import CollectedData

__all__ = ["Mark", "Memory", "name_of"]

_FILE = "last_event.json"
_MARK = "mark"


class Mark(Struct, frozen=True):
    """The number of a chunk, counted from the first one ever, and the last event id behind it."""

    number: int
    id: str


class _Saved(Struct):
    stream: str
    number: int
    id: str


def name_of(url: str) -> str:
    """Return what names a stream here: its address without the query, which selects from it and may have secrets."""
    return hashlib.blake2b(url.partition("?")[0].encode(), digest_size=8).hexdigest()


class Memory:
    """Knows, in a new process, the last id of what is durable. `stream` names what is read."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._path: Path | None = None
        self._saved = Mark(0, "")

    def about(self, mark: Mark) -> dict[str, Any]:
        """Return the metadata of a chunk by which it is known again."""
        return {_MARK: [self._stream, mark.number, mark.id]}

    def recall(self, folder: Path, kept: Iterable[CollectedData]) -> tuple[Mark, list[str]]:
        """Return how far the stream was read, and what people should know about that. Blocks. Raises TransientError."""
        self._path = folder / _FILE
        found, problems = _Saved(self._stream, 0, ""), []
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=_Saved)
            self._saved = Mark(found.number, found.id)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            problems.append(f"{self._path}: {error}; the last event is known from the spool alone")
        for chunk in kept:
            if _MARK in chunk.metadata:
                stream, number, last = chunk.metadata[_MARK]
                found = _Saved(stream, number, last) if number > found.number else found
        if found.stream != self._stream and found.id:
            found.id = ""
            problems.append("`url` has changed: the events of the new one are read from now on")
        mark = Mark(found.number, found.id)
        self.save(mark)  # what the spool knows of it can be trimmed before the next commit
        return mark, problems

    def is_stale(self, mark: Mark) -> bool:
        """Return whether `save` has something to note."""
        newer = mark.id != self._saved.id and mark.number >= self._saved.number
        return self._path is not None and newer

    def save(self, mark: Mark) -> None:
        """Note a mark durably. Blocks. Raises TransientError."""
        if self._path is None or not self.is_stale(mark):
            return
        text = msgspec.json.encode(_Saved(self._stream, mark.number, mark.id)).decode()
        try:
            write_durably(self._path, text)
        except OSError as error:
            reason = error.strerror or error
            raise TransientError(f"{self._path}: cannot note the last event: {reason}") from error
        self._saved = mark
