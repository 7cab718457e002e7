"""SQLite as the place of a flow's position, dead letters and counts: the `_collectors_*` tables of one file.

The `sqlite` backend keeps its rows in the same commit; the runtime's state file uses the tables alone. WAL and
`synchronous=FULL`: a commit that returned survives a power cut. SQLite up to 3.51.2 can lose commits when two
connections write and checkpoint one file in the same instant (https://sqlite.org/wal.html#walresetbug), so writing
connections of this process take turns, and one file belongs to one process.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import astuple

from collectors.chunks import Checkpoint, Counts, DeadLetter, Delivery
from collectors.enums import ErrorType
from collectors.errors import ConfigurationError, FatalError
from collectors.models import Position
from collectors.storage.files import make_folders, sync_folder, translated
from collectors.storage.letters import LETTER_COLUMNS, letter_values, read_letter
from collectors.storage.positions import check_follows, same_table
from collectors.storage.sqlite_errors import translate_error

__all__ = ["Database", "DeliveryTables", "delete_letters", "letter_owners", "letters_of", "open_database"]

_COLUMNS = ", ".join(LETTER_COLUMNS)
_MARKS = ", ?" * len(LETTER_COLUMNS)
_MAGIC = b"SQLite format 3\0"
_TABLES = """
create table if not exists _collectors_checkpoint (
    flow text not null, target text not null, epoch integer not null, seq integer not null,
    position text, schema blob, updated_at text not null,
    primary key (flow, target)
) without rowid;
create table if not exists _collectors_ledger (
    run text not null, flow text not null, target text not null,
    read integer not null, added integer not null, stored integer not null, filtered integer not null,
    set_aside integer not null, first_at text not null, last_at text not null,
    primary key (run, flow, target)
) without rowid;
create table if not exists _collectors_dead_letters (
    number integer primary key, owner text not null, letter_id text not null, pipeline text not null,
    source text not null, run text not null, seq integer not null, record integer not null, step text not null,
    reason text not null, raw blob not null, position text, version text not null, created_at text not null,
    route text not null, attempt integer not null, origin text not null, head blob not null,
    data_format text not null, whole integer not null, passed text not null
);
create index if not exists _collectors_dead_letters_owner on _collectors_dead_letters (owner, seq);
create index if not exists _collectors_dead_letters_pipeline on _collectors_dead_letters (pipeline, letter_id);
"""


class _Turn:
    """What writing connections of this process to one file take in turn."""

    def __init__(self) -> None:
        self.lock = threading.RLock()


_turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
_turns_lock = threading.Lock()


class Database(sqlite3.Connection):
    """An open file; `transaction` is the one way to write to it. Belongs to the thread that opened it."""

    path: Path
    _turn: _Turn
    _identity: tuple[int, int]

    def settle(self, path: Path, *, read_only: bool) -> None:
        """Take the settings that `open_database` promises."""
        self.path = path
        with _turns_lock:
            self._turn = _turns.setdefault(os.path.realpath(path), _Turn())
        if read_only:
            self.execute("pragma query_only = on")
            self.execute("pragma wal_autocheckpoint = 0")
        else:
            self.execute("pragma journal_mode = wal")
            self.execute("pragma synchronous = full")
            self.execute("pragma journal_size_limit = 67108864")
        self.execute("select count(*) from sqlite_schema").fetchone()
        self._identity = _identity(path)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do what stands under `with` in one transaction that ends on disk, or leave everything as it was.

        Raises TransientError when the file is locked, the disk full or failing (nothing was stored, or the outcome is
        unknown: ask what is stored before trying again), FatalError when the file was replaced or is damaged.
        """
        with self._turn.lock, self.translated():
            self._check_still_there()
            self.execute("begin immediate")
            try:
                yield
                self.execute("commit")
            except BaseException:
                if self.in_transaction:
                    with suppress(sqlite3.Error):
                        self.execute("rollback")
                raise

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn errors of SQLite into errors of this package that name the file."""
        try:
            yield
        except sqlite3.Error as error:
            raise translate_error(error, self.path) from error

    def _check_still_there(self) -> None:
        try:
            same = _identity(self.path) == self._identity
        except OSError:
            same = False
        if not same:
            raise FatalError(
                f"{self.path} was moved, deleted or replaced while it was open; nothing was stored; "
                "put it back or start again",
                error_type=ErrorType.STORAGE,
            )


def open_database(path: str | Path, *, read_only: bool = False, timeout: float = 5.0) -> Database:
    """Open a SQLite file in autocommit mode, made with its folders where missing unless `read_only`.

    `timeout` is how many seconds to wait for a lock of another process. Raises ConfigurationError when the file is
    something else, and leaves it untouched; TransientError or FatalError when it cannot be opened.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow links that are exchanged later
    _check_header(path)
    if not read_only:
        with translated(path.parent, "cannot make the folder"):
            make_folders(path.parent)
            sync_folder(
                path.parent
            )  # SQLite does when it makes a file, but whoever made it may have been killed before
    mode = "rw" if read_only else "rwc"
    connection: Database | None = None
    try:
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode={mode}", uri=True, timeout=timeout, isolation_level=None, factory=Database
        )
        connection.settle(path, read_only=read_only)
    except (sqlite3.Error, OSError) as error:
        if connection is not None:
            connection.close()
        raise translate_error(error, path) from error
    return connection


