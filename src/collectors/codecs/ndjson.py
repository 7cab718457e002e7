"""JSON, one object a line (NDJSON, JSON Lines).

    format: {type: ndjson, columns: {id: string, price: "decimal(12, 2)", ts: timestamp}}

Delivery: nothing is lost; a line that cannot be used is set aside by itself, with the reason.
Position: chunks are cut behind a line break; the line is the record.

Types are those of the first chunk that has the column, or the declared ones. A key that is new becomes a new column at
the end. Int widens to float when no digit is lost by it, null to anything; any other conflict sets the record aside.
Text stays text: a timestamp is made only where `columns` says so (ISO 8601; UTC where there is no zone). A column
declared as `string` keeps numbers, objects and arrays as their source text; `binary` is base64; `decimal` is exact.
An empty object has no column to be kept in: it is null until a member is seen.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from collectors.codecs._json_records import JsonLines
from collectors.codecs._json_write import to_text
from collectors.codecs.base import Codec, CodecConfig, Decoded

__all__ = ["NdjsonCodec", "NdjsonConfig"]


class NdjsonConfig(CodecConfig):
    """Settings of NDJSON."""


class NdjsonCodec(Codec[NdjsonConfig]):
    """Reads and writes lines of JSON; see the module."""

    joinable = True

    def __init__(self, config: NdjsonConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._lines = JsonLines(self.config.types())

    def decode(self, data: bytes, schema: pa.Schema | None = None) -> Decoded:
        """Decode a chunk of lines."""
        return self._lines.decode(data, schema)

    def encode(self, table: pa.Table) -> bytes:
        """Return one object a line: timestamps as ISO 8601, decimals as strings, binary as base64."""
        return to_text(table)


COMPONENT = NdjsonCodec
