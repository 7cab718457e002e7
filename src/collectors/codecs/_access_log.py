"""The fast path of access logs: lines are cut at quotes and spaces, in a third of the time that their regular expression takes.

It takes only lines about which there can be no two opinions; the expression takes the others. So the fields are the same.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["cut_combined", "cut_common"]

_METHOD, _PROTOCOL, _STATUS = re.compile(r"[A-Z]+"), re.compile(r"HTTP/[0-9.]+"), re.compile(r"[0-9]{3}")
_GROUPS = ("host", "ident", "user", "time", "method", "path", "protocol", "request", "status", "size")
_UNCLEAR = (b"\\", b"\t", b"\r", b"\f")
"""A backslash, and what is white space beside the space."""
_EMPTY = pa.scalar("")


def cut_common(text: pa.Array) -> tuple[pa.Array, list[pa.Array]]:
    """Return the numbers of the lines that were taken, and their fields in the order of the pattern `common`."""
    lines = _Lines(text)
    lines.cut("line", '"', "sender", "asked", "answer")
    lines.cut("answer", " ", "empty", "status", "size")
    return lines.finish(_GROUPS)


def cut_combined(text: pa.Array) -> tuple[pa.Array, list[pa.Array]]:
    """Return the numbers of the lines that were taken, and their fields in the order of the pattern `combined`."""
    lines = _Lines(text)
    lines.cut("line", '"', "sender", "asked", "answer", "referer", "space", "user_agent", "empty")
    lines.keep(pc.equal(lines.columns["space"], " "))
    lines.keep_empty()
    lines.cut("answer", " ", "before", "status", "size", "empty")
    lines.keep(pc.equal(lines.columns["before"], _EMPTY))
    return lines.finish((*_GROUPS, "referer", "user_agent"))


class _Lines:
    """The lines that were not given up so far, as columns; `number` is which they are."""

    def __init__(self, text: pa.Array) -> None:
        self.columns = {"number": pa.arange(0, len(text)), "line": text}
        content = text.buffers()[2]
        raw = content.to_pybytes() if content is not None else b""
        if any(character in raw for character in _UNCLEAR):
            self.keep(pc.invert(pc.match_substring_regex(text, r"[\\\t\r\f]")))

    def keep(self, mask: pa.Array) -> None:
        """Give up the lines for which it is not true."""
        if not pc.all(mask).as_py():
            self.columns = {name: column.filter(mask) for name, column in self.columns.items()}

    def keep_empty(self) -> None:
        """Give up the lines where there is something in the column `empty`."""
        self.keep(pc.equal(self.columns["empty"], _EMPTY))

    def cut(self, name: str, separator: str, *parts: str) -> None:
        """Put columns in the place of one, for what stands between separators; give up lines with other numbers of them."""
        self.columns[name] = pc.split_pattern(self.columns[name], separator)
        self.keep(pc.equal(pc.list_value_length(self.columns[name]), len(parts)))
        lists = self.columns.pop(name)
        self.columns |= {part: pc.list_element(lists, place) for place, part in enumerate(parts)}

    def keep_matching(self, name: str, pattern: re.Pattern[str]) -> None:
        """Give up the lines whose value does not match; for columns with few different values."""
        encoded = self.columns[name].dictionary_encode()
        matches = [pattern.fullmatch(value) is not None for value in encoded.dictionary.to_pylist()]
        self.keep(pa.array(matches, pa.bool_()).take(encoded.indices))

    def finish(self, groups: tuple[str, ...]) -> tuple[pa.Array, list[pa.Array]]:
        """Cut what both patterns have, and return what is left."""
        self.keep_empty()
        self.cut("sender", " [", "who", "time")
        self.cut("who", " ", "host", "ident", "user")
        self.cut("asked", " ", "method", "path", "protocol")
        for name in ("host", "ident", "user", "path"):
            self.keep(pc.greater(pc.binary_length(self.columns[name]), 0))
        self.keep_matching("method", _METHOD)
        self.keep_matching("protocol", _PROTOCOL)
        self.keep_matching("status", _STATUS)
        self.keep(pc.match_substring_regex(self.columns["size"], r"^(?:[0-9]+|-)$"))
        self.keep(pc.match_substring_regex(self.columns["time"], r"^[^\]]+\] $"))
        self.columns["time"] = pc.utf8_slice_codeunits(self.columns["time"], 0, -2)
        self.columns["request"] = pa.repeat(_EMPTY, len(self.columns["number"]))
        return self.columns["number"], [self.columns[name] for name in groups]
