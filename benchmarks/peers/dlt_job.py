"""dlt: a file of JSON lines into DuckDB, as its documentation shows it for files.

https://dlthub.com/docs/dlt-ecosystem/verified-sources/filesystem/basic: `filesystem` with `read_jsonl`, incremental by
the time of modification, so that a file which is loaded is not loaded again. Arguments: input, folder, append | merge.
"""

import sys
from pathlib import Path

import dlt
from dlt.sources.filesystem import filesystem, read_jsonl

source, folder, disposition = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
files = filesystem(
    bucket_url=source.parent.as_uri(),
    file_glob=source.name,
    incremental=dlt.sources.incremental("modification_date"),
)
pipeline = dlt.pipeline(
    "readings",
    destination=dlt.destinations.duckdb(str(folder / "out.duckdb")),
    dataset_name="ds",
    pipelines_dir=str(folder / "pipelines"),
)
reader = (files | read_jsonl()).with_name("readings")
if disposition == "merge":
    reader.apply_hints(write_disposition="merge", primary_key="seq")
else:
    reader.apply_hints(write_disposition="append")
pipeline.run(reader)
