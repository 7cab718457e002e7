"""From what a Python function gives to the bytes of chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from collectors.errors import FatalError
from collectors.models import Position

__all__ = ["Parcel", "parcels_of"]

_SAMPLE_CHARACTERS = 64 * 1024
_RECORDS = 4096
_OVERHEAD_BYTES = 64


class Parcel(Struct):
    """Bytes on their way into a chunk: lines of NDJSON, or with a `data_format` something that stays by itself."""

    raw: bytes
    data_format: str | None = None
    reason: str | None = None
    position: Position | None = None

    @property
    def size(self) -> int:
        """What it weighs in a buffer."""
        return len(self.raw) + _OVERHEAD_BYTES


def parcels_of(item: Any, *, positions: bool, bytes_format: str, limit: int) -> list[Parcel]:
    """Return what an item becomes; the last parcel has the position that came with it, if `positions` are given.

    What is not a record is refused by itself. Raises FatalError for a position that is not a JSON object.
    """
    if type(item) is dict:
        return [_line(item)]
    position: Position | None = None
    if positions and isinstance(item, tuple) and len(item) == 2:
        item, position = item[0], _checked(item[1])
    parcels = list(_encode(item, bytes_format, None if position is not None else limit))
    if parcels:
        parcels[-1].position = position
    elif position is not None:
        parcels = [Parcel(b"", position=position)]
    return parcels


def _encode(item: Any, bytes_format: str, limit: int | None) -> Iterator[Parcel]:
    if isinstance(item, list):
        for start in range(0, len(item), _RECORDS):
            yield from _lines(item[start : start + _RECORDS])
    elif isinstance(item, (pa.Table, pa.RecordBatch)):
        table = item if isinstance(item, pa.Table) else pa.Table.from_batches([item])
        yield from _arrow(table, limit)
    elif isinstance(item, (bytes, bytearray, memoryview)):
        yield Parcel(bytes(item), bytes_format)
    elif item is not None:
        yield _line(item)


def _lines(records: list[Any]) -> Iterator[Parcel]:
    """Yield many records as one parcel where all are fine."""
    if all(type(record) is dict for record in records):
        try:
            raw = _encoder.encode_lines(records)
        except Exception:  # noqa: BLE001  # one of them is not to be encoded; `_line` finds it and says why
            raw = b"null"
        if b"null" not in raw:
            yield Parcel(raw)
            return
    for record in records:
        yield _line(record)


def _line(record: Any) -> Parcel:
    try:
        raw = _encoder.encode(record)
    except Exception as error:  # noqa: BLE001  # a user's object may raise anything while it is being encoded
        return _refused(record, f"the record cannot be written as JSON: {error}")
    if not raw.startswith(b"{"):
        return _refused(
            record, f"expected a dict, a list of dicts, an Arrow table or bytes, got {type(record).__name__}"
        )
    if b"null" in raw:
        found = _not_a_number(msgspec.to_builtins(record, enc_hook=_plain), "")
        if found is not None:
            return _refused(record, f"{found}, which JSON cannot hold; give None for an unknown value")
    return Parcel(raw + b"\n")


def _refused(record: Any, reason: str) -> Parcel:
    return Parcel(repr(record)[:_SAMPLE_CHARACTERS].encode("utf-8", "backslashreplace"), None, reason)


def _not_a_number(value: Any, where: str) -> str | None:
    """Return where in a record a number is NaN or infinite: the encoder would write null for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"the field '{where}' is {value}"
    children: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        children = list(enumerate(value))
    for name, child in children:
        found = _not_a_number(child, f"{where}.{name}" if where else str(name))
        if found is not None:
            return found
    return None


def _plain(value: Any) -> Any:
    """Return numbers and arrays of libraries (NumPy and others) as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"there is no JSON for {type(value).__name__}")


def _arrow(table: pa.Table, limit: int | None) -> Iterator[Parcel]:
    """Yield the table as Arrow IPC streams, in slices when it is larger than the limit."""
    rows = max(1, table.num_rows)
    if limit is not None and table.nbytes > limit:
        rows = max(1, table.num_rows * limit // table.nbytes)
    for start in range(0, table.num_rows, rows):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(start, rows))
        yield Parcel(sink.getvalue().to_pybytes(), "arrow")


def _checked(position: Any) -> Position:
    try:
        same = isinstance(position, dict) and msgspec.json.decode(msgspec.json.encode(position)) == position
    except (TypeError, ValueError):
        same = False
    if not same:
        raise FatalError(f"a position must be a dict that stays the same as JSON, got {position!r}")
    return dict(position)


_encoder = msgspec.json.Encoder(enc_hook=_plain)
