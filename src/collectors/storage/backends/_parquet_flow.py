"""One flow on its way into files: taken, buffered in scratch files, then published as a whole or not at all.

A publication: the files are finished and fsynced; their names are written down (the intent), given (rename) and made
durable (fsync of the folders); then the log gets its entry. A crash before the entry leaves files that the next owner
deletes, since the intent names them; a crash behind it leaves nothing to do.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from msgspec.structs import asdict, replace

from collectors.chunks import Checkpoint, Delivery
from collectors.enums import ErrorType
from collectors.errors import FatalError, FencedError
from collectors.storage.backends._lake_schema import LakeSchema
from collectors.storage.backends._parquet_buffer import FlowBuffer, Waiting
from collectors.storage.backends._parquet_file import PartFile
from collectors.storage.backends._parquet_log import (
    Entry,
    FlowLog,
    columns_of,
    delete_files,
    file_name,
    part_name,
)
from collectors.storage.backends._parquet_merged import settle
from collectors.storage.files import make_folders, sync_folder, translated
from collectors.storage.positions import check_follows

__all__ = ["FlowFiles"]


class FlowFiles(FlowBuffer):
    """One owner of a flow. `_entry` is the entry of the log that the owner builds on; only its own ones follow."""

    def __init__(self, root: Path, flow: str, partition_by: list[str], lake: LakeSchema) -> None:
        super().__init__(flow, partition_by, lake)
        self._root = root
        self._log = FlowLog(root, file_name(flow))
        self._entry: Entry | None = None

    @property
    def published(self) -> Checkpoint:
        """How far this owner knows the flow to be durable."""
        return self._entry.checkpoint if self._entry else Checkpoint(0)

    def stored(self) -> Checkpoint:
        """Return how far the flow is durably stored, by whomever."""
        with translated(self._root, "cannot read the log in"):
            newest = self._log.last(durable=True)
        if newest and self._entry and newest.epoch == self._entry.epoch:
            self._entry = newest
            if self._waiting and newest.seq >= self._waiting.last.key.seq:
                self._schema.committed()
                self._waiting = None
        return newest.checkpoint if newest else Checkpoint(0)

    def adopt(self) -> None:
        """Go on where the log ends, as whoever it names as the owner."""
        with translated(self._root, "cannot read the log in"):
            self._entry = self._log.last()

    def make(self) -> None:
        """Make the folders of the log."""
        with translated(self._root, "cannot write to"):
            self._log.make()

    def claim(self) -> Checkpoint:
        """Take the flow over: from now on no other owner can publish anything."""
        self.discard()
        self.make()
        with translated(self._root, "cannot write to"):
            while True:
                self._entry = self._log.last()
                before = self.published
                claimed = Entry(
                    kind="claim",
                    number=self._next_number(),
                    flow=self._flow,
                    epoch=before.epoch + 1,
                    seq=before.seq,
                    position=before.position,
                    schema=before.schema,
                    written_at=_now(),
                    columns=self._entry.columns_at if self._entry else b"",
                )
                if self._log.put(claimed):
                    break
            self._entry = claimed
            self._log.sweep(claimed.epoch)
            settle(self._root, self._log, claimed.epoch)
        return claimed.checkpoint

    def take(self, delivery: Delivery) -> None:
        """Take a delivery that follows, once; it is durable only with `publish`.

        Raises FencedError when the flow is another's or chunks are missing, FatalError or DataError for rows that
        cannot be stored (nothing of the delivery was taken), TransientError when the disk does not take it now: it is
        taken then, and the next call goes on writing.
        """
        with translated(self._root, "cannot read the log in"):
            if self._log.read(self._next_number()) is not None:
                before, newest = self.published, self.stored()
                if (newest.epoch, newest.seq) != (before.epoch, before.seq):  # else rows were deleted
                    check_follows(newest, delivery)
        taken = self._waiting.last.key.seq if self._waiting else self.published.seq
        if check_follows(Checkpoint(self.published.epoch, taken), delivery):
            self.take_unchecked(delivery)
        self._drain()

    def publish(self) -> None:
        """Make everything that was taken durable, in one step.

        Raises TransientError when the disk does not take it now: the next call goes on. FencedError when the flow is
        another's, FatalError when scratch files are gone.
        """
        waiting = self._waiting
        if waiting is None:
            return
        try:
            with translated(self._root, "cannot write to"):
                entry = self._publish(waiting)
        except FatalError:
            self.discard()
            raise
        self._schema.committed()
        self._entry, self._waiting = entry, None

    def _publish(self, waiting: Waiting) -> Entry:
        self._check_scratch(waiting)
        for part in waiting.parts.values():
            part.file.finish()
        name = part_name(self._flow, waiting.last.key.epoch, waiting.first_seq)
        names = {folder: folder + name for folder in waiting.parts}
        if names:
            self._log.intend(waiting.last.key.epoch, list(names.values()))
        for folder, part in waiting.parts.items():
            if folder:
                make_folders(self._root / folder)
            _give_name(part.file.path, self._root / names[folder])
        for parent in {(self._root / each).parent for each in names.values()}:
            sync_folder(parent)
        entry = self._commit_entry(waiting, names)
        while not self._log.put(entry) and not self._log.is_there(entry):
            newest = self._log.last()
            if self._entry and newest and _only_deleted(self._entry, newest):
                self._entry, entry = newest, replace(entry, number=newest.number + 1)
                continue
            delete_files(self._root, list(names.values()))
            raise FencedError(
                f"{self._flow}: another process has taken this flow over while chunks {entry.first_seq} to "
                f"{entry.seq} were being stored; none of them was; stop one of the two"
            )
        self._log.forget_intent(entry.epoch)
        return entry

    def _drain(self) -> None:
        with translated(self._root, "cannot write to"):
            for part in self._waiting.parts.values() if self._waiting else ():
                part.file.drain()

    def _new_file(self, schema: pa.Schema, sample: pa.Table, epoch: int, number: int) -> PartFile:
        return PartFile(self._log.scratch_path(epoch, number), schema, sample)

    def _check_scratch(self, waiting: Waiting) -> None:
        """Tell a folder that is away, which may come back, from scratch files that somebody deleted."""
        self._log.check_folder()
        name = part_name(self._flow, waiting.last.key.epoch, waiting.first_seq)
        for folder, part in waiting.parts.items():
            file = part.file
            if file.on_disk and not file.path.exists() and not (self._root / folder / name).exists():
                check_follows(self.stored(), waiting.last)
                raise FatalError(
                    f"{file.path} was deleted while it was being written; chunks {waiting.first_seq} to "
                    f"{waiting.last.key.seq} are not stored; start again, and they are read again",
                    error_type=ErrorType.STORAGE,
                )

    def _commit_entry(self, waiting: Waiting, names: dict[str, str]) -> Entry:
        last = waiting.last
        return Entry(
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
            columns=self._columns(),
            drifts=self._schema.to_write_down(),
        )

    def _columns(self) -> bytes | int:
        last = self._entry
        if last is None:
            return self._schema.content(0, bytes)
        return self._schema.content(last.columns_at, lambda: columns_of(last, self._log.read))

    def _next_number(self) -> int:
        return self._entry.number + 1 if self._entry else 1


def _give_name(scratch: Path, name: Path) -> None:
    """Move a file to its name; done already when a call before this one got so far."""
    try:
        scratch.rename(name)
    except FileNotFoundError:
        if not name.exists():
            raise


def _only_deleted(known: Entry, newest: Entry) -> bool:
    """Return whether all that stands behind an entry of ours are deletions: the flow is still ours, as it was."""
    return newest.number > known.number and (newest.epoch, newest.seq) == (known.epoch, known.seq)


def _now() -> str:
    return datetime.now(UTC).isoformat()
