"""The log of a flow in an object store: `_collectors/log/<flow>/<number>.json`, each entry put only if it is not there.

It is the log of `parquet` with other means. An entry claims the flow or commits objects; whoever wants to add one puts
it under the number behind the last, and of two owners one gets it. Names count down, so that the newest entry is the
first that a store lists, however many there are. Each `BLOCK` of entries is put together once more as one object, which
saves requests; it is never needed.
"""

from __future__ import annotations

import gzip
import secrets
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import dropwhile, takewhile
from typing import Any, Literal

import msgspec

from collectors.chunks import DeadLetter
from collectors.enums import ErrorType
from collectors.errors import FatalError, TransientError
from collectors.storage.backends._object_store_client import Objects
from collectors.storage.backends._parquet_log import Entry, file_name

__all__ = [
    "BLOCK",
    "Intent",
    "Letters",
    "ObjectEntry",
    "ObjectLog",
    "check_conditional",
    "encoded_letters",
    "object_logs",
    "standing",
]

BLOCK = 64
_HIGHEST = 10**12 - 1
_FORMAT = "_collectors/format.json"


class ObjectEntry(Entry, frozen=True):
    """One entry; `owner` is another for each run, so that an entry is known again as one's own."""

    owner: str = ""
    letters: str = ""
    """The object with the dead letters of the commit."""
    resolved: list[tuple[str, str]] = []
    """The keys of letters that the commit has deleted."""
    replaces: list[int] = []
    """The numbers of entries whose rows are in the objects of this one, or, when it has none, were deleted."""

    @property
    def objects(self) -> list[str]:
        """The names of all objects that the entry commits."""
        return [*(file.name for file in self.files), *([self.letters] if self.letters else [])]

    def behind(self, kind: Literal["compact", "remove"], **fields: Any) -> ObjectEntry:
        """Return the entry behind this one that changes nothing but what its fields say."""
        entry = ObjectEntry(
            kind=kind,
            number=self.number + 1,
            flow=self.flow,
            epoch=self.epoch,
            seq=self.seq,
            position=self.position,
            schema=self.schema,
            written_at=datetime.now(UTC).isoformat(),
            columns=self.columns,
            owner=secrets.token_hex(8),
        )
        return msgspec.structs.replace(entry, **fields)


class Intent(msgspec.Struct, frozen=True):
    """Which objects are about to be put, for the entry with this number."""

    number: int
    objects: list[str]


