"""What a target was given and has not acknowledged: kept in temporary files, so that another run of it gets it again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from msgspec import Struct

from collectors.chunks import ChunkKey
from collectors.storage.files import translated

__all__ = ["Given", "Waiting"]

_FILE_BYTES = 16 * 2**20
_PIECE = 2**18


class _File(Struct, eq=False):
    """A file without a name, gone when it is closed, or when the process dies."""

    content: IO[bytes]
    size: int = 0


class Given(Struct, eq=False):
    """One delivery: its SCHEMA, where its records lie, and its number at the target that runs; 0: it has to get it yet."""

    key: ChunkKey
    stream: str
    schema: bytes
    file: _File
    start: int
    size: int
    number: int = 0


class Waiting:
    """All that was given and not acknowledged, in order."""

    def __init__(self) -> None:
        self.given: list[Given] = []
        self._last: _File | None = None
        self._files: set[_File] = set()

    @property
    def size(self) -> int:
        """How many bytes wait."""
        return sum(each.size for each in self.given)

    def add(self, key: ChunkKey, stream: str, schema: bytes, records: bytes) -> None:
        """Keep a delivery. Raises TransientError when the disk does not take it."""
        file = self._last
        with translated(
            Path(tempfile.gettempdir()), "cannot write to", "set TMPDIR to a folder with more room"
        ):
            if file is None or file.size >= _FILE_BYTES:
                self._tidy()
                file = self._last = _File(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115  # closed by `_tidy`
                self._files.add(file)
            file.content.seek(file.size)
            rest = memoryview(records)
            while rest:
                rest = rest[file.content.write(rest) :]
        self.given.append(Given(key, stream, schema, file, file.size, len(records)))
        file.size += len(records)

    def pieces(self, given: Given) -> Iterator[bytes]:
        """Yield its records."""
        for start in range(given.start, given.start + given.size, _PIECE):
            given.file.content.seek(start)
            yield given.file.content.read(min(_PIECE, given.start + given.size - start))

    def acknowledge(self, stream: str, number: int) -> None:
        """Forget what is stored."""
        self.given = [
            each for each in self.given if not (each.stream == stream and 0 < each.number <= number)
        ]

    def forget_before(self, key: ChunkKey) -> None:
        """Forget what an earlier owner of a flow gave: it is read again."""
        self.given = [each for each in self.given if each.key.flow != key.flow or each.key.epoch == key.epoch]

    def again(self) -> None:
        """Begin with a target that has got nothing yet."""
        for each in self.given:
            each.number = 0

    def close(self) -> None:
        """Drop everything."""
        self.given, self._last = [], None
        self._tidy()

    def _tidy(self) -> None:
        used = {each.file for each in self.given}
        for file in self._files - used - {self._last}:
            with suppress(OSError):
                file.content.close()
            self._files.discard(file)
