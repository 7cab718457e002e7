"""Finds the records of CSV text: a line break inside of a quoted field ends none.

A quote opens a field only at its beginning; anywhere else it is a character like others (`5" disk`). Two quotes inside
of a quoted field are one. This is how pyarrow reads CSV, and RFC 4180 where that says anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

from msgspec import Struct

from collectors.codecs._text_lines import BOM

__all__ = ["Dialect", "Records"]

_BLANK = (b"", b"\r")
_MARK = b"\x00"


class Records(Struct, frozen=True):
    """The records of a chunk without their line breaks, where each begins, and which have a quote that never closes."""

    raw: list[bytes]
    offsets: list[int]
    unclosed: list[int]


class Dialect:
    """Which bytes delimit and quote; one byte each."""

    def __init__(self, delimiter: bytes, quote: bytes) -> None:
        self.quote = quote
        delimiter, quote = re.escape(delimiter), re.escape(quote)
        self._opening = re.compile(rb"(?:^|%s)%s" % (delimiter, quote))
        self._closing = re.compile(rb"[^%s]*(?:%s%s[^%s]*)*%s(?!%s)" % ((quote,) * 6))
        self._stray = re.compile(rb"\x00(?:(?![%s\r\n\x00]|\Z)|(?<![%s\n\x00]\x00))" % (delimiter, delimiter))

    def count(self, data: bytes) -> int | None:
        """Return the number of records; blank lines are none. None when a quote is never closed."""
        outside = self._outside(data)
        if outside is not None:
            return sum(line not in _BLANK for line in outside.split(b"\n"))
        records = self.split(data)
        return None if records.unclosed else len(records.raw)

    def end_of_last(self, data: bytes) -> int:
        """Return how many leading bytes are records with their line breaks."""
        if data.startswith(BOM):
            end = self.end_of_last(data[len(BOM) :])
            return len(BOM) + end if end else 0
        last = data.rfind(b"\n") + 1
        if self._outside(data[:last]) is not None:
            return last
        sure = data.rfind(b"\n", 0, data.rfind(self.quote, 0, last)) + 1
        if self._outside(data[:sure]) is None:
            sure = 0
        records = self.split(data[sure:last])
        return sure + records.offsets[records.unclosed[0]] if records.unclosed else last

    def _outside(self, data: bytes) -> bytes | None:
        """Return the text with a mark in place of what is in quotes; None when quotes also stand elsewhere in it.

        Where each opens or closes a field, or is one of two, every second piece between quotes is inside of them.
        """
        if self.quote not in data:
            return data
        pieces = data.split(self.quote)
        outside = b"\n" + _MARK.join(pieces[::2])
        return outside if len(pieces) % 2 and _MARK not in data and not self._stray.search(outside) else None

    def end_of_first(self, data: bytes) -> int:
        """Return where the first record that is not blank ends, with its line break; 0 when it does not end."""
        start = end = len(BOM) if data.startswith(BOM) else 0
        is_open = False
        while end < len(data):
            end = data.find(b"\n", end) + 1
            if not end:
                return 0
            is_open = self._ends_open(data[start:end], is_open)
            if not is_open and data[start:end].strip(b"\r\n"):
                return end
            start = end
        return 0

    def split(self, data: bytes) -> Records:
        """Return all records. Where a quote is never closed, the line with it is a record by itself."""
        lines = data.split(b"\n")
        starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
        spans: list[tuple[int, int]] = []
        first, is_open = 0, False
        for number, line in enumerate(lines):
            if is_open or self.quote in line:
                is_open = self._ends_open(line, is_open)
            if not is_open:
                spans.append((first, number))
                first = number + 1
        unclosed = {number for number in range(first, len(lines)) if self._ends_open(lines[number], False)}
        # The quote in line `first` stays open to the end, so each that a later line opens would do so too.
        spans += [(number, number) for number in range(first, len(lines))]
        records = Records([], [], [])
        for begin, end in spans:
            raw = data[starts[begin] : starts[end + 1] - 1].removesuffix(b"\r")
            if raw:
                if begin in unclosed:
                    records.unclosed.append(len(records.raw))
                records.raw.append(raw)
                records.offsets.append(starts[begin])
        return records

    def has_stray_return(self, record: bytes) -> bool:
        """Return whether there is a carriage return outside of quotes, which pyarrow takes for a line break."""
        place = 0
        for begin, end in self._quoted(record, False):
            if b"\r" in record[place:begin]:
                return True
            place = end
        return b"\r" in record[place:]

    def _ends_open(self, line: bytes, is_open: bool) -> bool:
        """Return whether a quoted field is open behind the line, given whether one was before it."""
        for _, end in self._quoted(line, is_open):
            is_open = end > len(line)
        return is_open

    def _quoted(self, text: bytes, is_open: bool) -> Iterator[tuple[int, int]]:
        """Yield where each quoted part begins and ends; one that does not end, ends behind the text."""
        place = begin = 0
        while True:
            if not is_open:
                found = self._opening.search(text, place)
                if found is None:
                    return
                begin = place = found.end()
            closed = self._closing.match(text, place)
            place = len(text) + 1 if closed is None else closed.end()
            yield begin, place
            if closed is None:
                return
            is_open = False
