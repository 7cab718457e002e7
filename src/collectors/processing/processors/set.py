"""Adds columns, or replaces them, by expressions.

    processors:
      - type: set
        columns:
          temperature_f: temperature * 9 / 5 + 32
          site: "'berlin'"

All expressions see the row as it came in, not one another's results. A replaced column keeps its place, new ones stand
behind the others in the order of the settings. A text is written in single quotes, as everywhere in SQL.
What can stand in an expression: `collectors.processing.expressions`.

Delivery: a row with a value that cannot be computed (an overflow, a failing cast) is set aside. Position: not concerned.
"""

from __future__ import annotations

from typing import Annotated

import pyarrow as pa
from pydantic import Field

from collectors.errors import ConfigurationError, DataError
from collectors.processing.base import Processor, ProcessorConfig
from collectors.processing.expressions import Compiled, Sql, compile_expression

__all__ = ["COMPONENT", "Set", "SetConfig"]


class SetConfig(ProcessorConfig):
    """Settings of `set`."""

    columns: Annotated[dict[str, Sql], Field(min_length=1)]
    """Column → expression, in SQL, over the columns of a row."""


class Set(Processor[SetConfig]):
    """Adds or replaces columns."""

    def transform(self, table: pa.Table) -> pa.Table:
        """Return the table with the new columns. Raises DataError with every row that has no value."""
        compiled = {name: self._compile(name, table.schema) for name in self.config.columns}
        values, failures = {}, dict[int, str]()
        for name, expression in compiled.items():
            try:
                values[name] = expression.evaluate(table)
            except DataError as error:
                for row, reason in error.rows.items():
                    failures.setdefault(row, f"column '{name}': {reason}")
        if failures:
            raise DataError(next(iter(failures.values())), rows=failures)
        for name, column in values.items():
            index = table.schema.get_field_index(name)
            table = table.append_column(name, column) if index < 0 else table.set_column(index, name, column)
        return table

    def _compile(self, name: str, schema: pa.Schema) -> Compiled:
        if len(schema.get_all_field_indices(name)) > 1:
            raise ConfigurationError(f"columns: the name '{name}' stands for several columns of the data")
        try:
            return compile_expression(self.config.columns[name], schema)
        except ConfigurationError as error:
            raise ConfigurationError(f"columns.{name}: {error}") from error


COMPONENT = Set
