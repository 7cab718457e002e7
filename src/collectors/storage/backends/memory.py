"""Rows in the memory of this process, for tests and for looking at results.

    storage:
      type: memory
      max_bytes: 64 MiB

Rows stay until the object goes, `disconnect` keeps them. A store that is full stops the flow.

Delivery: exactly once within a process: rows and position go and stay together. A new process begins with nothing and
reads every source from its start; beside another storage that has records of the source, from where that one is.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from msgspec.structs import replace

from collectors.chunks import Checkpoint, ChunkKey, Delivery
from collectors.enums import ErrorType
from collectors.errors import FatalError
from collectors.models import QueryCriteria
from collectors.settings import ByteSize
from collectors.storage.base import Backend, BackendConfig
from collectors.storage.criteria import select_rows
from collectors.storage.positions import check_follows, is_of
from collectors.storage.records import to_records

__all__ = ["COMPONENT", "MemoryBackend", "MemoryConfig"]


class MemoryConfig(BackendConfig):
    """Settings of the `memory` backend."""

    max_bytes: ByteSize = 256 * 2**20
    """How much it holds, as Arrow counts bytes."""


class MemoryBackend(Backend[MemoryConfig]):
    """Tables by location, in the order in which they came."""

    durable = False

    def __init__(self, config: MemoryConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._tables: dict[str, pa.Table] = {}
        self._flows: dict[str, Checkpoint] = {}

    def write(self, table: pa.Table, key: ChunkKey) -> int:
        """Keep the rows and return their number."""
        location_id = self.location(key)
        if location_id in self._tables:
            return 0
        held = sum(kept.nbytes for kept in self._tables.values())
        if held + table.nbytes > self.config.max_bytes:
            raise FatalError(
                f"{self.get_backend_id()}: {table.nbytes:,} more bytes do not fit; {held:,} of "
                f"{self.config.max_bytes:,} are taken; raise max_bytes, delete rows, or store to a file (type: sqlite)",
                error_type=ErrorType.STORAGE,
            )
        self._tables[location_id] = table
        return int(table.num_rows)

    def claim(self, flow: str) -> Checkpoint:
        """Raise the flow's epoch and return how far it is stored."""
        checkpoint = self.stored(flow)
        self._flows[flow] = replace(checkpoint, epoch=checkpoint.epoch + 1)
        return self._flows[flow]

    def commit(self, delivery: Delivery) -> int:
        """Keep rows and position."""
        key = delivery.key
        if not check_follows(self.stored(key.flow), delivery):
            return self.stored(key.flow).seq
        if delivery.table.num_rows:
            self.write(delivery.table, key)
        self._flows[key.flow] = Checkpoint(key.epoch, key.seq, delivery.position, delivery.schema)
        return key.seq

    def stored(self, flow: str) -> Checkpoint:
        """Return how far the flow is stored."""
        return self._flows.get(flow, Checkpoint(0))

    def flows(self, source: str) -> list[str]:
        """Return the flows of a source of which anything is stored."""
        return [flow for flow, checkpoint in self._flows.items() if checkpoint.seq and is_of(flow, source)]

    def select(self, criteria: QueryCriteria) -> list[dict[str, Any]]:
        """Return the matching rows."""
        names = list(dict.fromkeys(name for table in self._tables.values() for name in table.column_names))
        rows = [
            {name: row.get(name) for name in names}
            for table in self._tables.values()
            for row in to_records(table)
        ]
        return select_rows(rows, criteria, names if self._tables else None)

    def remove(self, location_id: str) -> None:
        """Forget the rows of a location."""
        del self._tables[location_id]


COMPONENT = MemoryBackend
