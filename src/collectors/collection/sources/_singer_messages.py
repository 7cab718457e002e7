"""From the lines that a Singer tap writes to the pieces of chunks, each with the position behind it.

A piece ends at a STATE wherever it can: what lies before one need not be asked for again, whatever the tap is like.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from collectors.errors import FatalError
from collectors.models import Position

__all__ = ["Changed", "Mark", "Piece", "Sorter"]

_NO_RAW = Raw(b"")
_NOT_RESUMABLE = frozenset({"progress_markers", "replication_key_signpost", "starting_replication_value"})
"""What the Singer SDK keeps in a bookmark while a stream runs; a tap that is started with them begins the stream anew."""


_RECENT = 16
"""So many of the last records of a stream in front of a STATE are known again."""


class Changed(Exception):  # noqa: N818  # no error: what happens next is up to who catches it
    """The tap does not give once more what it gave behind the STATE that it was started with."""


class Mark(Struct, frozen=True):
    """A place in what a tap writes: the last STATE, how many records came behind it, and the imprint of those.

    The state is kept as the tap wrote it, so that no digit of it changes. `last` has for each stream the imprints of the
    last records in front of the STATE, since many taps begin with some of them.
    """

    state: str | None = None
    records: int = 0
    imprint: str = ""
    last: dict[str, list[str]] = {}

    @classmethod
    def of(cls, position: Position | None) -> Mark:
        """Return what a position means."""
        try:
            return msgspec.convert(position or {}, cls)
        except msgspec.ValidationError as error:
            raise FatalError(f"the position is not one of a Singer tap: {error}") from None

    def position(self) -> Position:
        """Return it as a position."""
        return msgspec.structs.asdict(self)


class Piece(Struct, frozen=True):
    """Records as lines of JSON, and the place behind them; with a `reason`, one line that is refused."""

    raw: bytes
    mark: Mark
    reason: str | None = None


class _Record(Struct, frozen=True):
    """A record on its way: its stream, its imprint, and the line that it becomes."""

    stream: str
    imprint: str
    raw: bytes


class _Overlap:
    """Knows again, at the beginning of a stream, the last records in front of the STATE that the tap was started with.

    They have to come as they came before, up to the very last of them; else they are something new.
    """

    def __init__(self, last: list[str]) -> None:
        self.over = not last
        self._last = last
        self._expected: list[str] = []
        self._held: list[_Record] = []

    def take(self, record: _Record) -> list[_Record]:
        """Return the records that are new; one that may be known already is held back."""
        if self._held:
            expected = self._expected.pop()
        else:
            places = [place for place, imprint in enumerate(self._last) if imprint == record.imprint]
            self._expected = self._last[places[-1] + 1 :][::-1] if places else []
            expected = record.imprint if places else ""
        self._held.append(record)
        if expected != record.imprint:
            return self.give_up()
        if not self._expected:
            self.over, self._held = True, []
        return []

    def give_up(self) -> list[_Record]:
        """Return what was held back: nothing more comes that could tell."""
        self.over, held = True, self._held
        self._held = []
        return held


class _Message(Struct):
    """One line; what is not needed for every record is read when it is."""

    type: str
    stream: str | None = None
    record: Raw = _NO_RAW
    value: Raw = _NO_RAW
    version: Raw = _NO_RAW
    time_extracted: Raw = _NO_RAW
    key_properties: Raw = _NO_RAW


class Sorter:
    """Give it the lines of one run of a tap that was started with the state of `since`; take pieces.

    What the tap gives once more, as `since` remembers it, is left out. Raises `Changed` when it is something else.
    `streams` are those whose records are wanted (empty: all). `label` adds the column `_stream` to each record,
    `metadata` when it was extracted and the version of its table, as far as the tap says so. `tell_once` takes the name
    of a remark, and the remark.
    """

    def __init__(
        self,
        since: Mark,
        limit: int,
        tell_once: Callable[[str, str], None],
        *,
        streams: Collection[str] = (),
        label: bool = False,
        metadata: bool = False,
    ) -> None:
        self.keys: dict[str, list[str]] = {}
        self._since = since
        self._state = since.state
        self._meaning = _meaning(since.state)
        self._records = 0
        self._hash = hashlib.blake2b(digest_size=8)
        self._last = since.last
        self._recent = {stream: deque(last, _RECENT) for stream, last in since.last.items()}
        self._overlaps = {stream: _Overlap(last) for stream, last in since.last.items()}
        self._skipping = since.records > 0
        self._limit = limit
        self._tell_once = tell_once
        self._streams = streams
        self._label = label
        self._metadata = metadata
        self._ready: list[Piece] = []
        self._held: list[Piece] = []
        self._lines: list[bytes] = []
        self._size = 0
        self._safe: tuple[int, Mark] | None = None

    def feed(self, line: bytes) -> None:
        """Take one line of the tap. Raises FatalError for what would lose records."""
        if not line or line.isspace():
            return
        try:
            message = _decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.refuse(line, f"the tap wrote a line that is no Singer message: {error}")
            return
        if message.type == "RECORD":
            self._record(message, line)
        elif message.type == "STATE":
            self._take_state(message, line)
        elif message.type == "SCHEMA":
            self._take_schema(message)
        elif not message.stream or self._wants(message.stream):
            self._other(message, line)

    def refuse(self, raw: bytes, reason: str) -> None:
        """Set one line of the tap aside."""
        before = self._mark()
        if self._count(b"", hashlib.blake2b(raw, digest_size=8).hexdigest()):
            return
        if self._safe is not None:
            self._cut(*self._safe)
        self._close(before)
        self._held.append(Piece(raw, self._mark(), reason))
        self._grow(len(raw))

    def take(self) -> list[Piece]:
        """Return what may be handed on by now."""
        if self._safe is not None:
            self._cut(*self._safe)
        pieces, self._ready = self._ready, []
        return pieces

    def finish(self) -> list[Piece]:
        """Return the rest: the tap has come to its end, and all is well."""
        self._give_up_overlaps()
        if self._skipping and self._records:
            raise Changed
        if self._skipping and self._state != self._since.state:
            self._safe = (0, self._mark())
        pieces = self.take()
        self._close(self._mark())
        return pieces + self._held

    def _record(self, message: _Message, line: bytes) -> None:
        stream = message.stream
        raw = bytes(message.record)
        if stream is None or not raw.startswith(b"{"):
            self.refuse(
                line, "the tap wrote a RECORD without " + ("a stream" if stream is None else "a record")
            )
            return
        if not self._wants(stream):
            self._tell_once(
                f"stream {stream}", f"records of the stream '{stream}' come from the tap and are left out"
            )
            return
        imprint = hashlib.blake2b(raw, digest_size=8).hexdigest()
        record = _Record(stream, imprint, self._with_columns(raw, message))
        overlap = self._overlaps.get(stream)
        if overlap is None or overlap.over or not self.keys.get(stream):
            self._accept(record)
            return
        for each in overlap.take(record):
            self._accept(each)

    def _wants(self, stream: str) -> bool:
        return not self._streams or stream in self._streams

    def _accept(self, record: _Record) -> None:
        recent = self._recent.get(record.stream)
        if recent is None:
            recent = self._recent[record.stream] = deque(maxlen=_RECENT)
        recent.append(record.imprint)
        if not self._count(record.stream.encode(), record.imprint):
            self._lines.append(record.raw)
            self._grow(len(record.raw) + 1)

    def _give_up_overlaps(self) -> None:
        for overlap in self._overlaps.values():
            for record in overlap.give_up():
                self._accept(record)

    def _with_columns(self, raw: bytes, message: _Message) -> bytes:
        more: list[bytes] = []
        if self._label:
            more.append(b'"_stream":' + _encode(message.stream))
        if self._metadata:
            more.append(b'"_sdc_extracted_at":' + (bytes(message.time_extracted) or b"null"))
            more.append(b'"_sdc_table_version":' + (bytes(message.version) or b"null"))
        if not more:
            return raw
        body = raw[:-1].rstrip()
        return body + (b"" if body == b"{" else b",") + b",".join(more) + b"}"

    def _take_state(self, message: _Message, line: bytes) -> None:
        try:
            state = str(bytes(message.value), "utf-8")
            if state == self._state:
                return
            meaning = _meaning(state) if state.startswith("{") else ...
        except (msgspec.DecodeError, UnicodeDecodeError):
            meaning = ...
        if meaning is ...:
            self.refuse(line, "the tap wrote a STATE whose value is no JSON object")
            return
        if meaning == self._meaning:
            return
        self._give_up_overlaps()
        if self._skipping and self._records:
            raise Changed
        self._state, self._meaning = state, meaning
        self._last = {stream: list(recent) for stream, recent in self._recent.items()}
        self._records = 0
        self._hash = hashlib.blake2b(digest_size=8)
        if not self._skipping:
            self._ready += self._held
            self._held = []
            self._safe = (len(self._lines), self._mark())

    def _take_schema(self, message: _Message) -> None:
        if message.stream is not None and self._wants(message.stream):
            try:
                keys = msgspec.json.decode(message.key_properties or b"null", type=list[str] | None)
            except msgspec.ValidationError:
                keys = None
            self.keys[message.stream] = keys or []

    def _other(self, message: _Message, line: bytes) -> None:
        if message.type == "BATCH":
            raise FatalError(
                f"the tap hands over the records of the stream '{message.stream}' in files (BATCH), which are not read; "
                "take `batch_config` out of its settings"
            )
        if message.type == "ACTIVATE_VERSION":
            self._tell_once(
                f"version of {message.stream}",
                f"the tap says that of the stream '{message.stream}' only rows of version {_text(message.version)} "
                "count from now on; rows of earlier versions stay in the storage. With `metadata: true` the column "
                "_sdc_table_version tells them apart",
            )
            return
        self._tell_once(
            f"type {message.type}",
            f"the tap writes messages of the type '{message.type[:50]}', which nothing is known about; the first: "
            + line[:200].decode(errors="replace"),
        )

    def _count(self, stream: bytes, imprint: str) -> bool:
        """Count what is handed on, and return whether it was handed on before. Raises Changed."""
        self._records += 1
        self._hash.update(b"%b %b\n" % (stream, imprint.encode()))
        if not self._skipping:
            return False
        if self._records == self._since.records:
            if self._hash.hexdigest() != self._since.imprint:
                raise Changed
            self._skipping = False
        return True

    def _mark(self) -> Mark:
        imprint = self._hash.hexdigest() if self._records else ""
        return Mark(self._state, self._records, imprint, self._last)

    def _grow(self, size: int) -> None:
        """Add to what waits for a STATE; hand it on without one when it is too much."""
        self._size += size
        if self._size < self._limit:
            return
        if self._safe is not None:
            self._cut(*self._safe)
        if self._size >= self._limit:
            self._close(self._mark())
            self._ready += self._held
            self._held = []
            self._size = 0

    def _close(self, mark: Mark) -> None:
        if self._lines:
            self._held.append(Piece(_joined(self._lines), mark))
            self._lines = []

    def _cut(self, count: int, mark: Mark) -> None:
        """Hand on what came before a STATE: the first lines, or nothing but the place itself."""
        self._safe = None
        if count:
            self._ready.append(Piece(_joined(self._lines[:count]), mark))
            del self._lines[:count]
        elif self._ready:
            self._ready[-1] = replace(self._ready[-1], mark=mark)
        else:
            self._ready.append(Piece(b"", mark))
        self._size = sum(len(line) + 1 for line in self._lines)


def _joined(lines: list[bytes]) -> bytes:
    return b"\n".join(lines) + b"\n"


def _meaning(state: str | None) -> Any:
    """Return what a tap would go on from, of a state: without what it only remembers while a stream runs."""
    return None if state is None else _plain(msgspec.json.decode(state))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        members = {key: _plain(item) for key, item in value.items() if key not in _NOT_RESUMABLE}
        return {key: item for key, item in members.items() if item is not None} or None
    if isinstance(value, list):
        return [_plain(item) for item in value] or None
    return value


def _text(raw: Raw) -> str:
    return str(bytes(raw), "utf-8", "replace") or "?"


_decode = msgspec.json.Decoder(_Message).decode
_encode = msgspec.json.Encoder().encode
