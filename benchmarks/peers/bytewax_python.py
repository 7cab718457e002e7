"""Bytewax, a Python function over every record, lines of JSON to lines of JSON; its FileSink takes pairs (key, text).

python -m bytewax.run bytewax_python:flow, with BENCH_INPUT set.
"""

import os
from pathlib import Path

import bytewax.operators as op
import orjson
from bench_function import clean
from bytewax.connectors.files import FileSink, FileSource
from bytewax.dataflow import Dataflow


def write(record):
    return "", orjson.dumps(record).decode()


flow = Dataflow("bench")
lines = op.input("in", flow, FileSource(Path(os.environ["BENCH_INPUT"], "sensors.ndjson"), batch_size=1000))
records = op.map("parse", lines, orjson.loads)
cleaned = op.filter_map("clean", records, clean)
op.output("out", op.map("write", cleaned, write), FileSink(Path("out/out.ndjson")))
