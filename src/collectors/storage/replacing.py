"""`write: replace` in databases: the rows of a reading wait in a table beside, and take the place of all others at its end.

Everything happens in the transactions of the commits: one that fails, and a process that dies, leave both tables and the
position as they were. A reading that breaks off is followed by one that begins, which drops what waits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from collectors.chunks import Reading
from collectors.enums import ErrorType
from collectors.errors import FatalError
from collectors.storage.sql_names import quote

__all__ = ["Replacement"]


class Replacement(ABC):
    """One table in a transaction of the caller; the rows of a reading wait in `waiting`.

    That a reading has begun is a line in `_collectors_writes` with no location: there may be no rows yet whose columns
    the waiting table could have.
    """

    quoted_schema = ""
    mark = "?"
    refusals: tuple[type[Exception], ...] = ()
    """What it raises where a constraint of the table is in the way."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.waiting = f"_collectors_next_{sha256(table.encode()).hexdigest()[:24]}"
        self._writes = f"{self.quoted_schema}_collectors_writes"
        self._quoted = f"{self.quoted_schema}{quote(table)}"
        self._quoted_waiting = f"{self.quoted_schema}{quote(self.waiting)}"

    @abstractmethod
    def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; values stand at `mark`."""

    @abstractmethod
    def columns(self, table: str) -> Mapping[str, Any] | None:
        """Return the columns that can be written, with their types; None when there is no such table."""

    @abstractmethod
    def make_waiting(self) -> None:
        """Make the waiting table like the table, which is there."""

    @abstractmethod
    def note_begun(self) -> None:
        """Insert the line without a location."""

    def change_types(self, kinds: Mapping[str, Any]) -> None:  # noqa: B027  # not where no type is ever changed
        """Give columns of the table, which is empty now, the types that the waiting one has got."""

    def place(self, reading: Reading) -> str | None:
        """Do what a delivery asks for, and return where its rows go if they have to wait; None: into the table.

        Rows of a reading that was not begun here go into the table: nobody knows what they would be a part of. Raises
        FatalError where the table does not take the rows of one that is whole: nobody could say which are to be set aside.
        """
        if reading == "begins":
            self._begin()
        elif reading == "ends" and self._has_begun():
            self._end()
        return self.waiting if reading == "within" and self._has_begun() else None

    def rename(self) -> None:
        """Let the waiting table be the table, which is not there."""
        self.run(f"alter table {self._quoted_waiting} rename to {quote(self.table)}")

    def give_up(self) -> None:
        """Forget a reading that has begun, since rows of it have gone into the table: its end would replace them."""
        if self._has_begun():
            self._forget()

    @contextmanager
    def whole(self) -> Iterator[str]:
        """Make what is stored under `with`, in the table of this name, a reading of its own."""
        self.place("begins")
        yield self.waiting
        self.place("ends")

    def _has_begun(self) -> bool:
        found = f"select 1 from {self._writes} where location_id = '' and table_name = {self.mark}"  # noqa: S608
        return bool(self.run(found, [self.waiting]))

    def _forget(self) -> None:
        self.run(f"drop table if exists {self._quoted_waiting}")
        self.run(f"delete from {self._writes} where table_name = {self.mark}", [self.waiting])  # noqa: S608

    def _begin(self) -> None:
        self._forget()
        self.note_begun()
        if self.columns(self.table) is not None:
            self.make_waiting()

    def _end(self) -> None:
        there, waiting = self.columns(self.table), self.columns(self.waiting)
        self.run(f"delete from {self._writes} where table_name = {self.mark}", [self.table])  # noqa: S608
        self.run(
            f"delete from {self._writes} where location_id = '' and table_name = {self.mark}",  # noqa: S608
            [self.waiting],
        )
        if there is None and waiting is not None:
            self.rename()
        elif there is not None:
            try:
                self._refill(there, waiting or {})
            except self.refusals as error:
                raise FatalError(
                    f"table '{self.table}' does not take the rows of a whole reading in the place of its own: {error}; it is as "
                    "it was. Leave out such rows with a processor, or change what the table asks for",
                    error_type=ErrorType.STORAGE,
                ) from error
        self.run(
            f"update {self._writes} set table_name = {self.mark} where table_name = {self.mark}",  # noqa: S608
            [self.table, self.waiting],
        )

    def _refill(self, there: Mapping[str, Any], waiting: Mapping[str, Any]) -> None:
        """Put the rows that wait in the place of all others.

        Columns are added first: PostgreSQL adds none where deferred constraints have still to look at deleted rows.
        """
        for name, kind in waiting.items():
            if name not in there:
                quoted = f"{quote(name)} {kind}"
                self.run(f"alter table {self._quoted} add column {quoted}")
        self.run(f"delete from {self._quoted}")  # noqa: S608
        if waiting:
            self.change_types({name: kind for name, kind in waiting.items() if there.get(name, kind) != kind})
            names = ", ".join(map(quote, waiting))
            self.run(f"insert into {self._quoted} ({names}) select {names} from {self._quoted_waiting}")  # noqa: S608
            self.run(f"drop table {self._quoted_waiting}")
