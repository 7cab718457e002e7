"""Keeps the rows for which a condition is true.

    processors:
      - type: filter
        where: status <> 'fail' and temperature between -50 and 60

A row for which the condition is null (a comparison with a missing value) is left out, as in SQL.
What can stand in a condition: `collectors.processing.expressions`.

Delivery: rows left out are counted as filtered. Position: not concerned.
"""

from __future__ import annotations

import pyarrow as pa

from collectors.errors import ConfigurationError
from collectors.processing.base import Processor, ProcessorConfig
from collectors.processing.casting import kind
from collectors.processing.expressions import Sql, compile_expression

__all__ = ["COMPONENT", "Filter", "FilterConfig"]


class FilterConfig(ProcessorConfig):
    """Settings of `filter`."""

    where: Sql
    """The condition, in SQL, over the columns of a row."""


class Filter(Processor[FilterConfig]):
    """Keeps the rows for which `where` is true."""

    def transform(self, table: pa.Table) -> pa.Table:
        """Return the rows that are kept, in order."""
        try:
            condition = compile_expression(self.config.where, table.schema)
        except ConfigurationError as error:
            raise ConfigurationError(f"where: {error}") from error
        if kind(condition.type) not in {"bool", "null"}:
            raise ConfigurationError(
                f"where: expected a condition, which is true or false, got {kind(condition.type)}: "
                f"compare it with something: {self.config.where}"
            )
        return table.filter(condition.evaluate(table).cast(pa.bool_()))


COMPONENT = Filter
