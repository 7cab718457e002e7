"""Rows as messages of a broker: payloads, texts of columns, and names that have columns in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from collectors.enums import ErrorType
from collectors.errors import DataError
from collectors.settings import Settings
from collectors.storage.records import plain, to_exact_json_lines, to_values

__all__ = [
    "MessageSettings",
    "Template",
    "bytes_of",
    "headers_of",
    "missing",
    "payloads",
    "refused",
    "texts_of",
]

_encode = msgspec.json.Encoder(enc_hook=str).encode
_COLUMN = re.compile(r"\{([^{}]*)\}")


class MessageSettings(Settings):
    """Settings of what a message is made of."""

    value: str | None = None
    """The column that is the payload, as it is: text in UTF-8, or bytes. Left out: a JSON object of all columns."""
    exclude: list[str] = []
    """Columns that are not in that object, for example since they are in headers."""
    headers: dict[str, str] = {}
    """Header → the column that it is from; left out of the messages of rows that have nothing there."""

    def check_message(self) -> None:
        """Raise ValueError where they do not fit together."""
        if self.value is not None and self.exclude:
            raise ValueError("exclude: means nothing with `value`, where the payload is one column")

    def describe_message(self, schema: pa.Schema) -> list[str]:
        """Return a line for each column that a message would have, as `preview` does, and for those that are missing."""
        used = {"value": [self.value] if self.value else [], "headers": [*self.headers.values()]}
        lines = missing(schema, used)
        if self.value is not None:
            return [*lines, f"payload: {self.value}"]
        return [
            *lines,
            *(f"{field.name}: {field.type}" for field in schema if field.name not in self.exclude),
        ]


class Template(Struct, frozen=True):
    """A name with columns in it: `orders.{region}`."""

    text: str
    columns: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Return the template. Raises ValueError."""
        columns = tuple(_COLUMN.findall(text))
        if not all(columns) or set(_COLUMN.sub("", text)) & set("{}"):
            raise ValueError("expected columns in braces, as in orders.{region}")
        return cls(text, columns)

    def fill(self, table: pa.Table, bad: dict[int, str]) -> list[str]:
        """Return the name for each row; the reason for a row that has none is in `bad` then."""
        if not self.columns:
            return [self.text] * table.num_rows
        parts = _COLUMN.split(self.text)
        values: list[Iterable[str]] = []
        for number, part in enumerate(parts):
            if number % 2 == 0:
                values.append([part] * table.num_rows)
                continue
            texts = texts_of(table, part)
            for row, text in enumerate(texts):
                if text is None or text == "":
                    bad.setdefault(row, f"column '{part}', which is a part of '{self.text}', has no value")
            values.append(text or "" for text in texts)
        return ["".join(each) for each in zip(*values, strict=True)]


def missing(schema: pa.Schema, used: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a line for `preview` for each column that a setting names and a table does not have."""
    return [
        f"~ there is no column '{column}', which `{setting}` names"
        for setting, columns in used.items()
        for column in columns
        if column not in schema.names
    ]


def payloads(table: pa.Table, config: MessageSettings) -> list[bytes | None]:
    """Return the payload of each row. Raises DataError with all rows when there is no such column."""
    if config.value is not None:
        if config.value not in table.column_names:
            raise refused(dict.fromkeys(range(table.num_rows), f"value: there is no column '{config.value}'"))
        return bytes_of(table, config.value)
    names = [name for name in table.column_names if name not in config.exclude]
    if not names:
        return [b"{}"] * table.num_rows
    lines: list[bytes | None] = [*to_exact_json_lines(table.select(names)).split(b"\n")]
    lines.pop()
    return lines


def headers_of(table: pa.Table, headers: dict[str, str]) -> list[list[tuple[str, str]]] | None:
    """Return the headers of each row, without those that have no value; None when there are none to be had."""
    if not headers:
        return None
    columns = [(name, texts_of(table, column)) for name, column in headers.items()]
    return [
        [(name, text) for name, texts in columns if (text := texts[row]) is not None]
        for row in range(table.num_rows)
    ]


def texts_of(table: pa.Table, name: str) -> list[str | None]:
    """Return a column as text, in the form that JSON has for it; nothing for a column that is not there."""
    if name not in table.column_names:
        return [None] * table.num_rows
    column = plain(table.column(name))
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return list(column.to_pylist())
    return [None if value is None else _text(value) for value in to_values(column)]


def bytes_of(table: pa.Table, name: str) -> list[bytes | None]:
    """Return a column as bytes: those of text in UTF-8, bytes as they are."""
    if name in table.column_names:
        column = plain(table.column(name))
        kind = column.type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
            return list(column.to_pylist())
    return [None if text is None else text.encode() for text in texts_of(table, name)]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return repr(value)
    text = _encode(value).decode()
    return str(msgspec.json.decode(text)) if text.startswith('"') else text


def refused(bad: dict[int, str]) -> DataError:
    """Return the error for rows that cannot be messages."""
    row, reason = min(bad.items())
    return DataError(
        f"{len(bad)} rows cannot be sent; the first is row {row}: {reason}",
        rows=bad,
        error_type=ErrorType.STORAGE,
    )
