"""dlt on its fast path: a resource that yields Arrow tables. Arguments: input, destination, threads of pyarrow.

As in https://dlthub.com/docs/dlt-ecosystem/verified-sources/arrow-pandas. The reader has the schema given and reads 8 MiB
blocks: its best setting of those tried.
"""

import os
import sys
from pathlib import Path

import dlt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

path, kind, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
pa.set_cpu_count(threads)
SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "device": pa.string(),
        "ts": pa.string(),
        "temperature": pa.float64(),
        "humidity": pa.float64(),
        "status": pa.string(),
        "seq": pa.int64(),
    }
)


@dlt.resource(name="sensors", write_disposition="append")
def sensors():
    reader = pyarrow.json.open_json(
        path,
        read_options=pyarrow.json.ReadOptions(block_size=8 << 20, use_threads=threads > 1),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=SCHEMA),
    )
    for batch in reader:
        degrees = batch.column("temperature")
        sane = pc.and_(pc.greater_equal(degrees, -50.0), pc.less_equal(degrees, 60.0))
        kept = batch.filter(pc.and_(pc.not_equal(batch.column("status"), "fail"), sane))
        fahrenheit = pc.add(pc.divide(pc.multiply(kept.column("temperature"), 9.0), 5.0), 32.0)
        yield pa.Table.from_batches([kept.append_column("temperature_f", fahrenheit)])


out = Path("out").resolve()
destination = {
    "parquet": lambda: dlt.destinations.filesystem(out.as_uri()),
    "sqlite": lambda: dlt.destinations.sqlalchemy(f"sqlite:///{out}/out.db"),
    "duckdb": lambda: dlt.destinations.duckdb(f"{out}/out.duckdb"),
    "postgres": lambda: dlt.destinations.postgres(os.environ["BENCH_DSN"]),
}[kind]()
pipeline = dlt.pipeline(
    "bench",
    destination=destination,
    dataset_name="main" if kind == "sqlite" else "ds",
    pipelines_dir=str(out / "pipelines"),
)
pipeline.run(sensors(), loader_file_format="parquet")
