"""Gives columns other names; they keep their places.

    processors:
      - {type: rename, columns: {ts: measured_at, temp: temperature}}

All names change at once, so two columns can swap theirs: `{a: b, b: a}`.

Delivery: every row goes on. Position: not concerned.
"""

from __future__ import annotations

from typing import Annotated

import pyarrow as pa
from pydantic import AfterValidator, Field

from collectors.errors import ConfigurationError
from collectors.processing._names import require
from collectors.processing.base import Processor, ProcessorConfig

__all__ = ["COMPONENT", "Rename", "RenameConfig"]


def _no_clash(columns: dict[str, str]) -> dict[str, str]:
    taken: dict[str, str] = {}
    for old, new in columns.items():
        if new in taken:
            raise ValueError(f"both '{taken[new]}' and '{old}' would be named '{new}'")
        taken[new] = old
    return columns


class RenameConfig(ProcessorConfig):
    """Settings of `rename`."""

    columns: Annotated[dict[str, str], Field(min_length=1), AfterValidator(_no_clash)]
    """Old name → new name."""


class Rename(Processor[RenameConfig]):
    """Renames columns."""

    def transform(self, table: pa.Table) -> pa.Table:
        """Return the table with the new names. Raises ConfigurationError for one that is not there, or taken."""
        columns = self.config.columns
        require("columns", list(columns), table.schema)
        for name in table.schema.names:
            old = next((old for old, new in columns.items() if new == name and old != name), None)
            if old is not None and name not in columns:
                raise ConfigurationError(
                    f"columns: '{old}' cannot be named '{name}': there is such a column already"
                )
        return table.rename_columns([columns.get(name, name) for name in table.schema.names])


COMPONENT = Rename
