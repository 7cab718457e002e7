"""Dead letters of processing and storing back into a table: the inverse of `row_bytes`.

JSON has no form for times, decimals and bytes, so the types of the columns say what their text stands for.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from collectors.processing.records import to_table

__all__ = ["read_rows"]


def read_rows(raws: Sequence[bytes], schema: pa.Schema | None) -> tuple[pa.Table, dict[int, str]]:
    """Return the rows as a table, with the types of `schema` where they fit, and why some are not in it, by number."""
    records: list[dict[str, Any]] = []
    problems: dict[int, str] = {}
    numbers: list[int] = []
    types = {} if schema is None else {field.name: field.type for field in schema}
    for number, raw in enumerate(raws):
        try:
            record = msgspec.json.decode(raw, type=dict)
            records.append({name: _value(value, types.get(name)) for name, value in record.items()})
            numbers.append(number)
        except (ValueError, ArithmeticError) as error:
            problems[number] = f"the letter cannot be read back: {error}"
    table, misfits = to_table(records, schema)
    return table, problems | {numbers[row]: reason for row, reason in misfits.items()}


def _value(value: Any, kind: pa.DataType | None) -> Any:
    """Return what a JSON value stands for in a column of this type; a value that does not look like one as it is."""
    if kind is None or value is None:
        return value
    if isinstance(value, dict) and pa.types.is_struct(kind):
        members = {field.name: field.type for field in kind}
        return {name: _value(member, members.get(name)) for name, member in value.items()}
    if isinstance(value, list) and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return [_value(item, kind.value_type) for item in value]
    if not isinstance(value, str):
        return float(value) if pa.types.is_floating(kind) and isinstance(value, int) else value
    if pa.types.is_timestamp(kind):
        return datetime.fromisoformat(value)
    if pa.types.is_date(kind):
        return date.fromisoformat(value)
    if pa.types.is_time(kind):
        return time.fromisoformat(value)
    if pa.types.is_decimal(kind):
        return Decimal(value)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return base64.b64decode(value, validate=True)
    return value
