"""The slow path of JSON: the lines that are not like the others are judged one by one, pyarrow reads what is good."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pyarrow as pa
from msgspec import Struct

from collectors.codecs._json_filter import suspects
from collectors.codecs._json_judge import Judge
from collectors.codecs._json_read import is_suspicious, read, read_compiled
from collectors.codecs._json_text import problem
from collectors.codecs._text_lines import Lines
from collectors.codecs._wording import quoted, unexpected
from collectors.codecs.base import Decoded

__all__ = ["SlowPath"]

_decode = msgspec.json.decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class SlowPath(Struct, frozen=True):
    """One chunk; `as_text` names the columns declared as string, which take any value as its source text."""

    lines: Lines
    known: pa.Schema
    as_text: frozenset[str]

    def decode(self) -> Decoded:
        """Return the good lines as a table and the others with their reasons."""
        odd = suspects(self.lines.raw, self.known) if self.known.names else None
        return (None if odd is None else self.decode_odd(odd)) or self.decode_all()

    def decode_odd(self, odd: list[int]) -> Decoded | None:
        """Return the chunk with only these lines judged; None when the others do not read well beside them."""
        judge = Judge(self.lines.raw, odd, self.known, self.as_text)
        schema = judge.settle()
        judge.look_closely(schema)
        refused = judge.reasons
        texts = {
            number: raw for number, raw in enumerate(self.lines.raw) if number not in refused
        } | judge.texts()
        table = _read_whole(texts, schema)
        return None if table is None else self._decoded(table, refused)

    def decode_all(self) -> Decoded:
        """Return the chunk with every line judged."""
        judge = Judge(self.lines.raw, range(len(self.lines.raw)), self.known, self.as_text)
        schema = judge.settle()
        if not schema.names:
            judge.refuse(
                dict.fromkeys(judge.numbers, "the record has no fields, and no column is known so far")
            )
        texts = judge.texts()
        table = _read_whole(texts, schema)
        if table is None:
            judge.look_closely(schema)
            reasons: dict[int, str] = {}
            tables = _salvage([(number, texts[number]) for number in judge.numbers], schema, reasons)
            judge.refuse(reasons)
            table = pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()
        return self._decoded(table, judge.reasons)

    def _decoded(self, table: pa.Table, reasons: Mapping[int, str]) -> Decoded:
        return Decoded(table, len(self.lines.raw), self.lines.rejected(reasons))


def _read_whole(texts: dict[int, bytes], schema: pa.Schema) -> pa.Table | None:
    if not texts:
        return schema.empty_table()
    whole = b"\n".join(texts.values())
    table = read_compiled(whole, schema)
    if table is not None and table.num_rows == len(texts):
        return table
    try:
        table = read(whole, schema)
    except pa.ArrowException:
        return None
    return None if table.num_rows != len(texts) or is_suspicious(table, whole) else table


def _salvage(lines: list[tuple[int, bytes]], schema: pa.Schema, reasons: dict[int, str]) -> list[pa.Table]:
    """Return what can be read, halving until each line that cannot be stands alone and gets its reason."""
    if not lines:
        return []
    try:
        table = read(b"\n".join(text for _, text in lines), schema)
        if table.num_rows == len(lines):
            return [table]
        reason = "not one object on one line"
    except pa.ArrowException as error:
        reason = str(error)
    if len(lines) == 1:
        ((number, text),) = lines
        reasons[number] = problem(text) or _culprit(text, schema) or reason
        return []
    middle = len(lines) // 2
    return _salvage(lines[:middle], schema, reasons) + _salvage(lines[middle:], schema, reasons)


def _culprit(text: bytes, schema: pa.Schema) -> str | None:
    """Return which of the line's values cannot be read as its column's type."""
    for name, token in _decode_raw(text).items():
        try:
            read(msgspec.json.encode({name: token}), pa.schema([schema.field(name)]))
        except (pa.ArrowException, KeyError):
            return unexpected(name, schema.field(name).type, quoted(_decode(token)))
    return None
