"""What is read of a database, and in which order."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from msgspec import Struct

from collectors.collection.sources._sql_columns import Column, Row
from collectors.collection.sources._sql_database import Database, Fetch, near
from collectors.collection.sources._sql_dialects import Bound
from collectors.collection.sources._sql_places import check_query, check_table, missing_table
from collectors.errors import ConfigurationError, FatalError

if TYPE_CHECKING:
    from collectors.collection.sources.sql import SqlConfig

__all__ = ["Selection"]

_UNORDERED = {"enum", "set"}
"""MySQL orders them by number and compares them as text."""


class Selection(Struct):
    """Columns of a table or query, with the columns of the order among them; `names` are those that are handed on.

    `conditions` hold for every row that is read: SQL, and what to bind.
    """

    database: Database
    relation: str
    columns: list[Column]
    names: list[str]
    order: list[Column]
    conditions: list[tuple[str, list[Any]]]
    only_writers: bool
    _last: Row | None = None

    @classmethod
    def make(cls, config: SqlConfig, database: Database) -> Selection:
        """Find in the database what the settings name. Raises ConfigurationError."""
        try:
            return cls._make(config, database)
        except BaseException:
            database.close()
            raise

    @classmethod
    def _make(cls, config: SqlConfig, database: Database) -> Selection:
        table = None
        if config.table is not None:
            table = relation = ".".join(map(database.dialect.quote, check_table(config.table)))
        else:
            text = database.dialect.text(check_query(config.query or "", database.dialect.name))
            relation = f"(\n{text}\n) as _collectors_query"
        try:
            known = {column.name: column for column in database.columns(relation, table)}
        except ConfigurationError as error:
            if config.table is not None and not _is_there(config.table, database.tables()):
                raise missing_table(database, config.table) from error
            raise
        for setting, given in (("columns", config.columns), ("cursor", [config.cursor]), ("key", config.key)):
            for name in given:
                if name is not None and name not in known:
                    raise ConfigurationError(f"{setting}: there is no column '{name}'; {near(name, known)}")
        names = config.columns or [name for name, column in known.items() if column.declared != "rowid"]
        order = [known[name] for name in config.order]
        selected = [known[name] for name in dict.fromkeys([*names, *config.order])]
        made = cls(database, relation, selected, names, order, [], config.wait_for == "writers")
        made._condition(config)
        return made

    def _condition(self, config: SqlConfig) -> None:
        quote = self.database.dialect.quote
        for column in self.order:
            if column.declared in _UNORDERED:
                raise ConfigurationError(
                    f"cursor, key: '{column.name}' is an {column.declared}, which has no order to read by"
                )
        self.conditions = [(f"{quote(name)} is not null", []) for name in self.nullable]
        if config.cursor is None:
            return
        cursor = self.order[0]
        if config.start is not None:
            value = self._value(cursor, config.start)
            self.conditions.append((f"{quote(cursor.name)} >= {self.database.dialect.term(cursor)}", [value]))
        if config.lag:
            condition = self.database.dialect.lagging(cursor)
            if condition is None:
                raise ConfigurationError(
                    f"lag: needs a cursor that is a time; '{cursor.name}' is {cursor.declared}"
                )
            self.conditions.append((condition, [config.lag]))

    def _value(self, cursor: Column, start: Any) -> Any:
        if self.database.dialect.name == "sqlite":
            return start
        try:
            return self.database.dialect.value(cursor, str(start))
        except (ValueError, ArithmeticError) as error:
            raise ConfigurationError(f"start: {start!r} is no {cursor.declared}") from error

    @property
    def handed_on(self) -> list[Column]:
        """The columns without those that are there for the order alone, which stand behind them."""
        return self.columns[: len(self.names)]

    @property
    def _places(self) -> list[int]:
        names = [column.name for column in self.columns]
        return [names.index(column.name) for column in self.order]

    @property
    def nullable(self) -> list[str]:
        """The columns of the order in which NULL may be."""
        return [column.name for column in self.order if column.nullable]

    def settle(self, since: Bound | None) -> Generator[str, None, Bound | None]:
        """Return how far there are rows behind `since` that can be read by now; yields what is waited for."""
        self._last = None
        items = ", ".join(self.database.dialect.item(column) for column in self.order)
        by = ", ".join(f"{self.database.dialect.quote(column.name)} desc" for column in self.order)
        select = f"select {items} from {self.relation}"  # noqa: S608  # quoted

        def last() -> Bound | None:
            where, values = self._where(since, None)
            statement = f"{select}{where} order by {by} limit 1"
            found = self.database.execute(statement, values)
            return self._kept(found[0]) if found else None

        return self.database.settle(last, writers=self.only_writers)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Do what stands under `with` in one transaction, except where rows are read in pages."""
        paged = self.database.dialect.paged and self.order
        if not paged:
            self.database.execute(self.database.dialect.begin)
        yield
        if not paged:
            self.database.execute("rollback")

    def count_nulls(self, *, exactly: bool) -> int:
        """Return how many rows have no place in the order; without `exactly` 1 for any."""
        if not self.nullable:
            return 0
        where = " or ".join(f"{self.database.dialect.quote(name)} is null" for name in self.nullable)
        rows = f"select 1 as one from {self.relation} where {where}{'' if exactly else ' limit 1'}"  # noqa: S608  # quoted
        statement = f"select count(*) from ({rows}) as _collectors_rows"  # noqa: S608  # quoted
        ((count,),) = self.database.execute(statement)
        return int(count)

    @contextmanager
    def rows(self, since: Bound | None, until: Bound | None) -> Iterator[Fetch]:
        """Enter the rows behind `since`, up to `until`."""
        if not (self.database.dialect.paged and self.order):
            with self.database.rows(*self._select(since, until)) as fetch:
                yield fetch
            return
        place = since

        def page(count: int) -> list[Row]:
            nonlocal place
            statement, values = self._select(place, until)
            limited = f"{statement} limit {count + 1}"
            found = self.database.execute(limited, values)
            if len(found) > count:
                self._check(found[count - 1], found[count])
                del found[count:]
            place = self.bound(found[-1]) if found else place
            return found

        yield page

    def between(self, since: Bound | None, until: Bound) -> list[Row]:
        """Return all rows behind `since`, up to `until`."""
        self._last = None
        return self.database.execute(*self._select(since, until))

    def learn(self, rows: Sequence[Row]) -> None:
        """Take types from rows where the database says none. Raises FatalError when two rows have the same place."""
        self.columns = self.database.learn(self.columns, rows) if rows else self.columns
        for row in rows if self.order else ():
            if self._last is not None:
                self._check(self._last, row)
            self._last = row

    def _check(self, row: Row, following: Row) -> None:
        if all(row[place] == following[place] for place in self._places):
            names = ", ".join(column.name for column in self.order)
            raise FatalError(
                f"key: two rows have the same {names} ({', '.join(map(str, self.bound(row)))}); add columns to `key` until "
                "it tells all rows apart"
            )

    def bound(self, row: Row) -> Bound:
        """Return the place of a row in the order."""
        return self._kept([row[place] for place in self._places])

    def empty(self) -> pa.Table:
        """Return a table of no rows."""
        return pa.table({column.name: pa.nulls(0, column.type or pa.null()) for column in self.handed_on})

    def _kept(self, raw: Sequence[Any]) -> Bound:
        return [
            self.database.dialect.value(column, value) for column, value in zip(self.order, raw, strict=True)
        ]

    def _where(self, since: Bound | None, until: Bound | None) -> tuple[str, list[Any]]:
        parts = [*self.conditions]
        if since is not None:
            parts.append(self.database.dialect.compared(self.order, ">", since))
        if until is not None:
            parts.append(self.database.dialect.compared(self.order, "<=", until))
        text = " and ".join(f"({part})" for part, _ in parts)
        return f" where {text}" if text else "", [value for _, values in parts for value in values]

    def _select(self, since: Bound | None, until: Bound | None) -> tuple[str, list[Any]]:
        where, values = self._where(since, until)
        items = ", ".join(self.database.dialect.item(column) for column in self.columns)
        by = ", ".join(self.database.dialect.quote(column.name) for column in self.order)
        return f"select {items} from {self.relation}{where}{f' order by {by}' if by else ''}", values  # noqa: S608  # quoted


def _is_there(name: str, tables: Sequence[str]) -> bool:
    return name in tables or name.rpartition(".")[2] in tables
