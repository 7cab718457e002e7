"""Rows in Parquet files of a folder, optionally one folder for each value of a column.

    storage:
      type: parquet
      path: lake/readings
      partition_by: [day]

A file is closed when it is large or old enough, or when the flow pauses or ends. Columns may come, go and change their
type from file to file, which is told; `schema` can forbid it. A column that is null throughout a file is left out of it;
the columns of `partition_by` are in the names of the folders. `_collectors/` in the folder is the log: which files belong, and how far each source is stored.

Delivery: exactly once for `query` and for readers of the log. Files are fsynced, renamed and then committed by one
entry of the log, which is put only if nobody else has put it. Readers that take every `**/*.parquet` see the same,
except for the moment between rename and entry, or after a crash in it until the next start. `collectors compact` makes few
large files of many small ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from pydantic import Field

from collectors.chunks import Checkpoint, ChunkKey, Counts, Delivery, Drift
from collectors.enums import ErrorType
from collectors.errors import FatalError
from collectors.models import QueryCriteria
from collectors.settings import ByteSize, Duration, LocalPath
from collectors.storage.backends._lake_schema import LakeSchema
from collectors.storage.backends._parquet_flow import FlowFiles
from collectors.storage.backends._parquet_log import (
    Entry,
    FlowLog,
    columns_of,
    delete_files,
    file_name,
    flow_logs,
)
from collectors.storage.backends._parquet_merged import Standing, merging, standing
from collectors.storage.base import Backend, Compacted
from collectors.storage.drift import DriftConfig
from collectors.storage.files import check_writable, translated
from collectors.storage.positions import is_of

__all__ = ["COMPONENT", "ParquetBackend", "ParquetConfig"]

_SCRATCH_ROWS = 200


class ParquetConfig(DriftConfig):
    """Settings of the `parquet` backend."""

    path: LocalPath
    """The folder; it is made when it is not there."""
    partition_by: list[str] = []
    """Columns of text, whole numbers, dates or true/false whose values become folders: `day=2026-01-02/`."""
    max_rows: int | None = Field(None, gt=0)
    """Close a file at so many rows; by default only size and age count."""
    max_bytes: ByteSize = 128 * 2**20
    """Close a file at this size."""
    max_age: Duration = 300.0
    """Close a file when its oldest rows have waited so long; until then they are not durable, and not acknowledged."""

    def scratch(self, folder: Path) -> Self:
        """Return the settings for a folder in the folder, with files so small that some are closed on the way."""
        rows = min(self.max_rows or _SCRATCH_ROWS, _SCRATCH_ROWS)
        return self.model_copy(update={"path": str(folder / "files"), "max_rows": rows})


class ParquetBackend(Backend[ParquetConfig]):
    """Keeps what was taken of each flow in scratch files until it is published."""

    def open(self) -> None:
        """See that the path is a folder, if there is anything; nothing is written."""
        self._flows: dict[str, FlowFiles] = {}
        self._lake = LakeSchema(self.config.path, self.config, self._columns)
        with translated(self._root, "cannot use"):
            if self._root.exists() and not self._root.is_dir():
                raise NotADirectoryError(20, "Not a directory")

    def close(self) -> None:
        """Drop what was not flushed."""
        for flow in getattr(self, "_flows", {}).values():
            flow.discard()
        self._flows = {}

    def write(self, table: pa.Table, key: ChunkKey) -> int:
        """Store the rows in files of their own and return their number."""
        flow = FlowFiles(self._root, key.flow, self.config.partition_by, self._lake)
        flow.adopt()
        if flow.published.seq >= key.seq:
            return 0
        counts = Counts(read=table.num_rows, stored=table.num_rows)
        flow.make()
        flow.take_unchecked(Delivery(key, key.seq, table, None, None, "", counts))
        try:
            flow.publish()
        finally:
            flow.discard()
        return int(table.num_rows)

    def claim(self, flow: str) -> Checkpoint:
        """Raise the flow's epoch and return how far it is stored; what an earlier owner left behind is deleted."""
        return self._flow(flow).claim()

    def commit(self, delivery: Delivery) -> int:
        """Take a delivery, publish what was taken when it is large enough, and return the last durable seq."""
        flow = self._flow(delivery.key.flow)
        flow.found = self.drifts.setdefault(delivery.key.flow, [])
        flow.take(delivery)
        full = self.config.max_rows is not None and flow.rows >= self.config.max_rows
        if full or flow.largest >= self.config.max_bytes:
            flow.publish()
        return flow.published.seq

    def stored(self, flow: str) -> Checkpoint:
        """Return how far the flow is durably stored."""
        return self._flow(flow).stored()

    def flows(self, source: str) -> list[str]:
        """Return the flows of a source of which anything is stored."""
        with translated(self._root, "cannot read the log in"):
            newest = [log.last() for log in flow_logs(self._root, source)]
        return [entry.flow for entry in newest if entry and entry.seq and is_of(entry.flow, source)]

    def ledger(self, run: str) -> dict[str, Counts]:
        """Return what a run has published, by flow."""
        found: dict[str, Counts] = {}
        with translated(self._root, "cannot read the log in"):
            for log in flow_logs(self._root):
                commits = (entry for entry in log.entries(newest_first=True) if entry.kind == "commit")
                later = dropwhile(lambda entry: entry.run != run, commits)
                for entry in takewhile(lambda entry: entry.run == run, later):
                    found[entry.flow] = found.get(entry.flow, Counts()) + Counts(**entry.counts)
        return found

    def flush(self) -> None:
        """Publish what was taken of every flow."""
        for flow in self._flows.values():
            flow.publish()

    def flush_interval(self) -> float:
        """Return `max_age`."""
        return self.config.max_age

    def schema_history(self) -> list[Drift]:
        """Return what became of the columns of the files in this folder."""
        return [drift for entry in self._entries() for drift in entry.drifts]

    def compact(
        self, pipeline: str, target: int, tell: Callable[[Compacted], None], *, dry_run: bool
    ) -> list[Compacted]:
        """Merge small files of the pipeline's flows; whoever writes to these meanwhile is fenced."""
        from collectors.storage.backends._parquet_compaction import Compaction

        done: list[Compacted] = []
        with translated(self._root, "cannot merge files in"):
            for log in flow_logs(self._root, pipeline):
                newest = log.last()
                if newest is not None and is_of(newest.flow, pipeline):
                    compaction = Compaction(self._root, log, newest.flow, target)
                    done += compaction.plan() if dry_run else compaction.run(tell)
        return done

    def select(self, criteria: QueryCriteria) -> list[dict[str, Any]]:
        """Return the matching rows of all published files, the oldest file first."""
        from collectors.storage.backends import _parquet_query

        def read(there: list[Standing]) -> list[dict[str, Any]]:
            paths = {each.file.name: each.path for each in there}
            files = [each.file for each in there]
            return _parquet_query.select(lambda file: paths[file.name], files, criteria)

        found = self._standing()
        while True:
            try:
                return read(found)
            except FatalError:
                before, found = found, self._standing()
                if found == before:
                    raise  # else what is gone was merged, or deleted, meanwhile

    def remove(self, location_id: str) -> None:
        """Delete the files of a location: all that was published with the chunk that it names as its last."""
        flow, _, seq = location_id.rpartition(":")
        log = FlowLog(self._root, file_name(flow))
        with translated(self._root, "cannot delete from"), merging(log):
            while True:
                entries = list(log.entries())
                gone = {name: entry for entry in entries for name in entry.merged}
                for entry in (each for each in entries if each.kind == "commit" and str(each.seq) == seq):
                    names = [file.name for file in entry.files]
                    others = [gone[name] for name in names if name in gone]
                    if any(other.kind == "compact" for other in others):
                        raise FatalError(
                            f"{self._root}: the rows of {location_id} were merged with others by `collectors compact`; they "
                            "can no longer be deleted by their location",
                            error_type=ErrorType.STORAGE,
                        )
                    if others and not any((self._root / name).exists() for name in names):
                        continue  # else who has deleted them died before the files were gone
                    if not others and not log.put(entries[-1].behind("remove", merged=names)):
                        break  # what others have put may have merged the rows
                    delete_files(self._root, names)
                    return
                else:
                    raise KeyError(location_id)

    def preview(self, table: pa.Table, flow: str) -> list[str]:
        """Return what storing this table would change."""
        check_writable(self._root)
        lake = LakeSchema(self.config.path, self.config, self._columns)
        lines = [] if lake.known() else [f"+ folder {self._root}"]
        return lines + lake.preview(table, self.config.partition_by)

    def describe(self) -> str:
        """Return the folder."""
        return self.config.path

    def place(self, source: str) -> str:
        """Return the folder that the path leads to."""
        return os.path.realpath(self.config.path)

    @property
    def _root(self) -> Path:
        return Path(self.config.path)

    def _flow(self, name: str) -> FlowFiles:
        if name not in self._flows:
            flow = FlowFiles(self._root, name, self.config.partition_by, self._lake)
            flow.adopt()
            self._flows[name] = flow
        return self._flows[name]

    def _columns(self) -> list[bytes]:
        """Return the columns that the newest entry of each flow has, oldest first."""
        with translated(self._root, "cannot read the log in"):
            newest = [
                (entry.written_at, columns_of(entry, log.read))
                for log in flow_logs(self._root)
                if (entry := log.last())
            ]
        return [columns for _, columns in sorted(newest) if columns]

    def _standing(self) -> list[Standing]:
        with translated(self._root, "cannot read"):
            found = [each for log in flow_logs(self._root) for each in standing(self._root, log)]
        return sorted(found, key=lambda each: each.order)

    def _entries(self) -> list[Entry]:
        with translated(self._root, "cannot read"):
            entries = [entry for log in flow_logs(self._root) for entry in log.entries()]
        return sorted(entries, key=lambda entry: (entry.written_at, entry.flow, entry.number))


COMPONENT = ParquetBackend
