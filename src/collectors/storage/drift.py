"""What happens when rows bring other columns than their table has, or other types: `schema:` of a backend.

A backend tells `Columns.settle` how rows differ from its table, within the transaction that stores them; it makes the
columns that are left to it, and keeps what was found in the same transaction (`collectors schema-history`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct, field
from msgspec.structs import astuple
from pydantic import Field

from collectors.chunks import Drift
from collectors.enums import ErrorType
from collectors.errors import DataError, FatalError
from collectors.storage.base import BackendConfig
from collectors.storage.records import plain, to_json_lines

__all__ = [
    "DRIFT_COLUMNS",
    "ONCE",
    "Columns",
    "Difference",
    "DriftConfig",
    "Mode",
    "drift_values",
    "read_drift",
    "unwritten",
]

Mode = Literal["evolve", "freeze", "discard-column", "set-aside"]
_ACTIONS = {"freeze": "refused", "discard-column": "left out", "set-aside": "set aside"}
_EVERY = "*"
_FROZEN = (
    "nothing of this commit was stored. Change the table yourself, or set `schema` to `evolve`, `discard-column` or "
    "`set-aside`, for this column or for all"
)
_SAMPLES = 3
_SAMPLE_LENGTH = 500
_MOST_KINDS = 1000

ONCE = frozenset({"changed", "left out"})
"""What is written down once for each column and type, since rows may bring it again and again."""

DRIFT_COLUMNS = "table_name, column_name, existing, brought, action, rows, samples, location_id, changed_at"
"""The columns of `drift_values`: text, but integer `rows`; `samples` is a list in JSON."""


class DriftConfig(BackendConfig):
    """Settings of backends whose tables have columns with types."""

    schema_: Annotated[Mode | dict[str, Mode], Field(alias="schema")] = "evolve"
    """What to do when rows bring a column that the table does not have, or values that the type of a column does not take.
    `evolve`: add the column, widen the type where no value loses a digit, else stop. `freeze`: stop and say so.
    `discard-column`: store the row without them, and count them. `set-aside`: make the row a dead letter. For single
    columns give a map, in which `*` stands for all others, as in `{note: discard-column, "*": freeze}`. A table that is
    not there yet is made as the first rows are."""

    def mode(self, column: str) -> Mode:
        """Return what holds for a column."""
        rules = self.schema_
        return rules if isinstance(rules, str) else rules.get(column, rules.get(_EVERY, "evolve"))

    def preview_new(self, column: str, brought: str) -> str:
        """Return what `preview` says of a column that the table does not have."""
        return {
            "evolve": f"+ {column} {brought} (new)",
            "freeze": f"! {column}: the table does not have it, and `schema: freeze` keeps it from being added",
            "discard-column": f"~ {column}: the table does not have it; left out",
            "set-aside": f"~ {column}: the table does not have it; records that have it are set aside",
        }[self.mode(column)]

    def preview_other(self, column: str, existing: str, brought: str, wider: str | None) -> str:
        """Return what `preview` says of a column whose type does not take what rows bring; `wider` would."""
        found = f"{column}: table has {existing}, rows bring {brought}"
        if self.mode(column) == "evolve":
            return f"! {found}" if wider is None else f"~ {column}: table has {existing}, becomes {wider}"
        return {
            "freeze": f"! {found}; `schema: freeze` stops at the first value that does not fit",
            "discard-column": f"~ {found}; values that do not fit are left out",
            "set-aside": f"~ {found}; records whose values do not fit are set aside",
        }[self.mode(column)]


class Difference(Struct, frozen=True):
    """One column in which rows differ from their table.

    `existing` is the type that the table has, None where it has no such column; `brought` what would be declared for the
    rows. `wider` is the type that takes both, None where there is none. `narrow` is the Arrow type in which single values
    may fit all the same.
    """

    existing: str | None
    brought: str
    wider: str | None = None
    narrow: pa.DataType | None = None


class Columns(Struct, frozen=True):
    """One table and one commit: what `settle` is told of both, and the list in which it tells what it found.

    `parts` are the locations of a commit that has several, with their numbers of rows; `samples` the rows that were told.
    """

    table: str
    mode: Callable[[str], Mode]
    location: str
    found: list[Drift]
    parts: Sequence[tuple[str, int]] = ()
    samples: dict[int, str] = field(default_factory=dict)

    def settle(self, rows: pa.Table, differences: Mapping[str, Difference]) -> pa.Table:
        """Return the rows as the table can have them once it has what `evolve` adds and widens.

        A column under `evolve` that nothing wider takes is left as it is: it is for the backend to say that it does not
        fit. Raises FatalError for a frozen column, DataError with `rows` for those to be set aside.
        """
        if not differences:
            return rows
        from collectors.storage.narrowing import narrowed  # most commits do without

        settled, dropped, refused = rows, list[str](), dict[int, str]()
        kept_out = [column for column in differences if self.mode(column) == "discard-column"]
        shown = rows.drop_columns(kept_out)  # what is not to be stored is not shown in a sample, which is
        for column, difference in differences.items():
            mode = self.mode(column)
            if mode == "evolve":
                if difference.existing is None or difference.wider is not None:
                    action = "added" if difference.existing is None else "widened"
                    self._note(action, column, difference, shown, _valued(rows, column))
                continue
            kept, bad = narrowed(plain(rows.column(column)), difference.narrow)
            if bad:
                drift = self._note(_ACTIONS[mode], column, difference, shown, bad)
                if mode == "freeze":
                    raise FatalError(f"{drift.text()}; {_FROZEN}", error_type=ErrorType.STORAGE)
                if mode == "set-aside":
                    refused = dict.fromkeys(bad, f"{drift.what()} (`schema: set-aside`)") | refused
            if difference.existing is None:
                dropped.append(column)
            else:
                settled = settled.set_column(settled.column_names.index(column), column, kept)
        if refused:
            row, reason = min(refused.items())
            raise DataError(
                f"{len(refused)} rows do not fit into table '{self.table}'; the first is row {row}: {reason}",
                rows=refused,
                error_type=ErrorType.STORAGE,
            )
        return settled.drop_columns(dropped) if dropped else settled

    def note_made(self, kinds: Mapping[str, str]) -> None:
        """Tell with which columns the table was made."""
        for column, kind in kinds.items():
            self._note("made", column, Difference(None, kind), None, [])

    def note_changed(self, column: str, difference: Difference, rows: pa.Table) -> None:
        """Tell that rows are stored with another type than those before them have."""
        self._note("changed", column, difference, rows, _valued(rows, column))

    def _note(
        self,
        action: str,
        column: str,
        difference: Difference,
        rows: pa.Table | None,
        concerned: Sequence[int],
    ) -> Drift:
        """Add what was found, and return it: that values are left out for each location, all else once."""
        placed = self._placed(concerned)
        drifts = [
            Drift(
                table=self.table,
                column=column,
                existing=difference.existing,
                brought=(difference.wider if action == "widened" else None) or difference.brought,
                action=action,
                rows=len(own),
                samples=[] if rows is None else [self._sample(rows, row) for row in own[:_SAMPLES]],
                location=location,
                at=datetime.now(UTC),
            )
            for location, own in (placed if action == "left out" else [(placed[0][0], concerned)])
        ]
        self.found.extend(drifts)
        return drifts[0]

    def _sample(self, rows: pa.Table, row: int) -> str:
        """Return a row as JSON; many columns may have the same ones to show."""
        if row not in self.samples:
            line = to_json_lines(rows.slice(row, 1)).decode().strip()
            self.samples[row] = line if len(line) <= _SAMPLE_LENGTH else f"{line[:_SAMPLE_LENGTH]}…"
        return self.samples[row]

    def _placed(self, concerned: Sequence[int]) -> list[tuple[str, Sequence[int]]]:
        """Return the locations that some of the rows have, with these; the first one where there are no rows."""
        placed, first = list[tuple[str, Sequence[int]]](), 0
        for location, count in self.parts:
            own = concerned[bisect_left(concerned, first) : bisect_left(concerned, first + count)]
            placed += [(location, own)] if own else []
            first += count
        return placed or [(self.location, concerned)]


def _valued(rows: pa.Table, column: str) -> list[int]:
    found: list[int] = pc.indices_nonzero(rows.column(column).is_valid()).to_pylist()
    return found


def drift_values(drift: Drift) -> tuple[Any, ...]:
    """Return the drift as the values of its columns; `changed_at` is a datetime."""
    samples = msgspec.json.encode(drift.samples).decode()
    return (*astuple(drift)[:6], samples, drift.location, drift.at)


def unwritten(found: Sequence[Drift], written: Iterable[Sequence[Any]]) -> list[Drift]:
    """Return what is to be written down of what was found, given the columns and types of which `ONCE` has been.

    A thousand of these are: names of columns may be made of data.
    """
    known, new = {(column, brought) for column, brought in written}, list[Drift]()
    for drift in found:
        if drift.action in ONCE:
            kind = drift.column, drift.brought
            if kind in known or len(known) >= _MOST_KINDS:
                continue
            known.add(kind)
        new.append(drift)
    return new


def read_drift(values: Sequence[Any]) -> Drift:
    """Return the drift that has these values in its columns; `changed_at` may be in ISO 8601."""
    table, column, existing, brought, action, rows, samples, location, at = values
    when = (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone(UTC)
    told = msgspec.json.decode(samples, type=list[str])
    return Drift(table, column, existing, brought, action, rows, told, location, when)
