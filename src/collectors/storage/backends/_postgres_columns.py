"""Names that PostgreSQL can have, and the columns that rows bring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pgpq import ArrowToPostgresBinaryEncoder
from pgpq.encoders import LargeStringEncoderBuilder
from pgpq.schema import Jsonb

from collectors.enums import ErrorType
from collectors.errors import FatalError
from collectors.storage import sql_names
from collectors.storage.backends._postgres_types import column_type
from collectors.storage.records import plain

__all__ = ["brought_columns", "encoder_of", "is_json", "unfit_columns", "unfit_name"]

_LONGEST_NAME = 63
_SYSTEM = {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}


def unfit_name(name: str) -> str | None:
    """Return why PostgreSQL cannot have a table or column of this name; None when it can."""
    if not name or "\0" in name:
        return "it is empty, or there is NUL in it"
    if len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME:
        return f"it has more than {_LONGEST_NAME} bytes"
    return "names that begin with _collectors are taken" if name.startswith("_collectors") else None


def brought_columns(table_name: str, table: pa.Table) -> dict[str, str]:
    """Return the columns of the rows with the types that they bring; those that are all null are left out.

    So are those whose names PostgreSQL cannot have. Raises FatalError for types that it cannot have, and for the table's
    name.
    """
    unfit = unfit_columns(table_name, table.column_names)
    brought = {}
    for field in table.schema:
        if field.name in unfit:
            continue
        kind = plain(pa.chunked_array([], field.type)).type
        if pa.types.is_null(kind):
            continue
        found = column_type(kind)
        if found is None:
            raise _unfit(
                f"column '{field.name}': PostgreSQL has no place for Arrow's {kind}; cast it to another type"
            )
        brought[field.name] = found
    return brought


def unfit_columns(table: str, names: Sequence[str]) -> dict[str, str]:
    """Return the columns whose names PostgreSQL cannot have, with the reason.

    Raises FatalError for two of one name, and for the name of the table.
    """
    if reason := unfit_name(table):
        raise _unfit(f"PostgreSQL cannot have the table {table!r}: {reason}; choose another name")

    def unfit(name: str) -> str | None:
        reason = unfit_name(name) or ("it is a system column of each table" if name in _SYSTEM else None)
        return reason and f"PostgreSQL cannot have it: {reason}"

    return sql_names.unfit_columns(table, names, unfit)


def is_json(kind: str, rows: pa.Table, name: str) -> bool:
    """Return whether a column of this type is sent as JSON."""
    return kind == "jsonb" and pa.types.is_large_string(rows.column(name).type)


def encoder_of(schema: pa.Schema, kinds: dict[str, str]) -> ArrowToPostgresBinaryEncoder:
    """Return what writes such rows in binary for columns of these types."""
    encoders: dict[str, Any] = {}
    for field in schema:
        if kinds.get(field.name) == "jsonb":
            encoders[field.name] = LargeStringEncoderBuilder.new_with_output(field, Jsonb())
        else:
            encoders[field.name] = ArrowToPostgresBinaryEncoder.infer_encoder(field)
    return ArrowToPostgresBinaryEncoder.new_with_encoders(schema, encoders)


def _unfit(message: str) -> FatalError:
    return FatalError(message, error_type=ErrorType.STORAGE)
