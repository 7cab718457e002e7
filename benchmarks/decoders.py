"""How fast one chunk of NDJSON becomes Arrow columns, by ours and by the libraries that could be used instead.

python benchmarks/decoders.py

4 MiB of flat readings with a known schema, one thread, the best CPU time of 15 runs in each of three rounds that take
turns. DuckDB gets lines, as it has no reader of bytes in memory; making them is part of its time.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from itertools import islice

import environments
import inputs

TYPES = {
    "id": "int64",
    "device": "string",
    "ts": "string",
    "temperature": "double",
    "humidity": "double",
    "status": "string",
    "seq": "int64",
}
ROWS = 32_000


def data() -> bytes:
    return "".join(islice(inputs.sensors(ROWS), ROWS)).encode()


def reader(name: str):
    """Return a function that reads the bytes; imports only what it needs."""
    import pyarrow as pa

    schema = pa.schema([(column, pa.type_for_alias(kind)) for column, kind in TYPES.items()])
    if name == "ours":
        from collectors.codecs._json_native import read

        return lambda raw: read(raw, schema)
    if name == "pyarrow":
        import pyarrow.json as pj

        parse = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
        return lambda raw: pj.read_json(
            pa.BufferReader(raw), pj.ReadOptions(use_threads=False, block_size=1 << 20), parse
        )
    if name == "arrow-rs (arro3)":
        import arro3.io

        return lambda raw: pa.table(arro3.io.read_json(io.BytesIO(raw), schema, batch_size=ROWS))
    if name == "polars":
        import polars as pl

        kinds = {"int64": pl.Int64, "string": pl.String, "double": pl.Float64}
        columns = {column: kinds[kind] for column, kind in TYPES.items()}
        return lambda raw: pl.read_ndjson(raw, schema=columns).to_arrow()
    import duckdb

    connection = duckdb.connect()
    connection.sql("set threads = 1")
    names = {"int64": "BIGINT", "string": "VARCHAR", "double": "DOUBLE"}
    wanted = ", ".join(f'"{column}": "{names[kind]}"' for column, kind in TYPES.items())

    def by_duckdb(raw: bytes):
        lines = pa.table({"line": pa.array(raw.decode().splitlines())})
        connection.register("lines", lines)
        return connection.sql(f"select unnest(from_json(line, '{{{wanted}}}')) from lines").to_arrow_table()

    return by_duckdb


def measure(name: str) -> None:
    raw, read, best = data(), reader(name), float("inf")
    for _ in range(15):
        started = time.process_time()
        table = read(raw)
        best = min(best, time.process_time() - started)
    assert table.num_rows == ROWS  # noqa: S101
    print(best)


def main() -> None:
    size = len(data())
    best: dict[str, float] = {}
    for _ in range(3):
        for name in ("ours", "pyarrow", "arrow-rs (arro3)", "polars", "DuckDB"):
            python = sys.executable if name == "ours" else environments.python_of("decoders")
            done = subprocess.run(
                ["taskset", "-c", "1", "env", "POLARS_MAX_THREADS=1", python, __file__, name],
                capture_output=True,
                text=True,
                check=True,
            )
            best[name] = min(best.get(name, float("inf")), float(done.stdout))
    print("| reader | ms for 4 MiB | MB/s |\n|---|---|---|")
    for name, seconds in sorted(best.items(), key=lambda item: item[1]):
        print(f"| {name} | {1000 * seconds:.1f} | {size / seconds / 1e6:.0f} |")


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
