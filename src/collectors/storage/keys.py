"""Rows that take the place of those with the same key: settings that all backends with tables share."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import model_validator

from collectors.settings import OneOrMore
from collectors.storage.drift import DriftConfig, Mode

__all__ = ["KeyedConfig", "without_key"]


class KeyedConfig(DriftConfig):
    """Settings of backends that can replace rows."""

    write: Literal["append", "upsert", "replace"] = "append"
    """`append` all rows, or `upsert`: a row takes the place of the one with the same `key`, as a whole, so what it does not
    have is null then, or what the table has by default; of several in one commit the last one counts. A dead letter that is
    replayed counts as new. `replace`: the table holds what the last whole reading of its one source gave, which takes the
    place of all rows that were there in one commit; until then it waits in a table beside, so nobody sees half of it, and one
    that breaks off leaves everything as it was. For sources whose every reading is of everything: `sql` without `cursor` and
    `key`, `http` without `incremental`. Columns, indexes and rights of the table stay. Dead letters are not replayed there, since the next reading gives their
    records anew."""
    key: OneOrMore[str] = []
    """For `upsert`, the column or columns that tell rows apart. A row without a value there is set aside."""

    @model_validator(mode="after")
    def _key_where_it_is_used(self) -> Self:
        if self.write == "upsert" and not self.key:
            raise ValueError(
                "`write: upsert` needs a `key`: the columns that tell rows apart, for example [id]"
            )
        if self.key and self.write != "upsert":
            raise ValueError(
                f"a `key` ({', '.join(self.key)}) is for `write: upsert`; add that, or leave the key out"
            )
        if len(set(self.key)) < len(self.key):
            raise ValueError(f"`key` names a column twice: {', '.join(self.key)}")
        return self

    def mode(self, column: str) -> Mode:
        """Return what holds for a column; one of the key is never left out."""
        mode = super().mode(column)
        return "freeze" if mode == "discard-column" and column in self.key else mode

    def replaces(self) -> bool:
        """Return whether rows are told apart by a key, or those of a reading replace those of the one before."""
        return self.write != "append"

    def replaces_readings(self) -> bool:
        """Return whether the rows of a reading replace those of the one before."""
        return self.write == "replace"

    def preview_key(self, table: pa.Table) -> list[str]:
        """Return what `preview` says where rows lack the key."""
        return [
            f"! {name}: rows have no such column, and are told apart by it (`key`)"
            for name in self.key
            if name not in table.column_names
        ]


def without_key(table: pa.Table, key: Sequence[str]) -> dict[int, str]:
    """Return the rows that lack a part of the key, with the reason."""
    bad: dict[int, str] = {}
    for name in key:
        if name in table.column_names:
            rows = pc.indices_nonzero(table.column(name).is_null()).to_pylist()
            reason = f"column '{name}': it is null, and rows are told apart by it (`key`)"
        else:
            rows = list(range(table.num_rows))
            near = difflib.get_close_matches(name, table.column_names, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            reason = f"there is no column '{name}', by which rows are told apart (`key`){hint}"
        bad = dict.fromkeys(rows, reason) | bad
    return bad
