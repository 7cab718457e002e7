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
import pyarrow.parquet as pq
from msgspec.structs import replace

from collectors.enums import ErrorType
from collectors.errors import FatalError, FencedError, TransientError
from collectors.storage.backends._object_store_client import Objects, RangeFile
from collectors.storage.backends._object_store_log import Intent, ObjectEntry, ObjectLog, standing
from collectors.storage.backends._object_store_scratch import Scratch
from collectors.storage.backends._parquet_file import PartFile
from collectors.storage.backends._parquet_log import FileEntry, file_name, part_prefix
from collectors.storage.backends._text_file import ENDINGS
from collectors.storage.base import Compacted
from collectors.storage.files import translated

__all__ = ["Compaction"]

_PIECE = 8 * 2**20
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
        self._last: ObjectEntry | None = None

    def plan(self) -> list[Compacted]:
        """Return what `run` would merge; nothing is written. Raises TransientError when others delete meanwhile."""
        try:
            return [self._outcome(group, ()) for group in self._groups()]
        except FileNotFoundError as error:
            raise TransientError(f"{error.filename} was deleted meanwhile; run it again") from error

    def run(self, epoch: int, tell: Callable[[Compacted], None]) -> list[Compacted]:
        """Merge, as the one who has claimed this epoch. `tell` is told of each entry that was put.

        Raises FencedError when another process has taken the flow over since; what was told is done then.
        """
        self._last = self._log.last()
        if self._last is None or self._last.epoch != epoch:
            raise self._fenced()
        done = []
        try:
            for group in self._groups():
                done.append(self._merge(self._last, group))
                tell(done[-1])
        except FileNotFoundError as error:
            if self._log.read(self._last.number + 1) is not None:
                raise self._fenced() from error
            raise FatalError(
                f"{error.filename} is missing, and the log has it; nothing was changed for it; restore it from a copy",
                error_type=ErrorType.STORAGE,
            ) from error
        return done

    def delete_replaced(self) -> None:
        """Delete what an earlier compaction has left; anybody may do that."""
        entries = list(self._log.entries())
        replaced = {number for entry in entries for number in entry.replaces}
        left = replaced - self._log.removed()
        self._delete([entry for entry in entries if entry.number in left])

    def _groups(self) -> Iterator[_Group]:
        """Yield entries that stand one behind another and fit together, where there are two or more."""
        waiting = _Group([], {}, {})
        for entry in standing(self._log):
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
            schema = pq.read_schema(RangeFile(self._objects, file.name, file.bytes)).remove_metadata()
            return form, schema, file.partition, file.types
        return form, tuple(file.columns) if form[0] == "csv" else ()

    def _merge(self, last: ObjectEntry, group: _Group) -> Compacted:
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
        entry = replace(
            last,
            kind="compact",
            number=last.number + 1,
            first_seq=group.entries[0].first_seq,
            files=files,
            run="",
            counts={},
            written_at=group.entries[-1].written_at,
            letters="",
            resolved=[],
            drifts=[],
            replaces=[each.number for each in group.entries],
        )
        intent = self._log.intend(entry.epoch, token, Intent(entry.number, entry.objects))
        for name, path in paths.items():
            self._objects.upload(name, path, path.stat().st_size)
            path.unlink()
        if not self._log.put(entry):
            self._objects.delete(entry.objects)
            raise self._fenced()
        self._last = entry
        self._log.put_block(entry.number)
        self._delete(group.entries)
        self._log.forget_intent(intent)
        return self._outcome(group, files)

    def _write(self, old: Sequence[FileEntry], name: str, path: Path) -> FileEntry:
        """Write the rows of several objects into one file. Raises FatalError when they are not as many as the log says."""
        form, compression = _form(old[0])
        with translated(path, "cannot write to"):
            if form == "parquet":
                rows = self._write_parquet(old, path)
            else:
                rows = sum(file.rows for file in old)
                self._write_lines(old, path, header=form == "csv", compression=compression)
        if rows != (expected := sum(file.rows for file in old)):
            raise FatalError(
                f"{self._flow}: the objects that {name} was made from have {rows} rows, and the log says {expected}; "
                "nothing was changed; is one of them damaged?",
                error_type=ErrorType.STORAGE,
            )
        columns = list(dict.fromkeys(column for file in old for column in file.columns))
        return replace(old[0], name=name, rows=rows, bytes=path.stat().st_size, columns=columns)

    def _write_parquet(self, old: Sequence[FileEntry], path: Path) -> int:
        made: PartFile | None = None
        for file in old:
            reader = pq.ParquetFile(RangeFile(self._objects, file.name, file.bytes))
            for number in range(reader.num_row_groups):
                table = reader.read_row_group(number).replace_schema_metadata(None)
                if made is None:
                    made = PartFile(path, table.schema, table, durable=False)
                made.add(table)
                made.drain()
        if made is None:
            return 0
        made.finish()
        return made.rows

    def _write_lines(self, old: Sequence[FileEntry], path: Path, *, header: bool, compression: str) -> None:
        """Put compressed files one behind the other, which is a compressed file; of a header only the first is kept."""
        for number, file in enumerate(old):
            source = RangeFile(self._objects, file.name, file.bytes)
            with path.open("ab") as out:
                if not header or number == 0:
                    while piece := source.read(_PIECE):
                        out.write(piece)
                    continue
                plain = _decompressed(source, compression)
                _skip(plain, _header(file.columns), file.name)
                sink = pa.PythonFile(out, mode="w")
                with (
                    sink if compression == "none" else pa.CompressedOutputStream(sink, compression) as stream
                ):
                    while piece := plain.read(_PIECE):
                        stream.write(piece)

    def _delete(self, entries: Sequence[ObjectEntry]) -> None:
        self._objects.delete(file.name for entry in entries for file in entry.files)
        for entry in entries:
            self._log.mark_removed(entry)

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


def _decompressed(source: RangeFile, compression: str) -> pa.NativeFile:
    file = pa.PythonFile(source, mode="r")
    return file if compression == "none" else pa.CompressedInputStream(file, compression)


def _header(columns: Sequence[str]) -> bytes:
    """Return the first line of a CSV file with these columns."""
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(pa.table([pa.array([], pa.string())] * len(columns), list(columns)), sink)
    return bytes(sink.getvalue())


def _skip(plain: pa.NativeFile, header: bytes, name: str) -> None:
    if plain.read(len(header)) != header:
        raise FatalError(
            f"{name} does not begin with the names of its columns; nothing was changed; was it written by others?",
            error_type=ErrorType.STORAGE,
        )
