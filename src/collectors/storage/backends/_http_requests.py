"""Rows as requests: where one ends, what it has as its body, and to which address it goes."""

from __future__ import annotations

import gzip
import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID, uuid5

import msgspec
import pyarrow as pa
from msgspec import Struct
from yarl import URL

from collectors.storage.records import to_json_lines, to_values

__all__ = ["RECORDS", "Address", "Body", "Form", "Part", "columns_of", "cut", "key_of"]

Form = Literal["json", "ndjson", "record"]
RECORDS = "{records}"
"""Stands for the records in an envelope."""
_BRACES = re.compile(r"\{([^{}]+)\}")
_SLICE_ROWS = 8192
_NOT_IN_PATHS = {"", ".", ".."}
_MARK = "collectors-column-"


class Part(Struct, frozen=True):
    """The rows of one request: their numbers, and each as JSON."""

    rows: list[int]
    lines: list[bytes]

    @property
    def span(self) -> tuple[int, int]:
        """The first row, and the one behind the last."""
        return self.rows[0], self.rows[-1] + 1

    def piece(self, start: int, end: int) -> Part:
        """Return some of the rows."""
        return Part(self.rows[start:end], self.lines[start:end])


def cut(
    table: pa.Table, rows: Sequence[int], ends: Sequence[int], *, most_rows: int, most_bytes: int
) -> Iterator[Part]:
    """Yield the rows of a table, whose numbers are `rows`, in requests that are as large as they may be.

    None reaches over one of the `ends`. Where one ends depends on nothing but the rows from the last of the ends on.
    """
    lines: list[bytes] = []
    first = 0
    for start in range(0, table.num_rows, _SLICE_ROWS):
        lines += to_json_lines(table.slice(start, _SLICE_ROWS)).split(b"\n")[:-1]
        more = start + _SLICE_ROWS < table.num_rows
        sizes = list(accumulate((len(line) + 1 for line in lines), initial=0))
        at = 0
        while at < len(lines):
            number = rows[first + at]
            border = next((end for end in ends if end > number), None)
            fitting = bisect_right(sizes, sizes[at] + most_bytes) - 1
            limits = [
                at + most_rows,
                max(at + 1, fitting) if fitting < len(lines) else inf,
                inf if border is None else bisect_left(rows, border, first + at) - first,
            ]
            if min(limits) > len(lines) and more:
                break  # the next slice says where it ends
            end = int(min(*limits, len(lines)))
            yield Part(list(rows[first + at : first + end]), lines[at:end])
            at = end
        lines = lines[at:]
        first += at


class Body:
    """How requests carry rows."""

    def __init__(self, form: Form, envelope: Mapping[str, Any] | None, compression: str) -> None:
        self._form = form
        self._compression = compression
        whole = msgspec.json.encode(envelope) if envelope is not None else b'"' + RECORDS.encode() + b'"'
        self._head, self._tail = whole.split(msgspec.json.encode(RECORDS))

    @property
    def headers(self) -> dict[str, str]:
        """The headers that say so."""
        kind = "application/x-ndjson" if self._form == "ndjson" else "application/json"
        return {"Content-Type": kind} | ({"Content-Encoding": "gzip"} if self._compression == "gzip" else {})

    def plain(self, lines: Sequence[bytes]) -> bytes:
        """Return rows as one body, before it is compressed."""
        if self._form == "ndjson":
            return b"\n".join(lines) + b"\n"
        inner = lines[0] if self._form == "record" else b"[" + b",".join(lines) + b"]"
        return self._head + inner + self._tail

    def packed(self, body: bytes) -> bytes:
        """Return a body as it is sent."""
        return gzip.compress(body, 6, mtime=0) if self._compression == "gzip" else body


class Address:
    """Where requests go: one address, or one for each row, with values of its columns in the path."""

    def __init__(self, template: str) -> None:
        self.columns = columns_of(template)
        marked = template
        for number, name in enumerate(self.columns):
            marked = marked.replace(f"{{{name}}}", f"{_MARK}{number}-")
        self._texts = re.split(rf"{_MARK}(\d+)-", str(URL(marked)))

    def values(self, table: pa.Table) -> tuple[list[list[Any]], dict[int, str]]:
        """Return the values that addresses have, by column; and the rows that cannot have an address, with the reason."""
        found: list[list[Any]] = []
        bad: dict[int, str] = {}
        for name in self.columns:
            if name not in table.column_names:
                return [], dict.fromkeys(
                    range(table.num_rows), f"there is no column '{name}', which the `url` has"
                )
            texts = [_text(value) for value in to_values(table.column(name))]
            for row, text in enumerate(texts):
                if text is None:
                    bad.setdefault(row, f"column '{name}': its value cannot stand in the path of the `url`")
            found.append(texts)
        return found, bad

    def of(self, values: Sequence[Sequence[Any]], row: int) -> URL:
        """Return the address for a row."""
        texts = list(self._texts)
        texts[1::2] = [quote(values[int(number)][row], safe="") for number in texts[1::2]]
        return URL("".join(texts), encoded=True)


def columns_of(template: str) -> list[str]:
    """Return the columns that stand in braces in an address."""
    return list(dict.fromkeys(_BRACES.findall(template)))


def _text(value: Any) -> str | None:
    """Return a value as a step of a path; None for one that would be none, or lead elsewhere."""
    if value is None or isinstance(value, (dict, list, tuple, bytes)):
        return None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return None if text in _NOT_IN_PATHS else text


def key_of(token: str, part: Part, body: bytes) -> str:
    """Return the key by which a server knows a request again: the same for the same rows of the same delivery only."""
    start, end = part.span
    return str(uuid5(UUID(token), f"{start}-{end} {hashlib.sha256(body).hexdigest()}"))
