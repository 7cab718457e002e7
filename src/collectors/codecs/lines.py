r"""Lines of text: whole, or taken apart by a pattern.

    format: {type: lines, pattern: combined}
    format: {type: lines, pattern: '(?P<level>[A-Z]+) (?P<took>\d+)ms (?P<message>.*)', columns: {took: int}}

Delivery: nothing is lost; a line that does not match, or is not UTF-8, is set aside by itself.
Position: chunks are cut behind a line break; the line is the record; an empty line is none.

Without a pattern there is one column, `line`. A pattern is a regular expression with named groups that must match the
whole line; each group is a column, text unless `columns` says another type, and null where it matched nothing. It is
run by RE2: in linear time whatever the line, and so without lookaheads and backreferences. Named patterns: `common`
and `combined` (Apache, nginx; `request` has the request line where it is not method, path and protocol), `syslog`
(RFC 3164), `dpkg`. What is in quotes stays as written, `\"` included.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from collectors.chunks import Rejected
from collectors.codecs._access_native import Other, read
from collectors.codecs._line_patterns import PATTERNS, Pattern, from_apache_time
from collectors.codecs._tables import in_order
from collectors.codecs._text_lines import BOM, not_utf8, plain_lines, split_lines
from collectors.codecs._text_values import typed
from collectors.codecs._wording import quoted
from collectors.codecs.base import Codec, CodecConfig, Decoded, column_type
from collectors.errors import ConfigurationError, DataError

__all__ = ["LinesCodec", "LinesConfig"]

_LINE = "line"


class LinesConfig(CodecConfig):
    """Settings of lines."""

    pattern: str | None = None
    """A regular expression with named groups, or `common`, `combined`, `syslog`, `dpkg`. Left out: the whole line."""
    keep_line: str | None = None
    """With a pattern: the name of a column for the line as it was."""


class LinesCodec(Codec[LinesConfig]):
    """Reads and writes lines; see the module."""

    joinable = True

    def __init__(self, config: LinesConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        text = self.config.pattern
        self._pattern = None if text is None else PATTERNS.get(text, Pattern(text))
        names = [_LINE] if self._pattern is None else _groups(self._pattern.regex)
        declared = (self._pattern.types if self._pattern else {}) | self.config.columns
        strangers = [name for name in declared if name not in names]
        if strangers:
            raise ConfigurationError(
                f"columns: '{strangers[0]}' is not there; the columns are {', '.join(names)}"
            )
        if self.config.keep_line in names:
            raise ConfigurationError(f"keep_line: the pattern has a group '{self.config.keep_line}' already")
        self._types = {name: column_type(declared.get(name, "string")) for name in names}
        self._may_be_compiled = text in {"common", "combined"} and not (
            self.config.columns or self.config.keep_line
        )

    def decode(self, data: bytes, schema: pa.Schema | None = None) -> Decoded:
        """Decode a chunk of lines."""
        begin = len(BOM) if data.startswith(BOM) else 0
        taken = (
            read(data[begin:], combined=self.config.pattern == "combined") if self._may_be_compiled else None
        )
        if taken is None:
            return self._decode(data, schema)
        table = in_order({name: taken.columns[name] for name in self._types}, schema, taken.count)
        if not taken.others:
            return Decoded(table, taken.count)
        rest = b"\n".join(data[begin + line.begin : begin + line.end] for line in taken.others)
        mark = BOM if rest.startswith(BOM) else b""  # one is no part of a line, a second one is
        return _together(table, self._decode(mark + rest, schema), taken.others, begin)

    def _decode(self, data: bytes, schema: pa.Schema | None) -> Decoded:
        reasons: dict[int, str] = {}
        text = plain_lines(data)
        if text is None:
            lines = split_lines(data).raw
            found = ((number, not_utf8(raw)) for number, raw in enumerate(lines))
            reasons = {number: reason for number, reason in found if reason}
            good = [raw for number, raw in enumerate(lines) if number not in reasons]
            text = pa.array(good, pa.binary()).cast(pa.string())
        read = len(text) + len(reasons)
        numbers = [number for number in range(read) if number not in reasons]
        columns = (
            {_LINE: text} if self._pattern is None else self._match(self._pattern, text, numbers, reasons)
        )
        columns = typed(columns, self._types, numbers, reasons)
        rejected = split_lines(data).rejected(reasons) if reasons else []
        return Decoded(in_order(columns, schema, len(numbers)), read, rejected)

    def encode(self, table: pa.Table) -> bytes:
        """Return the column `line`, or the one that `keep_line` names, a line each. Raises DataError without one."""
        name = self.config.keep_line or _LINE
        if name not in table.column_names:
            raise DataError(
                f"lines are written from the column '{name}', which is not there: {table.column_names}"
            )
        values = table.column(name).to_pylist()
        rows = {
            row: f"column '{name}': {quoted(value)} is not one line of text"
            for row, value in enumerate(values)
            if not isinstance(value, str) or not value.strip(" \t\r") or "\n" in value or value.endswith("\r")
        }
        if rows:
            raise DataError(f"{len(rows)} values are not lines: {rows[min(rows)]}", rows=rows)
        return "".join(f"{value}\n" for value in values).encode()

    def _match(
        self, pattern: Pattern, text: pa.Array, numbers: list[int], reasons: dict[int, str]
    ) -> dict[str, pa.Array]:
        """Return the groups of the lines that match; the numbers of the others move to the reasons."""
        found, groups = _groups_of(pattern, text)
        named = f" '{self.config.pattern}'" if self.config.pattern in PATTERNS else ""
        misses = [number for number, hit in zip(numbers, found.to_pylist(), strict=True) if not hit]
        if misses:
            reasons |= dict.fromkeys(misses, f"the line does not match the pattern{named}")
            numbers[:] = [number for number in numbers if number not in reasons]
        nothing = pa.array(["", pattern.absent])
        columns: dict[str, pa.Array] = {}
        for name, group in zip(self._types, groups, strict=True):
            text_of = from_apache_time(group) if pattern.apache_time and name == "time" else group
            columns[name] = pc.if_else(pc.is_in(group, nothing), pa.scalar(None, pa.string()), text_of)
        if self.config.keep_line:
            columns[self.config.keep_line] = text.filter(found)
        return columns


def _together(table: pa.Table, rest: Decoded, lines: list[Other], begin: int) -> Decoded:
    """Return the rows of a table with those that the other lines gave between them, in the order of the lines."""
    read = table.num_rows + len(lines)
    refused = {item.record for item in rest.rejected}
    other = pa.array([line.number for line in lines], pa.int64())
    found = pa.array([line.number for record, line in enumerate(lines) if record not in refused], pa.int64())
    numbers = pa.arange(0, read)
    order = pc.sort_indices(pa.concat_arrays([numbers.filter(pc.invert(pc.is_in(numbers, other))), found]))
    rejected = [
        Rejected(item.raw, item.reason, lines[item.record].number, begin + lines[item.record].begin)
        for item in rest.rejected
    ]
    return Decoded(pa.concat_tables([table, rest.table]).take(order), read, rejected)


def _groups_of(pattern: Pattern, text: pa.Array) -> tuple[pa.Array, list[pa.Array]]:
    """Return which lines match, and the groups of those."""
    cut, groups = pattern.cut(text) if pattern.cut is not None else (pa.array([], pa.int64()), [])
    if pattern.cut is not None and len(cut) == len(text):
        return pa.repeat(pa.scalar(True), len(text)), groups
    numbers = pa.arange(0, len(text))
    others = numbers.filter(pc.invert(pc.is_in(numbers, cut)))
    matched = pc.extract_regex(text.take(others), f"^(?:{pattern.regex})$")
    hits = matched.is_valid()
    taken = pa.concat_arrays([cut, others.filter(hits)])
    order = pc.sort_indices(taken)
    fields = matched.filter(hits).flatten()
    if groups:
        fields = [pa.concat_arrays(both).take(order) for both in zip(groups, fields, strict=True)]
    return pc.is_in(numbers, taken), fields


def _groups(regex: str) -> list[str]:
    """Return the names of the pattern's groups. Raises ConfigurationError in the words of RE2."""
    try:
        names = [group.name for group in pc.extract_regex(pa.array([""]), regex).type]
    except pa.ArrowInvalid as error:
        raise ConfigurationError(
            f"pattern: {error}; it is run by RE2, which has no lookaheads and no backreferences: "
            "https://github.com/google/re2/wiki/Syntax"
        ) from None
    if not names or len(set(names)) < len(names):
        raise ConfigurationError(
            f"pattern: '{regex}' must have groups with names of their own, such as (?P<level>[A-Z]+), "
            f"or be one of {', '.join(PATTERNS)}"
        )
    return names


COMPONENT = LinesCodec
