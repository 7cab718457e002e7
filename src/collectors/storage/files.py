"""Files that survive a power cut: a name is only promised once its folder is on disk."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from collectors.enums import ErrorType
from collectors.errors import FatalError, TransientError

__all__ = [
    "check_writable",
    "locked",
    "make_durable",
    "make_folders",
    "put_new",
    "sync_folder",
    "translated",
    "write_synced",
]

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}


def make_folders(folder: Path) -> None:
    """Make a folder and its parents where they are missing, durably. Raises OSError."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.is_dir()]
    there = missing[-1].parent if missing else folder
    with suppress(PermissionError):
        sync_folder(there.parent)  # whoever made it may have been killed before that
    for path in reversed(missing):
        try:
            path.mkdir(exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error
        sync_folder(path.parent)


def check_writable(
    path: Path, hint: str = "choose another path, or give this user the right to write there"
) -> None:
    """Raise FatalError when a file or folder could not be written, or made where it is not there; makes nothing."""
    there = next((place for place in (path, *path.parents) if os.path.exists(place)), path)  # noqa: PTH110  # Path's raises
    beside = [path.parent] if there == path and path.is_file() else []  # journals are made beside a file
    reason = None
    if there != path and not there.is_dir():
        reason = f"{there} is a file, not a folder"
    for place in [there, *beside]:
        if not os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0)):
            reason = reason or f"no permission to write to {place}"
    if reason is not None:
        raise FatalError(f"cannot write {path}: {reason}; {hint}", error_type=ErrorType.STORAGE)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        make_durable(descriptor, folder)
    finally:
        os.close(descriptor)


def make_durable(descriptor: int, path: Path) -> None:
    """Call fsync. Raises FatalError when that fails, since a second try would succeed without having written anything
    (https://wiki.postgresql.org/wiki/Fsync_Errors).
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise FatalError(
            f"{path}: the disk failed to keep what was written ({error.strerror}); look at the disk, then start again",
            error_type=ErrorType.STORAGE,
        ) from error


def write_synced(path: Path, content: bytes) -> None:
    """Write a file as a whole and make its content durable; its name is not yet. Raises OSError."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        make_durable(file.fileno(), path)


def put_new(path: Path, content: bytes, scratch: Path) -> bool:
    """Give a file its whole content and its name in one durable step; False when the name is taken.

    `scratch` is a file name in the same file system for the time before. Raises OSError.
    """
    write_synced(scratch, content)
    try:
        os.link(scratch, path)
    except FileExistsError:
        return False
    finally:
        with suppress(OSError):
            scratch.unlink()
    sync_folder(path.parent)
    return True


@contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Let one process at a time go on, by a lock on a file that is made where it is missing; it ends with its process.

    Raises TransientError, which says what is being `doing`, when another one has it. Where a file system has no locks,
    everybody goes on.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                message = f"{path.parent}: {doing} by another process now; try again when it has ended"
                raise TransientError(message, error_type=ErrorType.STORAGE) from error
            if error.errno not in _NO_LOCKS:
                raise
        yield


@contextmanager
def translated(path: Path, doing: str, hint: str = "") -> Iterator[None]:
    """Turn an OSError into an error of this package that names the path and what was being done; `hint` ends it.

    A full disk, a folder that is gone or a device that fails may work later: TransientError. No permission, or a file
    system that cannot do what is needed: FatalError.
    """
    try:
        yield
    except OSError as error:
        message = f"{doing} {path}: {_reason(error, path)}{hint and f'; {hint}'}"
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, *_NO_LINKS}:
            raise FatalError(message, error_type=ErrorType.STORAGE) from error
        raise TransientError(message, error_type=ErrorType.STORAGE) from error


def _reason(error: OSError, path: Path) -> str:
    if error.errno == errno.ENOTDIR:
        file = next((place for place in path.parents if place.is_file()), "it")
        return f"{file} is a file, not a folder"
    return os.strerror(error.errno) if error.errno else str(error)