def _check_header(path: Path) -> None:
    with translated(path, "cannot read"):
        if path.is_dir():
            raise ConfigurationError(f"{path} is a folder; choose the path of a file for the SQLite database")
        if not path.exists():
            return
        with path.open("rb") as file:
            start = file.read(16)
    if start and start != _MAGIC:
        raise ConfigurationError(
            f"{path} is not a SQLite database (it begins with {start!r}); choose another path or move the file away"
        )


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


class DeliveryTables:
    """Positions, dead letters and counts of flows in an open `Database`; every method is one transaction.

    `target` tells apart what several users of one file keep about the same flow: the `sqlite` backend passes the
    setting of its table. A flow goes on under the target that it began with, as long as that means the same table.
    """

    def __init__(self, database: Database, target: str = "") -> None:
        self._database = database
        self._target = target

    def create(self) -> None:
        """Make the tables that are missing."""
        if _has_tables(self._database):
            return
        with self._database.transaction():
            for statement in _TABLES.split(";"):
                self._database.execute(statement)

    def claim(self, flow: str) -> Checkpoint:
        """Raise the flow's epoch by one, durably, and return how far it is stored."""
        with self._database.transaction():
            target, _ = self._find(flow)
            self._database.execute(
                "insert into _collectors_checkpoint values (?, ?, 1, 0, null, null, ?) "
                "on conflict do update set epoch = epoch + 1, updated_at = excluded.updated_at",
                (flow, target, _now()),
            )
            return self._find(flow)[1]

    def stored(self, flow: str) -> Checkpoint:
        """Return how far the flow is stored; epoch 0 and seq 0 for one that was never claimed."""
        with self._database.translated():
            return self._find(flow)[1] if _has_tables(self._database) else Checkpoint(0)

    def flows(self, source: str) -> list[str]:
        """Return the flows of a source, which is `pipeline/source`, of which anything is stored."""
        if not _has_tables(self._database):
            return []
        with self._database.translated():
            rows = self._database.execute(
                "select flow, target from _collectors_checkpoint "
                "where seq > 0 and (flow = ? or (flow > ? and flow < ?)) order by flow",
                (source, f"{source}/", f"{source}0"),  # 0 comes behind the slash
            )
            return [flow for flow, target in rows if same_table(target, self._target, flow, any_case=True)]

    def commit(self, delivery: Delivery) -> int:
        """Store what belongs to a delivery beside its rows, and return its seq; see `commit_together`."""
        return self.commit_together([delivery], lambda _: None)[0]

    def commit_together(
        self, deliveries: Sequence[Delivery], store_rows: Callable[[Sequence[Delivery]], None]
    ) -> list[int]:
        """Store deliveries of different flows and return their seqs; rows by what `store_rows` does in the transaction.

        One that is stored already is left out. Raises FencedError unless the epoch is the flow's and the stored seq the
        one before; in that case, and for any error of `store_rows`, nothing of any of them is stored.
        """
        with self._database.transaction():
            found = [self._find(delivery.key.flow) for delivery in deliveries]
            fresh = [
                (target, delivery)
                for delivery, (target, checkpoint) in zip(deliveries, found, strict=True)
                if check_follows(checkpoint, delivery)
            ]
            store_rows([delivery for _, delivery in fresh])
            for target, delivery in fresh:
                self._replace_letters(delivery.key.flow, target, delivery.first_seq, delivery.dead_letters)
                delete_letters(self._database, delivery.resolved)
            self._count(fresh)
            self._move_on(fresh)
        seqs = [delivery.key.seq for delivery in deliveries]
        return [max(seq, checkpoint.seq) for seq, (_, checkpoint) in zip(seqs, found, strict=True)]

    def replace_dead_letters(self, owner: str, first_seq: int, letters: list[DeadLetter]) -> None:
        """Keep these letters instead of those that the same owner kept of the chunks from `first_seq` on.

        An owner is who hands letters over chunk by chunk: one flow's way into one backend.
        """
        with self._database.transaction():
            self._replace_letters(owner, self._target, first_seq, letters)

    def dead_letters(self, pipeline: str) -> Iterator[DeadLetter]:
        """Yield the letters of a pipeline in the order in which they were set aside."""
        if not _has_tables(self._database):
            return
        with self._database.translated():
            for row in self._database.execute(
                f"select {_COLUMNS} from _collectors_dead_letters where pipeline = ? order by number",  # noqa: S608  # our names
                (pipeline,),
            ):
                yield read_letter(row)

    def forget_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Delete these letters, whoever keeps them in this file."""
        if letters and _has_tables(self._database):
            with self._database.transaction():
                delete_letters(self._database, letters)

    def ledger(self, run: str | None = None) -> dict[tuple[str, str], Counts]:
        """Return the counts of a run, or of all, by run and flow."""
        if not _has_tables(self._database):
            return {}
        with self._database.translated():
            rows = self._database.execute(
                "select run, flow, target, read, added, stored, filtered, set_aside from _collectors_ledger "
                "where ? is null or run = ? order by first_at",
                (run, run),
            )
            return {
                (name, flow): Counts(*counts)
                for name, flow, target, *counts in rows
                if same_table(target, self._target, flow, any_case=True)
            }

    def _find(self, flow: str) -> tuple[str, Checkpoint]:
        """Return under which target a flow is kept, and how far it is stored."""
        rows = self._database.execute(
            "select target, epoch, seq, position, schema from _collectors_checkpoint where flow = ? "
            "order by updated_at desc",
            (flow,),
        )
        for target, epoch, seq, position, schema in rows.fetchall():
            if same_table(target, self._target, flow, any_case=True):
                return target, Checkpoint(epoch, seq, _read_position(position), schema)
        return self._target, Checkpoint(0)

    def _replace_letters(self, owner: str, target: str, first_seq: int, letters: list[DeadLetter]) -> None:
        owner = f"{owner}>{target}" if target else owner
        self._database.execute(
            "delete from _collectors_dead_letters where owner = ? and seq >= ?", (owner, first_seq)
        )
        self._database.executemany(
            f"insert into _collectors_dead_letters (owner, {_COLUMNS}) values (?{_MARKS})",  # noqa: S608  # our names
            [(owner, *letter_values(letter)) for letter in letters],
        )

    def _move_on(self, deliveries: Sequence[tuple[str, Delivery]]) -> None:
        now = _now()
        self._database.executemany(
            "update _collectors_checkpoint set seq = ?, position = ?, schema = ?, updated_at = ? "
            "where flow = ? and target = ?",
            [
                (d.key.seq, _written(d.position), d.schema, now, d.key.flow, target)
                for target, d in deliveries
            ],
        )

    def _count(self, deliveries: Sequence[tuple[str, Delivery]]) -> None:
        now = _now()
        self._database.executemany(
            "insert into _collectors_ledger values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do update set "
            "read = read + excluded.read, added = added + excluded.added, stored = stored + excluded.stored, "
            "filtered = filtered + excluded.filtered, set_aside = set_aside + excluded.set_aside, "
            "last_at = excluded.last_at",
            [
                (each.run, each.key.flow, target, *astuple(each.counts), now, now)
                for target, each in deliveries
            ],
        )


def delete_letters(database: Database, letters: Sequence[DeadLetter]) -> None:
    """Delete letters, whoever keeps them in this file, inside of a transaction."""
    database.executemany(
        "delete from _collectors_dead_letters where pipeline = ? and letter_id = ? and run = ?",
        [(letter.pipeline, letter.letter_id, letter.run) for letter in letters],
    )


def letter_owners(database: Database) -> list[str]:
    """Return who keeps letters in this file, see `replace_dead_letters`."""
    if not _has_tables(database):
        return []
    return [owner for (owner,) in database.execute("select distinct owner from _collectors_dead_letters")]


def letters_of(database: Database, owner: str) -> list[DeadLetter]:
    """Return the letters of one owner, in the order in which they were set aside."""
    rows = database.execute(
        f"select {_COLUMNS} from _collectors_dead_letters where owner = ? order by number",  # noqa: S608  # our names
        (owner,),
    )
    return [read_letter(row) for row in rows]


def _has_tables(database: Database) -> bool:
    with database.translated():
        found = database.execute(
            "select 1 from sqlite_schema where name = '_collectors_dead_letters_pipeline'"
        )
        return found.fetchone() is not None


def _written(position: Position | None) -> str | None:
    return None if position is None else msgspec.json.encode(position).decode()


def _read_position(text: str | None) -> Position | None:
    return None if text is None else msgspec.json.decode(text, type=dict)


def _now() -> str:
    return datetime.now(UTC).isoformat()
