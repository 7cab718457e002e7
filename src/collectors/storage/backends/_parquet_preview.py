"""What rows would change in the columns that the newest files have, for `check`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from collectors.storage.backends._parquet_file import writable
from collectors.storage.backends._parquet_log import FileEntry
from collectors.storage.backends._parquet_partition import split
from collectors.storage.drift import DriftConfig

__all__ = ["changes"]

_FILES = 20


def changes(
    table: pa.Table,
    config: DriftConfig,
    partition_by: list[str],
    files: list[FileEntry],
    schema_of: Callable[[FileEntry], pa.Schema],
) -> list[str]:
    """Return a line for each column of the table; `schema_of` reads that of a file."""
    known: dict[str, Any] = {}
    for file in reversed(files[-_FILES:]):
        schema = schema_of(file)
        known = dict(zip(schema.names, schema.types, strict=True)) | file.types | known
    lines = []
    for part in split(table, partition_by)[:1] if table.num_rows else []:
        brought = writable(part.table).schema
        columns = dict(zip(brought.names, brought.types, strict=True)) | part.types
        lines += [
            _change(config, name, known.get(name), kind, new=bool(files)) for name, kind in columns.items()
        ]
    return lines


def _change(config: DriftConfig, name: str, known: Any, brought: Any, *, new: bool) -> str:
    if known is None:
        return config.preview_new(name, str(brought)) if new else f"+ {name} {brought}"
    if str(known) == str(brought):
        return f"= {name} {brought}"
    if config.mode(name) != "evolve":
        return config.preview_other(name, str(known), str(brought), None)
    return f"~ {name}: files have {known}, rows bring {brought}; readers of all files must convert one of the two"
