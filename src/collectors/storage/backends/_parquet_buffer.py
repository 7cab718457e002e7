"""What was taken of one flow and is not durable yet: rows in scratch files, one for each folder of the partitions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from msgspec import Struct, field

from collectors.chunks import Counts, DeadLetter, Delivery, Drift
from collectors.enums import ErrorType
from collectors.errors import FatalError
from collectors.storage.backends._lake_schema import FlowSchema, LakeSchema
from collectors.storage.backends._parquet_file import writable
from collectors.storage.backends._parquet_log import FileEntry
from collectors.storage.backends._parquet_partition import Partition, split

__all__ = ["FlowBuffer", "RowFile", "Waiting"]

_WAITING_BYTES = 16 * 2**20
"""So much of a flow waits in memory for its row groups, however many folders it goes to."""


class RowFile(Protocol):
    """A file while rows are written to it: `PartFile`, or one of lines."""

    path: Path
    schema: pa.Schema
    rows: int
    closed: bool
    waiting_bytes: int

    @property
    def columns(self) -> list[str]:
        """The names of the columns that rows have."""

    @property
    def on_disk(self) -> bool:
        """Whether the scratch file has been begun."""

    @property
    def size(self) -> int:
        """How large the file is so far, with what waits in memory."""

    def add(self, table: pa.Table) -> None:
        """Take rows; they reach the disk with `drain`."""

    def drain(self) -> None:
        """Bring what is whole to the disk. Raises OSError; it can be called again."""

    def finish(self) -> None:
        """Bring all of the file to the disk, once. Raises OSError; it can be called again."""

    def write_group(self) -> None:
        """Write what waits in memory."""


class _Part(Struct):
    """A file that is being written, and the partition that it is for."""

    file: RowFile
    values: dict[str, Any]
    types: dict[str, str]


class Waiting(Struct):
    """What was taken since the last publication; `last` is the newest delivery, without its rows."""

    first_seq: int
    last: Delivery
    counts: Counts = field(default_factory=Counts)
    parts: dict[str, _Part] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)
    resolved: list[tuple[str, str]] = field(default_factory=list)

    @property
    def closed(self) -> bool:
        """Whether its publication has begun to close files, on the disk or not: nothing can be added to them."""
        return any(part.file.closed for part in self.parts.values())

    def files(self, names: dict[str, str]) -> list[FileEntry]:
        """Return the files as the log has them; `names` has the name of each by its folder."""
        return [
            FileEntry(
                name=names[folder],
                rows=part.file.rows,
                bytes=part.file.size,
                columns=part.file.columns,
                partition=part.values,
                types=part.types,
            )
            for folder, part in self.parts.items()
        ]


class FlowBuffer(ABC):
    """Base of the owners of a flow; they say where scratch files are and how all of them are published.

    `found` takes what the rows of the newest delivery bring that the folder did not have, for whoever looks.
    """

    def __init__(self, flow: str, partition_by: list[str], lake: LakeSchema) -> None:
        self.found: list[Drift] = []
        self._flow = flow
        self._schema = FlowSchema(lake)
        self._partition_by = partition_by
        self._waiting: Waiting | None = None
        self._files_made = 0

    @property
    def rows(self) -> int:
        """How many rows wait for their publication."""
        return sum(part.file.rows for part in self._waiting.parts.values()) if self._waiting else 0

    @property
    def largest(self) -> int:
        """The size of the largest file that waits."""
        parts = self._waiting.parts.values() if self._waiting else ()
        return max((part.file.size for part in parts), default=0)

    @abstractmethod
    def publish(self) -> None:
        """Make everything that was taken durable, in one step."""

    def _check(self, table: pa.Table) -> None:  # noqa: B027  # most files have all
        """Raise DataError with `rows` for those that files cannot have."""

    def _writable(self, table: pa.Table) -> pa.Table:
        """Return the table as files have it. Raises FatalError."""
        return writable(table)

    @abstractmethod
    def _new_file(self, schema: pa.Schema, sample: pa.Table, epoch: int, number: int) -> RowFile:
        """Return the file in which the rows of a folder wait."""

    def take_unchecked(self, delivery: Delivery) -> None:
        """Take a delivery whatever was taken before it; the disk is not touched.

        Raises FatalError, and DataError with `rows`, for those that the columns of the folder do not take.
        """
        self.found.clear()
        settled = self._schema.settle(delivery.table, f"{self._flow}:{delivery.key.seq}", self.found)
        table = settled.rows
        self._check(table)
        partitions = split(table, self._partition_by) if table.num_rows else []
        tables = [(part, self._writable(part.table)) for part in partitions]
        if self._waiting and (
            self._waiting.closed or any(self._differs(part.folder, table.schema) for part, table in tables)
        ):
            self.publish()
        waiting = self._waiting or Waiting(delivery.first_seq, delivery)
        parts = waiting.parts | {
            part.folder: self._new_part(part, table, delivery.key.epoch)
            for part, table in tables
            if part.folder not in waiting.parts
        }
        try:
            for partition, table in tables:
                parts[partition.folder].file.add(table)
            if sum(part.file.waiting_bytes for part in parts.values()) > _WAITING_BYTES:
                for part in parts.values():
                    part.file.write_group()
        except pa.ArrowException as error:
            self.discard()
            raise FatalError(
                f"{self._flow}: chunks {waiting.first_seq} to {delivery.key.seq} cannot be written ({error}); "
                "none of them was stored",
                error_type=ErrorType.STORAGE,
            ) from error
        waiting.parts = parts
        waiting.counts += delivery.counts
        waiting.letters += delivery.dead_letters
        waiting.resolved += [letter.key for letter in delivery.resolved]
        waiting.last = _without_rows(delivery)
        self._waiting = waiting
        self._schema.take(settled)

    def discard(self) -> None:
        """Drop what was taken and not published; it is read again from the source."""
        self._schema.drop()
        waiting, self._waiting = self._waiting, None
        for part in waiting.parts.values() if waiting else ():
            with suppress(OSError):
                part.file.path.unlink(missing_ok=True)

    def _differs(self, folder: str, schema: pa.Schema) -> bool:
        part = self._waiting.parts.get(folder) if self._waiting else None
        return part is not None and not part.file.schema.equals(schema)

    def _new_part(self, partition: Partition, table: pa.Table, epoch: int) -> _Part:
        self._files_made += 1
        file = self._new_file(table.schema, table, epoch, self._files_made)
        return _Part(file, partition.values, partition.types)


def _without_rows(delivery: Delivery) -> Delivery:
    return Delivery(
        key=delivery.key,
        first_seq=delivery.first_seq,
        table=pa.table({}),
        position=delivery.position,
        schema=delivery.schema,
        run=delivery.run,
        counts=delivery.counts,
    )
