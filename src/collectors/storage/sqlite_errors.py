"""Errors of SQLite as errors of this package, by what to do next."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from collectors.enums import ErrorType
from collectors.errors import CollectorsError, ConfigurationError, FatalError, TransientError

__all__ = ["translate_error"]


def translate_error(error: sqlite3.Error | OSError, path: Path) -> CollectorsError:
    """Return what it means that SQLite, or the file system below it, has failed with this file."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return TransientError(
            f"{path}: another process is writing to it ({error})", error_type=ErrorType.STORAGE
        )
    if primary == sqlite3.SQLITE_FULL:
        return TransientError(
            f"{path}: the disk is full ({error}); nothing of this chunk was stored",
            error_type=ErrorType.STORAGE,
        )
    if primary in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL} or isinstance(
        error, OSError
    ):
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return TransientError(
            f"{path}: cannot read or write it ({error}, {name})", error_type=ErrorType.STORAGE
        )
    if primary == sqlite3.SQLITE_NOTADB:
        return ConfigurationError(
            f"{path} is not a SQLite database, or it is encrypted; choose another path or move the file away"
        )
    if primary == sqlite3.SQLITE_CORRUPT:
        return FatalError(
            f"{path} is damaged ({error}); keep a copy and try: sqlite3 {path} .recover",
            error_type=ErrorType.STORAGE,
        )
    return FatalError(f"{path}: {error}", error_type=ErrorType.STORAGE)
