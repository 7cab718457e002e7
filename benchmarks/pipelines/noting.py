"""The `sqlite` storage, which also notes when each commit had returned and which records were in it."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa

from collectors.chunks import Delivery
from collectors.storage.backends.sqlite import SqliteBackend


class Noting(SqliteBackend):
    """Writes its notes to notes.arrow when it is closed: the time that the records carry, and the time of their commit."""

    def __init__(self, config: Any = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self._notes: list[tuple[int, pa.Table]] = []

    def commit(self, delivery: Delivery) -> int:
        """Store the delivery, then look at the clock."""
        seq = super().commit(delivery)
        if delivery.table.num_rows:
            self._notes.append((time.monotonic_ns(), delivery.table.select(["n", "due", "sent"])))
        return seq

    def close(self) -> None:
        """Close the file and write the notes."""
        super().close()
        tables = [
            table.append_column("stored", pa.array([at] * table.num_rows, pa.int64()))
            for at, table in self._notes
        ]
        if tables:
            table = pa.concat_tables(tables)
            with pa.OSFile("notes.arrow", "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
