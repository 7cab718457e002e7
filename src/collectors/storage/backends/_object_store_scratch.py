"""A folder for files on their way to a store, gone with the process: what one that was killed has left, the next deletes."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from collectors.storage.files import translated

__all__ = ["Scratch"]

_PREFIX = "collectors-objects-"


class Scratch:
    """The folder, below `TMPDIR`; it is made when it is first asked for. It is locked while its process is alive."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._lock = -1

    def folder(self) -> Path:
        """Return the folder. Raises TransientError, FatalError."""
        if self._folder is None:
            with translated(
                Path(tempfile.gettempdir()), "cannot make a folder for what waits to be stored in"
            ):
                _sweep()
                while self._folder is None:
                    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
                    with suppress(FileNotFoundError):  # another process has taken it for one that was left
                        self._lock = _locked(folder)
                        self._folder = folder
        return self._folder

    def close(self) -> None:
        """Delete the folder and all that is in it."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
            self._folder = None


def _locked(folder: Path) -> int:
    """Return the descriptor of a folder that is locked by it. Raises FileNotFoundError when it is gone, OSError."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.stat()
    except BlockingIOError as error:
        os.close(lock)
        raise FileNotFoundError(folder) from error
    except OSError:
        os.close(lock)
        raise
    return lock


def _sweep() -> None:
    """Delete the folders of processes of this user that have died."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if folder.lstat().st_uid == os.getuid():
                lock = _locked(folder)
                try:
                    shutil.rmtree(folder)
                finally:
                    os.close(lock)
