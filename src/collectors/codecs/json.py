"""One JSON document: an array of objects, or one object.

    format: {type: json, records: data.items}

Delivery: nothing is lost; an element that cannot be used is set aside by itself, a broken document as a whole.
Position: a document is one chunk; it is not cut.

Values follow the rules of `ndjson`. With `records`, the path of keys to an array (or to one object) inside of the
document, that is taken and the rest of the document is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa

from collectors.chunks import Rejected
from collectors.codecs._json_records import JsonLines
from collectors.codecs._json_text import MAX_DEPTH, problem
from collectors.codecs._json_write import to_lines
from collectors.codecs._text_lines import BOM
from collectors.codecs.base import Codec, CodecConfig, Decoded

__all__ = ["JsonCodec", "JsonConfig"]

_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_anything = msgspec.json.Decoder(msgspec.Raw).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{,}\]]')


class JsonConfig(CodecConfig):
    """Settings of JSON documents."""

    records: str = ""
    """Where the records are: keys separated by dots, for example `data.items`. Left out: the document itself."""


class JsonCodec(Codec[JsonConfig]):
    """Reads and writes JSON documents; see the module."""

    def __init__(self, config: JsonConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._lines = JsonLines(self.config.types())
        self._path = self.config.records.split(".") if self.config.records else []

    def decode(self, data: bytes, schema: pa.Schema | None = None) -> Decoded:
        """Decode a whole document."""
        text = data.removeprefix(BOM).strip(b" \t\r\n")
        if not text:
            return self._lines.decode(b"", schema)
        try:
            elements = self._records(text)
        except _BrokenError as error:
            refused = Rejected(data, str(error), 0, 0)
            return Decoded(self._lines.known(schema).empty_table(), 1, [refused])
        # A line break in JSON text is white space: inside of a string it would have been an error.
        lines = [element.replace(b"\n", b" ") if b"\n" in element else element for element in elements]
        decoded = self._lines.decode(b"\n".join(lines), schema)
        rejected = [Rejected(elements[item.record], item.reason, item.record) for item in decoded.rejected]
        return Decoded(decoded.table, decoded.read, rejected)

    def decode_letter(self, raw: bytes, head: bytes, schema: pa.Schema | None = None) -> Decoded:
        """Decode a document that was set aside as a whole, or one of its elements."""
        decoded = self.decode(raw, schema)
        if not self._path or not decoded.rejected:
            return decoded
        element = self._lines.decode(raw.replace(b"\n", b" "), schema)
        return decoded if element.rejected else element

    def encode(self, table: pa.Table) -> bytes:
        """Return an array with one object a row, each on a line of its own; values as `ndjson` writes them."""
        return b"[" + b",\n".join(to_lines(table)) + b"]\n"

    def cut(self, data: bytes, *, final: bool) -> int:
        """Return 0 until the stream ends: a document is not cut."""
        return len(data) if final else 0

    def _records(self, text: bytes) -> list[bytes]:
        """Return the text of each record."""
        found = text
        for depth, key in enumerate(self._path):
            members = _read(_members, found) if found.startswith(b"{") else {}
            if key not in members:
                raise _BrokenError(f"there is no '{'.'.join(self._path[: depth + 1])}' in the document")
            found = bytes(members[key])
        if self._path:
            # What surrounds the records is small; a key that is there twice would hide records.
            around = problem(text.replace(found, b"[]", 1))
            if around:
                raise _BrokenError(around)
        if not found.startswith(b"["):
            _read(_anything, found)
            return [found]
        return [bytes(element) for element in _read(_elements, found)]


class _BrokenError(ValueError):
    """The document as a whole cannot be used."""


def _read(decode: Callable[[bytes], Any], text: bytes) -> Any:
    """Return what the decoder reads. Raises _BrokenError with the place of the first error."""
    try:
        return decode(text)
    except RecursionError:
        raise _BrokenError(f"the document is nested deeper than {MAX_DEPTH} levels") from None
    except (msgspec.MsgspecError, ValueError) as error:
        reason = str(error)
    try:
        # With a mark for bytes that are not UTF-8: here only the form of the document counts.
        json.loads(text.decode(errors="replace"))
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    else:
        if decode is _elements:
            return _split(text)
    raise _BrokenError(f"the document is not JSON: {reason}")


def _split(array: bytes) -> list[bytes]:
    """Return the elements of an array whose form is sound though one of its values is not (NaN, half a character)."""
    elements: list[bytes] = []
    depth, start = 0, 1
    for match in _TOKENS.finditer(array):
        token = match[0]
        depth += (token in b"[{") - (token in b"]}")
        if (token == b"," and depth == 1) or depth == 0:
            elements.append(array[start : match.start()].strip())
            start = match.end()
    return elements


COMPONENT = JsonCodec
