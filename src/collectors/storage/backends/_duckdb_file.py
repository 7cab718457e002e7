"""A DuckDB file: one connection for all of this process, transactions, checkpoints, and a log that may be lost.

DuckDB lets one process at a time write to a file, or several read it. Two connections of one process may not differ in
their settings, and whoever opens and closes the file itself drops DuckDB's lock (fcntl(2)); so all that this process
does with a file goes through one object.

A commit is on disk, but DuckDB may fail to replay its write-ahead log when it opens the file again
(https://github.com/duckdb/duckdb/issues/22044 and others). Therefore only what is behind a CHECKPOINT is told as
durable, and a log that cannot be replayed is moved aside: what it held is read from its sources again. A checkpoint
itself is not safe from a power cut: `_duckdb_undo` keeps what it overwrites.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import duckdb
import pyarrow as pa

from collectors.enums import ErrorType
from collectors.errors import CollectorsError, ConfigurationError, FatalError, TransientError
from collectors.storage.backends._duckdb_undo import HEADERS, Undo
from collectors.storage.files import make_folders, sync_folder, translated

__all__ = ["CHECKPOINT_BYTES", "Connection", "Database", "shared"]

logger = logging.getLogger(__name__)

CHECKPOINT_BYTES = 64 * 2**20
"""The write-ahead log is emptied by a CHECKPOINT when it has so many bytes."""
_LOCKED_DOWN = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "checkpoint_threshold": "1TB",  # ours is the only one
}
_INCOMING = "_collectors_rows"
_FULL = ("No space left on device", "Disk quota exceeded")
_NOT_OURS = ("Permission denied", "Read-only file system", "Is a directory", "Not a directory")
_databases: WeakValueDictionary[str, Database] = WeakValueDictionary()
_databases_lock = threading.Lock()


class Connection:
    """A connection to DuckDB; what it raises is `duckdb.Error`."""

    def __init__(self, path: Path, settings: dict[str, Any], *, read_only: bool) -> None:
        self._duckdb = duckdb.connect(str(path), read_only=read_only, config=settings)
        if not read_only:
            self._duckdb.execute("pragma disable_checkpoint_on_shutdown")
        self._duckdb.execute("set lock_configuration = true")
        self.known: dict[str, Any] = {}
        """What a user of the connection has learnt about its tables; forgotten when a transaction is taken back."""

    def execute(self, statement: str, values: list[Any] | None = None) -> None:
        """Run a statement without a result."""
        self._duckdb.execute(statement, values)

    def roll_back(self) -> None:
        """End the transaction and leave everything as it was."""
        self.known = {}
        self.execute("rollback")
        self._duckdb.unregister(_INCOMING)  # an insert that failed has left it

    def rows(self, statement: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Return the rows of a small result; DuckDB needs pytz to give times with a zone in this way."""
        return self._duckdb.execute(statement, values).fetchall()

    def batches(self, statement: str, values: list[Any], size: int) -> Iterator[pa.RecordBatch]:
        """Yield a result in Arrow batches of so many rows, read as they are asked for."""
        relation = self._duckdb.sql(statement, params=values)
        yield from relation.to_arrow_reader(size)

    def insert(self, quoted: str, table: pa.Table) -> None:
        """Append a table, in its order, to what stands `quoted` here: a table and its columns, `"t" ("a", "b")`."""
        with self.incoming(table) as quoted_rows:
            self._duckdb.execute(f"insert into {quoted} select * from {quoted_rows}")  # noqa: S608  # quoted

    @contextmanager
    def incoming(self, table: pa.Table) -> Iterator[str]:
        """Let statements read a table, under the name that is given."""
        self._duckdb.register(_INCOMING, table)
        yield _INCOMING
        self._duckdb.unregister(_INCOMING)

    def types(self, quoted: str) -> pa.Schema:
        """Return the Arrow schema of a table."""
        return self._duckdb.sql(f"select * from {quoted} limit 0").to_arrow_table().schema  # noqa: S608  # quoted

    def close(self) -> None:
        """Close it; what is in the log stays there."""
        self._duckdb.close()


