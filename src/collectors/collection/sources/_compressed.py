"""Streams of decompressed bytes, in bounded memory, that end with a reason when the data are damaged.

gzip as in RFC 1952 (any number of members, zero padding behind them), Zstandard as in RFC 8878 (any number of frames).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Protocol

import pyarrow as pa

__all__ = ["BrokenDataError", "Stream", "compression_of", "open_stream"]

_BLOCK = 64 * 1024


class BrokenDataError(Exception):
    """The compressed data end early (`early`) or are damaged; all bytes before that were handed out."""

    def __init__(self, reason: str, *, early: bool) -> None:
        super().__init__(reason)
        self.early = early


class Stream(Protocol):
    """Decompressed bytes, from the beginning on."""

    def read(self, size: int) -> bytes:
        """Return at most `size` of the next bytes, none at the end. Raises BrokenDataError behind the last good ones."""


ReadAt = Callable[[int, int], bytes]
"""Returns up to so many bytes (first argument) of the file at this offset (second argument)."""


def compression_of(head: bytes) -> str:
    """Return `gzip`, `zstd` or `none`, by the first bytes of a file."""
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    return "none"


def open_stream(read_at: ReadAt, compression: str) -> Stream:
    """Return the decompressed bytes of a file that `read_at` reads."""
    return _Gzip(read_at) if compression == "gzip" else _Zstd(read_at)


class _Gzip:
    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self._offset = 0
        self._input = b""
        self._member = zlib.decompressobj(wbits=31)
        self._between = True
        self._first = True
        self._broken: BrokenDataError | None = None

    def read(self, size: int) -> bytes:
        out: list[bytes] = []
        while size > 0 and self._broken is None:
            if not self._input and not self._refill():
                break
            data = self._inflate(size)
            out.append(data)
            size -= len(data)
        if not any(out) and self._broken is not None:
            raise self._broken
        return b"".join(out)

    def _refill(self) -> bool:
        """Read more input; at the end of the file say whether a member was left unfinished."""
        self._input = self._read_at(_BLOCK, self._offset)
        self._offset += len(self._input)
        if self._input:
            return True
        if not self._between:
            self._broken = BrokenDataError("the gzip data end early", early=True)
        return False

    def _inflate(self, size: int) -> bytes:
        if self._between:
            if not self._first:
                self._input = self._input.lstrip(b"\0")
            if not self._input:
                return b""
            self._member = zlib.decompressobj(wbits=31)
            self._between = self._first = False
        before = self._member.copy()
        try:
            data = self._member.decompress(self._input, size)
        except zlib.error as error:
            self._broken = BrokenDataError(f"the gzip data are damaged ({error})", early=False)
            return _up_to_the_damage(before, self._input)
        if self._member.eof:
            self._input, self._between = self._member.unused_data, True
        else:
            self._input = self._member.unconsumed_tail
        return data


def _up_to_the_damage(member: zlib._Decompress, data: bytes) -> bytes:
    """Return what can be had before zlib fails: it gives nothing of a call that fails, so call it byte by byte."""
    out = bytearray()
    try:
        for index in range(len(data)):
            out += member.decompress(data[index : index + 1])
    except zlib.error:
        pass
    return bytes(out)


class _RawFile:
    """What pyarrow needs of a file object to read from it."""

    closed = False

    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self._offset = 0

    def read(self, size: int) -> bytes:
        data = self._read_at(size, self._offset)
        self._offset += len(data)
        return data

    def close(self) -> None:
        """Leave the file open: it belongs to someone else."""


class _Zstd:
    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self._handed_out = 0
        self._broken: BrokenDataError | None = None
        self._open()

    def _open(self) -> None:
        self._stream = pa.CompressedInputStream(pa.PythonFile(_RawFile(self._read_at), mode="r"), "zstd")

    def read(self, size: int) -> bytes:
        out: list[bytes] = []
        while size > 0 and self._broken is None:
            try:
                data = self._stream.read(min(size, _BLOCK))
            except (OSError, pa.ArrowException) as error:
                data = self._up_to_the_damage(error)
            if not data:
                break
            self._handed_out += len(data)
            out.append(data)
            size -= len(data)
        if not out and self._broken is not None:
            raise self._broken
        return b"".join(out)

    def _up_to_the_damage(self, error: Exception) -> bytes:
        """Return what can be had before it fails: a read that fails gives nothing, so read byte by byte."""
        early = "Truncated" in str(error)
        self._broken = BrokenDataError(
            "the zstd data end early" if early else f"the zstd data are damaged ({error})", early=early
        )
        self._open()
        out = bytearray()
        try:
            skip = self._handed_out
            while skip > 0 and (skipped := self._stream.read(min(skip, _BLOCK))):
                skip -= len(skipped)
            while byte := self._stream.read(1):
                out += byte
        except (OSError, pa.ArrowException):
            pass
        return bytes(out)