class ObjectLog:
    """The log of one flow; `name` is what `file_name` gives. Raises as `Objects`, and FatalError for a bad entry."""

    def __init__(self, objects: Objects, name: str) -> None:
        self._objects = objects
        self._folder = f"_collectors/log/{name}"
        self._blocks = f"_collectors/blocks/{name}"
        self._deleted = f"_collectors/deleted/{name}"
        self._intents = f"_collectors/intent/{name}"
        self._letters = f"_collectors/letters/{name}"

    def last(self, known: ObjectEntry | None = None) -> ObjectEntry | None:
        """Return the newest entry; `known` is one from which it cannot be far."""
        if known is not None:
            while (following := self.read(known.number + 1)) is not None:
                known = following
            return known
        first = self._objects.first(f"{self._folder}/")
        return self._there(_number(first)) if first else None

    def read(self, number: int) -> ObjectEntry | None:
        """Return the entry with this number; None: there is none."""
        name = self._path(number)
        content = self._objects.get(name)
        return None if content is None else _decoded(content, self._objects.url(name))

    def put(self, entry: ObjectEntry) -> bool:
        """Add an entry; False when another one has its number. True also when an earlier try had done it."""
        content = msgspec.json.encode(entry.checked())
        return (
            self._objects.put_new(self._path(entry.number), content)
            or self._objects.get(self._path(entry.number)) == content
        )

    def entries(self, *, newest_first: bool = False) -> Iterator[ObjectEntry]:
        """Yield all entries, a block at a time."""
        newest = self.last()
        blocks = range(1, newest.number + 1, BLOCK) if newest else range(0)
        for first in reversed(blocks) if newest_first else blocks:
            found = self._block(first, newest.number if newest else 0)
            yield from reversed(found) if newest_first else found

    def of_run(self, run: str) -> list[ObjectEntry]:
        """Return the commits of a run, the newest first; entries from long before it began are not read."""
        earliest = _earliest(run)
        commits = (entry for entry in self.entries(newest_first=True) if entry.kind == "commit")
        recent = takewhile(lambda entry: entry.written_at >= earliest, commits)
        later = dropwhile(lambda entry: entry.run != run, recent)
        return list(takewhile(lambda entry: entry.run == run, later))

    def put_block(self, last: int) -> None:
        """Put the entries up to this one together, when they fill a block."""
        if last % BLOCK == 0:
            entries = self._read_each(last - BLOCK + 1, last)
            content = gzip.compress(msgspec.json.encode(entries), mtime=0)
            self._objects.put(f"{self._blocks}/{last:012d}.json.gz", content)

    def delete_replaced(self, entries: Sequence[ObjectEntry]) -> None:
        """Delete the objects of these entries, which another entry has replaced, and write down that they are gone."""
        self._objects.delete(file.name for entry in entries for file in entry.files)
        for entry in entries:
            self._objects.put(f"{self._deleted}/{_HIGHEST - entry.number:012d}", b"")

    def delete_left(self) -> None:
        """Delete what others have replaced and not deleted, since they died; anybody may do that."""
        entries = list(self.entries())
        left = {number for entry in entries for number in entry.replaces}
        left -= {_number(name) for name in self._objects.names(f"{self._deleted}/")}
        self.delete_replaced([entry for entry in entries if entry.number in left])

    def intend(self, epoch: int, token: str, intent: Intent) -> str:
        """Write down which objects are about to be put; returns a name for `forget_intent`."""
        name = f"{self._intents}/{epoch:012d}-{token}.json"
        self._objects.put(name, msgspec.json.encode(intent))
        return name

    def forget_intent(self, name: str) -> None:
        """Drop what `intend` wrote, once the objects are committed; left where that fails, it does no harm."""
        with suppress(TransientError):
            self._objects.delete([name])

    def sweep(self, epoch: int) -> None:
        """Delete objects that earlier owners have left without committing them; only for who has claimed this epoch.

        What they still put is never committed, since their entries cannot be put any more.
        """
        for name in self._objects.names(f"{self._intents}/"):
            if int(name.rpartition("/")[2].partition("-")[0]) >= epoch:
                continue
            content = self._objects.get(name) or b""
            with suppress(msgspec.DecodeError):
                intent = msgspec.json.decode(content, type=Intent)
                if not self._has(intent):
                    self._objects.delete(intent.objects)
            self._objects.delete([name])

    def letters_name(self, part: str) -> str:
        """Return the name of an object for dead letters."""
        return f"{self._letters}/{part}.json.gz"

    def _has(self, intent: Intent) -> bool:
        """Return whether an entry has committed the objects: the one with this number, or one behind a deletion."""
        number = intent.number
        while (entry := self.read(number)) is not None:
            if entry.objects == intent.objects:
                return True
            number += 1
        return False

    def _block(self, first: int, newest: int) -> list[ObjectEntry]:
        last = first + BLOCK - 1
        if last <= newest:
            name = f"{self._blocks}/{last:012d}.json.gz"
            content = self._objects.get(name)
            with suppress(OSError, EOFError, zlib.error, msgspec.DecodeError):
                if content is not None:
                    found = msgspec.json.decode(gzip.decompress(content), type=list[ObjectEntry])
                    if [entry.number for entry in found] == list(range(first, last + 1)) and all(
                        entry == entry.checked() for entry in found
                    ):
                        return found
        return self._read_each(first, min(last, newest))

    def _read_each(self, first: int, last: int) -> list[ObjectEntry]:
        return self._objects.each(self._there, range(first, last + 1))

    def _there(self, number: int) -> ObjectEntry:
        entry = self.read(number)
        if entry is None:
            raise FatalError(
                f"{self._objects.url(self._path(number))} is missing; nothing was read or stored; restore it from a "
                "copy",
                error_type=ErrorType.STORAGE,
            )
        return entry

    def _path(self, number: int) -> str:
        return f"{self._folder}/{_HIGHEST - number:012d}.json"


