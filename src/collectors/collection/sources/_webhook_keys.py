"""Which requests were kept already, over restarts: so that a sender's second try stores nothing twice.

The keys of a request travel in its chunk's metadata, and so are durable with its data, in the spool. This file is an
index of them that trails by about a second. After a crash the chunks that the spool still has fill the gap. It can only
lack keys whose requests are kept, never name one that is not: what it costs to lose it is a duplicate, never a record.
"""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

__all__ = ["Key", "Keys", "name_key"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (digest BLOB PRIMARY KEY, body INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_at ON keys (at);
"""
_MOST_UNSAVED = 100_000

Key = tuple[bytes, int]
"""What names a request, and a checksum of its body: the same name with another body is a sender's mistake."""


def name_key(kind: str, value: bytes, body: bytes) -> Key:
    """Return the key of a request whose `kind` (the header, the signature) has this value."""
    return blake2b(kind.encode() + b"\0" + value, digest_size=16).digest(), zlib.crc32(body)


class Keys:
    """Keys of the last `window` seconds, at most `limit`; for the event loop, but for `open` and `learn`, which block.

    Without `open` they are in memory only.
    """

    def __init__(self, window: float, limit: int) -> None:
        self._window = window
        self._limit = limit
        self._unsaved: dict[bytes, tuple[int, float]] = {}
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._count = 0
        self._saved_at = 0.0

    def open(self, path: Path) -> None:
        """Open the index; a file that is damaged is begun anew. Raises sqlite3.Error when it cannot be written."""
        try:
            self._connect(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self.close()
            for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
                each.unlink(missing_ok=True)
            self._connect(path)

    def learn(self, kept: Iterable[tuple[list[Key], float]]) -> None:
        """Take in the keys of requests that are known to be kept, with their times. Blocks. Raises sqlite3.Error."""
        if self._writer is None:
            return
        self._insert([(digest, body, at) for keys, at in kept for digest, body in keys], 0.0)

    def _connect(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._writer.execute("PRAGMA journal_mode=WAL")
        self._writer.execute("PRAGMA synchronous=FULL")
        self._writer.executescript(_SCHEMA)
        # Only the other connection may write or checkpoint: https://sqlite.org/wal.html#walresetbug
        self._reader = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        self._reader.execute("PRAGMA wal_autocheckpoint=0")
        (self._count,) = self._writer.execute("SELECT count(*) FROM keys").fetchone()

    def find(self, digest: bytes, now: float) -> int | None:
        """Return the checksum of the body that was kept with a key; None when there is none in the window."""
        found = self._unsaved.get(digest)
        if found is None and self._reader is not None:
            with suppress(sqlite3.Error):  # a damaged index knows less
                query = "SELECT body, at FROM keys WHERE digest = ?"
                found = self._reader.execute(query, (digest,)).fetchone()
        return found[0] if found is not None and found[1] > now - self._window else None

    def add(self, keys: Iterable[Key], now: float) -> None:
        """Take in the keys of requests that have just been kept."""
        for digest, body in keys:
            self._unsaved[digest] = (body, now)
        while len(self._unsaved) > min(self._limit, _MOST_UNSAVED):
            del self._unsaved[next(iter(self._unsaved))]

    async def save(self, now: float, *, every: float = 0.0) -> None:
        """Make what was added durable, if that was done the last time `every` seconds ago. Raises sqlite3.Error."""
        if self._writer is None or not self._unsaved or 0 <= now - self._saved_at < every:
            return
        self._saved_at = now
        batch = [(digest, body, at) for digest, (body, at) in self._unsaved.items()]
        await asyncio.to_thread(self._insert, batch, now)
        for digest, body, at in batch:
            if self._unsaved.get(digest) == (body, at):
                del self._unsaved[digest]

    def _insert(self, batch: list[tuple[bytes, int, float]], now: float) -> None:
        assert self._writer is not None  # noqa: S101  # the callers have looked
        run = self._writer.execute
        run("BEGIN IMMEDIATE")
        try:
            self._writer.executemany(
                "INSERT INTO keys VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET body = excluded.body, at = excluded.at "
                "WHERE excluded.at >= at",
                batch,
            )
            run("DELETE FROM keys WHERE at <= ?", (now - self._window,))
            self._count += len(batch)
            if self._count > self._limit:
                self._shrink()
            run("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                run("ROLLBACK")
            raise

    def _shrink(self) -> None:
        """Forget the oldest keys, some more than needed, so that the next time is far off."""
        assert self._writer is not None  # noqa: S101  # the callers have looked
        (count,) = self._writer.execute("SELECT count(*) FROM keys").fetchone()
        surplus = count - self._limit * 9 // 10 if count > self._limit else 0
        self._writer.execute(
            "DELETE FROM keys WHERE digest IN (SELECT digest FROM keys ORDER BY at LIMIT ?)", (surplus,)
        )
        self._count = count - surplus

    def close(self) -> None:
        """Close the index; safe twice."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None
