"""What goes over the wire of MQTT 3.1.1 and 5, as far as a subscriber needs it; no input or output happens here."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from msgspec import Struct

__all__ = [
    "CONNACK",
    "DISCONNECT",
    "MOST_BYTES",
    "PINGREQ",
    "PINGRESP",
    "PUBACK",
    "PUBCOMP",
    "PUBLISH",
    "PUBREC",
    "PUBREL",
    "SUBACK",
    "UNSUBACK",
    "BrokenPacketError",
    "Packet",
    "Properties",
    "Splitter",
    "acknowledgement",
    "connect",
    "disconnect",
    "read_properties",
    "read_publish",
    "subscribe",
    "unsubscribe",
]

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGRESP, DISCONNECT = 8, 9, 10, 11, 13, 14
PINGREQ = b"\xc0\x00"
MOST_BYTES = 65_535
"""How long a text (a topic, a client's name, a password) can be."""

_SHORT = struct.Struct(">H")
_LONG = struct.Struct(">I")
_PROPERTY_KINDS = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), "byte"),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), "short"),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), "long"),
    0x0B: "number",
    **dict.fromkeys((0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F), "bytes"),
    0x26: "pair",
}

Packet = tuple[int, bytes, int]
"""Its first byte, what follows its length, and how many bytes that were: more than are here if it was too long."""


class BrokenPacketError(ValueError):
    """The broker sent what is not MQTT."""


class Splitter:
    """Cuts a stream of bytes into packets. Of a packet longer than `limit` only so many first bytes are kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = 2
        self._skip = 0
        self._long: Packet | None = None

    def feed(self, data: bytes) -> list[Packet]:
        """Return the packets that end in these bytes. Raises BrokenPacketError."""
        packets: list[Packet] = []
        if self._long is not None:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            if self._skip:
                return packets
            packets.append(self._long)
            self._long, data = None, data[skipped:]
        self._pieces.append(data)
        self._have += len(data)
        if self._have < self._need:
            return packets
        buffer = b"".join(self._pieces) if len(self._pieces) > 1 else data
        place = self._cut(buffer, packets)
        self._pieces = [buffer[place:]] if place < len(buffer) else []
        self._have = max(0, len(buffer) - place)
        return packets

    def _cut(self, buffer: bytes, packets: list[Packet]) -> int:
        """Take whole packets from the buffer; return where the next one begins."""
        place, end = 0, len(buffer)
        while True:
            self._need = 2
            if end - place < 2:
                return place
            size, at = buffer[place + 1], place + 2
            if size > 127:
                try:
                    size, at = _number(buffer, place + 1)
                except IndexError:
                    self._need = end - place + 1
                    return place
            kept = min(size, self._limit)
            if end - at < kept:
                self._need = at - place + kept
                return place
            packet = (buffer[place], buffer[at : at + kept], size)
            place = at + size
            if place > end:
                self._skip, self._long = place - end, packet
                return place
            packets.append(packet)


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return a variable byte integer and the place behind it. Raises IndexError when the bytes end, BrokenPacketError."""
    value = 0
    for shift in (0, 7, 14, 21):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise BrokenPacketError("a length of more than four bytes")


def read_publish(first: int, body: bytes, *, v5: bool) -> tuple[bytes, int, int]:
    """Return topic, packet identifier (0 for QoS 0) and where the payload begins. Raises BrokenPacketError."""
    try:
        at = 2 + (body[0] << 8 | body[1])
        topic, mid = body[2:at], 0
        if first & 6:
            mid = body[at] << 8 | body[at + 1]
            at += 2
        if v5:
            size, at = _number(body, at)
            at += size
    except IndexError:
        at = len(body) + 1
    if at > len(body) or first & 6 == 6 or (first & 6 and not mid) or not topic:
        raise BrokenPacketError("a PUBLISH that is cut short, without a topic or without a packet identifier")
    return topic, mid, at


class Properties(Struct):
    """The properties of an MQTT 5 packet that a subscriber makes use of."""

    values: dict[int, int | bytes] = {}

    @property
    def reason(self) -> str:
        """What the broker says for people."""
        text = self.values.get(0x1F, b"")
        return text.decode(errors="replace") if isinstance(text, bytes) else ""

    def number(self, kind: int, default: int) -> int:
        """Return a property that is a number."""
        value = self.values.get(kind, default)
        return value if isinstance(value, int) else default


def read_properties(body: bytes, at: int) -> Properties:
    """Return the properties that begin there; a packet may end before them. Raises BrokenPacketError."""
    if at >= len(body):
        return Properties()
    values: dict[int, int | bytes] = {}
    try:
        size, at = _number(body, at)
        end = at + size
        while at < end:
            kind = body[at]
            values[kind], at = _property(_PROPERTY_KINDS[kind], body, at + 1)
    except (IndexError, KeyError, struct.error):
        raise BrokenPacketError("properties that are none of MQTT 5") from None
    return Properties(values)


def _property(kind: str, body: bytes, at: int) -> tuple[int | bytes, int]:
    if kind == "byte":
        return body[at], at + 1
    if kind == "short":
        return _SHORT.unpack_from(body, at)[0], at + 2
    if kind == "long":
        return _LONG.unpack_from(body, at)[0], at + 4
    if kind == "number":
        return _number(body, at)
    size = _SHORT.unpack_from(body, at)[0]
    at += 2
    if kind == "pair":
        return _property("bytes", body, at + size)
    return body[at : at + size], at + size


def _packet(first: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([first]) + length + bytes([size]) + body


def _text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return _SHORT.pack(len(raw)) + raw


def connect(
    client_id: str,
    *,
    v5: bool,
    clean: bool,
    keep_alive: int,
    username: str | None = None,
    password: str | None = None,
    session_expiry: int = 0,
    receive_maximum: int = 65_535,
) -> bytes:
    """Return a CONNECT."""
    flags = clean << 1 | (username is not None) << 7 | (password is not None) << 6
    body = _text("MQTT") + bytes([5 if v5 else 4, flags]) + _SHORT.pack(keep_alive)
    if v5:
        properties = b"\x11" + _LONG.pack(session_expiry) + b"\x21" + _SHORT.pack(receive_maximum)
        body += bytes([len(properties)]) + properties
    body += _text(client_id)
    body += b"".join(_text(value) for value in (username, password) if value is not None)
    return _packet(0x10, body)


def subscribe(mid: int, filters: Iterable[tuple[str, int]], *, v5: bool) -> bytes:
    """Return a SUBSCRIBE to filters, each with its options."""
    body = _SHORT.pack(mid) + (b"\0" if v5 else b"")
    return _packet(0x82, body + b"".join(_text(name) + bytes([options]) for name, options in filters))


def unsubscribe(mid: int, filters: Iterable[str], *, v5: bool) -> bytes:
    """Return an UNSUBSCRIBE."""
    body = _SHORT.pack(mid) + (b"\0" if v5 else b"")
    return _packet(0xA2, body + b"".join(map(_text, filters)))


def acknowledgement(kind: int, mid: int) -> bytes:
    """Return a PUBACK, PUBREC or PUBCOMP that says that all is well; the same in both versions."""
    return bytes([kind << 4, 2]) + _SHORT.pack(mid)


def disconnect(*, v5: bool) -> bytes:
    """Return a DISCONNECT that leaves the session as it is."""
    return b"\xe0\x00" if not v5 else b"\xe0\x02\x00\x00"
