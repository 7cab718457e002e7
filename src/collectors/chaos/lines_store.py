"""A file of rows, in the place of a storage that keeps no position and cannot be had a second time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from collectors.chunks import ChunkKey
from collectors.models import QueryCriteria
from collectors.storage.base import Backend, BackendConfig
from collectors.storage.records import to_json_lines

__all__ = ["LinesBackend", "LinesConfig"]


class LinesConfig(BackendConfig):
    """Settings of the file for rows."""

    path: str
    """The file."""


class LinesBackend(Backend[LinesConfig]):
    """Appends rows to a file, one JSON object a line, and keeps no position."""

    def write(self, table: pa.Table, key: ChunkKey) -> int:
        """Append the rows and return their number."""
        lines = to_json_lines(table)
        file = os.open(self.config.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, lines)
            os.fsync(file)
        finally:
            os.close(file)
        return int(table.num_rows)

    def select(self, criteria: QueryCriteria) -> list[dict[str, Any]]:
        """Return all rows."""
        path = Path(self.config.path)
        return msgspec.json.Decoder(dict[str, Any]).decode_lines(path.read_bytes()) if path.exists() else []
