"""Files of lines, JSON or CSV, that become one; it is read again and compared with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from collectors.errors import FatalError
from collectors.storage.backends._compaction import Source, damaged, reading
from collectors.storage.files import translated

__all__ = ["merge_lines"]

_PIECE = 8 * 2**20


def merge_lines(sources: Sequence[Source], headers: Sequence[bytes], path: Path, compression: str) -> int:
    """Write the lines of files behind one another, with the header of the first; returns how many rows there are.

    A compressed file behind a compressed file is one, so their bytes stay as they are, but for those with a header.
    Raises FatalError when a file is gone or damaged, has another header or number of rows than the log says, or when the
    new file does not have the same lines; TransientError when the disk does not take them now.
    """
    for number, (source, header) in enumerate(zip(sources, headers, strict=True)):
        content = _lines(source, header, compression) if number and header else _pieces(source)
        with translated(path, "cannot open"):
            out = path.open("ab")
        with out:
            packed = compression if number and header else "none"
            _write(content, out, path, packed)
    rows = sum(source.rows for source in sources)
    new = Source(str(path), rows, lambda: path.open("rb"))
    try:
        same = _same_bytes(_lines(new, headers[0], compression), _all_lines(sources, headers, compression))
    except FatalError:
        for _ in _all_lines(sources, headers, compression):
            pass  # what is wrong with the new file came from one of these: name that
        raise
    if not same:
        raise damaged(new, "it does not have the lines that were written to it")
    return rows


def _write(content: Iterator[bytes], out: object, path: Path, compression: str) -> None:
    sink = pa.PythonFile(out, mode="w")
    stream = sink if compression == "none" else pa.CompressedOutputStream(sink, compression)
    for piece in content:
        with translated(path, "cannot write to"):
            stream.write(piece)
    with translated(path, "cannot write to"):
        stream.close()


def _all_lines(sources: Sequence[Source], headers: Sequence[bytes], compression: str) -> Iterator[bytes]:
    """Yield the lines of all files, and see that each has as many rows as the log says."""
    for source, header in zip(sources, headers, strict=True):
        rows = _Rows(csv=bool(header))
        for piece in _lines(source, header, compression):
            rows.add(piece)
            yield piece
        if rows.count != source.rows:
            raise damaged(source, f"it has {rows.count} rows")


class _Rows:
    """Counts rows: line ends, in CSV those that are not within quotes, and a line without one."""

    def __init__(self, *, csv: bool) -> None:
        self._ends = 0
        self._last = b"\n"
        self._csv = csv
        self._quoted = 0

    @property
    def count(self) -> int:
        return self._ends + (self._last != b"\n")

    def add(self, piece: bytes) -> None:
        parts = piece.split(b'"') if self._csv else [piece]
        self._last = piece[-1:]
        self._ends += sum(part.count(b"\n") for part in parts[self._quoted :: 2])
        self._quoted ^= (len(parts) - 1) % 2


def _lines(source: Source, header: bytes, compression: str) -> Iterator[bytes]:
    """Yield the content of a file without its header, decompressed, a piece at a time."""
    with reading(source), pa.PythonFile(source.open(), mode="r") as file:
        plain = file if compression == "none" else pa.CompressedInputStream(file, compression)
        if header and plain.read(len(header)) != header:
            raise damaged(
                source, "it does not begin with the names of its columns; was it written by others?"
            )
        while piece := plain.read(_PIECE):
            yield piece


def _pieces(source: Source) -> Iterator[bytes]:
    """Yield the bytes of a file as they are."""
    return _lines(source, b"", "none")


def _same_bytes(ones: Iterator[bytes], others: Iterator[bytes]) -> bool:
    """Return whether both have the same bytes, however they are split."""
    one = other = b""
    while True:
        one = one or next(ones, b"")
        other = other or next(others, b"")
        if not one or not other:
            return not one and not other
        size = min(len(one), len(other))
        if one[:size] != other[:size]:
            return False
        one, other = one[size:], other[size:]
