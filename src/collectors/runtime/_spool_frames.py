"""The spool's files: segments of frames. Whatever bytes a segment holds, a reader finds the frames that are whole.

    segment: header | frame | frame | …            <ordinal, 20 digits>.spool
    header:  "CSPOOL" version(2) spool id(16) first frame's number(8) crc32(4)
    frame:   F5 "SPF" length(4) number(8) crc32 of length, number and payload(4) | payload
    payload: length(4) of the description in JSON | description | the chunk's bytes

Integers are little endian, unsigned. Frames are numbered without gaps over all segments, so a gap is a loss, and says
how large it is.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from collectors.models import CollectedData

__all__ = [
    "HEADER_SIZE",
    "Frame",
    "Header",
    "find_frame",
    "pack",
    "read_frame",
    "segment_path",
    "unpack",
    "write_all",
]

_HEADER = struct.Struct("<6sH16sQ")
_FRAME = struct.Struct("<4sIQI")
_CHECKED = struct.Struct("<IQ")
_LENGTH = struct.Struct("<I")
_CRC = struct.Struct("<I")
_MAGIC = b"CSPOOL"
_FRAME_MAGIC = b"\xf5SPF"
_VERSION = 1
_BLOCK = 2**20
_MOST_BUFFERS = 512

HEADER_SIZE = _HEADER.size + _CRC.size


class Header(Struct, frozen=True):
    """What a segment says about itself: which spool it belongs to, and the number of its first frame."""

    spool: bytes
    first: int

    def pack(self) -> bytes:
        """Return the first bytes of the segment."""
        fields = _HEADER.pack(_MAGIC, _VERSION, self.spool, self.first)
        return fields + _CRC.pack(zlib.crc32(fields))

    @classmethod
    def read(cls, descriptor: int) -> Header | None:
        """Return a segment's header; None when it is damaged. Raises ValueError for one of a newer version."""
        data = os.pread(descriptor, HEADER_SIZE, 0)
        if len(data) < HEADER_SIZE or _CRC.unpack_from(data, _HEADER.size)[0] != zlib.crc32(
            data[: _HEADER.size]
        ):
            return None
        magic, version, spool, first = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            return None
        if version > _VERSION:
            raise ValueError(f"its version is {version}, this program knows {_VERSION}")
        return cls(spool, first)


class Frame(Struct, frozen=True):
    """A whole frame in a segment: its number, where it begins, where the next one does, and what it holds."""

    number: int
    start: int
    end: int
    payload: bytes


_describe = json.JSONEncoder(default=str).encode


def pack(number: int, data: CollectedData) -> list[bytes]:
    """Return the pieces of a chunk's frame; the chunk's bytes are not copied."""
    description = _describe(
        [data.source_id, data.timestamp.isoformat(), data.data_format, data.collection_method, data.metadata]
    ).encode()
    lead = _LENGTH.pack(len(description)) + description
    checked = _CHECKED.pack(len(lead) + len(data.raw_data), number)
    crc = zlib.crc32(data.raw_data, zlib.crc32(lead, zlib.crc32(checked)))
    return [_FRAME_MAGIC + checked + _CRC.pack(crc) + lead, data.raw_data]


def unpack(payload: bytes) -> CollectedData:
    """Return the chunk of a frame, without its position."""
    behind = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
    source, timestamp, data_format, method, metadata = json.loads(payload[_LENGTH.size : behind].decode())
    return CollectedData(
        source_id=source,
        timestamp=datetime.fromisoformat(timestamp),
        data_format=data_format,
        collection_method=method,
        raw_data=payload[behind:],
        metadata=metadata,
    )


def read_frame(descriptor: int, start: int, end: int) -> Frame | None:
    """Return the frame that begins at `start` and ends before `end`; None when there is no whole one."""
    head = os.pread(descriptor, _FRAME.size, start)
    if len(head) < _FRAME.size:
        return None
    magic, length, number, crc = _FRAME.unpack(head)
    behind = start + _FRAME.size + length
    if magic != _FRAME_MAGIC or behind > end:
        return None
    payload = os.pread(descriptor, length, start + _FRAME.size)
    if len(payload) < length or crc != zlib.crc32(payload, zlib.crc32(_CHECKED.pack(length, number))):
        return None
    return Frame(number, start, behind, payload)


def find_frame(descriptor: int, start: int, end: int) -> Frame | None:
    """Return the first whole frame at `start` or behind it."""
    while start < end:
        block = os.pread(descriptor, min(_BLOCK, end - start), start)
        if len(block) < _FRAME.size:
            return None
        at = block.find(_FRAME_MAGIC)
        while at >= 0:
            found = read_frame(descriptor, start + at, end)
            if found is not None:
                return found
            at = block.find(_FRAME_MAGIC, at + 1)
        start += len(block) - len(_FRAME_MAGIC) + 1
    return None


def write_all(descriptor: int, pieces: Sequence[bytes]) -> None:
    """Append all pieces, however short the single writes come out. Raises OSError."""
    waiting = [memoryview(piece) for piece in pieces if piece]
    waiting.reverse()
    while waiting:
        written = os.writev(descriptor, waiting[: -_MOST_BUFFERS - 1 : -1])
        while waiting and written >= len(waiting[-1]):
            written -= len(waiting.pop())
        if written:
            waiting[-1] = waiting[-1][written:]


def segment_path(folder: Path, ordinal: int) -> Path:
    """Return the path of a segment."""
    return folder / f"{ordinal:020d}.spool"
