"""The columns of a table of SQLite beside those that rows bring."""

from __future__ import annotations

import pyarrow as pa

from collectors.enums import ErrorType
from collectors.errors import FatalError
from collectors.storage import sql_names
from collectors.storage.backends._sqlite_types import affinity, declared_type, fits
from collectors.storage.drift import Mode
from collectors.storage.records import plain
from collectors.storage.sql_names import folded

__all__ = ["column_changes", "takes", "unfit_columns"]


def column_changes(name: str, existing: dict[str, str], table: pa.Table) -> dict[str, tuple[str | None, str]]:
    """Return for each column of the rows what is declared for it now, None where it is new, and what they bring.

    Columns without a type (all null), or with a name that SQLite cannot have, are left out. Raises FatalError for types
    that it cannot have, and for the name of the table.
    """
    if folded(name).startswith(("_collectors", "sqlite_")) or "\0" in name:
        raise _unfit(
            f"table {name!r}: names that begin with _collectors or sqlite_ are taken; choose another"
        )
    unfit = unfit_columns(name, table.column_names, list(existing))
    changes = {}
    for field in table.schema:
        if field.name in unfit:
            continue
        kind = plain(pa.chunked_array([], field.type)).type
        if pa.types.is_null(kind):
            continue
        declared = declared_type(kind)
        if declared is None:
            raise _unfit(
                f"column '{field.name}': SQLite has no place for Arrow's {kind}; cast it to another type"
            )
        changes[field.name] = existing.get(field.name), declared
    return changes


def takes(existing: str, brought: str, mode: Mode) -> bool:
    """Return whether a column declared so takes what rows bring.

    SQLite would take a fraction in an INTEGER column; where the columns are not to evolve, we do not.
    """
    fraction = brought == "REAL" and affinity(existing) == "INTEGER" and mode != "evolve"
    return fits(existing, brought) and not fraction


def unfit_columns(table: str, names: list[str], existing: list[str]) -> dict[str, str]:
    """Return the columns whose names SQLite cannot have, with the reason. Raises FatalError for two of one name."""

    def unfit(name: str) -> str | None:
        taken = "\0" in name or folded(name).startswith("_collectors")
        return "SQLite cannot have this name, or it is ours" if taken else None

    return sql_names.unfit_columns(table, names, unfit, existing, without_case="SQLite")


def _unfit(message: str) -> FatalError:
    return FatalError(message, error_type=ErrorType.STORAGE)
