"""Event streams as the HTML standard has them (9.2.6): from bytes, however they come, to events."""

from __future__ import annotations

from msgspec import Struct

from collectors.collection.sources._cutting import SAMPLE_BYTES

__all__ = ["MESSAGE", "Event", "Parser"]

MESSAGE = "message"
"""The name of an event that has none."""
_BOM = b"\xef\xbb\xbf"
_MAX_NAME_BYTES = 8 * 1024
"""An id goes into a header, and servers take no longer ones; a name is shown in messages."""
_MAX_DIGITS = 18
_FIELD_BYTES = 16
"""So much of a line is its field's name, at most, for fields that there are."""


class Event(Struct):
    """What a blank line has ended; with a `reason`, one that cannot be handed on, with as much of its data as was kept."""

    data: bytes
    name: str
    id: str
    """The last id that the stream had by then, of this event or of one before."""
    reason: str | None = None


class Parser:
    """Feed it one response, piece by piece. It holds no more than an event of `limit` bytes, of data, and a line.

    `last_id` is what a reconnect asks to go on behind, `retry` what the server wants it to wait, in milliseconds. An event
    that the stream broke off in is no event, and leaves `last_id` as it was.
    """

    def __init__(self, limit: int, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry: int | None = None
        self._limit = limit
        self._head: bytes | None = b""
        self._after_return = False
        self._line = bytearray()
        self._left_out = 0
        self._id = last_id
        self._name = b""
        self._data = bytearray()
        self._size = 0
        self._reason: str | None = None

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that end in these bytes."""
        if self._head is not None:
            data = self._head + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._head = data
                return []
            data, self._head = data.removeprefix(_BOM), None
        if self._after_return and data:
            data, self._after_return = data.removeprefix(b"\n"), False
        if b"\r" in data:
            self._after_return = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = data.split(b"\n")
        events: list[Event] = []
        if lines and self._line:
            lines[0], self._line = bytes(self._line) + lines[0], bytearray()
        for line in lines:
            if line:
                self._take(line)
            elif (event := self._end()) is not None:
                events.append(event)
            self._left_out = 0
        self._hold(rest)
        return events

    def _hold(self, rest: bytes) -> None:
        """Keep the beginning of a line; no more of it than an event may have."""
        self._line += rest
        most = max(self._limit, _MAX_NAME_BYTES) + _FIELD_BYTES
        if len(self._line) > most:
            self._left_out += len(self._line) - most
            del self._line[most:]

    def _take(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            self._add(value)
        elif field == b"id":
            if b"\0" not in value and self._is_short("id", value):
                self._id = value.decode(errors="replace")
        elif field == b"event":
            if self._is_short("name", value):
                self._name = value
        elif field == b"retry" and value.isdigit() and len(value) <= _MAX_DIGITS:
            self.retry = int(value)

    def _add(self, value: bytes) -> None:
        self._size += len(value) + self._left_out + 1
        if self._size - 1 <= self._limit:
            self._data += value
            self._data += b"\n"
        elif len(self._data) <= SAMPLE_BYTES:
            self._data += value[:SAMPLE_BYTES]
            self._data += b"\n"

    def _is_short(self, what: str, value: bytes) -> bool:
        size = len(value) + self._left_out
        if size <= _MAX_NAME_BYTES:
            return True
        self._reason = f"the {what} of the event has {size:,} bytes, more than {_MAX_NAME_BYTES:,}"
        return False

    def _end(self) -> Event | None:
        """Dispatch the event, if it has data."""
        self.last_id = self._id
        data, size, name, reason = self._data, self._size - 1, self._name, self._reason
        self._data, self._size, self._name, self._reason = bytearray(), 0, b"", None
        if not data:
            return None
        shown = name.decode(errors="replace") or MESSAGE
        if size > self._limit:
            reason = f"the event has {size:,} bytes, more than max_record ({self._limit:,})"
        raw = bytes(data[:-1]) if reason is None else bytes(data[: min(SAMPLE_BYTES, len(data) - 1)])
        return Event(raw, shown, self.last_id, reason)
