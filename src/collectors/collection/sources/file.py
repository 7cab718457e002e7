"""Files: read once, or followed as they grow and are rotated; plain, gzip or Zstandard, in any format.

    source:
      type: file
      path: /var/log/app/*.ndjson
      follow: true

The format follows from the name (`.ndjson .jsonl .json .csv .tsv .parquet .arrow .feather .log .txt`, also in front
of `.gz` and `.zst`); `format` says it where the name does not. Files are read in the order of their names.

Following understands rotation: a file that is renamed or deleted is read to its end first, its last line without a
newline too, then the new one from its beginning. A file that is truncated is read from its beginning; what was
written between the last reading and the truncation is read from the copy beside it (`app.log.1` for `app.log`) and
is lost where there is none: nothing tells that it ever was. Let the pattern not match such copies.

Delivery: every line once, with a backend that keeps the position. A last line without a newline waits for it while the file is
followed; otherwise it is a record, and if the line goes on in a later run, its rest is set aside with that reason.
Position: for each file its device, inode, an imprint of its content, and the offset behind the last record in
decompressed bytes. A file is known again when it was renamed, compressed, or replaced by a copy that begins with
what was read. The last 256 finished files are remembered one by one; of more, those that sort first are only
counted, and if they have grown or become more after a restart, the source stops and says so. JSON documents,
Parquet and Arrow files are read again when they change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from collectors.collection.base import ByteSourceConfig, Room, Source
from collectors.collection.sources._bookmarks import Bookmark, Bookmarks
from collectors.collection.sources._compressed import BrokenDataError
from collectors.collection.sources._copying import copy_files
from collectors.collection.sources._formats import format_of
from collectors.collection.sources._handle import FileReader, Handle, Part, ReplacedError
from collectors.collection.sources._listing import check_exists, list_files
from collectors.collection.sources._records import RecordReader
from collectors.collection.sources._tracking import Job, Tracker
from collectors.collection.sources._whole import DOCUMENTS, TABLES, WholeReader
from collectors.errors import FatalError
from collectors.models import CollectedData, Position
from collectors.settings import LocalPath

__all__ = ["COMPONENT", "FileConfig", "FileSource"]

_POLL_SECONDS = 0.5


class FileConfig(ByteSourceConfig):
    """Settings of the file source."""

    path: LocalPath | list[LocalPath]
    """The file, or a pattern (`*`, `?`, `[a-z]`, `**` for any folders), or a list of them."""
    compression: Literal["auto", "none", "gzip", "zstd"] = "auto"
    """How the files are compressed; `auto` looks at their first bytes."""
    follow: bool = False
    """Wait for more at the end, and for new files, looking every 0.5 s or as `every` says."""
    start: Literal["beginning", "end"] = "beginning"
    """Where to begin with the files that are there when they are followed for the first time."""

    @property
    def paths(self) -> list[str]:
        """All paths and patterns."""
        return [self.path] if isinstance(self.path, str) else list(self.path)

    @property
    def codec(self) -> str | dict[str, Any]:
        """The format, as set or as the names say it. Raises ValueError."""
        if self.format is not None:
            return self.format
        formats = [format_of(path) for path in self.paths]
        if not all(each == formats[0] for each in formats):
            raise ValueError(
                f"{', '.join(self.paths)}: one source reads one format; set `format`, or use two sources"
            )
        return formats[0]

    @property
    def kind(self) -> str:
        """The name of the codec."""
        codec = self.codec
        return codec if isinstance(codec, str) else str(codec.get("type"))

    @model_validator(mode="after")
    def _check(self) -> FileConfig:
        if not self.paths:
            raise ValueError("path: expected a path or a pattern, got an empty list")
        if self.follow and self.kind in DOCUMENTS:
            raise ValueError(
                f"follow: a {self.kind} file is one document and has no end before the file's end; "
                "follow needs one record a line (ndjson), or use `every` to read the document again when it changes"
            )
        if self.start == "end" and not self.follow:
            raise ValueError("start: `end` is for files that are followed; set `follow: true`")
        if self.chunk_size == 0 or self.max_record == 0:
            raise ValueError("chunk_size, max_record: expected more than 0 bytes")
        return self


class FileSource(Source[FileConfig]):
    """Reads files round by round: first those it has bookmarks for, in the order of their beginning, then new ones."""

    def __init__(self, config: FileConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self.data_format = self.config.kind
        self._tracker = Tracker(self.config, self._make_reader, lambda: self.now().timestamp())

    async def open(self) -> None:
        """Check that there is something to read, or that it may come."""
        await self.enter(contextlib.closing(self._tracker))
        listing = list_files(self.config.paths)
        if self.poll_interval() is None and self.config.cron is None:
            check_exists(self.config.paths, listing)

    def format(self) -> str | dict[str, Any]:
        """Return the codec that the settings or the names of the files say."""
        return self.config.codec

    def poll_interval(self) -> float | None:
        """Look again after half a second when files are followed."""
        if self.config.every is None and self.config.follow:
            return _POLL_SECONDS
        return self.config.every

    def read(self, since: Position | None) -> Iterator[CollectedData | Room]:
        """Yield what there is behind the position; there is a second round only for files replaced while being read."""
        marks = Bookmarks(since)
        replaced = True
        while replaced:
            replaced = False
            for job in self._tracker.jobs(marks, first=since is None):
                replaced |= yield from self._read_file(job, marks)
            replaced = replaced and not self.config.follow

    def scratch(self, folder: Path, size: int) -> FileConfig | None:
        """Copy the first bytes of the files that there are; the copies are read once, to their end."""
        listing = list_files(self.config.paths)
        check_exists(self.config.paths, listing)
        whole = self.data_format in DOCUMENTS | TABLES
        copies = copy_files(list(listing.files), folder, size, self.framing, whole=whole)
        if copies is None:
            return None
        changed = {"path": copies, "format": self.config.codec, "follow": False, "start": "beginning"}
        return self.config.model_copy(update={**changed, "every": None, "cron": None})

    def replay(self, since: Position | None, until: Position) -> CollectedData:
        """Return the chunk that ended at `until` once more. Raises FatalError when its file is gone."""
        row = next(row for row in until["files"] if list(row[1:3]) == list(until["at"]))
        mark, start = Bookmark(*row), int(until["start"])
        name = self._tracker.locate(mark)
        if name is None:
            raise FatalError(f"cannot read '{mark.path}' once more: it is gone, or its content has changed")
        with contextlib.closing(Handle(name)) as handle:
            reader = self._make_reader(handle, None)
            part = reader.again(start, mark, until.get("refused"))
        return self._chunk(part, name, until)

    def _make_reader(self, handle: Handle, mark: Bookmark | None) -> FileReader:
        config, kind = self.config, self.data_format
        if kind in DOCUMENTS | TABLES:
            return WholeReader(handle, mark, framing=self.framing, kind=kind, compression=config.compression)
        return RecordReader(
            handle,
            mark,
            framing=self.framing,
            block=config.chunk_size,
            limit=config.max_record,
            compression=config.compression,
        )

    def _read_file(self, job: Job, marks: Bookmarks) -> Generator[CollectedData | Room, None, bool]:
        """Yield what a file has; return whether it was found to be replaced by another."""
        final = job.rotated or not self.config.follow
        try:
            reader = self._tracker.reader(job)
            try:
                for part in reader.read(job.path, final=final, wait=self.config.follow):
                    yield part if isinstance(part, Room) else self._behind(part, job, marks)
            except BrokenDataError as error:
                if self._tracker.may_grow(job, reader, error):
                    return False
                yield self._behind(reader.torn(job.path, f"{job.name}: {error}"), job, marks)
        except FileNotFoundError:
            return False
        except ReplacedError:
            self._tracker.start_over(job.key)
            return True
        self._tracker.done(job, reader, marks)
        return False

    def _behind(self, part: Part, job: Job, marks: Bookmarks) -> CollectedData:
        marks.put(part.mark)
        if job.mark is None and not self.config.follow:
            self._tracker.fold(marks, job.name)
        return self._chunk(part, job.name, marks.position(part.mark, part.start, part.reason))

    def _chunk(self, part: Part, name: str, position: Position) -> CollectedData:
        about: dict[str, Any] = {"path": name, "offset": part.start - part.lead}
        if part.size is not None:
            about["size"] = part.size
        if part.reason is not None:
            return self.refuse(part.raw, position, part.reason, **about)
        return self.chunk(part.raw, position, data_format=part.data_format, **about)


COMPONENT = FileSource
