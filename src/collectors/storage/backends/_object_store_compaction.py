"""Small objects of a flow become few large ones: `collectors compact`.

Whoever compacts takes the flow over, as a run does: from then on nobody else can put an entry. The rows of several
commits, as they are and in their order, go into new objects; one entry of the log names those and the entries that it
`replaces`, so that readers of the log see either the old objects or the new ones. The old objects are deleted behind
that; what a crash leaves of them, the next compaction deletes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.csv
from msgspec.structs import replace

from collectors.errors import FatalError, FencedError
from collectors.storage.backends._compaction import Source, merge, schema_of
from collectors.storage.backends._object_store_client import Objects, RangeFile
from collectors.storage.backends._object_store_log import Intent, ObjectEntry, ObjectLog, standing
from collectors.storage.backends._object_store_scratch import Scratch
from collectors.storage.backends._parquet_log import FileEntry, file_name, part_prefix
from collectors.storage.backends._text_file import ENDINGS
from collectors.storage.backends._text_merging import merge_lines
from collectors.storage.base import Compacted

__all__ = ["Compaction"]

_FORMS = {
    f".{form}{ending}": (form, name) for form in ("ndjson", "csv") for name, ending in ENDINGS.items()
} | {".parquet": ("parquet", "none")}


class _Group(msgspec.Struct):
    """Entries whose files can become one in each folder."""

    entries: list[ObjectEntry]
    schemas: dict[str, object]
    bytes: dict[str, int]


class Compaction:
    """The objects of one flow; `target` is how large, in bytes, one should become."""

    def __init__(self, objects: Objects, scratch: Scratch, flow: str, target: int) -> None:
        self._objects = objects
        self._scratch = scratch
        self._flow = flow
        self._name = file_name(flow)
        self._log = ObjectLog(objects, self._name)
        self._target = target

    def plan(self) -> list[Compacted]:
        """Return what `run` would merge, while others may do so, too; nothing is written."""
        while True:
            there = standing(self._log.entries())
            try:
                return [self._outcome(group, ()) for group in self._groups(there)]
            except FatalError:
                if standing(self._log.entries()) == there:
                    raise

    def run(self, epoch: int, tell: Callable[[Compacted], None]) -> list[Compacted]:
        """Merge, as the one who has claimed this epoch. `tell` is told of each entry that was put.

        Raises FencedError when another process has taken the flow over since; what was told is done then.
        """
        done: list[Compacted] = []
        while True:
            last = self._log.last()
            if last is None or last.epoch != epoch:
                raise self._fenced()
            try:
                for group in self._groups(standing(self._log.entries())):
                    last = self._merge(last, group)
                    done.append(self._outcome(group, last.files))
                    tell(done[-1])
                return done
            except FatalError as error:
                following = self._log.read(last.number + 1)
                if following is None:
                    raise
                if following.kind != "remove":
                    raise self._fenced() from error
                # else rows were deleted meanwhile: look again

    def delete_left(self) -> None:
        """Delete what an earlier compaction has left; anybody may do that."""
        self._log.delete_left()

    def _groups(self, there: Sequence[ObjectEntry]) -> Iterator[_Group]:
        """Yield entries that stand one behind another and fit together, where there are two or more."""
        waiting = _Group([], {}, {})
        for entry in there:
            if not entry.files:
                continue
            small = all(file.bytes < self._target // 2 for file in entry.files)
            schemas = {_folder(file): self._schema(file) for file in entry.files} if small else {}
            fits = small and all(
                waiting.schemas.get(each, schema) == schema for each, schema in schemas.items()
            )
            sizes = {_folder(file): file.bytes for file in entry.files}
            full = any(waiting.bytes.get(each, 0) + size > self._target for each, size in sizes.items())
            if not fits or full:
                if len(waiting.entries) > 1:
                    yield waiting
                waiting = _Group([], {}, {})
            if small:
                waiting.entries.append(entry)
                waiting.schemas |= schemas
                for folder, size in sizes.items():
                    waiting.bytes[folder] = waiting.bytes.get(folder, 0) + size
        if len(waiting.entries) > 1:
            yield waiting

    def _schema(self, file: FileEntry) -> object:
        """Return what files have to have in common to be one."""
        form = _form(file)
        if form[0] == "parquet":
            return form, schema_of(self._source(file)), file.partition, file.types
        return form, tuple(file.columns) if form[0] == "csv" else ()

    def _merge(self, last: ObjectEntry, group: _Group) -> ObjectEntry:
        """Make objects of several, and return the entry that says so. Raises FencedError when it has lost its number."""
        token = secrets.token_hex(8)
        own = f"{group.entries[0].first_seq:012d}-{last.epoch}-{token}"
        files: list[FileEntry] = []
        paths: dict[str, Path] = {}
        for folder in group.schemas:
            old = [file for entry in group.entries for file in entry.files if _folder(file) == folder]
            ending = next(ending for ending in _FORMS if old[0].name.endswith(ending))
            name = f"{folder}{part_prefix(self._name)}{own}{ending}"
            paths[name] = self._scratch.folder() / f"compact-{token}-{len(paths)}"
            files.append(self._write(old, name, paths[name]))
        entry = last.behind(
            "compact",
            first_seq=group.entries[0].first_seq,
            files=files,
            replaces=[each.number for each in group.entries],
        )
        intent = self._log.intend(entry.epoch, token, Intent(entry.number, entry.objects))
        for name, path in paths.items():
            self._objects.upload(name, path, path.stat().st_size)
            path.unlink()
        if not self._log.put(entry):
            self._objects.delete(entry.objects)
            self._log.forget_intent(intent)
            raise self._fenced()
        self._log.put_block(entry.number)
        self._log.delete_replaced(group.entries)
        self._log.forget_intent(intent)
        return entry

    def _write(self, old: Sequence[FileEntry], name: str, path: Path) -> FileEntry:
        """Write the rows of several objects into one file. Raises FatalError when they are not what the log says."""
        form, compression = _form(old[0])
        sources = [self._source(file) for file in old]
        if form == "parquet":
            rows = merge(sources, path, durable=False)
        else:
            headers = [_header(file.columns) if form == "csv" else b"" for file in old]
            rows = merge_lines(sources, headers, path, compression)
        columns = list(dict.fromkeys(column for file in old for column in file.columns))
        return replace(old[0], name=name, rows=rows, bytes=path.stat().st_size, columns=columns)

    def _source(self, file: FileEntry) -> Source:
        name, size = file.name, file.bytes
        return Source(self._objects.url(name), file.rows, lambda: RangeFile(self._objects, name, size))

    def _fenced(self) -> FencedError:
        return FencedError(
            f"{self._flow}: another process has taken this flow over while its objects were merged; what was not merged "
            "yet stays as it is; stop one of the two"
        )

    def _outcome(self, group: _Group, files: Sequence[FileEntry]) -> Compacted:
        old = [file for entry in group.entries for file in entry.files]
        return Compacted(
            flow=self._flow,
            files_before=len(old),
            files_after=len(files) or len(group.schemas),
            rows=sum(file.rows for file in old),
            bytes_before=sum(file.bytes for file in old),
            bytes_after=sum(file.bytes for file in files),
        )


def _folder(file: FileEntry) -> str:
    folder, slash, _ = file.name.rpartition("/")
    return folder + slash


def _form(file: FileEntry) -> tuple[str, str]:
    """Return format and compression of an object by its name."""
    return next(form for ending, form in _FORMS.items() if file.name.endswith(ending))


def _header(columns: Sequence[str]) -> bytes:
    """Return the first line of a CSV file with these columns."""
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(pa.table([pa.array([], pa.string())] * len(columns), list(columns)), sink)
    return bytes(sink.getvalue())