class Letters:
    """The dead letters of all flows: their objects, and the keys of those that were deleted by hand."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def of(self, pipeline: str) -> Iterator[DeadLetter]:
        """Yield the letters of a pipeline that were not deleted, in the order in which they were set aside."""
        logs = object_logs(self._objects, pipeline)
        found = self._objects.each(lambda log: [each for each in log.entries() if _has_letters(each)], logs)
        entries = sorted((entry for each in found for entry in each), key=_order)
        gone = {key for entry in entries for key in entry.resolved} | self._forgotten(pipeline)
        for entry in entries:
            for letter in self._read(entry.letters) if entry.letters else []:
                if letter.pipeline == pipeline and letter.key not in gone:
                    yield letter

    def forget(self, pipeline: str, keys: list[tuple[str, str]], token: str) -> None:
        """Delete letters; `token` makes the name of the object that says so."""
        self._objects.put(
            f"_collectors/forgotten/{file_name(pipeline)}/{token}.json", msgspec.json.encode(keys)
        )

    def _forgotten(self, pipeline: str) -> set[tuple[str, str]]:
        names = self._objects.names(f"_collectors/forgotten/{file_name(pipeline)}/")
        found = self._objects.each(self._objects.get, names)
        return {
            key
            for content in found
            if content
            for key in msgspec.json.decode(content, type=list[tuple[str, str]])
        }

    def _read(self, name: str) -> list[DeadLetter]:
        content = self._objects.get(name)
        try:
            if content is None:
                raise ValueError("it is gone")
            return msgspec.json.decode(gzip.decompress(content), type=list[DeadLetter])
        except (ValueError, OSError, EOFError, zlib.error) as error:
            raise FatalError(
                f"the dead letters in {self._objects.url(name)} cannot be read ({error}); restore it from a copy",
                error_type=ErrorType.STORAGE,
            ) from error


def encoded_letters(letters: list[DeadLetter]) -> bytes:
    """Return letters as `Letters` reads them."""
    plain = [
        msgspec.structs.replace(letter, reason=letter.reason.encode("utf-8", "backslashreplace").decode())
        for letter in letters
    ]
    return gzip.compress(msgspec.json.encode(plain), mtime=0)


def standing(entries: Iterable[ObjectEntry]) -> list[ObjectEntry]:
    """Return which of the entries of some logs hold rows: those that no other has replaced, in the order of their first rows."""
    orders: dict[tuple[str, int], tuple[str, str, int]] = {}
    found: dict[tuple[str, int], ObjectEntry] = {}
    for entry in entries:
        replaced = [(entry.flow, number) for number in entry.replaces]
        orders[entry.flow, entry.number] = orders[replaced[0]] if replaced else _order(entry)
        found[entry.flow, entry.number] = entry
        for each in replaced:
            del found[each]
    return sorted(found.values(), key=lambda entry: orders[entry.flow, entry.number])


def object_logs(objects: Objects, beginning: str = "") -> list[ObjectLog]:
    """Return the logs of all flows; with `beginning` those of its flows, maybe with a few others."""
    own, below = file_name(beginning), file_name(f"{beginning}/")[:100]
    return [
        ObjectLog(objects, name)
        for name in objects.folders("_collectors/log/")
        if not beginning or name == own or name.startswith(below)
    ]


def check_conditional(objects: Objects) -> None:
    """Raise FatalError when the store overwrites what it was told to put only if it is not there."""
    content = b'{"format":1}'
    if objects.put_new(_FORMAT, content) and objects.put_new(_FORMAT, content):
        raise FatalError(
            f"{objects.url('')}: the store overwrites objects that it was asked to put only if they are not there "
            "(If-None-Match), so two runs could overwrite each other; nothing was stored; use a newer version of "
            "it, another store, or one of the other backends",
            error_type=ErrorType.STORAGE,
        )


def _decoded(content: bytes, url: str) -> ObjectEntry:
    try:
        entry = msgspec.json.decode(content, type=ObjectEntry)
        if entry != entry.checked():
            raise ValueError("its checksum is wrong")
        return entry
    except ValueError as error:
        raise FatalError(
            f"{url} is damaged ({error}); nothing was read or stored; restore it from a copy",
            error_type=ErrorType.STORAGE,
        ) from error


def _earliest(run: str) -> str:
    """Return a time before which a run that is named by its beginning has stored nothing, whatever its clock."""
    with suppress(ValueError):
        began = datetime.strptime(run.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        return (began - timedelta(days=1)).isoformat()
    return ""


def _number(name: str) -> int:
    return _HIGHEST - int(name.rpartition("/")[2].partition(".")[0])


def _has_letters(entry: ObjectEntry) -> bool:
    return bool(entry.letters or entry.resolved)


def _order(entry: ObjectEntry) -> tuple[str, str, int]:
    return entry.written_at, entry.flow, entry.number
