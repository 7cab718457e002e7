"""Cuts a chunk of text into its lines; what is a record in line formats is decided here alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from collectors.chunks import Rejected

__all__ = ["BOM", "Lines", "is_utf8", "not_utf8", "plain_lines", "split_lines"]

BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r"
_BLANK_LINE = re.compile(rb"\n[ \t]*\n")
_PRINTABLE = b"!"
"""What compares higher does not begin with white space: a shortcut past the real test."""


class Lines(Struct, frozen=True):
    """The lines of a chunk that hold a record, without their line breaks.

    `pieces` are all lines, `numbers` says which of them are `raw`: where one begins is asked only of refused ones.
    """

    raw: list[bytes]
    pieces: list[bytes]
    numbers: list[int]
    begin: int

    def rejected(self, reasons: Mapping[int, str]) -> list[Rejected]:
        """Return the records of these numbers as refused, in order."""
        if not reasons:
            return []
        ends = list(accumulate(map(len, self.pieces), initial=self.begin))
        return [
            Rejected(
                self.raw[record], reasons[record], record, ends[self.numbers[record]] + self.numbers[record]
            )
            for record in sorted(reasons)
        ]


def split_lines(data: bytes) -> Lines:
    """Return the lines that hold a record: a line feed ends one, with or without CR; blank ones are none.

    A byte order mark at the very beginning belongs to no line.
    """
    begin = len(BOM) if data.startswith(BOM) else 0
    pieces = data[begin:].split(b"\n")
    numbers = [number for number, piece in enumerate(pieces) if piece > _PRINTABLE or piece.strip(_BLANK)]
    raw = [pieces[number] for number in numbers]
    if b"\r" in data:
        raw = [line.removesuffix(b"\r") for line in raw]
    return Lines(raw, pieces, numbers, begin)


def plain_lines(data: bytes) -> pa.Array | None:
    """Return the lines as `split_lines` has them, an array of strings, without making an object of each.

    None where that takes a closer look: blank lines, CR, a byte order mark, what is not UTF-8.
    """
    body = data.removesuffix(b"\n")
    ends = (body[: body.find(b"\n") + 1] or body, body[body.rfind(b"\n") + 1 :])
    if b"\r" in body or body.startswith(BOM) or not all(map(bytes.strip, ends)) or _BLANK_LINE.search(body):
        return None
    try:
        return pc.split_pattern(pa.array([body]).cast(pa.string()), "\n").flatten()
    except pa.ArrowInvalid:
        return None


def is_utf8(data: bytes) -> bool:
    """Return whether the bytes are UTF-8; a fraction of a millisecond for a chunk of plain ASCII."""
    return data.isascii() or not_utf8(data) is None


def not_utf8(data: bytes) -> str | None:
    """Return why the bytes are not UTF-8, None when they are."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte 0x{data[error.start]:02x} at byte {error.start + 1} of the record"
    return None
