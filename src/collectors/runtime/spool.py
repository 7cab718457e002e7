"""The spool: chunks of sources that cannot replay, durable on disk before anyone is told that they are kept.

A folder of segments (`_spool_frames`). There is no file that must agree with them: where writing goes on is found by
reading the last segment, where reading goes on is the position in the backend. Beside them lies `marks`, written
without fsync after the frames are durable, so it can only be behind: it decides nothing, it shows that something is
missing that was promised. What cannot be read is counted exactly, kept under `quarantine/`, and handed on as one
refused record, so that it ends in the dead letters.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import accumulate
from pathlib import Path

from collectors.enums import ErrorType
from collectors.errors import FatalError, TransientError
from collectors.models import CollectedData, Position
from collectors.runtime._spool_frames import (
    HEADER_SIZE,
    Header,
    find_frame,
    pack,
    read_frame,
    segment_path,
    unpack,
    write_all,
)
from collectors.runtime._spool_marks import Marks
from collectors.runtime._spool_reading import Segment, SegmentReader
from collectors.storage.files import make_folders, sync_folder, translated

__all__ = ["SEGMENT_BYTES", "Spool"]

SEGMENT_BYTES = 64 * 2**20
KEEP_FREE = 16 * 2**20
"""Bytes of the disk that are left for stores and the state file, or an eighth of a small disk."""
READ_BYTES = 2**20


class Spool:
    """One source's spool. Methods block; one thread appends, one reads, `trim` may run beside both.

    `durable` is the number of the last frame that is on disk, `size` the bytes of all segments, `folder` where they are.
    `tell` gets one line for people about what was found damaged.
    """

    def __init__(
        self,
        folder: Path,
        source: str,
        quota: int,
        *,
        now: Callable[[], datetime],
        tell: Callable[[str], None],
    ) -> None:
        self.durable = 0
        self.folder = folder
        self._source = source
        self._quota = quota
        self._tell = tell
        self._id = b""
        self._trimmed = 0
        self._marked = False
        self._reader = SegmentReader(folder, source, now, tell)
        self._segments: list[Segment] = []
        self._writing: int | None = None
        self._refused = 0

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.end for segment in self._segments)

    def open(self) -> None:
        """Find out what is there. Raises TransientError when the folder cannot be made, FatalError for foreign files."""
        with translated(self.folder, "cannot open the spool in"):
            make_folders(self.folder.parent)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self.folder.parent)
            sync_folder(self.folder)  # whoever made a segment may have been killed before that
            acknowledged = self._read_marks()
            self._find_segments()
            last = self._last_number(self._segments[-1]) if self._segments else 0
        self.durable = max(last, acknowledged, self._trimmed)
        if not self._id:
            self._id, self._marked = os.urandom(16), True

    def close(self) -> None:
        """Close the segment that is being written; safe twice."""
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None

    def append(self, chunks: Sequence[CollectedData]) -> None:
        """Write chunks behind the others; when this returns, they survive a power cut.

        Raises TransientError, with nothing kept, when the quota is reached, the disk is full or fails.
        """
        pieces: list[bytes] = []
        for number, chunk in enumerate(chunks, self.durable + 1):
            pieces += pack(number, chunk)
        size = sum(map(len, pieces))
        self._refused = size
        self._check_space(size)
        try:
            segment = self._writable()
        except OSError as error:
            raise self._failed(error) from error
        try:
            write_all(self._writing_descriptor(), pieces)
        except OSError as error:
            self._take_back(segment)
            raise self._failed(error) from error
        try:
            os.fdatasync(self._writing_descriptor())
        except OSError as error:
            self._abandon(segment)
            raise self._failed(error) from error
        segment.end += size
        self._refused = 0
        self.durable += len(chunks)
        self._write_marks()

    def problem(self) -> str | None:
        """Return why the chunks that were refused last would be refused now; None when there is room for them again."""
        if self._refused:
            try:
                self._check_space(self._refused)
            except TransientError as error:
                return str(error)
        return None

    def recent(self) -> Iterator[CollectedData]:
        """Yield the latest chunks, of up to two full segments, stored ones included, without their positions."""
        behind = accumulate((segment.end for segment in reversed(self._segments)), initial=0)
        for segment in self._segments[-sum(size < SEGMENT_BYTES for size in behind) :]:
            descriptor = os.open(segment_path(self.folder, segment.ordinal), os.O_RDONLY)
            try:
                start = HEADER_SIZE
                while (frame := find_frame(descriptor, start, segment.end)) is not None:
                    yield unpack(frame.payload)
                    start = frame.end
            finally:
                os.close(descriptor)

    def behind(self, since: Position | None) -> int:
        """Return how many bytes of frames lie behind a position."""
        place = self._segment_of(self._next_number(since))
        later = sum(segment.end - HEADER_SIZE for segment in self._segments[place + 1 :])
        if since is None or not self.knows(since) or not 0 <= place < len(self._segments):
            return later + (self._segments[place].end - HEADER_SIZE if self._segments and place >= 0 else 0)
        here = self._segments[place]
        start = int(since["offset"]) if since["segment"] == here.ordinal else HEADER_SIZE
        return later + max(0, here.end - start)

    def knows(self, position: Position) -> bool:
        """Return whether the position is one of this spool, and not of one that was removed."""
        return position.get("spool") == self._id.hex()

    def read(self, since: Position | None, limit: int = READ_BYTES) -> list[CollectedData]:
        """Return the next durable chunks behind a position, about `limit` bytes of them, one at least if there is one."""
        expected = self._next_number(since)
        offset = int(since["offset"]) if since is not None and self.knows(since) else HEADER_SIZE
        hint = since["segment"] if since is not None and self.knows(since) else None
        chunks: list[CollectedData] = []
        size = 0
        durable = self.durable
        segments = list(self._segments)
        place = self._segment_of(expected)
        while expected <= durable and size < limit:
            if place < 0:  # everything below the first segment is missing
                chunks.append(
                    self._reader.lost(
                        self._id, expected, segments[0].first - 1 if segments else durable, None, 0, 0
                    )
                )
                expected, place = chunks[-1].metadata["last"] + 1, 0
                continue
            segment = segments[place]
            last = segments[place + 1].first - 1 if place + 1 < len(segments) else durable
            if expected > last:
                place, offset, hint = place + 1, HEADER_SIZE, None
                continue
            offset = offset if hint in {None, segment.ordinal} else HEADER_SIZE
            with self._reader.opened(segment) as descriptor:
                while expected <= last and size < limit:
                    chunk = self._reader.next_in(descriptor, self._id, segment, offset, expected, last)
                    chunks.append(chunk)
                    size += len(chunk.raw_data)
                    position = chunk.position or {}
                    expected, offset, hint = position["frame"] + 1, position["offset"], segment.ordinal
        return chunks

    def trim(self, position: Position, *, ended: bool = False) -> None:
        """Forget what is up to a position: every backend has it. The last segment always stays, since it knows the number.

        With `ended` nothing is appended in this run any more: when all is forgotten, what stays is an empty segment.
        """
        if not self.knows(position):
            return
        self._trimmed = max(self._trimmed, int(position["frame"]))
        with translated(self.folder, "cannot remove a segment of the spool in"):
            if ended and self._trimmed >= self.durable and self.size > HEADER_SIZE:
                self.close()
                os.close(self._new_segment())
            while len(self._segments) > 1 and self._segments[1].first - 1 <= self._trimmed:
                self._write_marks()
                segment_path(self.folder, self._segments[0].ordinal).unlink(missing_ok=True)
                del self._segments[0]

    # what is on disk

    def _find_segments(self) -> None:
        for ordinal in sorted(int(path.stem) for path in self.folder.glob("*.spool") if path.stem.isdigit()):
            path = segment_path(self.folder, ordinal)
            descriptor = os.open(path, os.O_RDONLY)
            try:
                end = os.fstat(descriptor).st_size
                try:
                    header = Header.read(descriptor)
                except ValueError as error:
                    raise FatalError(
                        f"{path}: {error}; start the newer program again until the spool is empty, "
                        "or move the folder away",
                        error_type=ErrorType.STORAGE,
                    ) from error
                found = find_frame(descriptor, HEADER_SIZE, end) if header is None else None
            finally:
                os.close(descriptor)
            if header is not None:
                self._id, first = self._id or header.spool, header.first
            elif found is not None:
                first = found.number
            else:
                first = self._last_number(self._segments[-1]) + 1 if self._segments else self._trimmed + 1
            self._segments.append(Segment(ordinal, first, end))

    def _last_number(self, segment: Segment) -> int:
        """Return the number of the last whole frame of a segment; that before its first if there is none."""
        last, start = segment.first - 1, HEADER_SIZE
        descriptor = os.open(segment_path(self.folder, segment.ordinal), os.O_RDONLY)
        try:
            while True:
                frame = read_frame(descriptor, start, segment.end) or find_frame(
                    descriptor, start, segment.end
                )
                if frame is None:
                    return last
                last, start = max(last, frame.number), frame.end
        finally:
            os.close(descriptor)

    def _read_marks(self) -> int:
        """Take over what the marks say, and return the number of the last frame that was acknowledged."""
        path = self.folder / "marks"
        try:
            marks = Marks.read(path)
        except ValueError:
            self._tell(f"{path} is damaged; it is made anew")
            return 0
        if marks is None:
            return 0
        self._id, self._trimmed, self._marked = marks.spool, marks.trimmed, True
        return marks.acknowledged

    def _write_marks(self) -> None:
        Marks(self._id, self.durable, self._trimmed).write(self.folder / "marks")

    # writing

    def _check_space(self, size: int) -> None:
        if self.size + size > self._quota:
            raise TransientError(
                f"the spool of source '{self._source}' has reached its limit of {self._quota / 2**20:,.0f} MiB; "
                "it empties as soon as the storage takes more (`spool:` sets the limit)",
                error_type=ErrorType.STORAGE,
            )
        with translated(self.folder, "cannot look at the disk of"):
            disk = os.statvfs(self.folder)
        keep = min(KEEP_FREE, disk.f_blocks * disk.f_frsize // 8)
        if disk.f_bavail * disk.f_frsize < size + keep:
            raise TransientError(
                f"{self.folder}: the disk is full but for {keep / 2**20:,.0f} MiB, which are for the storage; "
                "intake goes on by itself as soon as there is room",
                error_type=ErrorType.STORAGE,
            )

    def _writable(self) -> Segment:
        """Return the segment to append to, a new one where needed. Raises OSError."""
        # Of a small quota the last segment, which always stays, must not take all.
        if self._writing is not None and self._segments[-1].end < min(SEGMENT_BYTES, self._quota // 4):
            return self._segments[-1]
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None
        last = self._segments[-1] if self._segments else None
        if last is not None and last.end == HEADER_SIZE and not last.abandoned:
            self._writing = os.open(
                segment_path(self.folder, last.ordinal), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            )
            return last
        self._writing = self._new_segment()
        return self._segments[-1]

    def _new_segment(self) -> int:
        """Begin a segment and return its descriptor: its name is durable before a frame in it is acknowledged."""
        ordinal = self._segments[-1].ordinal + 1 if self._segments else 1
        segment = Segment(ordinal, self.durable + 1, HEADER_SIZE)
        path = segment_path(self.folder, ordinal)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, [Header(self._id, segment.first).pack()])
            os.fsync(descriptor)
            sync_folder(self.folder)
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()
            raise
        self._segments.append(segment)
        return descriptor

    def _writing_descriptor(self) -> int:
        assert self._writing is not None  # noqa: S101  # _writable has just opened it
        return self._writing

    def _take_back(self, segment: Segment) -> None:
        """Cut off what a failed write left; where even that fails, go on in a new segment, whose number makes it void."""
        try:
            os.ftruncate(self._writing_descriptor(), segment.end)
        except OSError:
            self._abandon(segment)

    def _abandon(self, segment: Segment) -> None:
        """Never use a file again whose fsync failed: a second one would succeed without having written anything."""
        descriptor, self._writing = self._writing_descriptor(), None
        segment.abandoned = True
        with suppress(OSError):
            os.ftruncate(descriptor, segment.end)
        with suppress(OSError):
            os.close(descriptor)

    def _failed(self, error: OSError) -> TransientError:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        reason = "the disk is full" if full else f"the disk failed ({error.strerror})"
        return TransientError(f"{self.folder}: {reason}; nothing was kept", error_type=ErrorType.STORAGE)

    # reading

    def _next_number(self, since: Position | None) -> int:
        if since is not None and self.knows(since):
            return int(since["frame"]) + 1
        if self._marked or not self._segments:
            return self._trimmed + 1
        return self._segments[0].first

    def _segment_of(self, number: int) -> int:
        """Return the index of the segment in which a frame is; -1 when it lies below the first."""
        place = -1
        for index, segment in enumerate(self._segments):
            if segment.first > number:
                break
            place = index
        return place
