"""Which files of a flow hold its rows, now that `collectors compact` has made one of several.

An entry that has `merged` files says that its own file stands for those. Until that has its name in the folder it is in
`_collectors/merged/`, where nobody looks who takes every file of the folder; readers of the log find it under either.
Behind the entry it gets its name, the others are deleted, and the first name is: by whoever has put the entry, or by
the next owner of the flow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from collectors.storage.backends._parquet_log import Entry, FileEntry, FlowLog, delete_files
from collectors.storage.files import locked, make_folders, sync_folder

__all__ = [
    "Standing",
    "finish",
    "merged_names",
    "merged_path",
    "merged_paths",
    "merging",
    "settle",
    "standing",
]


class Standing(NamedTuple):
    """A file that holds rows; `order` sorts files of all flows as their first rows were committed."""

    order: tuple[str, str, int]
    entry: Entry
    file: FileEntry
    path: Path


def standing(root: Path, log: FlowLog) -> list[Standing]:
    """Return the files of a flow that were neither removed nor merged, in the order of their rows."""
    entries = list(log.entries())
    gone = merged_names(entries)
    orders: dict[str, tuple[str, str, int]] = {}
    found = []
    for entry in entries:
        own = entry.written_at, entry.flow, entry.number
        order = orders.get(entry.merged[0], own) if entry.merged else own
        for file in entry.files:
            orders[file.name] = order
            if file.name not in gone:
                found.append(Standing(order, entry, file, _where(root, log, entry, file)))
    return sorted(found, key=lambda each: each.order)


def merged_names(entries: list[Entry]) -> set[str]:
    """Return the names of the files that others stand for, or that were deleted."""
    return {name for entry in entries for name in entry.merged}


def merging(log: FlowLog) -> AbstractContextManager[None]:
    """Keep other processes of this machine from merging and deleting files of a flow; who writes more goes on."""
    if not log.folder.is_dir():
        return nullcontext()
    return locked(log.folder / "lock", "files of this flow are merged or deleted")


def merged_path(root: Path, log: FlowLog, epoch: int, number: int) -> Path:
    """Return the name of a file that an entry is for, until it has its own in the folder."""
    return root / "_collectors" / "merged" / f"{log.name},{epoch},{number},.tmp"


def merged_paths(root: Path, log: FlowLog) -> Iterator[tuple[Path, int, int]]:
    """Yield these files that are there, with epoch and number."""
    for path in (root / "_collectors" / "merged").glob(f"{log.name},*.tmp"):
        epoch, number, _ = path.name[len(log.name) + 1 :].split(",")
        yield path, int(epoch), int(number)


def finish(root: Path, log: FlowLog, entry: Entry) -> None:
    """Do what is left to do behind an entry with `merged` files; it can be done twice, and by two at once."""
    first, name = merged_path(root, log, entry.epoch, entry.number), root / entry.files[0].name
    if not name.parent.is_dir():
        make_folders(name.parent)
    try:
        with suppress(FileExistsError):
            os.link(first, name)
    except FileNotFoundError:
        return  # the next owner has done all of it
    sync_folder(name.parent)
    delete_files(root, entry.merged)
    first.unlink(missing_ok=True)


def settle(root: Path, log: FlowLog, epoch: int) -> None:
    """Finish or undo what compactions before this epoch have begun; only for who has just claimed it."""
    for path, owner, number in list(merged_paths(root, log)):
        if owner < epoch:
            entry = next((each for each in log.entries() if each.number == number), None)
            if entry is not None and entry.kind == "compact" and entry.merged:
                finish(root, log, entry)
            else:
                path.unlink(missing_ok=True)


def _where(root: Path, log: FlowLog, entry: Entry, file: FileEntry) -> Path:
    path = root / file.name
    if entry.merged and not path.exists():
        first = merged_path(root, log, entry.epoch, entry.number)
        return first if first.exists() else path
    return path
