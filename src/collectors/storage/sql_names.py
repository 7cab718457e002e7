"""Names of tables and columns in SQL: quoted, compared, and which columns a database cannot have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from collectors.enums import ErrorType
from collectors.errors import FatalError

__all__ = ["folded", "quote", "unfit_columns"]


def quote(name: str) -> str:
    """Return a name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def folded(name: str) -> str:
    """Return the name as SQLite and DuckDB compare it: only A to Z lose their case."""
    if name.isascii():
        return name.lower()
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


def unfit_columns(
    table: str,
    names: Sequence[str],
    unfit: Callable[[str], str | None],
    existing: Iterable[str] = (),
    *,
    without_case: str = "",
) -> dict[str, str]:
    """Return the columns of rows that a table cannot have by their names, with the reason.

    That is what `unfit` says of a name; in the database `without_case` also that another one, of the rows or `existing` in
    the table, differs in nothing but case. Raises FatalError for two of one name.
    """
    seen = {folded(name): name for name in existing} if without_case else {}
    there, found = set[str](), dict[str, str]()
    for name in names:
        if name in there:
            raise FatalError(
                f"table '{table}': the column '{name}' is there twice; rename one in a processor",
                error_type=ErrorType.STORAGE,
            )
        there.add(name)
        if (reason := unfit(name)) is not None:
            found[name] = reason
        elif without_case and (other := seen.setdefault(folded(name), name)) != name:
            found[name] = (
                f"'{other}' differs only in upper and lower case, which {without_case} does not tell apart"
            )
    return found
