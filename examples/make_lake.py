"""Makes the two files that lake.yaml reads."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

folder = Path(__file__).parent / "out" / "lake"
folder.mkdir(parents=True, exist_ok=True)
table = pa.table({"id": list(range(1000)), "square": [n * n for n in range(1000)]})
pq.write_table(table, folder / "squares.parquet", row_group_size=250)
with pa.ipc.new_file(folder / "squares.arrow", table.schema) as writer:
    writer.write_table(table, max_chunksize=250)
