"""Bytewax, record by record, as its documentation shows it; it ships no Parquet sink, so the sink is ours (pyarrow).

python -m bytewax.run bytewax_parquet:flow, with BENCH_INPUT set.
"""

import os
from pathlib import Path

import bytewax.operators as op
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from bytewax.connectors.files import FileSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition


class Part(StatelessSinkPartition):
    def __init__(self):
        self.rows, self.writer = [], None

    def write_batch(self, items):
        self.rows += items
        if len(self.rows) >= 65_536:
            self.flush()

    def flush(self):
        if not self.rows:
            return
        table = pa.Table.from_pylist(self.rows, schema=self.writer.schema if self.writer else None)
        self.rows = []
        if self.writer is None:
            self.writer = pq.ParquetWriter("out/out.parquet", table.schema, compression="zstd")
        self.writer.write_table(table)

    def close(self):
        self.flush()
        if self.writer:
            self.writer.close()


class ParquetSink(DynamicSink):
    def build(self, step_id, worker_index, worker_count):
        return Part()


def sane(record):
    return record["status"] != "fail" and -50 <= record["temperature"] <= 60


def fahrenheit(record):
    record["temperature_f"] = record["temperature"] * 9 / 5 + 32
    return record


flow = Dataflow("bench")
lines = op.input("in", flow, FileSource(Path(os.environ["BENCH_INPUT"], "sensors.ndjson"), batch_size=1000))
records = op.map("parse", lines, orjson.loads)
kept = op.filter("sane", records, sane)
op.output("out", op.map("fahrenheit", kept, fahrenheit), ParquetSink())
