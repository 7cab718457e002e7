"""Changes the types of columns, strictly: a value is converted without any loss, or its row is set aside.

    processors:
      - type: cast
        columns: {temperature: float, ok: bool, price: "decimal(12, 2)", measured_at: timestamp}
        on_error: set-aside

Text is read as it stands: numbers with a point, `true`, `false`, `1` and `0`, timestamps in ISO 8601 (without a zone
they are UTC) or in `format`. What may become what: `collectors.processing.casting`.

Delivery: a row with a value that does not fit is set aside, with the column and the value. Position: not concerned.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from collectors.errors import ConfigurationError, DataError
from collectors.processing import casting
from collectors.processing._names import require
from collectors.processing.base import Processor, ProcessorConfig
from collectors.rows import python_value
from collectors.settings import ColumnType, column_type

__all__ = ["COMPONENT", "Cast", "CastConfig"]


class CastConfig(ProcessorConfig):
    """Settings of `cast`."""

    columns: Annotated[dict[str, ColumnType], Field(min_length=1)]
    """Column → type: bool, int, float, string, binary, date, timestamp or decimal(precision, scale)."""
    format: str | None = None
    """How timestamps and dates are written in text, in the directives of Python's strptime: `%d.%m.%Y %H:%M`."""
    on_error: Literal["set-aside", "null"] = "set-aside"
    """What becomes of a value that does not fit: its row is set aside, or the value becomes null."""

    @model_validator(mode="after")
    def _format_has_a_use(self) -> CastConfig:
        times = {"timestamp", "date"} & {casting.kind(column_type(name)) for name in self.columns.values()}
        if self.format is not None and not times:
            raise ValueError("'format' is for columns of the type timestamp or date, and there is none")
        return self


class Cast(Processor[CastConfig]):
    """Changes types without loss."""

    def transform(self, table: pa.Table) -> pa.Table:
        """Return the table with the new types. Raises DataError with every row that has a value which does not fit."""
        require("columns", list(self.config.columns), table.schema)
        failures: dict[int, str] = {}
        result = table
        for name, type_name in self.config.columns.items():
            index, target = table.schema.get_field_index(name), column_type(type_name)
            if table.schema.field(index).type == target:
                continue
            values = table.column(index).combine_chunks()
            converted, bad = self._convert(name, values, target)
            for row in bad:
                reason = self._reason(python_value(values[row]), target)
                failures.setdefault(row, f"column '{name}': {reason}")
            result = result.set_column(index, name, converted)
        if failures and self.config.on_error == "set-aside":
            raise DataError(next(iter(failures.values())), rows=failures)
        return result

    def _convert(self, name: str, values: pa.Array, target: pa.DataType) -> tuple[pa.Array, list[int]]:
        if not casting.can_cast(values.type, target):
            raise ConfigurationError(
                f"columns.{name}: {casting.a_type(values.type)} cannot become {casting.a_type(target)}"
            )
        if not self._has_format(values.type, target):
            return casting.cast(values, target)
        times, bad = casting.parse_times(values, self.config.format or "")
        return casting.cast(times, target)[0], bad

    def _has_format(self, source: pa.DataType, target: pa.DataType) -> bool:
        is_time = casting.kind(target) in {"timestamp", "date"}
        return self.config.format is not None and is_time and casting.kind(source) == "string"

    def _reason(self, value: object, target: pa.DataType) -> str:
        written = f", written as {self.config.format}" if self._has_format(pa.string(), target) else ""
        return casting.refusal(value, target) + (written if isinstance(value, str) else "")


COMPONENT = Cast
