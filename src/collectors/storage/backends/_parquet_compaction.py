"""Small files of a flow become few large ones: `collectors compact`.

Whoever compacts takes the flow over, as a run does, with an entry of a kind of its own: from then on nobody else can put
one. Files of one folder that stand one behind another become one, in their order; it is read again and compared before
an entry says that it stands for them. What becomes of the old ones is told in `_parquet_merged`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from msgspec.structs import replace

from collectors.enums import ErrorType
from collectors.errors import FatalError, FencedError
from collectors.storage.backends._compaction import Source, merge, schema_of
from collectors.storage.backends._parquet_log import Entry, FileEntry, FlowLog, part_name
from collectors.storage.backends._parquet_merged import (
    Standing,
    finish,
    merged_path,
    merged_paths,
    merging,
    settle,
    standing,
)
from collectors.storage.base import Compacted
from collectors.storage.files import make_folders, sync_folder, translated

__all__ = ["Compaction"]


class Compaction:
    """The files of one flow; `target` is how large, in bytes, one should become."""

    def __init__(self, root: Path, log: FlowLog, flow: str, target: int) -> None:
        self._root = root
        self._log = log
        self._flow = flow
        self._target = target

    def plan(self) -> list[Compacted]:
        """Return what `run` would merge; nothing is written."""
        return [self._outcome(group) for group in self._planned()]

    def run(self, tell: Callable[[Compacted], None]) -> list[Compacted]:
        """Merge, and tell of each file that was made; also finish, or undo, what an earlier try has begun.

        Raises FencedError when another process has taken the flow over since; what was told is done then.
        """
        with merging(self._log):
            if not any(merged_paths(self._root, self._log)) and not self._planned(1):
                return []
            last: Entry = self._claim()
            done: list[Compacted] = []
            while True:
                try:
                    for group in self._groups(standing(self._root, self._log)):
                        last = self._merge(last, group)
                        done.append(self._outcome(group, last.files))
                        tell(done[-1])
                    return done
                except (FatalError, OSError) as error:
                    newest = self._log.last()
                    if newest is None or newest.number == last.number:
                        raise
                    if newest.epoch > last.epoch:  # its owner has deleted what we need
                        raise self._fenced() from error
                    last = newest  # rows were deleted meanwhile: look again

    def _planned(self, most: int | None = None) -> list[list[Standing]]:
        """Return what can be merged, or some of it, while others may do so, too."""
        while True:
            files = standing(self._root, self._log)
            try:
                return list(islice(self._groups(files), most))
            except FatalError:
                if standing(self._root, self._log) == files:
                    raise

    def _claim(self) -> Entry:
        self._log.make()
        while True:
            last = self._log.last()
            if last is None:
                raise FatalError(f"{self._flow}: its log is gone", error_type=ErrorType.STORAGE)
            claimed = last.behind("compact", epoch=last.epoch + 1)
            try:
                if self._log.put(claimed):
                    break
            except FileNotFoundError:
                if self._log.read(claimed.number) is None:
                    raise  # else another one has just claimed it, and has swept
        self._log.sweep(claimed.epoch)
        settle(self._root, self._log, claimed.epoch)
        return claimed

    def _groups(self, there: list[Standing]) -> Iterator[list[Standing]]:
        """Yield files of one folder that can become one."""
        folders: dict[Path, list[Standing]] = {}
        for each in there:
            folders.setdefault((self._root / each.file.name).parent, []).append(each)
        for files in folders.values():
            if len(files) > 1:
                yield from (group for group in self._runs(files) if len(group) > 1)

    def _runs(self, files: list[Standing]) -> Iterator[list[Standing]]:
        """Yield small files that stand one behind another and have the same columns, up to the target."""
        run: list[Standing] = []
        kind: object = None
        for each in files:
            small = each.file.bytes < self._target // 2
            found = self._kind(each) if small else None
            size = sum(other.file.bytes for other in run) + each.file.bytes
            if found != kind or size > self._target:
                yield run
                run, kind = [], found
            if small:
                run.append(each)
        yield run

    def _kind(self, each: Standing) -> object:
        """Return what files of a folder have to have in common to be one."""
        return schema_of(_source(each)), each.file.partition, each.file.types

    def _merge(self, last: Entry, group: list[Standing]) -> Entry:
        """Make one file of several, and return the entry that says so."""
        first, epoch, number = group[0], last.epoch, last.number + 1
        path = merged_path(self._root, self._log, epoch, number)
        folder = first.file.name.rpartition("/")
        name = f"{folder[0]}{folder[1]}{part_name(self._flow, epoch, first.entry.first_seq)}"
        try:
            with translated(path, "cannot write to"):
                make_folders(path.parent)
                file = self._write(group, path, name)
                sync_folder(path.parent)
            merged = [each.file.name for each in group]
            entry = last.behind("compact", first_seq=first.entry.first_seq, files=[file], merged=merged)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        if not self._log.put(entry):
            path.unlink(missing_ok=True)
            raise self._fenced()
        finish(self._root, self._log, entry)
        return entry

    def _write(self, group: list[Standing], path: Path, name: str) -> FileEntry:
        """Write the rows of several files, durably, into one. Raises FatalError when they are not what the log says."""
        rows = merge([_source(each) for each in group], path, durable=True)
        return replace(group[0].file, name=name, rows=rows, bytes=path.stat().st_size)

    def _fenced(self) -> FencedError:
        return FencedError(
            f"{self._flow}: another process has taken this flow over while its files were merged; what was not merged yet "
            "stays as it is; stop one of the two"
        )

    def _outcome(self, group: list[Standing], made: list[FileEntry] | None = None) -> Compacted:
        return Compacted(
            flow=self._flow,
            files_before=len(group),
            files_after=1,
            rows=sum(each.file.rows for each in group),
            bytes_before=sum(each.file.bytes for each in group),
            bytes_after=sum(file.bytes for file in made or []),
        )


def _source(each: Standing) -> Source:
    return Source(str(each.path), each.file.rows, lambda: each.path)
