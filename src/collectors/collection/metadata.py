"""What a chunk holds and how good it is, from a look at its first records."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from collectors.errors import DataError
from collectors.interfaces.collection import IMetadataParser
from collectors.models import CollectedData, ParsedMetadata

__all__ = ["MetadataParser"]

SAMPLE_BYTES = 256 * 1024
SAMPLE_RECORDS = 1000
_TYPE_NAMES = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "string",
    dict: "struct",
    list: "list",
    bytes: "binary",
}

_ESCAPED = re.compile("[\ud800-\udfff]")
_BETWEEN = re.compile(r"\s*[\[,]\s*")

Decode = Callable[[str, bytes], pa.Table]
Read = tuple[list[dict[str, Any]], list[str]]


class MetadataParser(IMetadataParser):
    """Looks at no more than the first 256 KiB and 1,000 records of a chunk.

    Quality, each from 0.0 to 1.0: `validity` is the part of the records that could be read, `completeness` the part
    of the fields that have a value, `uniqueness` the part of the records that are not a repetition of another.

    Formats ndjson, json, csv and lines are read here; for others a codec's function can be handed in:
    `decode(data_format, raw_data)` returns a table. Bytes in an unknown format have no schema and are valid.
    """

    def __init__(self, decode: Decode | None = None) -> None:
        self._decode = decode

    async def parse(self, collected_data: CollectedData) -> ParsedMetadata:
        """Return what was found. Raises ValueError when this is no chunk."""
        if not isinstance(collected_data, CollectedData) or not isinstance(
            collected_data.raw_data, (bytes, bytearray)
        ):
            raise DataError(f"expected CollectedData with bytes, got {type(collected_data).__name__}")
        records, problems = await asyncio.to_thread(self._records, collected_data)
        names = list(dict.fromkeys(name for record in records for name in record))
        errors = _labels(collected_data) + problems
        return ParsedMetadata(
            schema={name: _type_of([record.get(name) for record in records]) for name in names},
            quality_indicators=_quality(records, names, len(problems)),
            source_attributes={
                "source_id": collected_data.source_id,
                "data_format": collected_data.data_format,
                "collection_method": collected_data.collection_method,
                "bytes": len(collected_data.raw_data),
                "sampled_records": len(records),
                **{name: value for name, value in collected_data.metadata.items() if name != "source_id"},
            },
            is_valid=not errors,
            validation_errors=errors,
        )

    async def validate(self, metadata: ParsedMetadata) -> bool:
        """Return whether it is valid, says where it is from, and its indicators are from 0.0 to 1.0."""
        return (
            metadata.is_valid
            and not metadata.validation_errors
            and bool(metadata.source_attributes.get("source_id"))
            and all(0.0 <= value <= 1.0 for value in metadata.quality_indicators.values())
        )

    def _records(self, data: CollectedData) -> Read:
        raw, data_format = bytes(data.raw_data), data.data_format
        read = _READERS.get(data_format)
        try:
            if self._decode is not None:
                table = self._decode(data_format, raw)
                return table.slice(0, SAMPLE_RECORDS).to_pylist(), []
            return read(raw) if read is not None else ([], [])
        except Exception as error:  # noqa: BLE001  # whatever a decoder that was handed in raises
            return [], [f"{data_format}: {error}"]


def _first_lines(raw: bytes) -> list[bytes]:
    head = raw[:SAMPLE_BYTES]
    if len(head) < len(raw):
        head = head[: head.rfind(b"\n") + 1]
    return [line for line in head.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()][:SAMPLE_RECORDS]


def _from_text(raw: bytes) -> Read:
    records: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, line in enumerate(_first_lines(raw), start=1):
        try:
            records.append({"line": line.decode()})
        except UnicodeDecodeError as error:
            problems.append(f"record {number}: {error}")
    return records, problems


def _from_lines(raw: bytes) -> Read:
    records: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, line in enumerate(_first_lines(raw), start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(f"record {number}: {error}")
            continue
        if isinstance(record, dict):
            records.append(record)
        else:
            problems.append(f"record {number}: expected an object, got {type(record).__name__}")
    return records, problems


def _from_csv(raw: bytes) -> Read:
    records: list[dict[str, Any]] = []
    problems: list[str] = []
    text = b"\n".join(_first_lines(raw)).decode(errors="surrogateescape")
    rows = csv.DictReader(io.StringIO(text), strict=True)
    number = 0
    try:
        for number, record in enumerate(rows, start=1):
            surplus = record.pop(None, None)  # what is behind the last column
            if surplus is not None:
                problems.append(f"record {number}: more fields than the header has, from {surplus[0]!r} on")
            elif any(_ESCAPED.search(value) for value in record.values() if value is not None):
                problems.append(f"record {number}: bytes that are not UTF-8")
            else:
                records.append(record)
    except csv.Error as error:
        if len(raw) <= SAMPLE_BYTES:  # else the sample may end within quotes
            problems.append(f"record {number + 1}: {error}")
    return records, problems


def _from_document(raw: bytes) -> Read:
    if len(raw) > SAMPLE_BYTES:
        items = list(_first_items(raw[:SAMPLE_BYTES].decode(errors="ignore").lstrip("\ufeff")))
        if not items:
            return [], [f"json: no element of an array ends within the first {SAMPLE_BYTES} bytes"]
    else:
        document = json.loads(raw)
        items = document if isinstance(document, list) else [document]
    records = [item for item in items[:SAMPLE_RECORDS] if isinstance(item, dict)]
    others = len(items[:SAMPLE_RECORDS]) - len(records)
    return records, [f"{others} elements are not objects"] if others else []


def _first_items(text: str) -> Iterator[Any]:
    """Yield the elements that are whole in the beginning of an array."""
    decoder = json.JSONDecoder()
    place = _BETWEEN.match(text, 0)
    while place is not None:
        try:
            item, end = decoder.raw_decode(text, place.end())
        except (ValueError, RecursionError):
            return
        place = _BETWEEN.match(text, end)
        if place is not None:
            yield item


def _type_of(values: list[Any]) -> str:
    kinds = {_TYPE_NAMES.get(type(value), type(value).__name__) for value in values if value is not None}
    if kinds == {"int", "float"}:
        return "float"
    return " | ".join(sorted(kinds)) or "null"


def _quality(records: list[dict[str, Any]], names: list[str], bad: int) -> dict[str, float]:
    fields = len(records) * len(names)
    filled = sum(record.get(name) is not None and record[name] != "" for record in records for name in names)
    distinct = len({json.dumps(record, sort_keys=True, default=str) for record in records})
    return {
        "validity": len(records) / (len(records) + bad) if records or bad else 1.0,
        "completeness": filled / fields if fields else 1.0,
        "uniqueness": distinct / len(records) if records else 1.0,
    }


_READERS: dict[str, Callable[[bytes], Read]] = {
    "ndjson": _from_lines,
    "json": _from_document,
    "csv": _from_csv,
    "lines": _from_text,
}


def _labels(data: CollectedData) -> list[str]:
    return [
        f"{name} is missing" for name in ("source_id", "timestamp", "data_format") if not getattr(data, name)
    ]
