"""What a spool says about itself beside its frames, so that what is missing of them is seen."""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

__all__ = ["Marks"]

_MARKS = struct.Struct("<4s16sQQ")
_CRC = struct.Struct("<I")
_MAGIC = b"CSM1"


class Marks(Struct, frozen=True):
    """The spool's id, the last frame that was acknowledged, the last one that was trimmed.

    Written without fsync, behind the frames: it is never ahead of them, whatever happens.
    """

    spool: bytes
    acknowledged: int
    trimmed: int

    @classmethod
    def read(cls, path: Path) -> Marks | None:
        """Return what the file says; None when there is none. Raises ValueError when it is damaged, OSError."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        fields, crc = data[: _MARKS.size], data[_MARKS.size :]
        if not fields.startswith(_MAGIC) or crc != _CRC.pack(zlib.crc32(fields)):
            raise ValueError("damaged")
        return cls(*_MARKS.unpack(fields)[1:])

    def write(self, path: Path) -> None:
        """Write over the file; a disk that is full does not matter here."""
        data = _MARKS.pack(_MAGIC, self.spool, self.acknowledged, self.trimmed)
        with suppress(OSError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(descriptor, data + _CRC.pack(zlib.crc32(data)), 0)
            finally:
                os.close(descriptor)
