"""Rows in Parquet, NDJSON or CSV objects of S3, Google Cloud Storage, Azure and stores compatible with them.

    storage:
      type: object_store
      url: s3://my-bucket/readings/
      partition_by: [day]

An object is put when it is large or old enough, or when the flow pauses or ends; until then its rows wait in a file
below `TMPDIR`. Columns may come, go and change their type from object to object, which is told; folders and columns are as in
`parquet`. `_collectors/` is the log: which objects belong, how far each source is stored, its dead letters and counts.
Nothing but the store is needed to go on after a crash, on whatever machine.

Without keys in the settings those of the environment are used, as AWS_ACCESS_KEY_ID, AZURE_STORAGE_ACCOUNT_NAME and
GOOGLE_APPLICATION_CREDENTIALS, or those of the machine. The store must take conditional writes (`If-None-Match: *`), as
S3, Google Cloud Storage, Azure, MinIO and R2 do; one that ignores the condition is refused. An upload that is cut may
leave invisible parts, which a rule of the bucket should delete (AbortIncompleteMultipartUpload).

Delivery: exactly once for `query` and for readers of the log. The objects are put under names that nothing else ever
has, and are then committed by one entry of the log, which is put only if nobody else has put it. Readers that take every
`**/*.parquet` see the same, except between the two, or after a crash there until the next start. With `file://` power
cuts are not survived; `parquet` is for that.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import AfterValidator, Field, model_validator

from collectors.chunks import Checkpoint, ChunkKey, Counts, DeadLetter, Delivery, Drift
from collectors.enums import ErrorType
from collectors.errors import FatalError
from collectors.models import QueryCriteria
from collectors.object_stores import Place, StoreSettings
from collectors.settings import ByteSize, Duration
from collectors.storage.backends._lake_schema import LakeSchema
from collectors.storage.backends._object_store_client import Objects, RangeFile
from collectors.storage.backends._object_store_flow import FlowObjects, Layout
from collectors.storage.backends._object_store_log import (
    Letters,
    ObjectLog,
    check_conditional,
    object_logs,
    standing,
)
from collectors.storage.backends._object_store_scratch import Scratch
from collectors.storage.backends._parquet_log import FileEntry, columns_of, file_name
from collectors.storage.base import Backend, Compacted
from collectors.storage.drift import DriftConfig
from collectors.storage.positions import is_of

__all__ = ["COMPONENT", "ObjectStoreBackend", "ObjectStoreConfig"]

_SCRATCH_ROWS = 200


def _url(url: str) -> str:
    Place.parse(url)
    return url


class ObjectStoreConfig(StoreSettings, DriftConfig):
    """Settings of the `object_store` backend."""

    url: Annotated[str, AfterValidator(_url)]
    """The folder: `s3://bucket/folder/`, `gs://bucket/folder/`, `az://container/folder/` or `file:///folder/`."""
    format: Literal["parquet", "ndjson", "csv"] = "parquet"
    """What objects are; those of lines, JSON or CSV with a header, are for other programs and cannot be queried."""
    compression: Literal["none", "gzip", "zstd"] | None = None
    """How lines are compressed; gzip by default. Parquet always has zstd inside."""
    partition_by: list[str] = []
    """Columns of text, whole numbers, dates or true/false whose values become folders: `day=2026-01-02/`."""
    max_rows: int | None = Field(None, gt=0)
    """Put an object at so many rows; by default only size and age count."""
    max_bytes: ByteSize = 128 * 2**20
    """Put an object at this size."""
    max_age: Duration = 300.0
    """Put an object when its oldest rows have waited so long; until then they are not durable, and not acknowledged."""

    @property
    def place(self) -> Place:
        """The folder that the URL names."""
        return Place.parse(self.url)

    @property
    def layout(self) -> Layout:
        """How rows become objects."""
        return Layout(self.partition_by, self.format, self.compression or "gzip")

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.check_for(self.place.scheme)
        if self.format == "parquet" and self.compression is not None:
            raise ValueError("compression: is for lines; parquet always has zstd inside")
        return self

    def scratch(self, folder: Path) -> Self:
        """Return the settings for a folder in the folder, with objects so small that some are put on the way, and that can be queried."""
        rows = min(self.max_rows or _SCRATCH_ROWS, _SCRATCH_ROWS)
        return type(self)(
            id=self.id,
            url=(folder / "objects").absolute().as_uri(),
            partition_by=self.partition_by,
            max_rows=rows,
            max_bytes=self.max_bytes,
            max_age=self.max_age,
        )


class ObjectStoreBackend(Backend[ObjectStoreConfig]):
    """Keeps what was taken of each flow in scratch files until it is published."""

    def open(self) -> None:
        """Make the client; nothing is asked for, and nothing is written."""
        self._flows: dict[str, FlowObjects] = {}
        self._scratch = Scratch()
        self._lake = LakeSchema(self.describe(), self.config, lambda: _columns(self._objects))
        self._objects: Any = Objects(self.config.place, self.config)
        self._checked = False

    def close(self) -> None:
        """Drop what was not flushed; connections end with the last that knows the store."""
        if hasattr(self, "_scratch"):
            self._scratch.close()
        self._flows = {}
        self._objects = None

    def write(self, table: pa.Table, key: ChunkKey) -> int:
        """Store the rows in objects of their own and return their number."""
        self._check()
        flow = self._new_flow(key.flow)
        if flow.published.seq >= key.seq:
            return 0
        counts = Counts(read=table.num_rows, stored=table.num_rows)
        try:
            flow.take_unchecked(Delivery(key, key.seq, table, None, None, "", counts))
            flow.publish()
        finally:
            flow.discard()
        return int(table.num_rows)

    def claim(self, flow: str) -> Checkpoint:
        """Raise the flow's epoch and return how far it is stored; what an earlier owner left behind is deleted."""
        self._check()
        return self._flow(flow).claim()

    def commit(self, delivery: Delivery) -> int:
        """Take a delivery, publish what was taken when it is large enough, and return the last durable seq."""
        flow = self._flow(delivery.key.flow)
        flow.found = self.drifts.setdefault(delivery.key.flow, [])
        flow.take(delivery)
        full = self.config.max_rows is not None and flow.rows >= self.config.max_rows
        if full or flow.largest >= self.config.max_bytes or flow.many_letters:
            flow.publish()
        return flow.published.seq

    def stored(self, flow: str) -> Checkpoint:
        """Return how far the flow is durably stored."""
        return self._flow(flow).stored()

    def flows(self, source: str) -> list[str]:
        """Return the flows of a source of which anything is stored."""
        newest = self._objects.each(ObjectLog.last, object_logs(self._objects, source))
        return [entry.flow for entry in newest if entry and entry.seq and is_of(entry.flow, source)]

    def dead_letters(self, pipeline: str) -> Iterator[DeadLetter]:
        """Yield the letters of a pipeline in the order in which they were set aside."""
        return Letters(self._objects).of(pipeline)

    def forget_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Delete these letters, durably."""
        for pipeline in {letter.pipeline for letter in letters}:
            keys = [letter.key for letter in letters if letter.pipeline == pipeline]
            Letters(self._objects).forget(pipeline, keys, secrets.token_hex(8))

    def ledger(self, run: str) -> dict[str, Counts]:
        """Return what a run has published, by flow."""
        found: dict[str, Counts] = {}
        logs = object_logs(self._objects)
        for entries in self._objects.each(lambda log: log.of_run(run), logs):
            for entry in entries:
                found[entry.flow] = found.get(entry.flow, Counts()) + Counts(**entry.counts)
        return found

    def flush(self) -> None:
        """Publish what was taken of every flow, of several at the same time; one that fails holds up no other."""
        self._objects.each(FlowObjects.publish, list(self._flows.values()))

    def flush_interval(self) -> float:
        """Return `max_age`."""
        return self.config.max_age

    def schema_history(self) -> list[Drift]:
        """Return what became of the columns of the objects in this folder."""
        found = self._objects.each(lambda log: list(log.entries()), object_logs(self._objects))
        entries = sorted((entry for each in found for entry in each), key=lambda entry: entry.written_at)
        return [drift for entry in entries for drift in entry.drifts]

    def compact(
        self, pipeline: str, target: int, tell: Callable[[Compacted], None], *, dry_run: bool
    ) -> list[Compacted]:
        """Merge small objects of the pipeline's flows; whoever writes to these meanwhile is fenced."""
        from collectors.storage.backends._object_store_compaction import Compaction

        self._check()
        newest = self._objects.each(ObjectLog.last, object_logs(self._objects, pipeline))
        done: list[Compacted] = []
        for flow in sorted(entry.flow for entry in newest if entry and is_of(entry.flow, pipeline)):
            compaction = Compaction(self._objects, self._scratch, flow, target)
            found = compaction.plan()
            if not dry_run:
                compaction.delete_left()
            if found and not dry_run:
                found = compaction.run(self._new_flow(flow).claim().epoch, tell)
            done += found
        return done

    def select(self, criteria: QueryCriteria) -> list[dict[str, Any]]:
        """Return the matching rows of all published objects, the oldest object first."""
        from collectors.storage.backends import _parquet_query

        objects = self._objects
        files = _files(objects)
        for file in files:
            if not file.name.endswith(".parquet"):
                raise FatalError(
                    f"{objects.url(file.name)} cannot be queried; objects are that are written with `format: parquet`",
                    error_type=ErrorType.STORAGE,
                )
        while True:
            try:
                return _parquet_query.select(lambda file: _opened(objects, file), files, criteria)
            except FatalError:
                before, files = files, _files(objects)
                if files == before:
                    raise  # else what is gone was merged, or deleted, meanwhile

    def remove(self, location_id: str) -> None:
        """Delete the objects of a location: all that was published with the chunk that it names as its last."""
        flow, _, seq = location_id.rpartition(":")
        log = ObjectLog(self._objects, file_name(flow))
        while True:
            entries = list(log.entries())
            replaced = {number: entry for entry in entries for number in entry.replaces}
            for entry in (each for each in entries if each.kind == "commit" and str(each.seq) == seq):
                other = replaced.get(entry.number)
                if other is None:
                    if not log.put(entries[-1].behind("remove", replaces=[entry.number])):
                        break  # what others have put may have merged the rows
                elif other.kind == "compact":
                    raise FatalError(
                        f"{self._objects.url('')}: the rows of {location_id} were merged with others by `collectors "
                        "compact`; they can no longer be deleted by their location",
                        error_type=ErrorType.STORAGE,
                    )
                elif not any(self._objects.each(self._objects.size, [file.name for file in entry.files])):
                    continue
                log.delete_replaced([entry])
                return
            else:
                raise KeyError(location_id)

    def preview(self, table: pa.Table, flow: str) -> list[str]:
        """Return what storing this table would change."""
        objects = Objects(self.config.place, self.config)
        lake = LakeSchema(self.describe(), self.config, lambda: _columns(objects))
        lines = [] if lake.known() else [f"+ folder {objects.url('')}"]
        return lines + lake.preview(table, self.config.partition_by)

    def describe(self) -> str:
        """Return the folder."""
        return self.config.place.url(self.config.place.folder)

    def place(self, source: str) -> str:
        """Return the folder that the URL leads to."""
        place = self.config.place
        if place.scheme == "file":
            return os.path.realpath(place.bucket)
        return f"{self.config.endpoint or ''} {self.describe()}".strip()

    def _check(self) -> None:
        """See, once and before anything is stored, that the store keeps what the log stands on."""
        if not self._checked:
            check_conditional(self._objects)
            self._checked = True

    def _flow(self, name: str) -> FlowObjects:
        if name not in self._flows:
            self._flows[name] = self._new_flow(name)
        return self._flows[name]

    def _new_flow(self, name: str) -> FlowObjects:
        flow = FlowObjects(self._objects, self._scratch, name, self.config.layout, self._lake)
        flow.adopt()
        return flow


def _opened(objects: Objects, file: FileEntry) -> RangeFile:
    return RangeFile(objects, file.name, file.bytes)


def _columns(objects: Objects) -> list[bytes]:
    """Return the columns that the newest entry of each flow has, oldest first."""

    def newest(log: ObjectLog) -> tuple[str, bytes]:
        entry = log.last()
        return ("", b"") if entry is None else (entry.written_at, columns_of(entry, log.read))

    return [columns for _, columns in sorted(objects.each(newest, object_logs(objects))) if columns]


def _files(objects: Objects) -> list[FileEntry]:
    """Return the files of all entries that hold rows, in the order in which these were committed."""
    logs = objects.each(lambda log: list(log.entries()), object_logs(objects))
    return [file for entry in standing(chain.from_iterable(logs)) for file in entry.files]


COMPONENT = ObjectStoreBackend
