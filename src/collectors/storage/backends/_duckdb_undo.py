"""What a checkpoint of DuckDB overwrites, kept beside the file until the checkpoint is over.

A checkpoint writes blocks, syncs them, and makes them valid with one more write, that of a header. But blocks of metadata
that still have room are written in place while the old header, which points to them, is the valid one (seen in DuckDB
2.0.1: block 0 of every file). Of such a block, 256 KiB, a power cut may leave any part; then its checksum is wrong and
DuckDB does not open the file any more. So these blocks and the headers are copied first, durably; and whoever finds the
copy when he opens the file takes back a checkpoint that did not come to its end, as a rollback journal does
(https://www.sqlite.org/atomiccommit.html, section 3). What the checkpoint would have brought into the file is still in the
write-ahead log then.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from collectors.storage.files import sync_folder

__all__ = ["HEADERS", "Undo"]

HEADERS = 3 * 4096
"""Bytes before the first block: the main header and the two that checkpoints write in turn."""
_MAGIC = b"CDUNDO1\n"
_COUNT = struct.Struct("<I")
_RANGE = struct.Struct("<QI")
_CRC = struct.Struct("<I")


class Undo:
    """The copy for one database file. `descriptor` is open on that file; what fails raises OSError."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f".{database.name}.undo")

    def exists(self) -> bool:
        """Return whether a checkpoint was begun and its end not noted."""
        return self._path.exists()

    def keep(self, descriptor: int, ranges: Iterable[tuple[int, int]]) -> None:
        """Copy the headers and these ranges, (offset, length) in bytes; durable when this returns."""
        pieces = [(0, os.pread(descriptor, HEADERS, 0))]
        pieces += [(offset, os.pread(descriptor, length, offset)) for offset, length in ranges]
        table = b"".join(_RANGE.pack(offset, len(data)) for offset, data in pieces)
        content = b"".join([_MAGIC, _COUNT.pack(len(pieces)), table, *(data for _, data in pieces)])
        with self._path.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content + _CRC.pack(zlib.crc32(content)))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._path.parent)

    def forget(self) -> None:
        """Remove the copy: the checkpoint has come to its end."""
        self._path.unlink(missing_ok=True)
        sync_folder(self._path.parent)

    def take_back(self, descriptor: int, *, finished: bool) -> None:
        """Put back what was copied and forget it, unless the checkpoint has come to its end; that, too, with `finished`.

        It has when a header is another one than before. Does nothing while another process has the database open.
        """
        try:
            fcntl.lockf(
                descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # as DuckDB does; it is ours until this is closed
        except OSError:
            return
        pieces = self._pieces()
        if pieces is None:  # it was cut off while it was written, and the checkpoint had not begun
            self.forget()
            return
        if not finished and os.pread(descriptor, HEADERS, 0) != pieces[0][1]:
            return
        for offset, data in pieces:
            os.pwrite(descriptor, data, offset)
        os.fsync(descriptor)
        self.forget()

    def _pieces(self) -> list[tuple[int, bytes]] | None:
        content = b""
        with suppress(FileNotFoundError):
            content = self._path.read_bytes()
        body, crc = content[: -_CRC.size], content[-_CRC.size :]
        if not body.startswith(_MAGIC) or _CRC.pack(zlib.crc32(body)) != crc:
            return None
        (count,) = _COUNT.unpack_from(body, len(_MAGIC))
        place = len(_MAGIC) + _COUNT.size
        data = place + count * _RANGE.size
        pieces = []
        for offset, length in _RANGE.iter_unpack(body[place:data]):
            pieces.append((offset, body[data : data + length]))
            data += length
        return pieces
