"""One flow on its way into objects: taken, buffered in scratch files, then published as a whole or not at all.

A publication: what is about to be put is written down (the intent); the objects are put, under names that only this
publication has; then the log gets its entry. A crash before the entry leaves objects that no reader of the log takes and
that the next owner deletes, since the intent names them. Once a publication has begun, nothing is added to it, so that
each try puts the same bytes: one whose answer was lost, or that arrives late, changes nothing.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from msgspec import Struct, field
from msgspec.structs import asdict, replace

from collectors.chunks import Checkpoint, Delivery
from collectors.enums import ErrorType
from collectors.errors import FatalError, FencedError, TransientError
from collectors.storage.backends._lake_schema import LakeSchema
from collectors.storage.backends._object_store_client import Objects
from collectors.storage.backends._object_store_log import (
    Intent,
    ObjectEntry,
    ObjectLog,
    encoded_letters,
)
from collectors.storage.backends._object_store_scratch import Scratch
from collectors.storage.backends._parquet_buffer import FlowBuffer, RowFile, Waiting
from collectors.storage.backends._parquet_file import PartFile
from collectors.storage.backends._parquet_log import columns_of, file_name, part_prefix
from collectors.storage.backends._text_file import ENDINGS, TextFile, check_lines, lines_of
from collectors.storage.files import translated
from collectors.storage.positions import check_follows

__all__ = ["FlowObjects", "Layout"]

_LETTER_BYTES = 16 * 2**20


class _Publication(Struct):
    """One that has begun: its entry, the file of each object, and what has been put of it."""

    entry: ObjectEntry
    files: dict[str, Path]
    letters: bytes
    token: str
    intent: str = ""
    done: set[str] = field(default_factory=set)


class Layout(Struct, frozen=True):
    """How rows become objects."""

    partition_by: list[str]
    form: str
    compression: str

    @property
    def ending(self) -> str:
        """How the names of objects end."""
        return f".{self.form}" + ("" if self.form == "parquet" else ENDINGS[self.compression])


class FlowObjects(FlowBuffer):
    """One owner of a flow. `_entry` is the entry of the log that the owner builds on; only its own ones follow."""

    def __init__(
        self, objects: Objects, scratch: Scratch, flow: str, layout: Layout, lake: LakeSchema
    ) -> None:
        super().__init__(flow, layout.partition_by, lake)
        self._layout = layout
        self._objects = objects
        self._scratch = scratch
        self._name = file_name(flow)
        self._log = ObjectLog(objects, self._name)
        self._owner = secrets.token_hex(8)
        self._entry: ObjectEntry | None = None
        self._begun: _Publication | None = None

    @property
    def published(self) -> Checkpoint:
        """How far this owner knows the flow to be durable."""
        return self._entry.checkpoint if self._entry else Checkpoint(0)

    @property
    def many_letters(self) -> bool:
        """Whether the dead letters that wait should not become more."""
        letters = self._waiting.letters if self._waiting else []
        return sum(len(letter.raw) + len(letter.head) for letter in letters) >= _LETTER_BYTES

    def stored(self) -> Checkpoint:
        """Return how far the flow is durably stored, by whomever."""
        newest = self._log.last(self._entry)
        if newest and self._entry and newest.epoch == self._entry.epoch:
            self._go_on(newest)
        return newest.checkpoint if newest else Checkpoint(0)

    def adopt(self) -> None:
        """Go on where the log ends, as whoever it names as the owner."""
        self._entry = self._log.last()

    def claim(self) -> Checkpoint:
        """Take the flow over: from now on no other owner can publish anything."""
        self.discard()
        self.adopt()
        while True:
            before = self.published
            claimed = ObjectEntry(
                kind="claim",
                number=self._next_number(),
                flow=self._flow,
                epoch=before.epoch + 1,
                seq=before.seq,
                position=before.position,
                schema=before.schema,
                written_at=_now(),
                owner=self._owner,
                columns=self._entry.columns_at if self._entry else b"",
            )
            if self._log.put(claimed):
                break
            self.adopt()
        self._entry = claimed
        self._put_block()
        self._log.sweep(claimed.epoch)
        return claimed.checkpoint

    def take(self, delivery: Delivery) -> None:
        """Take a delivery that follows, once; it is durable only with `publish`.

        Raises FencedError when the flow is known to be another's or chunks are missing, FatalError or DataError for
        rows that cannot be stored (nothing of the delivery was taken), TransientError when the disk does not take it
        now: it is taken then, and the next call goes on writing.
        """
        if self._begun:
            self.publish()
        taken = self._waiting.last.key.seq if self._waiting else self.published.seq
        if check_follows(Checkpoint(self.published.epoch, taken), delivery):
            self.take_unchecked(delivery)
        if self._waiting and self._waiting.parts:
            self._check_scratch(self._waiting)
            with translated(self._scratch.folder(), "cannot write to"):
                for part in self._waiting.parts.values():
                    part.file.drain()

    def publish(self) -> None:
        """Make everything that was taken durable, in one step.

        Raises TransientError when the store does not take it now: the next call goes on. FencedError when the flow is
        another's.
        """
        if self._waiting is None:
            return
        try:
            self._check_scratch(self._waiting)
            if self._begun is None:
                self._begun = self._begin(self._waiting)
            self._publish(self._begun, self._waiting)
        except FatalError:
            self.discard()
            raise

    def discard(self) -> None:
        """Drop what was taken and not published; it is read again from the source."""
        self._begun = None
        super().discard()

    def _begin(self, waiting: Waiting) -> _Publication:
        for part in waiting.parts.values():
            with translated(part.file.path, "cannot write to"):
                part.file.finish()
        token, last = secrets.token_hex(8), waiting.last
        own = f"{waiting.first_seq:012d}-{last.key.epoch}-{token}"
        names = {
            folder: f"{folder}{part_prefix(self._name)}{own}{self._layout.ending}" for folder in waiting.parts
        }
        entry = ObjectEntry(
            kind="commit",
            number=self._next_number(),
            flow=self._flow,
            epoch=last.key.epoch,
            seq=last.key.seq,
            position=last.position,
            schema=last.schema,
            first_seq=waiting.first_seq,
            files=waiting.files(names),
            run=last.run,
            counts=asdict(waiting.counts),
            written_at=_now(),
            owner=self._owner,
            letters=self._log.letters_name(own) if waiting.letters else "",
            resolved=waiting.resolved,
            columns=self._columns(),
            drifts=self._schema.to_write_down(),
        )
        files = {names[folder]: part.file.path for folder, part in waiting.parts.items()}
        return _Publication(entry, files, encoded_letters(waiting.letters) if waiting.letters else b"", token)

    def _publish(self, begun: _Publication, waiting: Waiting) -> None:
        entry = begun.entry
        if entry.objects and not begun.intent:
            begun.intent = self._log.intend(entry.epoch, begun.token, Intent(entry.number, entry.objects))
        self._objects.each(lambda name: self._put_object(begun, name), entry.objects)
        while not self._log.put(begun.entry):
            if not self._renumbered(begun):
                self._lose(begun, waiting)
                return
        self._go_on(begun.entry)
        if begun.intent:
            self._log.forget_intent(begun.intent)
        self._put_block()

    def _put_object(self, begun: _Publication, name: str) -> None:
        if name in begun.done:
            return
        if name == begun.entry.letters:
            self._objects.put(name, begun.letters)
        else:
            path = begun.files[name]
            self._objects.upload(name, path, path.stat().st_size)
        begun.done.add(name)

    def _renumbered(self, begun: _Publication) -> bool:
        """Give the entry the next number when ours went to a deletion of rows: the flow is still ours, as it was."""
        newest = self._log.last(self._entry)
        if self._entry is None or newest is None or newest.number < begun.entry.number:
            return False
        if (newest.epoch, newest.seq) != (self._entry.epoch, self._entry.seq):
            return False
        self._entry = newest
        begun.entry = replace(begun.entry, number=newest.number + 1)
        return True

    def _lose(self, begun: _Publication, waiting: Waiting) -> None:
        """Find out what another entry with the number of ours means. Raises FencedError; not when it has all of ours."""
        newest = self._log.last(self._entry)
        try:
            if newest is None or check_follows(newest.checkpoint, waiting.last):
                raise FencedError(
                    f"{self._flow}: another process has stored something for this flow; chunks {waiting.first_seq} to "
                    f"{waiting.last.key.seq} were not stored; stop one of the two"
                )
            self._go_on(newest)
        finally:
            try:
                self._objects.delete(begun.entry.objects)
            except (TransientError, FatalError):
                pass  # the intent names them, for the next owner
            else:
                self._log.forget_intent(begun.intent)

    def _go_on(self, newest: ObjectEntry) -> None:
        """Build on an entry of ours; what it has is done."""
        self._entry = newest
        if self._waiting and newest.seq >= self._waiting.last.key.seq:
            self._schema.committed()
            self.discard()

    def _put_block(self) -> None:
        if self._entry is not None:
            with suppress(TransientError):  # it only saves requests
                self._log.put_block(self._entry.number)

    def _check_scratch(self, waiting: Waiting) -> None:
        for part in waiting.parts.values():
            if part.file.on_disk and not part.file.path.exists():
                raise FatalError(
                    f"{part.file.path} was deleted while it was waiting to be stored; chunks {waiting.first_seq} to "
                    f"{waiting.last.key.seq} are not stored; start again, and they are read again",
                    error_type=ErrorType.STORAGE,
                )

    def _check(self, table: pa.Table) -> None:
        if self._layout.form != "parquet":
            check_lines(table, self._layout.form)

    def _writable(self, table: pa.Table) -> pa.Table:
        form = self._layout.form
        return super()._writable(table) if form == "parquet" else lines_of(table, form)

    def _new_file(self, schema: pa.Schema, sample: pa.Table, epoch: int, number: int) -> RowFile:
        path = self._scratch.folder() / f"{self._owner}-{number}{self._layout.ending}"
        if self._layout.form == "parquet":
            return PartFile(path, schema, sample, durable=False)
        return TextFile(path, schema, self._layout.form, self._layout.compression)

    def _columns(self) -> bytes | int:
        last = self._entry
        if last is None:
            return self._schema.content(0, bytes)
        return self._schema.content(last.columns_at, lambda: columns_of(last, self._log.read))

    def _next_number(self) -> int:
        return self._entry.number + 1 if self._entry else 1


def _now() -> str:
    return datetime.now(UTC).isoformat()
