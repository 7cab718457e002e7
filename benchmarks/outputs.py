"""What a benchmark has stored, counted from outside: rows and the sum of `temperature_f`, as JSON.

python benchmarks/outputs.py parquet | sqlite | duckdb | postgres | lines   (in the folder of the run)
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from pathlib import Path

OUT = Path("out")


def parquet() -> tuple[int, float]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows, total = 0, 0.0
    for path in OUT.rglob("*.parquet"):
        if {"_collectors", "_dlt_loads", "_dlt_pipeline_state", "_dlt_version", "pipelines"} & set(
            path.parts
        ):
            continue
        file = pq.ParquetFile(path)
        if path.parent.name.startswith("events__"):
            continue  # dlt's tables of nested lists
        rows += file.metadata.num_rows
        if "temperature_f" in file.schema_arrow.names:
            total += pc.sum(file.read(["temperature_f"])["temperature_f"]).as_py() or 0.0
    return rows, total


def sqlite() -> tuple[int, float]:
    (name,) = [path for path in OUT.rglob("*.db") if path.name in {"out.db", "out__main.db"}]
    with sqlite3.connect(name) as connection:
        return connection.execute("SELECT count(*), sum(temperature_f) FROM sensors").fetchone()


def duckdb() -> tuple[int, float]:
    import duckdb as library

    with library.connect(str(OUT / "out.duckdb"), read_only=True) as connection:
        schema = connection.execute(
            "SELECT schema_name FROM duckdb_tables() WHERE table_name = 'sensors'"
        ).fetchone()[0]
        return connection.execute(f'SELECT count(*), sum(temperature_f) FROM "{schema}".sensors').fetchone()


def postgres() -> tuple[int, float]:
    import psycopg

    with psycopg.connect(os.environ["BENCH_DSN"]) as connection:
        schema = connection.execute(
            "SELECT table_schema FROM information_schema.tables WHERE table_name = 'sensors'"
        ).fetchone()[0]
        return connection.execute(f'SELECT count(*), sum(temperature_f) FROM "{schema}".sensors').fetchone()


def lines() -> tuple[int, float]:
    rows, total = 0, 0.0
    with (OUT / "out.ndjson").open("rb") as file:
        for line in file:
            rows += 1
            total += json.loads(line).get("temperature_f", 0.0)
    return rows, total


if __name__ == "__main__":
    rows, total = globals()[sys.argv[1]]()
    print(json.dumps({"rows": rows, "sum": total}))
