"""Keeps track of files while they are renamed, replaced and deleted: what to read next, and which are open."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Literal, Protocol

from msgspec import Struct

from collectors.collection.sources._bookmarks import FOLLOWED, Bookmark, Bookmarks, Key
from collectors.collection.sources._compressed import BrokenDataError
from collectors.collection.sources._handle import FileReader, Handle, ReplacedError
from collectors.collection.sources._listing import Listing, list_files
from collectors.errors import ConfigurationError, FatalError

__all__ = ["Job", "Tracker"]

_OPEN_FILES = 128
_SETTLED_SECONDS = 2.0
"""A file written later than this before it was read may have changed without a change of its time stamp."""
_TORN_SECONDS = 60.0
"""A followed compressed file that ends early is being written, unless nothing came for so long."""
_LATE_SECONDS = 3600.0
"""So long after its last change a rotated file that no pattern matches is watched for late lines."""


class _Config(Protocol):
    @property
    def paths(self) -> list[str]: ...
    @property
    def follow(self) -> bool: ...
    @property
    def start(self) -> Literal["beginning", "end"]: ...


class Job(Struct):
    """A file to read in this round: its name now, and `path`, the name that it had when it was first seen.

    `rotated`: another file has taken its name, so that it gets no more, apart from what its writer still holds.
    `stamp` are size and time of the last write when it was found.
    """

    name: str
    path: str
    mark: Bookmark | None
    key: Key
    rotated: bool
    stamp: tuple[int, int] | None


class Tracker:
    """The files of one source: finds them, and keeps those open that were read last.

    A file that is open can be read to its end whatever happens to its name, and its inode cannot be given away.
    """

    def __init__(
        self,
        config: _Config,
        make_reader: Callable[[Handle, Bookmark | None], FileReader],
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._make_reader = make_reader
        self._now = now
        self._readers: dict[Key, FileReader] = {}
        self._settled: dict[Key, tuple[int, int]] = {}
        self._early: dict[Key, int] = {}
        self._skipped: list[Bookmark] | None = None
        self._folded: set[Key] | None = None

    def jobs(self, marks: Bookmarks, *, first: bool) -> list[Job]:
        """Return what to read in this round; bookmarks of files that are gone are dropped.

        `first`: no position is known, so that `start` of the settings says where to begin.
        """
        listing = list_files(self._config.paths)
        if self._config.follow and len(listing.files) > FOLLOWED:
            raise ConfigurationError(
                f"{len(listing.files)} files match {', '.join(map(repr, self._config.paths))}; at most {FOLLOWED} can "
                "be followed by one source. Narrow the pattern, or split it over several sources"
            )
        if first and self._config.start == "end":
            self._skip_to_end(marks, listing)
        self._check_folded(marks, listing)
        if len(self._settled) > len(listing.files) + _OPEN_FILES:
            self._settled.clear()
        found = self._jobs_of(marks, listing)
        known = {job.key for job in found}
        jobs = [job for job in found if not self._is_settled(job)]
        for key, reader in list(self._readers.items()):
            if key not in known and self._open_at(key, None) is not None:
                known.add(key)
                jobs.append(self._job(listing, reader.handle.path, None, key, reader.handle.path))
        for name, status in listing.files.items():
            key = (status.st_dev, status.st_ino)
            if key not in known and not (marks.is_folded(name) and key in (self._folded or ())):
                jobs.append(self._job(listing, name, None, key, name))
        return [job for job in jobs if not self._is_torn(job)]

    def reader(self, job: Job) -> FileReader:
        """Return the open reader of a file, at its bookmark. Raises ReplacedError, FileNotFoundError, FatalError."""
        reader = self._readers.get(job.key)
        if reader is None:
            reader = self._open(job.name, job.mark)
            if reader.handle.key != job.key:
                reader.handle.close()
                raise ReplacedError(job.name)
        self._keep(reader)
        return reader

    def done(self, job: Job, reader: FileReader, marks: Bookmarks) -> None:
        """Note that a file was read as far as it goes now."""
        if reader.finished:
            modified = reader.handle.modified()
            mark = reader.settled(job.path)
            self.forget(job.key)
            if mark is not None:
                marks.put(mark)
            if job.rotated and job.stamp is None and self._now() - modified > _LATE_SECONDS:
                marks.drop(job.key)
        if job.stamp is not None and self._now() - job.stamp[1] / 1e9 > _SETTLED_SECONDS:
            self._settled[job.key] = job.stamp

    def may_grow(self, job: Job, reader: FileReader, error: BrokenDataError) -> bool:
        """Return whether compressed data that end early may just be on their way; if so the file is left until it grows."""
        if not (self._config.follow and error.early) or job.rotated or job.stamp is None:
            return False
        if self._now() - reader.handle.modified() > _TORN_SECONDS:
            return False
        self.forget(job.key)
        self._early[job.key] = job.stamp[0]
        return True

    def locate(self, mark: Bookmark) -> str | None:
        """Return under which name the content of a bookmark is found now, None when it is gone."""
        listing = list_files(self._config.paths)
        reader = self._open_first(chain(listing.by_inode(mark), listing.by_name(mark)), mark, set())
        if reader is None:
            return None
        reader.handle.close()
        return reader.handle.path

    def fold(self, marks: Bookmarks, before: str) -> None:
        """Keep the position small; all files that sort before this name were read."""
        if self._folded is not None:
            marks.fold(before, self._folded)

    def start_over(self, key: Key) -> None:
        """Begin anew with an open file: its content is another now, and maybe only the open file leads to that."""
        reader = self._readers.get(key)
        if reader is not None:
            reader.handle.renew()
            self._readers[key] = self._make_reader(reader.handle, None)

    def forget(self, key: Key) -> None:
        """Close a file; its bookmark stays."""
        reader = self._readers.pop(key, None)
        if reader is not None:
            reader.handle.close()

    def close(self) -> None:
        """Close all files."""
        for key in list(self._readers):
            self.forget(key)

    def _open(self, name: str, mark: Bookmark | None) -> FileReader:
        handle = Handle(name)
        try:
            return self._make_reader(handle, mark)
        except BaseException:
            handle.close()
            raise

    def _keep(self, reader: FileReader) -> None:
        """Keep a file open as the one read last, and close the one not read for longest when there are too many."""
        before = self._readers.pop(reader.handle.key, None)
        if before is not None and before.handle is not reader.handle:
            before.handle.close()
        self._readers[reader.handle.key] = reader
        if len(self._readers) > _OPEN_FILES:
            self.forget(next(iter(self._readers)))

    def _open_at(self, key: Key, mark: Bookmark | None) -> FileReader | None:
        """Return the open reader of a file, moved to the bookmark; None when it has none with that content.

        It is moved on its open file, which may have no name any more.
        """
        reader = self._readers.get(key)
        if reader is None:
            return None
        try:
            reader.check()
        except ReplacedError:
            self.start_over(key)
            return None
        if not reader.at(mark):
            try:
                reader = self._make_reader(reader.handle, mark)
            except ReplacedError:
                return None
            self._readers[key] = reader
        return reader

    def _jobs_of(self, marks: Bookmarks, listing: Listing) -> list[Job]:
        """Find the files of the bookmarks; a bookmark moves along with its content, or is dropped if that is gone.

        First by inode; only what is left then is looked for by content, in files that are nobody's yet.
        """
        found = {mark.key: self._by_inode(mark, listing) for mark in marks}
        taken = {key for key, job in found.items() if job is not None}
        for mark in marks:
            if found[mark.key] is not None:
                continue
            reader = self._open_first(listing.by_name(mark), mark, taken)
            if reader is not None:
                self._keep(reader)
                device, inode = key = reader.handle.key
                taken.add(key)
                marks.put(mark._replace(device=device, inode=inode), mark.key)
                found[mark.key] = self._job(listing, mark.path, marks.get(key), key, reader.handle.path)
            elif listing.has_others_beside(mark) and marks.get(mark.key) == mark:
                marks.drop(mark.key)
        return [job for job in found.values() if job is not None]

    def _by_inode(self, mark: Bookmark, listing: Listing) -> Job | None:
        job = self._job(listing, mark.path, mark, mark.key, mark.path)
        if self._open_at(mark.key, mark) is not None:
            return job
        if job.stamp is not None and job.stamp == self._settled.get(mark.key):
            return job
        reader = self._open_first(listing.by_inode(mark), mark, set())
        if reader is None:
            return None
        self._keep(reader)
        return self._job(listing, mark.path, mark, mark.key, reader.handle.path)

    def _open_first(self, names: Iterable[str], mark: Bookmark, taken: set[Key]) -> FileReader | None:
        """Return a reader of the first of these files that has the bookmark's content and is not taken."""
        for name in names:
            try:
                reader = self._open(name, mark)
            except (ReplacedError, FileNotFoundError, FatalError):
                continue
            if reader.handle.key not in taken:
                return reader
            reader.handle.close()
        return None

    def _job(self, listing: Listing, path: str, mark: Bookmark | None, key: Key, name: str) -> Job:
        name = listing.names.get(key, name)
        status = listing.files.get(name)
        stamp = (status.st_size, status.st_mtime_ns) if status and listing.key(name) == key else None
        return Job(name, path, mark, key, listing.key(path) not in {None, key}, stamp)

    def _is_settled(self, job: Job) -> bool:
        """Return whether there is nothing to do for a file: unchanged since it was read, and no last line is waiting."""
        mark = job.mark
        if mark is None or job.stamp is None or job.stamp != self._settled.get(job.key):
            return False
        return job.stamp[0] in {mark.size, mark.offset}

    def _is_torn(self, job: Job) -> bool:
        size = self._early.get(job.key)
        if size is None or job.stamp is None or job.stamp[0] != size:
            self._early.pop(job.key, None)
            return False
        return self._now() - job.stamp[1] / 1e9 <= _TORN_SECONDS

    def _skip_to_end(self, marks: Bookmarks, listing: Listing) -> None:
        """Begin behind what is there at the first look, also when reading starts over before a position is known."""
        if self._skipped is None:
            self._skipped = []
            for name in listing.files:
                reader = self._open(name, None)
                self._skipped.append(reader.skip_to_end(name))
                reader.handle.close()
        for mark in self._skipped:
            marks.put(mark)

    def _check_folded(self, marks: Bookmarks, listing: Listing) -> None:
        if self._folded is not None:
            return
        folded = {
            name: status
            for name, status in listing.files.items()
            if marks.is_folded(name) and (status.st_dev, status.st_ino) not in marks
        }
        marks.check_folded((name, status.st_size) for name, status in folded.items())
        self._folded = {(status.st_dev, status.st_ino) for status in folded.values()}
