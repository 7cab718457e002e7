"""What fusing a filter and a set would gain: step by step, against one hand-written Arrow plan for both.

python benchmarks/fusing.py

One thread, a table of 65,536 rows and 6 columns, the median CPU time of 200 runs of each. The variants take turns, so
that what else the machine does meets all of them. Decoding the same rows from NDJSON is the yardstick.
"""

# ruff: noqa: S311
from __future__ import annotations

import io
import json
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.acero as ac
import pyarrow.compute as pc
import pyarrow.json

from collectors.processing.processors.filter import Filter
from collectors.processing.processors.set import Set

ROWS = 65_536
RUNS = 200


def readings() -> pa.Table:
    """Return readings of sensors, 4 % of them failed."""
    chance = random.Random(1)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return pa.table(
        {
            "id": range(ROWS),
            "device": [f"dev-{n % 500}" for n in range(ROWS)],
            "status": chance.choices(["ok", "fail", "warn"], [90, 4, 6], k=ROWS),
            "temperature": [round(chance.gauss(20, 15), 2) for _ in range(ROWS)],
            "humidity": [round(chance.random(), 3) for _ in range(ROWS)],
            "ts": pa.array([start + timedelta(seconds=n) for n in range(ROWS)], pa.timestamp("us", "UTC")),
        }
    )


def plan(table: pa.Table, *, keep: pc.Expression | None, column: pc.Expression | None) -> pa.Table:
    """Run an Arrow plan that filters, adds a column, or does both."""
    steps = [ac.Declaration("table_source", ac.TableSourceNodeOptions(table))]
    if keep is not None:
        steps.append(ac.Declaration("filter", ac.FilterNodeOptions(keep)))
    if column is not None:
        names = table.column_names
        columns = [*map(pc.field, names), column]
        steps.append(ac.Declaration("project", ac.ProjectNodeOptions(columns, [*names, "temperature_f"])))
    return ac.Declaration.from_sequence(steps).to_table(use_threads=False)


def medians(variants: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the median CPU seconds of each variant, all of them in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(RUNS):
        for name, variant in variants.items():
            started = time.process_time()
            variant()
            seconds[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Print a line for each variant."""
    pa.set_cpu_count(1)
    table = readings()
    lines = "".join(json.dumps(record, default=str) + "\n" for record in table.to_pylist()).encode()
    options = pyarrow.json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
    keeps = Filter(where="status <> 'fail' and temperature between -50 and 60")
    adds = Set(columns={"temperature_f": "temperature * 9 / 5 + 32"})
    kept = keeps.transform(table)
    temperature = pc.field("temperature")
    keep = (pc.field("status") != "fail") & (temperature >= -50.0) & (temperature <= 60.0)
    column = temperature * 9.0 / 5.0 + 32.0
    if not plan(table, keep=keep, column=column).equals(adds.transform(kept)):
        raise SystemExit("the plan and the steps differ")
    found = medians(
        {
            "decode": lambda: pyarrow.json.read_json(io.BytesIO(lines), read_options=options),
            "filter": lambda: keeps.transform(table),
            "set": lambda: adds.transform(kept),
            "filter, then set": lambda: adds.transform(keeps.transform(table)),
            "plan: filter": lambda: plan(table, keep=keep, column=None),
            "plan: set": lambda: plan(kept, keep=None, column=column),
            "plan: filter and set, fused": lambda: plan(table, keep=keep, column=column),
        }
    )
    for name, seconds in found.items():
        print(
            f"{name:28} {seconds * 1e3:8.2f} ms  {ROWS / seconds / 1e6:7.1f} M rows/s  {seconds / ROWS * 1e9:6.0f} ns a row"
        )
    gain = found["filter, then set"] - found["plan: filter and set, fused"]
    print(f"fusing gains {gain / ROWS * 1e9:.1f} ns a row: {gain / found['decode']:.1%} of decoding")


if __name__ == "__main__":
    main()
