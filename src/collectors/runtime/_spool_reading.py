"""Reads the frames of a spool's segments; what cannot be read is counted, kept aside and told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from collectors.models import CollectedData, Position
from collectors.runtime._spool_frames import HEADER_SIZE, Frame, find_frame, read_frame, segment_path, unpack
from collectors.storage.files import translated

__all__ = ["Segment", "SegmentReader"]

_LETTER_BYTES = 64 * 1024
_MOST_BYTES = 64 * 2**20


class Segment(Struct):
    """A file of the spool: its number, that of its first frame, and how many of its bytes count."""

    ordinal: int
    first: int
    end: int
    abandoned: bool = False


class SegmentReader(Struct, frozen=True):
    """Gives chunks with their positions; `tell` gets a line for people about what was found damaged."""

    folder: Path
    source: str
    now: Callable[[], datetime]
    tell: Callable[[str], None]

    @contextmanager
    def opened(self, segment: Segment) -> Iterator[int | None]:
        """Give the descriptor of a segment's file; None when there is no such file."""
        try:
            descriptor = os.open(segment_path(self.folder, segment.ordinal), os.O_RDONLY)
        except FileNotFoundError:
            yield None
            return
        try:
            with translated(self.folder, "cannot read the spool in"):
                yield descriptor
        finally:
            os.close(descriptor)

    def next_in(
        self, descriptor: int | None, spool: bytes, segment: Segment, start: int, expected: int, last: int
    ) -> CollectedData:
        """Return the chunk with the expected number, or one that tells which chunks cannot be read."""
        if descriptor is None:
            return self.lost(spool, expected, last, segment, start, start)
        frame = read_frame(descriptor, start, segment.end)
        if frame is None or frame.number != expected:
            frame = _seek(descriptor, HEADER_SIZE, segment.end, expected)
        if frame is None or frame.number > last:
            return self.lost(spool, expected, last, segment, start, segment.end, descriptor)
        if frame.number != expected:
            return self.lost(spool, expected, frame.number - 1, segment, start, frame.start, descriptor)
        chunk = unpack(frame.payload)
        chunk.position = _position(spool, segment, frame.number, frame.end)
        return chunk

    def lost(
        self,
        spool: bytes,
        first: int,
        last: int,
        segment: Segment | None,
        start: int,
        end: int,
        descriptor: int | None = None,
    ) -> CollectedData:
        """Keep what is left of damaged frames and return the refused record that stands for them."""
        raw, kept = b"", ""
        if segment is not None and descriptor is not None and end > start:
            raw = os.pread(descriptor, min(end - start, _MOST_BYTES), start)
            path = self.folder / "quarantine" / f"{segment.ordinal:020d}-{start}.bad"
            try:
                path.parent.mkdir(mode=0o700, exist_ok=True)
                path.write_bytes(raw)
                path.chmod(0o600)
                kept = f"; what is left of them, {len(raw):,} bytes, is kept in {path}"
            except OSError as error:
                kept = f"; what is left of them could not be kept ({error.strerror})"
        count = last - first + 1
        which = f"chunk {first}" if count == 1 else f"{count:,} chunks, {first} to {last},"
        reason = f"the spool is damaged: {which} cannot be read{kept}"
        self.tell(f"{self.folder}: {reason}")
        return CollectedData(
            source_id=self.source,
            timestamp=self.now(),
            data_format="rejected",
            collection_method="Spool",
            raw_data=raw[:_LETTER_BYTES],
            metadata={"reason": reason, "first": first, "last": last},
            position=_position(spool, segment, last, end),
        )


def _position(spool: bytes, segment: Segment | None, number: int, offset: int) -> Position:
    ordinal = segment.ordinal if segment is not None else 0
    return {"spool": spool.hex(), "frame": number, "segment": ordinal, "offset": offset}


def _seek(descriptor: int, start: int, end: int, number: int) -> Frame | None:
    """Return the frame with the number, or the first behind it."""
    best: Frame | None = None
    while (frame := find_frame(descriptor, start, end)) is not None:
        if frame.number == number:
            return frame
        if frame.number > number and (best is None or frame.number < best.number):
            best = frame
        start = frame.end
    return best
