"""Sources that are polled once a second, in one process: what a reading costs, and how many did not happen in time.

Used by scaling.py. The pipeline has `{type: python, function: …, every: 1s}` so and so many times, and one SQLite table. The
function returns its number, the time, and the CPU time that the process has used so far; so everything is computed from
what was stored, over the last seconds of the run. `spool`: a plain function, whose every reading becomes durable in the
source's spool first. `group`: the same, with all sources in one `group`. `positions`: a function that takes `since`,
whose readings go into the database directly.

Missed are the readings that each source owes for the full seconds of the window and that did not happen, or were not
stored before the time for draining was over. The interval is that of sources that have read twice.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

__all__ = ["SIZES", "lines"]

SIZES = [1, 10, 1_000, 10_000]
WARM_UP, WARM_UP_OF_EACH = 5.0, 0.005
"""Seconds that a run goes on before it is measured, and those for each of its sources."""
STORAGE = "storage:\n  - {type: sqlite, path: out.db, table: readings}\n"
SENSORS = """\
import time


class Sensor:
    def __init__(self, number):
        self.number = number

    def read(self):
        return {"sensor": self.number, "at": time.time(), "cpu": time.process_time()}

    def read_on(self, since):
        yield self.read(), {"n": since["n"] + 1 if since else 1}


def __getattr__(name):
    # what the pipeline calls: plain_7 or since_7, for sensor 7
    kind, _, number = name.partition("_")
    if not number.isdigit():
        raise AttributeError(name)
    return Sensor(int(number)).read if kind == "plain" else Sensor(int(number)).read_on
"""
FUNCTIONS = {"spool": "plain", "group": "plain", "positions": "since"}


def lines(sizes: list[int], seconds: float, folder: Path) -> Iterator[dict[str, Any]]:
    """Measure, print and yield a line for each number of sources and kind of function."""
    for kind in FUNCTIONS:
        for size in sizes:
            with tempfile.TemporaryDirectory(dir=folder) as name:
                line = measure(Path(name), kind, size, seconds)
            show(line)
            yield line


def measure(folder: Path, kind: str, size: int, seconds: float) -> dict[str, Any]:
    """Run the pipeline and return a line of figures."""
    group = ", group: sensors" if kind == "group" else ""
    sources = [
        f"  - {{type: python, id: s{n}, function: 'sensors:{FUNCTIONS[kind]}_{n}', every: 1s{group}}}\n"
        for n in range(size)
    ]
    text = "name: polling\nsources:\n" + "".join(sources) + STORAGE
    (folder / "polling.yaml").write_text(text, encoding="utf-8")
    (folder / "sensors.py").write_text(SENSORS, encoding="utf-8")
    limit = f"{WARM_UP + size * WARM_UP_OF_EACH + seconds}s"
    command = [sys.executable, "-m", "collectors", "run", "polling.yaml", "--json", "--for", limit]
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    began = time.time()
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    ended = time.time()
    if not done.stdout:
        raise SystemExit(f"{size:,} sources, {kind}: {done.stderr[-3000:]}")
    if done.returncode:
        print(f"{size:,} sources, {kind}: exit code {done.returncode}: {done.stderr[-500:]}", file=sys.stderr)
    report = json.loads(done.stdout)
    rows = readings(folder / "out.db")
    if not rows:
        print(f"{size:,} sources, {kind}: nothing was stored in time", file=sys.stderr)
        rows = {"none": [(ended, 0.0)]}
    first, last = min(row[0][0] for row in rows.values()), max(row[-1][0] for row in rows.values())
    return {
        "experiment": "sources",
        "kind": kind,
        "size": size,
        "seconds": seconds,
        "exit_code": done.returncode,
        "balanced": report["balanced"],
        "read": sum(flow["read"] for flow in report["flows"]),
        "in_flight": sum(flow["in_flight"] for flow in report["flows"]),
        "sources_that_read": len(rows.keys() - {"none"}),
        "first_reading_s": round(first - began, 2),
        "all_have_read_s": round(max(row[0][0] for row in rows.values()) - began, 2),
        **figures(rows, last - seconds, seconds, size),
        "end_s": round(ended - last, 2),
        "peak_mib": round(report["peak_memory_bytes"] / 2**20, 1),
    }


def readings(database: Path) -> dict[str, list[tuple[float, float]]]:
    """Return time and CPU time of the stored readings by sensor, in order; nothing when there is no table yet."""
    found: dict[str, list[tuple[float, float]]] = {}
    with closing(sqlite3.connect(database)) as connection, suppress(sqlite3.OperationalError):
        for sensor, at, cpu in connection.execute("SELECT sensor, at, cpu FROM readings"):
            found.setdefault(str(sensor), []).append((at, cpu))
    return {source: sorted(row) for source, row in found.items()}


def figures(
    rows: dict[str, list[tuple[float, float]]], since: float, seconds: float, size: int
) -> dict[str, Any]:
    """Return what was measured behind a time; what one source missed is not made up for by another's extra reading."""
    within = {source: [each for each in row if each[0] > since] for source, row in rows.items()}
    expected = size * seconds
    silent = size - len(rows.keys() - {"none"})
    missed = silent * seconds + sum(max(0, int(seconds) - len(row)) for row in within.values())
    happened = sorted(each for row in within.values() for each in row)
    intervals = sorted(
        (later - earlier) * 1000
        for row in rows.values()
        for (earlier, _), (later, _) in pairwise(row)
        if later > since
    )
    cpu = max(used for _, used in happened) - min(used for _, used in happened)
    took = max(1e-3, happened[-1][0] - happened[0][0])
    return {
        "readings": len(happened),
        "expected": round(expected),
        "missed_percent": round(100 * missed / expected, 3),
        "sources_silent": sum(not row for row in within.values()),
        "interval_mean_ms": round(statistics.fmean(intervals), 2) if intervals else None,
        "interval_p99_ms": round(intervals[len(intervals) * 99 // 100], 2) if intervals else None,
        "interval_max_ms": round(intervals[-1], 2) if intervals else None,
        "cpu_us_per_reading": round(cpu / max(1, len(happened) - 1) * 1e6, 1),
        "cpu_cores": round(cpu / took, 3),
    }


def show(line: dict[str, Any]) -> None:
    """Print a result."""
    intervals = "no source has read twice"
    if line["interval_mean_ms"] is not None:
        intervals = "interval mean / p99 / max " + " / ".join(
            f"{line[f'interval_{name}_ms']:,.0f}" for name in ("mean", "p99", "max")
        )
    print(
        f"sources  {line['size']:>11,} {line['kind']:9} missed {line['missed_percent']:>6.2f} %, {intervals} ms, "
        f"a reading {line['cpu_us_per_reading']:,.0f} µs CPU, {line['cpu_cores']:.2f} cores; first after "
        f"{line['first_reading_s']:.1f} s, each of {line['sources_that_read']:,} after {line['all_have_read_s']:.1f} s; "
        f"end {line['end_s']:.1f} s; {line['peak_mib']:,.0f} MiB",
        flush=True,
    )
