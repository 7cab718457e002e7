"""dlt on its usual path: a resource that yields lists of dicts, here of nested ones; Parquet. Argument: input."""

import sys
from itertools import islice
from pathlib import Path

import dlt
import orjson


@dlt.resource(name="events", write_disposition="append")
def events():
    with Path(sys.argv[1]).open("rb") as file:
        while lines := list(islice(file, 5000)):
            yield [orjson.loads(line) for line in lines]


out = Path("out").resolve()
pipeline = dlt.pipeline(
    "bench",
    destination=dlt.destinations.filesystem(out.as_uri()),
    dataset_name="ds",
    pipelines_dir=str(out / "pipelines"),
)
pipeline.run(events(), loader_file_format="parquet")
