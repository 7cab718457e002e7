"""From a message to lines of JSON: the payload as it is, with columns about the message spliced in at its front."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Struct

from collectors.collection.sources._mqtt_exchanges import Exchange
from collectors.collection.sources._mqtt_topics import Filter

__all__ = ["About", "Lines", "PayloadError", "PayloadFormat", "Piece", "Pieces"]

About = Literal["topic", "qos", "retain", "time"]
PayloadFormat = Literal["json", "ndjson", "lines"]

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_TOPICS = 10_000
_anything = msgspec.json.Decoder(msgspec.Raw).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


class PayloadError(ValueError):
    """No record can be made of a payload; says why."""


class Piece(Struct):
    """What makes one chunk. With a `topic` it is one message by itself; with a `reason`, one that is set aside."""

    raw: bytes
    number: int
    """Of its last message."""
    messages: int
    exchanges: list[tuple[int, int, int]]
    """Number, packet identifier and checksum of those of QoS 2."""
    topic: str | None = None
    reason: str | None = None


class Pieces:
    """Joins what came together, in order, into pieces of about `size` bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._done: list[Piece] = []
        self._lines: list[bytes] = []
        self._have = self._messages = self._number = 0
        self._exchanges: list[tuple[int, int, int]] = []

    def add(self, lines: bytes, number: int, exchange: Exchange | None) -> None:
        """Add the lines of a message."""
        self._lines.append(lines)
        self._number = number
        self._messages += 1
        self._have += len(lines)
        self._exchanges += _second(exchange)
        if self._have >= self._size:
            self._close()

    def add_alone(
        self, raw: bytes, number: int, exchange: Exchange | None, topic: bytes, reason: str | None = None
    ) -> None:
        """Add a message that cannot be joined with others, or, with a reason, that is set aside."""
        self._close()
        name = topic.decode(errors="backslashreplace")
        self._done.append(Piece(raw, number, 1, _second(exchange), name, reason))

    def all(self) -> list[Piece]:
        """Return all pieces."""
        self._close()
        return self._done

    def _close(self) -> None:
        if self._lines:
            self._done.append(Piece(b"".join(self._lines), self._number, self._messages, self._exchanges))
            self._lines, self._exchanges, self._have, self._messages = [], [], 0, 0


def _second(exchange: Exchange | None) -> list[tuple[int, int, int]]:
    if exchange is None or exchange.qos != 2:
        return []
    return [(exchange.number, exchange.mid, exchange.checksum)]


class Lines:
    """Makes lines of JSON. `add` says of a column what goes into it; `filters` give the names of levels.

    An object's members are never looked at here: whether it is JSON is found when the lines are decoded.
    """

    def __init__(self, kind: PayloadFormat, add: dict[str, About], filters: Sequence[Filter]) -> None:
        self._make = {"json": self._json, "ndjson": self._ndjson, "lines": self._text}[kind]
        self._add = add
        self._filters = [each for each in filters if each.names]
        self._front = functools.lru_cache(_TOPICS)(self._front_of)
        self._flags = 0x06 * ("qos" in add.values()) | ("retain" in add.values())
        self._times = [name for name, what in add.items() if what == "time"]
        self._now = b""

    def at(self, now: datetime) -> None:
        """Say when the next messages were received."""
        if self._times:
            time = msgspec.json.encode(now)
            self._now = b"".join(_member(name, time) for name in self._times)

    def make(self, topic: bytes, flags: int, payload: bytes) -> bytes:
        """Return the lines of a message; `flags` is the first byte of its packet. Raises PayloadError."""
        return self._make(self._front(topic, flags & self._flags) + self._now, payload)

    def _front_of(self, raw: bytes, flags: int) -> bytes:
        try:
            topic = raw.decode()
        except UnicodeDecodeError:
            raise PayloadError("the topic is not UTF-8") from None
        values = {"topic": topic, "qos": flags >> 1 & 3, "retain": bool(flags & 1)}
        columns: dict[str, object] = {
            name: values[what] for name, what in self._add.items() if what != "time"
        }
        for each in self._filters:
            if (named := each.named(topic)) is not None:
                columns |= named
                break
        return b"".join(_member(name, msgspec.json.encode(value)) for name, value in columns.items())

    def _json(self, front: bytes, payload: bytes) -> bytes:
        text = payload.removeprefix(_BOM).strip(_SPACE)
        if text.startswith(b"["):
            return b"".join(_line(front, element) for element in _elements_of(text) or [b""])
        return _line(front, text)

    def _ndjson(self, front: bytes, payload: bytes) -> bytes:
        lines = [line for each in payload.removeprefix(_BOM).split(b"\n") if (line := each.strip(_SPACE))]
        return b"".join(_line(front, line) for line in lines or [b""])

    def _text(self, front: bytes, payload: bytes) -> bytes:
        try:
            text = payload.removeprefix(_BOM).decode()
        except UnicodeDecodeError as error:
            raise PayloadError(f"not UTF-8 at byte {error.start}") from None
        lines: list[str | None] = [line for each in text.split("\n") if (line := each.removesuffix("\r"))]
        members = (_member("line", msgspec.json.encode(line)) for line in lines or [None])
        return b"".join(b"{" + front + member[:-1] + b"}\n" for member in members)


def _member(name: str, value: bytes) -> bytes:
    return msgspec.json.encode(name) + b":" + value + b","


def _line(front: bytes, text: bytes) -> bytes:
    """Return a JSON value as a line: of an object its members, else the value in the column `value`."""
    if b"\n" in text:
        # A line break in JSON is white space; inside of a string it is an error, which must not be mended.
        text = _checked(text).replace(b"\n", b" ")
    if text.startswith(b"{"):
        if not front:
            return text + b"\n"
        rest = text[1:].lstrip(_SPACE)
        return b"{" + (front[:-1] if rest.startswith(b"}") else front) + rest + b"\n"
    value = _checked(text) if text else b"null"
    return b"{" + front + b'"value":' + value + b"}\n"


def _checked(text: bytes) -> bytes:
    try:
        return bytes(_anything(text))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise PayloadError(f"the payload is not JSON: {error}") from None


def _elements_of(text: bytes) -> list[bytes]:
    try:
        return [bytes(element) for element in _elements(text)]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise PayloadError(f"the payload is not JSON: {error}") from None
