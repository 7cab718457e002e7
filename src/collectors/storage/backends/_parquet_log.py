"""The log of a flow in a folder of files: `_collectors/log/<flow>/<number>.json`, each entry put only if it is not there.

An entry claims the flow (a higher epoch) or commits files (their names, the position behind them); those of a compaction
claim as well, and stand for files that were merged (_parquet_merged.py). Whoever wants to add one takes the number
behind the last: of two owners one gets it, and the other learns that it has lost the flow. So an entry is commit and
fence in one, and a claim ends every commit that was under way before it.
"""

from __future__ import annotations

import os
import re
import secrets
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from collectors.chunks import Checkpoint, Drift
from collectors.enums import ErrorType
from collectors.errors import FatalError
from collectors.storage.files import make_folders, put_new, sync_folder, translated, write_synced

__all__ = [
    "Entry",
    "FileEntry",
    "FlowLog",
    "columns_of",
    "delete_files",
    "file_name",
    "flow_logs",
    "part_name",
]

_LONGEST_NAME = 150
_SHORTENED = 100


class FileEntry(msgspec.Struct, frozen=True):
    """A file of a commit: its name in the folder, what it holds, and the values of its partition."""

    name: str
    rows: int
    bytes: int
    columns: list[str]
    partition: dict[str, Any] = {}
    types: dict[str, str] = {}


class Entry(msgspec.Struct, frozen=True):
    """One entry; `seq`, `position` and `schema` are how far the flow is stored once the entry is there."""

    kind: Literal["claim", "commit", "compact", "remove"]
    number: int
    flow: str
    epoch: int
    seq: int
    position: dict[str, Any] | None
    schema: bytes | None
    written_at: str
    first_seq: int = 0
    files: list[FileEntry] = []
    run: str = ""
    counts: dict[str, int] = {}
    crc: int = 0
    columns: bytes | int = b""
    """All columns of the folder with their types, an Arrow schema in its IPC form; or the number of an earlier entry of the
    flow that has them, since a thousand columns are larger than all else in an entry."""
    drifts: list[Drift] = []
    """How the columns of these rows differ from what there was before."""
    merged: list[str] = []
    """The files whose rows the file of this entry has: it stands for them; when it has none, they were deleted."""

    def behind(
        self,
        kind: Literal["compact", "remove"],
        *,
        epoch: int | None = None,
        first_seq: int = 0,
        files: list[FileEntry] | None = None,
        merged: list[str] | None = None,
    ) -> Entry:
        """Return the entry behind this one that leaves position and counts as they are; by default its owner's, too."""
        return Entry(
            kind=kind,
            number=self.number + 1,
            flow=self.flow,
            epoch=self.epoch if epoch is None else epoch,
            seq=self.seq,
            position=self.position,
            schema=self.schema,
            written_at=datetime.now(UTC).isoformat(),
            first_seq=first_seq,
            files=files or [],
            columns=self.columns,
            merged=merged or [],
        )

    @property
    def checkpoint(self) -> Checkpoint:
        """How far the flow is stored."""
        return Checkpoint(self.epoch, self.seq, self.position, self.schema)

    @property
    def columns_at(self) -> int:
        """The number of the entry that has the columns; 0: nobody had to know them."""
        if isinstance(self.columns, int):
            return self.columns
        return self.number if self.columns else 0

    def checked(self) -> Entry:
        """Return the entry with the CRC-32 of all the rest of it."""
        fields = msgspec.to_builtins(msgspec.structs.replace(self, crc=0))
        for name in ("columns", "drifts", "merged", "replaces"):  # which older entries do not have
            if not fields.get(name, True):
                del fields[name]
        return msgspec.structs.replace(self, crc=zlib.crc32(msgspec.json.encode(fields)))


def columns_of(entry: Entry, read: Callable[[int], Entry | None]) -> bytes:
    """Return the columns of the folder as an entry has them, or the one that it names; empty: none has.

    Raises FatalError when `read` does not find that one.
    """
    at = entry.columns_at
    if not at:
        return b""
    named = entry if at == entry.number else read(at)
    if named is None or isinstance(named.columns, int):
        raise FatalError(
            f"{entry.flow}: entry {at} of its log, which has the columns, is missing; nothing was read or stored; restore "
            "it from a copy",
            error_type=ErrorType.STORAGE,
        )
    return named.columns


def file_name(flow: str) -> str:
    """Return a flow's name as part of a file name: without a comma, and no two flows have the same."""
    name = (quote(flow, safe="") or "%").replace("~", "%7E").replace("%2F", "~")
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_SHORTENED]}%{sha256(flow.encode()).hexdigest()[:32]}"
    return name.replace(".", "%2E", 1) if name.startswith(".") else name


def flow_logs(root: Path, source: str = "") -> Iterator[FlowLog]:
    """Yield the logs of all flows in the folder; with `source` those of its flows, maybe with a few others."""
    own, beginning = file_name(source), file_name(f"{source}/")[:_SHORTENED]
    with suppress(FileNotFoundError):
        for folder in sorted((root / "_collectors" / "log").iterdir()):
            if not source or folder.name == own or folder.name.startswith(beginning):
                yield FlowLog(root, folder.name)


