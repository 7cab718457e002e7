"""From the messages of a broker to chunks: one payload is one record, many payloads are one chunk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from collectors.collection.sources._cutting import SAMPLE_BYTES
from collectors.settings import Name

__all__ = ["Add", "Group", "Payload", "check_add", "groups", "record_of"]

Add = dict[Name, str]
"""New column → what of the message stands in it."""

Origin = TypeVar("Origin")
_is_json = msgspec.json.Decoder(msgspec.Raw).decode
_to_json = msgspec.json.Encoder().encode


class Payload(Struct, Generic[Origin]):
    """The bytes of a message as a record, and the message; with a `reason`, one that is no record."""

    raw: bytes
    origin: Origin
    reason: str | None = None


class Group(Struct, Generic[Origin]):
    """Payloads that make one chunk, in order; with a `reason`, one alone that is refused."""

    raw: bytes
    origins: list[Origin]
    reason: str | None = None


def check_add(add: Mapping[str, str], known: tuple[str, ...], spec: str | dict[str, Any] | None) -> None:
    """Raise ValueError unless every column is to be filled with something known, and the format has room for columns."""
    kind = spec.get("type") if isinstance(spec, dict) else spec
    if add and kind not in {None, "ndjson"}:
        raise ValueError(f"add: only records in format ndjson can get columns, not those in format {kind}")
    for column, what in add.items():
        if what not in known and not (what.startswith("header:") and "headers" in known and what[7:]):
            choices = [*known, *(["header:NAME"] if "headers" in known else [])]
            raise ValueError(f"add: column '{column}': expected {', '.join(choices)}, got '{what}'")


def record_of(
    payload: bytes, name: str, limit: int, *, json: bool, extra: dict[str, Any]
) -> tuple[bytes, str | None]:
    """Return a payload as its record, with further columns, and why it is none; `name` names the message for that.

    JSON that is written over several lines becomes one line. Several objects, a line each, stay several records.
    """
    if len(payload) > limit:
        return payload[:SAMPLE_BYTES], f"{name} has {len(payload):,} bytes, more than max_record ({limit:,})"
    if not payload or payload.isspace():
        return payload, f"{name} is empty"
    if not json:
        return payload, None
    if b"\n" in payload.rstrip():
        payload = _in_one_line(payload)
    if extra:
        more = _to_json(extra)[1:-1]
        payload = b"\n".join(_with_columns(line, more) for line in payload.split(b"\n") if line.strip())
    return payload, None


def groups(payloads: list[Payload[Origin]], size: int, *, joinable: bool) -> Iterator[Group[Origin]]:
    """Yield the payloads as few groups, of up to `size` bytes each; one that is refused is a group by itself."""
    parts: list[bytes] = []
    origins: list[Origin] = []
    weight = 0
    for payload in payloads:
        alone = payload.reason is not None or not joinable
        if parts and (alone or weight + len(payload.raw) > size):
            yield Group(b"".join(parts), origins)
            parts, origins, weight = [], [], 0
        if alone:
            yield Group(payload.raw, [payload.origin], payload.reason)
            continue
        parts.append(payload.raw)
        if not payload.raw.endswith(b"\n"):
            parts.append(b"\n")
        origins.append(payload.origin)
        weight += len(payload.raw) + 1
    if parts:
        yield Group(b"".join(parts), origins)


def _in_one_line(payload: bytes) -> bytes:
    """Return a JSON document in one line: within strings it has no line break. What is none stays as it is."""
    try:
        _is_json(payload)
    except (msgspec.DecodeError, RecursionError):
        return payload
    return payload.replace(b"\n", b" ")


def _with_columns(line: bytes, more: bytes) -> bytes:
    """Return the object with members in front; what is no object stays as it is, for the codec to refuse."""
    text = line.lstrip()
    if not text.startswith(b"{"):
        return line
    rest = text[1:].lstrip()
    return b"{" + more + (b"" if rest.startswith(b"}") else b",") + rest
