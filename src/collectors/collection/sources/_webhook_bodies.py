"""Bodies that were compressed for the way, expanded within limits: a small request must not fill the memory."""

from __future__ import annotations

import zlib

from collectors.collection.sources._compressed import BrokenDataError, open_stream

__all__ = ["ENCODINGS", "BodyError", "expand"]

ENCODINGS = ("gzip", "zstd", "deflate")
_BLOCK = 64 * 1024
_FREE_BYTES = 16 * 2**20
_MOST_RATIO = 200


class BodyError(Exception):
    """A body cannot be used; `too_large`: it is one that would exceed a limit."""

    def __init__(self, reason: str, *, too_large: bool = False) -> None:
        super().__init__(reason)
        self.too_large = too_large


def expand(raw: bytes, encoding: str, limit: int) -> bytes:
    """Return the body without its `Content-Encoding`.

    Raises BodyError when it is damaged, and before more than `limit` bytes of it, or past 16 MiB more than 200 times
    its size, are in memory.
    """
    limit = min(limit, max(_FREE_BYTES, _MOST_RATIO * len(raw)))
    out: list[bytes] = []
    size = 0
    try:
        stream = _Deflate(raw) if encoding == "deflate" else open_stream(_Bytes(raw).read_at, encoding)
        while piece := stream.read(_BLOCK):
            size += len(piece)
            if size > limit:
                raise BodyError(
                    f"the body is larger than {limit:,} bytes without its {encoding}", too_large=True
                )
            out.append(piece)
    except BrokenDataError as error:
        raise BodyError(str(error)) from error
    return b"".join(out)


class _Bytes:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def read_at(self, size: int, offset: int) -> bytes:
        return self._raw[offset : offset + size]


class _Deflate:
    """The zlib format, which is what HTTP calls deflate, and bare deflate, which some senders send (RFC 9110, 8.4.1.2)."""

    def __init__(self, raw: bytes) -> None:
        wrapped = len(raw) > 1 and raw[0] & 15 == 8 and int.from_bytes(raw[:2], "big") % 31 == 0
        self._stream = zlib.decompressobj(wbits=15 if wrapped else -15)
        self._left = raw

    def read(self, size: int) -> bytes:
        try:
            data = self._stream.decompress(self._left, size)
        except zlib.error as error:
            raise BrokenDataError(f"the deflate data are damaged ({error})", early=False) from error
        self._left = self._stream.unconsumed_tail
        if not data and not self._stream.eof:
            raise BrokenDataError("the deflate data end early", early=True)
        if self._stream.eof and self._stream.unused_data:
            raise BrokenDataError("there is more behind the deflate data", early=False)
        return data