class FlowLog:
    """The log of one flow; `name` is what `file_name` gives. Methods raise OSError, and FatalError for a bad entry.

    `folder` is where its entries are.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self.name = name
        self.folder = root / "_collectors" / "log" / name
        self._scratch = root / "_collectors" / "tmp"
        self._intents = root / "_collectors" / "intent"

    def last(self, *, durable: bool = False) -> Entry | None:
        """Return the newest entry, with `durable` after making sure that it survives a power cut."""
        if durable and self.folder.is_dir():
            sync_folder(self.folder)
        numbers = self._numbers()
        return self._read(numbers[-1]) if numbers else None

    def entries(self, *, newest_first: bool = False) -> Iterator[Entry]:
        """Yield all entries, oldest first."""
        for number in reversed(self._numbers()) if newest_first else self._numbers():
            yield self._read(number)

    def read(self, number: int) -> Entry | None:
        """Return the entry with this number; None: there is none."""
        return self._read(number) if self._path(number).exists() else None

    def make(self) -> None:
        """Make the folders that the log needs; they are never made later, so that one that is gone is noticed."""
        for folder in (self.folder, self._scratch, self._intents):
            make_folders(folder)

    def check_folder(self) -> None:
        """Raise OSError when the log is not there any more."""
        self.folder.stat()

    def put(self, entry: Entry) -> bool:
        """Add an entry, durably; False when its number is taken.

        Two hosts that claim a flow at the same moment do so with the same epoch and number: each writes a file of its own.
        """
        own = secrets.token_hex(8)
        scratch = self._scratch / f"{self.name},{entry.epoch},{entry.number},{own}.json.tmp"
        return put_new(self._path(entry.number), msgspec.json.encode(entry.checked()), scratch)

    def is_there(self, entry: Entry) -> bool:
        """Return whether the entry with this number is this one, from a try whose outcome was unknown; durable then."""
        sync_folder(self.folder)
        found = self._read(entry.number)
        return (found.kind, found.epoch, found.seq) == (entry.kind, entry.epoch, entry.seq)

    def intend(self, epoch: int, names: list[str]) -> None:
        """Write down, durably, which files are about to get their names."""
        path = self._intent(epoch)
        scratch = self._scratch / f"{path.name}.tmp"
        write_synced(scratch, msgspec.json.encode(names))
        scratch.replace(path)
        sync_folder(self._intents)

    def forget_intent(self, epoch: int) -> None:
        """Drop what `intend` wrote, once the files are committed."""
        self._intent(epoch).unlink(missing_ok=True)

    def sweep(self, epoch: int) -> None:
        """Delete what earlier owners left behind without committing it; only for who has just claimed this epoch.

        Entries of this epoch that were not put are of claims that died, or lose: another try tells them so. An intent says that there may be such files; which ones is told by their names, in case the intent is damaged.
        """
        for path in self._scratch.glob(f"{self.name},*"):
            left = _epoch_of(path, self.name)
            if left < epoch or (left == epoch and path.name.endswith(".json.tmp")):
                path.unlink(missing_ok=True)
        for entry in self.entries():
            if entry.kind == "remove":
                delete_files(self._root, entry.merged)
        intents = [
            path for path in self._intents.glob(f"{self.name},*.json") if _epoch_of(path, self.name) < epoch
        ]
        if intents:
            committed = {file.name for entry in self.entries() for file in entry.files}
            for path in intents:
                found = self._part_files(_epoch_of(path, self.name))
                delete_files(self._root, [name for name in found if name not in committed])
                path.unlink(missing_ok=True)

    def _part_files(self, epoch: int) -> Iterator[str]:
        """Yield the names of all files of the flow by an owner; a folder with a log of its own in it belongs to that one.

        The whole name has to fit: that of a flow `s-x` begins as that of a flow `s` does.
        """
        ours = re.compile(rf"{re.escape(part_prefix(self.name))}\d{{12,}}-{epoch}\.parquet", re.ASCII)
        for folder, folders, names in os.walk(self._root, onerror=_unreadable):
            if "_collectors" in folders and Path(folder) != self._root:
                folders.clear()
                continue
            for name in names:
                if ours.fullmatch(name):
                    yield Path(folder, name).relative_to(self._root).as_posix()

    def scratch_path(self, epoch: int, number: int) -> Path:
        """Return the name of a file that is being written."""
        return self._scratch / f"{self.name},{epoch},{number}.parquet.tmp"

    def _intent(self, epoch: int) -> Path:
        return self._intents / f"{self.name},{epoch},.json"

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:020d}.json"

    def _numbers(self) -> list[int]:
        try:
            found = sorted(int(path.stem) for path in self.folder.iterdir() if path.suffix == ".json")
        except (FileNotFoundError, NotADirectoryError):
            return []
        for number, there in enumerate(found, 1):
            if number != there:
                raise FatalError(
                    f"{self._path(number)} is missing; nothing was read or stored; restore it from a copy",
                    error_type=ErrorType.STORAGE,
                )
        return found

    def _read(self, number: int) -> Entry:
        path = self._path(number)
        try:
            entry = msgspec.json.decode(path.read_bytes(), type=Entry)
            if entry != entry.checked():
                raise ValueError("its checksum is wrong")
            return entry
        except ValueError as error:
            raise FatalError(
                f"{path} is damaged ({error}); nothing was read or stored; restore it from a copy",
                error_type=ErrorType.STORAGE,
            ) from error


def part_name(flow: str, epoch: int, first_seq: int) -> str:
    """Return the name of the file, in each folder of a partition, that begins with this chunk."""
    return f"{part_prefix(file_name(flow))}{first_seq:012d}-{epoch}.parquet"


def part_prefix(name: str) -> str:
    """Return how the names of all files of a flow begin, of which `file_name` gives the name."""
    return f"part-{name}-"


def delete_files(root: Path, names: list[str]) -> None:
    """Delete files of the folder where they are there, durably."""
    for name in names:
        (root / name).unlink(missing_ok=True)
    for folder in {(root / name).parent for name in names}:
        if folder.is_dir():
            sync_folder(folder)


def _unreadable(error: OSError) -> None:
    with translated(Path(error.filename), "cannot look for what an earlier run has left in"):
        raise error


def _epoch_of(path: Path, name: str) -> int:
    return int(path.name[len(name) + 1 :].partition(",")[0])
