"""Decodes lines of JSON: the whole chunk at once where nothing is wrong with it, else line by line.

At once is by compiled code, or by pyarrow where there is none or a type is not for it. The fast paths take a chunk only
when their result is beyond doubt, so all paths give the same table and refuse the same records. The slow path costs several
times as much, however many lines are bad.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from msgspec import Struct

from collectors.codecs._json_judge import Judge
from collectors.codecs._json_native import count_lines
from collectors.codecs._json_read import count_plain, is_suspicious, read, read_compiled
from collectors.codecs._json_slow import SlowPath
from collectors.codecs._text_lines import BOM, is_utf8, split_lines
from collectors.codecs.base import Decoded

__all__ = ["JsonLines"]

_SAMPLE_BYTES = 16 * 1024


class JsonLines(Struct, frozen=True):
    """Decodes chunks of lines, with the types that were declared for some columns."""

    declared: Mapping[str, pa.DataType]

    def decode(self, data: bytes, schema: pa.Schema | None) -> Decoded:
        """Return the table and what was refused; never raises for what is in the bytes."""
        known = self.known(schema)
        return self.decode_fast(data, known) or self.decode_slow(data, known)

    def known(self, schema: pa.Schema | None) -> pa.Schema:
        """Return the columns so far with the declared ones: a declaration wins over what was found before."""
        fields = {item.name: item.type for item in schema or ()} | dict(self.declared)
        return pa.schema(list(fields.items()))

    def decode_fast(self, data: bytes, known: pa.Schema) -> Decoded | None:
        """Return the chunk when it can be read as a whole and nothing about it is suspicious, else None."""
        text = data.removeprefix(BOM)
        breaks, ascii_only = count_lines(text)
        if not text or not (ascii_only or is_utf8(text)):
            return None
        if not set(known.names) - set(self.declared):
            known = self._sampled(text, known)
        if not known.names:
            return None
        table = read_compiled(text, known)
        if table is not None and table.num_rows == breaks + (not text.endswith(b"\n")):
            return Decoded(table, table.num_rows)
        count = count_plain(text, known)
        if count is None:
            text = b"\n".join(line.strip() for line in split_lines(data).raw)
            count = count_plain(text, known)
        if count is None:
            return None
        try:
            table = read(text, known)
        except pa.ArrowException:
            return None
        if table.num_rows != count or is_suspicious(table, text):
            return None
        return Decoded(table, count)

    def decode_slow(self, data: bytes, known: pa.Schema) -> Decoded:
        """Return the chunk decoded line by line: each bad one is refused, with its reason, by itself."""
        return SlowPath(split_lines(data), known, self._as_text()).decode()

    def _sampled(self, text: bytes, known: pa.Schema) -> pa.Schema:
        """Return the columns that the first lines have; pyarrow then says whether the rest is like them."""
        end = len(text) if len(text) <= _SAMPLE_BYTES else text.rfind(b"\n", 0, _SAMPLE_BYTES) + 1
        lines = split_lines(text[:end]).raw
        return Judge(lines, range(len(lines)), known, self._as_text(), text.count(b"\n") + 1).settle()

    def _as_text(self) -> frozenset[str]:
        return frozenset(name for name, data_type in self.declared.items() if pa.types.is_string(data_type))
