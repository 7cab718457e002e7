"""The columns of a table of DuckDB beside those that rows bring."""

from __future__ import annotations

import pyarrow as pa
from msgspec import Struct

from collectors.enums import ErrorType
from collectors.errors import FatalError
from collectors.storage import sql_names
from collectors.storage.backends._duckdb_types import UnstorableError, sql_type, storable, widened
from collectors.storage.drift import Difference
from collectors.storage.records import plain
from collectors.storage.sql_names import folded

__all__ = ["Change", "Column", "column_changes", "differences", "unfit_columns"]

_THEIR_TEXT = ("UUID", "ENUM", "JSON")


class Column(Struct, frozen=True):
    """A column of the table: its declared type, and the Arrow type in which it is read."""

    name: str
    declared: str
    arrow: pa.DataType

    @property
    def ordinary(self) -> bool:
        """Whether it is declared as we declare columns, so that it can be widened and compared as Arrow does it."""
        try:
            kind = storable(self.arrow)
        except UnstorableError:
            return False
        return self.declared.replace('"', "") == sql_type(kind).replace(
            '"', ""
        )  # it quotes only where it must


class Change(Struct, frozen=True):
    """What rows mean for one column. `wanted` is the type to store as, None when the two types do not fit."""

    existing: Column | None
    brought: pa.DataType
    wanted: pa.DataType | None

    @property
    def widening(self) -> tuple[Column, pa.DataType] | None:
        """The existing column and the type that it gets instead of its own; None: it keeps that."""
        known, wanted = self.existing, self.wanted
        if known is None or wanted is None or not known.ordinary or known.arrow.equals(wanted):
            return None
        return known, wanted


def column_changes(name: str, table: pa.Table, existing: list[Column]) -> dict[str, Change]:
    """Return what rows mean for each of their columns; those without a type (all null) are left out.

    So are those whose names DuckDB cannot have. Raises FatalError for types that it cannot have, and for the table's name.
    """
    unfit = unfit_columns(name, table.column_names, [column.name for column in existing])
    known = {column.name: column for column in existing}
    changes = {}
    for field in table.schema:
        if field.name in unfit or pa.types.is_null(plain(pa.chunked_array([], field.type)).type):
            continue
        try:
            changes[field.name] = _change(known.get(field.name), storable(field.type))
        except UnstorableError as error:
            raise _unfit(f"column '{field.name}': {error}") from error
    return changes


def differences(changes: dict[str, Change]) -> dict[str, Difference]:
    """Return the columns that the table does not have, or not of a type that takes all values."""
    found: dict[str, Difference] = {}
    for name, change in changes.items():
        known, brought = change.existing, sql_type(change.brought)
        if known is None:
            found[name] = Difference(None, brought)
        elif change.wanted is None or change.widening:
            wider = None if change.wanted is None else sql_type(change.wanted)
            narrow = storable(known.arrow) if known.ordinary else None
            found[name] = Difference(known.declared, brought, wider, narrow)
    return found


def unfit_columns(table: str, names: list[str], existing: list[str]) -> dict[str, str]:
    """Return the columns whose names DuckDB cannot have, with the reason.

    Raises FatalError for two of one name, and for the name of the table.
    """
    if folded(table).startswith("_collectors") or not table or "\0" in table:
        raise _unfit(f"table {table!r}: names that begin with _collectors are taken; choose another")

    def unfit(name: str) -> str | None:
        taken = not name or "\0" in name or folded(name).startswith("_collectors")
        return "DuckDB cannot have this name, or it is ours" if taken else None

    return sql_names.unfit_columns(table, names, unfit, existing, without_case="DuckDB")


def _change(existing: Column | None, brought: pa.DataType) -> Change:
    if existing is None:
        return Change(None, brought, brought)
    if existing.ordinary:
        return Change(existing, brought, widened(existing.arrow, brought))
    if existing.declared.startswith(_THEIR_TEXT) and pa.types.is_string(brought):
        return Change(existing, brought, brought)
    return Change(existing, brought, None)


def _unfit(message: str) -> FatalError:
    return FatalError(message, error_type=ErrorType.STORAGE)
