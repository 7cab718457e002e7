"""The rows of a table or a query: SQLite, PostgreSQL, MySQL and MariaDB.

    source:
      type: sql
      url: postgresql://reader:${DB_PASSWORD:-}@db.example:5432/shop
      table: orders
      cursor: updated_at
      key: id
      every: 30s

With `cursor` and `key` a reading gives the rows behind the last one, by both: rows with the same cursor are neither missed nor
doubled. With `key` alone it goes on behind the last key, so a first full reading resumes in the middle, and later ones give new
rows. Without both each reading is a pass over everything, in one snapshot; one that breaks off begins again, and a SQLite file without
WAL cannot be written meanwhile. Types are those of the database. A value that its column's type cannot hold sets its row aside: a date of PostgreSQL's infinity, MySQL's zero dates,
text in an integer column of SQLite.

The value of the cursor, or of the key alone, has to be made in the transaction that writes the row, and to grow. On
PostgreSQL, a transaction that commits after others with larger values is waited for, so none of its rows is missed. MySQL does not
tell everybody what is open, nor does a standby: there, and where programs make the values, set `lag`. A row that is changed and keeps its cursor
is not seen again, nor is one that was deleted.

Connections are read-only; passwords belong into the environment. A URL of PostgreSQL takes what libpq takes (`?sslmode=verify-full`),
one of MySQL `ssl-mode` and `ssl-ca`, as in `?ssl-mode=verify_identity&ssl-ca=/etc/ca.pem`.

Delivery: exactly once with `key`, where the storage keeps the position. Without it exactly once from the spool on; a pass that
breaks off begins again, and what it had given comes twice.
Position: the cursor and the key of the last row.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from itertools import count
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, SecretStr, model_validator

from collectors.collection.base import Room, Source, SourceConfig
from collectors.collection.sources._sql_columns import Row, letter, stream, to_table
from collectors.collection.sources._sql_places import check_query, check_table, check_url, connect, dialect_of
from collectors.collection.sources._sql_positions import at, position
from collectors.collection.sources._sql_selection import Selection
from collectors.errors import FatalError
from collectors.models import CollectedData, Position
from collectors.settings import ByteSize, Duration, OneOrMore
from collectors.workers import in_thread

__all__ = ["COMPONENT", "SqlConfig", "SqlSource"]

Result = TypeVar("Result")
_FIRST_ROW_BYTES = 64 * 1024
"""So long is a row taken to be until some were seen."""
_MOST_ROWS = 65_536
_LOOKS_BEFORE_TELLING = 28
"""A wait for others is told when it was looked at so often, which takes about five seconds."""


class SqlConfig(SourceConfig):
    """Settings of the sql source."""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: Annotated[SecretStr, AfterValidator(check_url)]
    """Where the database is: `sqlite:///path`, `postgresql://user:password@host:port/database`, or `mysql://…` likewise."""
    table: str | None = None
    """The table or view, as `orders` or `sales.orders`; or give a `query`."""
    query: str | None = None
    """One SELECT in the database's own SQL; `cursor` and `key` are columns of its result."""
    columns: list[str] = []
    """The columns to read, all when left out."""
    cursor: str | None = None
    """The column that grows with each change of a row, such as a time or a version."""
    key: OneOrMore[str] = []
    """The column, or columns, that tell rows with the same cursor apart: the primary key."""
    start: int | float | str | None = None
    """Begin at this value of the cursor, for example `2026-01-01`, instead of the beginning."""
    nulls: Literal["fail", "skip"] = "fail"
    """What to do about rows without a cursor or key, which have no place in the order: stop and say so, or leave them out and
    tell how many. To read them, give a `query` with `coalesce(updated_at, created_at) as updated_at`."""
    lag: Duration = 0.0
    """Leave rows for later whose cursor, a time, is not this old by the server's clock: for MySQL, for values that programs make,
    and for times that are rounded. A time without a zone is taken for UTC."""
    wait_for: Literal["transactions", "writers"] = "transactions"
    """PostgreSQL: wait for all transactions that are open when a reading begins, or only for those that have written by then. The
    second does not wait for long reports, but misses rows of one that took its `now()` before it wrote anything."""
    timeout: Duration = 600.0
    """How long the server may be silent, when it sorts for example, before it counts as gone."""
    chunk_size: ByteSize = 4 * 2**20
    """Hand rows on in pieces of about this many bytes."""

    @model_validator(mode="after")
    def _check(self) -> SqlConfig:
        if (self.table is None) == (self.query is None):
            raise ValueError("table, query: expected one of the two")
        if self.chunk_size == 0:
            raise ValueError("chunk_size: expected more than 0 bytes")
        if not 1 <= self.timeout <= 86_400:
            raise ValueError("timeout: expected 1s to 24h")
        dialect = dialect_of(self.url)
        for name, check in (("table", check_table), ("query", lambda text: check_query(text, dialect))):
            try:
                if (given := getattr(self, name)) is not None:
                    check(given)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        if self.cursor is not None and not self.key:
            raise ValueError(
                "key: needed beside `cursor`, since rows may have the same cursor; name the primary key, as in `key: id`"
            )
        if len({*self.order}) < len(self.order):
            raise ValueError("cursor, key: a column is named twice")
        if len({*self.columns}) < len(self.columns):
            raise ValueError("columns: a column is named twice")
        self._check_belonging(dialect)
        return self

    def _check_belonging(self, dialect: str) -> None:
        given = self.model_fields_set
        for name in ("start", "lag"):
            if name in given and self.cursor is None:
                raise ValueError(f"{name}: is about the cursor; set `cursor`, or leave it out")
        if "nulls" in given and not self.key:
            raise ValueError("nulls: is about the cursor and the key; set them, or leave it out")
        if "wait_for" in given and dialect != "postgres":
            raise ValueError("wait_for: is for postgresql; leave it out, and set `lag`")

    @property
    def order(self) -> list[str]:
        """The columns by which rows are ordered; none for a pass over everything."""
        return [*([] if self.cursor is None else [self.cursor]), *self.key]