class Database:
    """One file. `transaction` writes, `reading` reads; each keeps other threads of this process out.

    The file is opened for writing with the first transaction, and stays so until the last who has `join`ed leaves.
    """

    def __init__(self, path: Path, settings: dict[str, Any], prepare: Callable[[Connection], None]) -> None:
        self.path = path
        self._settings = settings
        self._prepare = prepare
        self._lock = threading.RLock()
        self._writer: Connection | None = None
        self._undo = Undo(path)
        self._descriptor = -1
        self._identity = (0, 0)
        self._users = 0

    def join(self) -> None:
        """Say that somebody may write."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """Take `join` back; the last one closes the file, behind a checkpoint if it can be made."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._writer is not None:
                with suppress(CollectorsError), self.checkpointed():
                    pass
                self._close()

    @contextmanager
    def transaction(self, *, take_back: bool = False) -> Iterator[Connection]:
        """Do what stands under `with` in one transaction that ends on disk, or leave everything as it was.

        `take_back` leaves it as it was in any case.
        Raises TransientError when the file is in use or the disk full (nothing was stored, or the outcome is unknown:
        ask what is stored before trying again), FatalError when the file was replaced or is damaged.
        """
        with self._lock, self._translated():
            connection = self._open_writer()
            connection.execute("begin")
            try:
                yield connection
                if not take_back:
                    connection.execute("commit")
                    return
            except BaseException:
                with suppress(duckdb.Error):
                    connection.roll_back()
                raise
            connection.roll_back()

    @contextmanager
    def reading(self) -> Iterator[Connection | None]:
        """Give a connection to read with; None where there is no file."""
        with self._lock, self._translated():
            if self._writer is not None:
                yield self._writer
            elif not self.path.exists():
                yield None
            else:
                connection = self._open_reader()
                try:
                    yield connection
                finally:
                    connection.close()

    def log_size(self) -> int:
        """Return the bytes of the write-ahead log."""
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def checkpointed(self) -> Iterator[Connection]:
        """Move everything from the log into the file: what the connection shows then is durable."""
        with self._lock, self._translated():
            connection = self._open_writer()
            if self.log_size():
                with translated(self.path, "cannot keep what a checkpoint overwrites of"):
                    self._undo.keep(self._descriptor, _overwritten(connection))
                connection.execute("checkpoint")
                with translated(self.path, "cannot note the end of a checkpoint of"):
                    self._undo.forget()
            yield connection

    @property
    def _log(self) -> Path:
        return self.path.with_name(f"{self.path.name}.wal")

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open_writer(self) -> Connection:
        if self._writer is not None:
            self._check_still_there()
            return self._writer
        if not self.path.exists():
            self._create()
        with translated(self.path, "cannot open"):
            sync_folder(self.path.parent)  # whoever made the file may have been killed before that
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._writer = self._open_whatever_the_checkpoint()
        except BaseException:
            self._close()
            raise
        found = self.path.stat()
        self._identity = found.st_dev, found.st_ino
        self._prepare(self._writer)
        return self._writer

    def _create(self) -> None:
        """Make the file under another name first: a process killed half-way must not leave half a database."""
        with translated(self.path.parent, "cannot make the folder"):
            make_folders(self.path.parent)
        scratch = self.path.with_name(f".{self.path.name}.new")
        with translated(self.path, "cannot make"), _alone_in(self.path.parent):
            scratch.unlink(missing_ok=True)
            Connection(scratch, self._settings, read_only=False).close()
            with suppress(FileExistsError):
                os.link(scratch, self.path)
            scratch.unlink()
            sync_folder(self.path.parent)

    def _open_reader(self) -> Connection:
        if self._undo.exists():  # its owner has died
            with self.transaction(take_back=True):
                pass
            self._close()
        return Connection(self.path, self._settings, read_only=True)

    def _open_whatever_the_checkpoint(self) -> Connection:
        """Open the file as it was before a checkpoint that did not come to its end."""
        with translated(self.path, "cannot take back a checkpoint of"):
            if self._undo.exists():
                self._undo.take_back(self._descriptor, finished=False)
            try:
                connection = self._open_whatever_the_log()
            except duckdb.Error as error:
                if _is_passing(error) or not self._undo.exists():
                    raise
                self._undo.take_back(self._descriptor, finished=True)
                connection = self._open_whatever_the_log()
            if self._undo.exists():
                self._undo.forget()
        return connection

    def _open_whatever_the_log(self) -> Connection:
        try:
            return Connection(self.path, self._settings, read_only=False)
        except duckdb.Error as error:
            if not self.log_size() or _is_passing(error):
                raise
            reason = _first_line(error)
        moved = self._move_log_aside()
        try:
            connection = Connection(self.path, self._settings, read_only=False)
        except duckdb.Error:
            moved.rename(self._log)  # it was not the log
            raise
        logger.warning(
            "%s: its write-ahead log could not be replayed (%s) and lies now in %s; what it held is read from its "
            "sources again",
            self.path,
            reason,
            moved.name,
        )
        return connection

    def _move_log_aside(self) -> Path:
        number = 1
        while (moved := self.path.with_name(f"{self.path.name}.broken-wal.{number}")).exists():
            number += 1
        with translated(self._log, "cannot move aside"):
            self._log.rename(moved)
            sync_folder(self.path.parent)
        return moved

    def _check_still_there(self) -> None:
        try:
            found = self.path.stat()
            same = (found.st_dev, found.st_ino) == self._identity
        except OSError:
            same = False
        if not same:
            raise FatalError(
                f"{self.path} was moved, deleted or replaced while it was open; nothing was stored; "
                "put it back or start again",
                error_type=ErrorType.STORAGE,
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors of DuckDB into errors of this package; behind one the file is opened anew."""
        try:
            yield
        except duckdb.Error as error:
            with suppress(duckdb.Error):
                self._close()
            raise _translate(error, self.path) from error


def shared(path: str, *, memory: int, threads: int, prepare: Callable[[Connection], None]) -> Database:
    """Return this process's object for a file; the other arguments are those of who asked first.

    `prepare` is called whenever the file was opened for writing.
    """
    real = os.path.realpath(path)
    with _databases_lock:
        database = _databases.get(real)
        if database is None:
            settings = {**_LOCKED_DOWN, "memory_limit": f"{memory}B", "threads": str(threads)}
            database = _databases[real] = Database(Path(real), settings, prepare)
        return database


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time make a database in a folder; Raises TransientError for the next."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TransientError(
                f"{folder}: another process is making a database here", error_type=ErrorType.STORAGE
            ) from None
        yield
    finally:
        os.close(descriptor)


def _overwritten(connection: Connection) -> list[tuple[int, int]]:
    """Return offset and length, in bytes, of the blocks that a checkpoint may write in place: metadata with room."""
    ((size,),) = connection.rows("select block_size from pragma_database_size()")
    blocks = connection.rows("select block_id from pragma_metadata_info() where free_blocks > 0")
    return [(HEADERS + int(block) * int(size), int(size)) for (block,) in blocks]


def _is_passing(error: duckdb.Error) -> bool:
    """Return whether opening failed for a reason that has nothing to do with what is in the log."""
    text = str(error)
    return any(part in text for part in ("Could not set lock", "different configuration", *_FULL, *_NOT_OURS))


def _translate(error: duckdb.Error, path: Path) -> CollectorsError:
    text = _first_line(error)
    storage = ErrorType.STORAGE
    if "Could not set lock" in text:
        return TransientError(
            f"{path}: another process has it open, and DuckDB lets only one at a time ({text})",
            error_type=storage,
        )
    if any(part in text for part in _FULL):
        return TransientError(
            f"{path}: the disk is full ({text}); nothing of this chunk was stored", error_type=storage
        )
    if "not a valid DuckDB database" in text or "is a directory" in text.lower():
        return ConfigurationError(
            f"{path} is not a DuckDB database; choose another path or move the file away ({text})"
        )
    if "newer" in text and "version" in text:
        return ConfigurationError(
            f"{path} was written by a newer DuckDB: pip install --upgrade duckdb ({text})"
        )
    if "fsync" in text or any(part in text for part in _NOT_OURS):
        return FatalError(f"{path}: cannot read or write it ({text})", error_type=storage)
    if "WAL" in text:
        return FatalError(
            f"{path}: its write-ahead log cannot be replayed ({text}); the pipeline that writes to it moves the log "
            "aside at its next start and reads the rows from its sources again",
            error_type=storage,
        )
    if isinstance(error, duckdb.OutOfMemoryException):
        return FatalError(
            f"{path}: needs more memory; raise `memory` of this storage ({text})", error_type=storage
        )
    if isinstance(error, duckdb.SerializationException) or "orrupt" in text or "checksum" in text:
        return FatalError(f"{path} is damaged ({text}); restore it from a copy", error_type=storage)
    if isinstance(error, (duckdb.IOException, duckdb.FatalException, duckdb.InternalException)):
        return TransientError(f"{path}: cannot read or write it ({text})", error_type=storage)
    return FatalError(f"{path}: {text}", error_type=storage)


def _first_line(error: duckdb.Error) -> str:
    return str(error).partition("\n")[0]
