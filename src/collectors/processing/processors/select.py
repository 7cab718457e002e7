"""Keeps some columns, in a given order, or drops some.

    processors:
      - {type: select, columns: [time, device, temperature]}
      - {type: select, drop: [raw]}

Delivery: every row goes on. Position: not concerned.
"""

from __future__ import annotations

from typing import Annotated

import pyarrow as pa
from pydantic import AfterValidator, Field, model_validator

from collectors.errors import ConfigurationError
from collectors.processing._names import require
from collectors.processing.base import Processor, ProcessorConfig

__all__ = ["COMPONENT", "Select", "SelectConfig"]


def _once(names: list[str]) -> list[str]:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ValueError(f"'{twice[0]}' stands here twice")
    return names


_Names = Annotated[list[str], Field(min_length=1), AfterValidator(_once)]


class SelectConfig(ProcessorConfig):
    """Settings of `select`: exactly one of `columns` and `drop`."""

    columns: _Names | None = None
    """The columns to keep, in this order."""
    drop: _Names | None = None
    """The columns to leave out; all others are kept."""

    @model_validator(mode="after")
    def _one_of_both(self) -> SelectConfig:
        if (self.columns is None) == (self.drop is None):
            raise ValueError("expected exactly one of 'columns' (to keep) and 'drop' (to leave out)")
        return self


class Select(Processor[SelectConfig]):
    """Keeps or drops columns."""

    def transform(self, table: pa.Table) -> pa.Table:
        """Return the table with the columns that are kept. Raises ConfigurationError for a name that is not there."""
        if self.config.columns is not None:
            require("columns", self.config.columns, table.schema)
            return table.select(self.config.columns)
        drop = self.config.drop or []
        require("drop", drop, table.schema)
        if len(drop) == table.num_columns:
            raise ConfigurationError("drop: no column would be left")
        return table.drop_columns(drop)


COMPONENT = Select
