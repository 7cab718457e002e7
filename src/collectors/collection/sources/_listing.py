"""Finds files by path and pattern, and files again that were renamed, copied or compressed."""

from __future__ import annotations

import difflib
import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from collectors.collection.sources._bookmarks import Bookmark, Key
from collectors.errors import ConfigurationError, FatalError

__all__ = ["Listing", "check_exists", "list_files"]


class Listing:
    """The files that are there now: name → device, inode, size, time of the last write; sorted by name."""

    def __init__(self, files: dict[str, os.stat_result]) -> None:
        self.files = files
        self.names: dict[Key, str] = {(found.st_dev, found.st_ino): name for name, found in files.items()}
        self._matched = {_folder_of(name) for name in files}
        self._folders: dict[str, list[tuple[str, Key]]] = {}

    def key(self, name: str) -> Key | None:
        """Return what lies under a name now."""
        found = self.files.get(name)
        return (found.st_dev, found.st_ino) if found else None

    def by_inode(self, mark: Bookmark) -> Iterator[str]:
        """Yield the names that the bookmark's inode has now, here or beside its old place."""
        if mark.key in self.names:
            yield self.names[mark.key]
        for name, key in self._neighbours(_folder_of(mark.path)):
            if key == mark.key and name not in self.files:
                yield name

    def by_name(self, mark: Bookmark) -> Iterator[str]:
        """Yield where the bookmark's content may lie in another file, if any was read.

        Under its old name, where a copy was put in its place; then in files beside it whose names begin like its own,
        where it was rotated by copying, or compressed.
        """
        if mark.offset == 0:
            return
        if mark.path in self.files:
            yield mark.path
        for name, _ in self._neighbours(_folder_of(mark.path)):
            if name != mark.path and name.startswith(mark.path):
                yield name

    def has_others_beside(self, mark: Bookmark) -> bool:
        """Return whether there are files in the folder of this bookmark, so that the folder itself is there."""
        return _folder_of(mark.path) in self._matched

    def _neighbours(self, folder: str) -> list[tuple[str, Key]]:
        if folder not in self._folders:
            found: list[tuple[str, Key]] = []
            try:
                with os.scandir(folder or ".") as entries:
                    for entry in entries:
                        if entry.is_file():
                            status = entry.stat()
                            found.append((folder + entry.name, (status.st_dev, status.st_ino)))
            except OSError:
                found = []
            self._folders[folder] = sorted(found)
        return self._folders[folder]


def _folder_of(path: str) -> str:
    """Return the path up to its last slash and with it; nothing when there is none."""
    return path[: path.rfind("/") + 1]


def list_files(patterns: list[str]) -> Listing:
    """Return the regular files that match, each once even when it has several names; sorted by name.

    Raises ConfigurationError for a path that is a folder or a device, FatalError when a folder may not be read.
    """
    found: dict[str, os.stat_result] = {}
    for pattern in patterns:
        literal = os.path.lexists(pattern) or not glob.has_magic(pattern)
        for name in [pattern] if literal else glob.iglob(pattern, recursive=True):  # noqa: PTH207
            try:
                status = os.stat(name)  # noqa: PTH116  # text in, text out: names stay as settings have them
            except FileNotFoundError:
                continue
            except OSError as error:
                raise FatalError(f"cannot read '{name}': {error.strerror or error}") from error
            if stat.S_ISREG(status.st_mode):
                found[name] = status
            elif literal:
                raise ConfigurationError(_not_a_file(name, status.st_mode))
    unique: dict[Key, str] = {}
    for name in sorted(found):
        unique.setdefault((found[name].st_dev, found[name].st_ino), name)
    return Listing({name: found[name] for name in sorted(unique.values())})


def _not_a_file(name: str, mode: int) -> str:
    if stat.S_ISDIR(mode):
        return f"'{name}' is a folder; to read the files in it write '{name}/*'"
    return f"'{name}' is not a regular file; read it with the source `stdin`, or `exec` and `cat`"


def check_exists(patterns: list[str], listing: Listing) -> None:
    """Raise ConfigurationError, with the nearest name there is, when nothing matches."""
    if listing.files:
        return
    pattern = patterns[0]
    folder = Path(pattern).parent
    while glob.has_magic(str(folder)):
        folder = folder.parent
    message = f"no file matches {', '.join(map(repr, patterns))} (looked in {folder.absolute()})"
    if not folder.is_dir():
        raise ConfigurationError(f"{message}; there is no such folder")
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    near = difflib.get_close_matches(Path(pattern).name, names, n=1, cutoff=0.6)
    raise ConfigurationError(f"{message}; did you mean '{folder / near[0]}'?" if near else message)
