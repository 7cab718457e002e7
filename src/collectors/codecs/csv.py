"""CSV and its relatives: one record a line, fields behind each other.

    format: {type: csv, delimiter: ";", columns: {id: string, ts: timestamp}}

Delivery: nothing is lost; a record that cannot be used is set aside by itself, with the reason.
Position: chunks are cut behind a record; every chunk carries the header line in front.

A column's type is found in the first chunk and keeps every digit and spelling: int, float and bool where all values
are written plainly, else text; `007`, `+1`, 20 digits and dates are text. Later values that do not fit set their record
aside; int widens to float when no digit is lost. `columns` reads more: any way to write a number, ISO 8601 timestamps
(UTC where there is no zone), `YYYY-MM-DD`, decimals, base64. A field that is empty and not in quotes is null; `""` is an
empty text.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv
from msgspec import Struct
from pydantic import model_validator

from collectors.chunks import Rejected
from collectors.codecs._csv_records import Dialect, Records
from collectors.codecs._csv_types import misfits
from collectors.codecs._json_write import iso_text, to_lines
from collectors.codecs._tables import in_order
from collectors.codecs._text_lines import BOM, is_utf8, not_utf8
from collectors.codecs._text_values import parse, unreadable
from collectors.codecs._wording import quoted, unexpected
from collectors.codecs.base import Codec, CodecConfig, Decoded
from collectors.errors import DataError

__all__ = ["CsvCodec", "CsvConfig"]


class CsvConfig(CodecConfig):
    """Settings of CSV."""

    delimiter: str = ","
    """What stands between two fields: one ASCII character, for example `;`, or `"\\t"` for a tab."""
    quote: str = '"'
    """What stands around a field that holds a delimiter or a line break; doubled, it stands for itself."""
    header: bool = True
    """Whether the first line names the columns."""
    names: list[str] = []
    """Names of the columns, in order; needed where there is no header, and used instead of one that there is."""
    null_values: list[str] = [""]
    """Fields that mean null when they are not in quotes."""

    @model_validator(mode="after")
    def _consistent(self) -> CsvConfig:
        for name in ("delimiter", "quote"):
            character = getattr(self, name)
            if len(character) != 1 or not character.isascii() or character in "\r\n\0":
                raise ValueError(f"{name}: expected one ASCII character, got {character!r}")
        if self.delimiter == self.quote:
            raise ValueError(f"delimiter and quote are both {self.quote!r}")
        if not self.header and not self.names:
            raise ValueError("header is false: `names` must say what the columns are called")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"names: a name is there twice: {', '.join(self.names)}")
        return self


class _Chunk(Struct):
    """The records of a chunk as far as they were read: `numbers` says which of them the rows of `table` are."""

    table: pa.Table
    numbers: list[int]
    reasons: dict[int, str]
    count: int
    records: Records | None


class CsvCodec(Codec[CsvConfig]):
    """Reads and writes CSV; see the module."""

    def __init__(self, config: CsvConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._types = self.config.types()
        self._dialect = Dialect(self.config.delimiter.encode(), self.config.quote.encode())

    def decode(self, data: bytes, schema: pa.Schema | None = None) -> Decoded:
        """Decode a chunk of records, behind the header line where there is one."""
        begin = self.preamble(data) if self.config.header else len(BOM) * data.startswith(BOM)
        if self.config.header and not begin:
            begin = len(data)
        fields = {item.name: item.type for item in schema or ()} | self._types
        known = pa.schema(list(fields.items()))
        body = data[begin:]
        try:
            names = self.config.names or self._names(data[:begin])
        except ValueError as error:
            records = self._dialect.split(body)
            reasons = dict.fromkeys(range(len(records.raw)), str(error))
            return Decoded(known.empty_table(), len(records.raw), _rejected(records, reasons, begin))
        chunk = self._read(body, names)
        table = self._typed(chunk, known)
        rejected = []
        if chunk.reasons:
            rejected = _rejected(chunk.records or self._dialect.split(body), chunk.reasons, begin)
        return Decoded(table, chunk.count, rejected)

    def encode(self, table: pa.Table) -> bytes:
        """Return the rows behind a header line; nested values as JSON, timestamps as ISO 8601, binary as base64."""
        if self.config.quote != '"':
            raise DataError(f'csv is written with the quote ", not {self.config.quote}')
        plain = _plain(table)
        if plain.num_columns == 1 and plain.column(0).null_count:
            raise DataError("csv cannot hold a null in the only column: it would be a blank line")
        sink = pa.BufferOutputStream()
        options = pa.csv.WriteOptions(include_header=self.config.header, delimiter=self.config.delimiter)
        pa.csv.write_csv(plain, sink, options)
        return bytes(sink.getvalue().to_pybytes())

    def preamble(self, head: bytes) -> int:
        """Return the length of the header line."""
        return self._dialect.end_of_first(head) if self.config.header else 0

    def cut(self, data: bytes, *, final: bool) -> int:
        """Cut behind the last record; a line break inside of quotes ends none."""
        return len(data) if final else self._dialect.end_of_last(data)

    def _names(self, header: bytes) -> list[str]:
        """Return the names in the header. Raises ValueError when they cannot be used."""
        wrong = not_utf8(header)
        if wrong:
            raise ValueError(f"the header is {wrong}")
        text = header.removeprefix(BOM).decode().strip("\r\n")
        rows = csv.reader(
            io.StringIO(text, newline=""), delimiter=self.config.delimiter, quotechar=self.config.quote
        )
        try:
            names = next(rows, [])
        except csv.Error as error:
            raise ValueError(f"the header cannot be read: {error}") from error
        twin = next((name for name, times in Counter(names).items() if times > 1), None)
        if twin is not None:
            raise ValueError(
                f"the header names the column '{twin}' twice; say with `names` how to call each column"
            )
        return names

    def _read(self, body: bytes, names: list[str]) -> _Chunk:
        """Return the fields as text, each record that is none by itself set aside."""
        if is_utf8(body) and body.count(b"\r") == body.count(b"\r\n"):
            count = self._dialect.count(body)
            table, ragged = self._fields(body, names)
            if count is not None and not ragged and table.num_rows == count:
                return _Chunk(table, list(range(count)), {}, count, None)
        records = self._dialect.split(body)
        reasons = dict.fromkeys(records.unclosed, "a quote is opened and never closed")
        reasons |= {number: reason for number, raw in enumerate(records.raw) if (reason := not_utf8(raw))}
        for number, raw in enumerate(records.raw):
            if number not in reasons and b"\r" in raw and self._dialect.has_stray_return(raw):
                reasons[number] = "a carriage return outside of quotes breaks the record in two"
        numbers = [number for number in range(len(records.raw)) if number not in reasons]
        table, ragged = self._fields(b"\n".join(records.raw[number] for number in numbers), names)
        if table.num_rows + len(ragged) != len(numbers):
            table, ragged = self._fields_one_by_one([records.raw[number] for number in numbers], names)
        for place, fields in ragged.items():
            reasons[numbers[place]] = f"expected {len(names)} fields, got {fields}"
        numbers = [number for number in numbers if number not in reasons]
        return _Chunk(table, numbers, reasons, len(records.raw), records)

    def _fields_one_by_one(self, records: list[bytes], names: list[str]) -> tuple[pa.Table, dict[int, int]]:
        """Return the same as `_fields`, for records that pyarrow would divide in another way than we did."""
        ragged: dict[int, int] = {}
        tables = [self._fields(b"", names)[0]]
        for place, raw in enumerate(records):
            table, bad = self._fields(raw, names)
            if table.num_rows == 1 and not bad:
                tables.append(table)
            else:
                ragged[place] = bad.get(0, 0)
        return pa.concat_tables(tables), ragged

    def _fields(self, body: bytes, names: list[str]) -> tuple[pa.Table, dict[int, int]]:
        """Return all rows with the right number of fields, and the numbers of the others with how many they have."""
        ragged: dict[int, int] = {}
        if not body.removeprefix(BOM).strip(b"\r\n"):
            return pa.table({name: pa.array([], pa.string()) for name in names}), ragged

        def skip(row: Any) -> str:
            ragged[row.number - 1] = row.actual_columns
            return "skip"

        table = pa.csv.read_csv(
            pa.BufferReader(body),
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=len(body) + 64, column_names=names),
            parse_options=pa.csv.ParseOptions(
                delimiter=self.config.delimiter,
                quote_char=self.config.quote,
                newlines_in_values=self._dialect.quote in body,
                invalid_row_handler=skip,
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=self.config.null_values,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        return table, ragged

    def _typed(self, chunk: _Chunk, known: pa.Schema) -> pa.Table:
        """Return the columns in their types; records with a value that does not fit move to the reasons."""
        types = {item.name: item.type for item in known}
        texts = {name: chunk.table.column(name).combine_chunks() for name in chunk.table.column_names}
        bad: dict[int, str] = {}
        for name, text in texts.items():
            if name in self._types:
                rows = unreadable(text, types[name])
            else:
                types[name], rows = misfits(text, types.get(name, pa.null()))
            for row in rows:
                value = quoted(text[row].as_py()).removesuffix(" (string)")
                bad.setdefault(row, unexpected(name, types[name], value))
        if bad:
            chunk.reasons |= {chunk.numbers[row]: reason for row, reason in bad.items()}
            keep = pa.array([row for row in range(len(chunk.numbers)) if row not in bad], pa.int64())
            texts = {name: text.take(keep) for name, text in texts.items()}
        columns = {name: parse(text, types[name]) for name, text in texts.items()}
        return in_order(columns, known, len(chunk.numbers) - len(bad))


def _rejected(records: Records, reasons: dict[int, str], begin: int) -> list[Rejected]:
    return [
        Rejected(records.raw[number], reasons[number], number, begin + records.offsets[number])
        for number in sorted(reasons)
    ]


def _plain(table: pa.Table) -> pa.Table:
    """Return the table with text in place of what CSV has no form for."""
    for index, item in enumerate(table.schema):
        column = table.column(index)
        if pa.types.is_timestamp(item.type):
            column = iso_text(column)
        elif pa.types.is_nested(item.type) or pa.types.is_binary(item.type):
            values = (msgspec.json.decode(line)["v"] for line in to_lines(pa.table({"v": column})))
            texts = [
                value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()
                for value in values
            ]
            column = pa.array(texts, pa.string())
        elif pa.types.is_null(item.type):
            column = column.cast(pa.string())
        table = table.set_column(index, item.name, column)
    return table


COMPONENT = CsvCodec
