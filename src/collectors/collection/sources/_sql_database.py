"""What the sql source needs of a connection to a database."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

import pyarrow as pa

from collectors.collection.sources._sql_columns import Column, Row
from collectors.collection.sources._sql_dialects import Bound, Dialect

__all__ = ["Database", "Fetch", "near"]

Fetch = Callable[[int], Sequence[Row]]
"""Returns at most so many further rows; none at the end."""


class Database(ABC):
    """A connection. What its methods raise are errors of this package; statements have marks, names in them are quoted."""

    dialect: ClassVar[Dialect]
    usable = True
    """Whether it can go on; not after it was interrupted, or left with rows on their way."""

    @abstractmethod
    def execute(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Run a statement with a small result, and return it."""

    @abstractmethod
    def columns(self, quoted: str, table: str | None) -> list[Column]:
        """Return the columns of what stands in a FROM; `table` is the same where that is a table."""

    @abstractmethod
    def tables(self) -> list[str]:
        """Return the names of the tables and views that there are, as settings have them."""

    @abstractmethod
    def rows(self, statement: str, values: Sequence[object]) -> AbstractContextManager[Fetch]:
        """Enter the result of a statement, which the server keeps."""

    @abstractmethod
    def array(self, column: Column, values: Sequence[object]) -> pa.Array:
        """Return values of a column as Arrow; raises one of `_sql_columns.UNFIT` when one does not fit."""

    @abstractmethod
    def interrupt(self) -> None:
        """End what another thread waits for; the connection is not usable any more."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection, whatever is under way on it; twice is fine."""

    def learn(self, columns: list[Column], rows: Sequence[Row]) -> list[Column]:
        """Return the columns with the types that the first rows show where the database says none."""
        return columns

    def warning(self) -> str | None:
        """Return what people have to know of this server."""
        return None

    def settle(
        self, last: Callable[[], Bound | None], *, writers: bool
    ) -> Generator[str, None, Bound | None]:
        """Return how far one can read without missing what others have not committed yet; None: nothing new.

        Yields what it waits for, again and again. A database that cannot tell returns the last there is.
        """
        yield from ()
        return last()


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint for a name that is not there."""
    there = sorted(known)
    alike = [each for each in there if each.lower() == name.lower()]
    close = alike or difflib.get_close_matches(name, there, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(each) for each in close)}?"
    return (
        f"there are: {', '.join(there[:20])}{' …' if len(there) > 20 else ''}" if there else "there are none"
    )