class SqlSource(Source[SqlConfig]):
    """Reads behind the last row, in a thread, on a connection that is kept from one reading to the next."""

    data_format = "arrow"
    lost_before_spool = "a pass that broke off begins again, so what it had given comes twice"

    def __init__(self, config: SqlConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._selection: Selection | None = None
        self._row_bytes = float(_FIRST_ROW_BYTES)
        self._left_out = 0
        self._warned = False
        self.reads_everything = not self.config.order

    def needs_spool(self) -> bool:
        """Return whether there is no order in which one could go on behind a row."""
        return not self.config.order

    @property
    def _about(self) -> dict[str, Any]:
        return {"reading": "within"} if self.marks_readings else {}

    async def open(self) -> None:
        """Connect, and check what the settings name."""
        stack = await self.enter(contextlib.AsyncExitStack())
        stack.callback(self._drop)
        selection = await self._in_thread(self._selected)
        if selection.order and not self.config.lag and not self._warned:
            self._warned = True
            if warning := await self._in_thread(selection.database.warning):
                self.tell(f"{self.get_source_id()}: {warning}")

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData | Room]:
        """Yield the rows behind the position."""
        chunks = self._chunks(since)
        try:
            while (data := await self._in_thread(next, chunks, None)) is not None:
                yield data
        finally:
            chunks.close()

    def replay(self, since: Position | None, until: Position) -> CollectedData:
        """Return the rows between two positions, without those that have got a larger cursor since."""
        selection = self._selected()
        rows = selection.between(self._values(since), at(until, self.config.order))
        chunks = list(self._hand_on(selection, rows))
        if len(chunks) > 1:
            raise FatalError(
                f"rows up to {until['at']} have changed so that some of them can no longer be used"
            )
        chunk = chunks[0] if chunks else self.chunk(stream(selection.empty()), until)
        chunk.position = until
        return chunk

    async def _in_thread(self, call: Callable[..., Result], *args: Any) -> Result:
        """Run a call that blocks; when cancelled, end what it waits for, and wait until it is over."""
        step = in_thread(call, *args)
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            if self._selection is not None:
                self._selection.database.interrupt()
            while not step.done():  # also when it is cancelled once more
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([step])
            if not step.cancelled():
                step.exception()
            raise

    def _selected(self) -> Selection:
        """Return what is read, on a connection that can be used."""
        if self._selection is not None and not self._selection.database.usable:
            self._drop()
        if self._selection is None:
            self._selection = Selection.make(self.config, connect(self.config.url, self.config.timeout))
        return self._selection

    def _drop(self) -> None:
        selection, self._selection = self._selection, None
        if selection is not None:
            selection.database.close()

    def _values(self, since: Position | None) -> list[Any] | None:
        return None if since is None else at(since, self.config.order)

    def _chunks(self, since: Position | None) -> Generator[CollectedData | Room, None, None]:
        """Read in a transaction; the connection is closed where that is not ended in peace."""
        selection = self._selected()
        try:
            yield from self._reading(selection, self._values(since))
        except BaseException:
            self._drop()
            raise

    def _reading(self, selection: Selection, since: list[Any] | None) -> Iterator[CollectedData | Room]:
        until = None
        if selection.order:
            waiting = selection.settle(since)
            for number in count():
                try:
                    what = next(waiting)
                except StopIteration as done:
                    until = done.value
                    break
                if number == _LOOKS_BEFORE_TELLING:
                    self.tell(
                        f"{self.get_source_id()}: waits for {what}, which may commit rows that come before others"
                    )
                yield Room(0)
            if until is None:
                self._tell_nulls(selection)
                return
        if self.marks_readings:
            yield self.chunk(b"", None, reading="begins")
        with selection.snapshot():
            self._tell_nulls(selection)
            with selection.rows(since, until) as fetch:
                while True:
                    yield Room(self.config.chunk_size)
                    rows = fetch(self._row_count())
                    if not rows:
                        break
                    yield from self._hand_on(selection, rows)
        yield Room(0)
        if self.marks_readings:
            yield self.chunk(b"", None, reading="ends")

    def _row_count(self) -> int:
        return max(1, min(int(self.config.chunk_size / self._row_bytes), _MOST_ROWS))

    def _hand_on(self, selection: Selection, rows: Sequence[Row]) -> Iterator[CollectedData]:
        """Yield the rows, each that is refused by itself, in order."""
        if not rows:
            return
        selection.learn(rows)
        table, bad = to_table(selection.handed_on, rows, selection.database.array)
        self._row_bytes = max(table.nbytes / len(rows), self._row_bytes / 4, 1.0)
        first = 0
        for number in [*sorted(bad), len(rows)]:
            if number > first:
                yield self.chunk(
                    stream(table.slice(first, number - first)),
                    self._behind(selection, rows[number - 1]),
                    **self._about,
                )
            if number < len(rows):
                raw = letter(selection.columns, rows[number])
                yield self.refuse(raw, self._behind(selection, rows[number]), bad[number], **self._about)
            first = number + 1

    def _behind(self, selection: Selection, row: Row) -> Position | None:
        return position(self.config.order, selection.bound(row)) if selection.order else None

    def _tell_nulls(self, selection: Selection) -> None:
        """Say how many rows have no place in the order. Raises FatalError where they must not be left out."""
        left_out = selection.count_nulls(exactly=self.config.nulls == "skip")
        if left_out and self.config.nulls == "fail":
            raise FatalError(
                f"there are rows with NULL in {' or '.join(selection.nullable)}, which have no place in the order: "
                "give a `query` with coalesce(…) as that column, or leave them out with `nulls: skip`"
            )
        if left_out and left_out != self._left_out:
            self.tell(
                f"{self.get_source_id()}: {left_out} rows are left out, since they have NULL in {' or '.join(selection.nullable)}"
            )
        self._left_out = left_out


COMPONENT = SqlSource
