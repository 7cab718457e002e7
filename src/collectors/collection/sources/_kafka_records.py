"""From messages to the bytes of chunks: a line of JSON each, with key, headers and place beside the payload.

What is plain, a JSON object under a key of letters and digits, is put together by Arrow, a column at a time; each other
message costs some Python.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from collectors.collection.sources._cutting import SAMPLE_BYTES

__all__ = ["COLUMNS", "Kind", "Lines", "Refused", "kind_of", "line_format", "lines", "payloads"]

Kind = Literal["json", "text", "other"]
COLUMNS = {
    "kafka_topic": "string",
    "kafka_partition": "int",
    "kafka_offset": "int",
    "kafka_timestamp": "timestamp",
    "kafka_key": "string",
    "kafka_headers": "string",
}
"""The columns that every record has, with their types."""
_SPACE = b" \t\r\n"
_ESCAPED = b'"\\\x7f' + bytes(range(32))
"""What JSON, or a terminal, does not have as it is."""
_to_json = msgspec.json.Encoder().encode
_as_json = msgspec.json.Decoder(msgspec.Raw).decode


_TOMBSTONE = "a tombstone: a key without a payload; records of JSON and text have a column for it"


class Refused(msgspec.Struct, frozen=True):
    """A message that is no record: why, and what is kept of it."""

    reason: str
    raw: bytes


class Lines(msgspec.Struct, frozen=True):
    """The bytes of so many messages in a row, the offset of the last of them; or one that is refused."""

    raw: bytes
    last: int
    refused: Refused | None = None


def kind_of(spec: str | dict[str, Any]) -> Kind:
    """Return how payloads in this format become lines: JSON and plain text get columns beside them."""
    name, options = (
        (spec, set[str]()) if isinstance(spec, str) else (str(spec.get("type")), set(spec) - {"type"})
    )
    if name == "ndjson" or (name == "json" and options <= {"columns"}):
        return "json"
    return "text" if name == "lines" and not options else "other"


def line_format(spec: str | dict[str, Any]) -> str | dict[str, Any]:
    """Return the codec of the chunks for payloads in this format."""
    kind = kind_of(spec)
    if kind == "other":
        return spec
    own = {"line": "string"} if kind == "text" else {}
    columns = {} if isinstance(spec, str) else spec.get("columns") or {}
    return {"type": "ndjson", "columns": {**COLUMNS, **own, **columns}}


def lines(topic: str, partition: int, messages: Sequence[Any], kind: Kind, limit: int) -> list[Lines]:
    """Return messages of one partition as lines, in pieces around those that are refused; longer ones than `limit` are."""
    values = [message.value() for message in messages]
    offsets = [message.offset() for message in messages]
    tails = _plain(values, limit) if kind == "json" else None
    found: Any = tails if tails is not None else [_tail(value, kind, limit) for value in values]
    refused = [] if tails is not None else [n for n, tail in enumerate(found) if isinstance(tail, Refused)]
    pieces: list[Lines] = []
    begin = 0
    for end in [*refused, len(messages)]:
        if end > begin:
            raw = _joined(topic, partition, messages[begin:end], offsets[begin:end], found[begin:end])
            pieces.append(Lines(raw, offsets[end - 1]))
        if end < len(messages):
            pieces.append(Lines(b"", offsets[end], found[end]))
        begin = end + 1
    return pieces


def payloads(messages: Sequence[Any], limit: int, *, lines: bool) -> Iterator[Lines]:
    """Yield the payload of each message as it is, or as one or more lines: for formats that have no columns beside it."""
    for message in messages:
        value = message.value()
        tail = Refused(_TOMBSTONE, message.key() or b"") if value is None else _tail(value, "other", limit)
        if isinstance(tail, Refused):
            yield Lines(b"", message.offset(), tail)
        else:
            yield Lines(tail + b"\n" if lines and not tail.endswith(b"\n") else tail, message.offset())


def _joined(topic: str, partition: int, messages: Sequence[Any], offsets: list[int], tails: Any) -> bytes:
    """Return the lines: the columns of the messages, then what `tails` has for each, from a comma to the end."""
    start = b'{"kafka_topic":%b,"kafka_partition":%d,"kafka_offset":' % (_to_json(topic), partition)
    stamps = [message.timestamp() for message in messages]
    times = pa.array([stamp[1] if stamp[0] else None for stamp in stamps], pa.timestamp("ms"))
    ends = tails if isinstance(tails, pa.Array) else pa.array(tails, pa.binary())
    made = _concat(
        start,
        pa.array(offsets, pa.int64()).cast(pa.string()).cast(pa.binary()),
        *_quoted(b',"kafka_timestamp":', times.cast(pa.string()).cast(pa.binary()), b"Z"),
        *_keys(b',"kafka_key":', [message.key() for message in messages]),
        b',"kafka_headers":',
        _all_headers([message.headers() for message in messages]),
        pc.replace_substring(ends, b"\n", b" ") if b"\n" in _bytes_of(ends) else ends,
        b"\n",
    )
    return _bytes_of(made)


def _concat(*parts: Any) -> pa.Array:
    return pc.binary_join_element_wise(*parts, b"")


def _quoted(name: bytes, values: pa.Array, end: bytes = b"") -> tuple[Any, ...]:
    """Return what to join for a member of an object: its name, and the texts, each with `end` behind it, or null."""
    if not values.null_count:
        return name + b'"', values, end + b'"'
    return name, pc.fill_null(_concat(b'"', values, end + b'"'), b"null")


def _bytes_of(values: pa.Array) -> bytes:
    """Return the values one behind the other."""
    places, data = values.buffers()[1:]
    ends = memoryview(places).cast("i")
    start, end = ends[values.offset], ends[values.offset + len(values)]
    return data.slice(start, end - start).to_pybytes()  # type: ignore[no-any-return]


def _plain(values: list[bytes | None], limit: int) -> pa.Array | None:
    """Return the payloads with a comma in place of their first brace, when all are objects with something in them."""
    if None in values:
        return None
    found = pa.array(values, pa.binary())
    if pc.all(pc.starts_with(found, b'{"')).as_py() and pc.max(pc.binary_length(found)).as_py() <= limit:
        return pc.binary_replace_slice(found, start=0, stop=1, replacement=b",")
    return None


def _tail(value: bytes | None, kind: Kind, limit: int) -> bytes | Refused:
    """Return what stands in a line behind the columns of the message; or why it is no record."""
    if value is None:
        return b',"kafka_tombstone":true}'
    if len(value) > limit:
        reason = f"the payload has {len(value):,} bytes, more than max_record, {limit:,}"
        return Refused(reason, value[:SAMPLE_BYTES])
    if kind == "other":
        return value
    try:
        return b',"line":%b}' % _to_json(value.decode()) if kind == "text" else _json_tail(value)
    except UnicodeDecodeError as error:
        return Refused(f"the payload is no UTF-8: {error.reason} at byte {error.start}", value)
    except msgspec.DecodeError as error:
        return Refused(f"the payload is no JSON: {error}", value)


def _json_tail(value: bytes) -> bytes:
    text = value.strip(_SPACE)
    if text[:1] != b"{":
        return b',"value":%b}' % _as_json(text)
    inner = text[1:].lstrip(_SPACE)
    return inner if inner == b"}" else b"," + inner


def _keys(name: bytes, keys: list[bytes | None]) -> tuple[Any, ...]:
    found = pa.array(keys, pa.binary())
    if found.null_count == len(keys):
        return (name + b"null",)
    text = _bytes_of(found)
    if text.isascii() and len(text.translate(None, _ESCAPED)) == len(text):
        return _quoted(name, found)
    return name, pa.array([b"null" if key is None else _key(key) for key in keys], pa.binary())


def _key(key: bytes) -> bytes:
    try:
        return _to_json(key.decode())
    except UnicodeDecodeError:
        return b'null,"kafka_key_base64":"%b"' % base64.b64encode(key)


def _all_headers(headers: list[list[tuple[str, bytes | None]] | None]) -> Any:
    if not any(headers):
        return b"null"
    return pa.array([b"null" if each is None else _headers(each) for each in headers], pa.binary())


def _headers(headers: list[tuple[str, bytes | None]]) -> bytes:
    """Return an object; of a name that comes again a list, of a value that is no text its base64."""
    found: dict[str, list[Any]] = {}
    for name, value in headers:
        found.setdefault(name, []).append(None if value is None else _text(value))
    return _to_json({name: values if len(values) > 1 else values[0] for name, values in found.items()})


def _text(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
