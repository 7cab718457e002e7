"""Whether a record costs the same when there is more of everything: rows, columns, files, sources that are polled.

    make bench-scaling                                       recorded; with FULL=1 also 100 million rows
    python benchmarks/scaling.py --only columns files        some of it

| | sizes | what stays the same |
|---|---|---|
| rows | 1, 10 (and 100) million | the columns; one file |
| columns | 1, 10, 100 | one kind of values; 1,000,000, 1,000,000 and 100,000 rows |
| files | 1, 1,000 | a million records in all |
| sources | 1, 10, 1,000, 10,000 | each gives a record a second; see polling.py |

Each run is a process of its own from its start to its end: `collectors run` on a plain pipeline file with the settings that
it has by itself, once into Parquet and once into SQLite; the median of `--rounds` counts. CPU is that of the whole
process. Since the start weighs more the less there is to do, a run of a single record is measured too, and `more` is
what each record cost beyond it: that is the figure which must not grow. What was stored is counted from outside.

With `--record` each result becomes a line in results/scaling.jsonl, from which the chart and docs/performance.md are made.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import environments
import inputs
import polling
import record
from run import timed

HERE = Path(__file__).resolve().parent
MILLION = 1_000_000
STORAGES = {
    "parquet": "{type: parquet, path: out/lake}",
    "sqlite": "{type: sqlite, path: out/out.db, table: rows}",
}
PIPELINE = """\
name: scaling
sources:
  - {{type: file, id: rows, path: "{data}"}}
storage:
  - {storage}
"""


@dataclass(frozen=True)
class Case:
    """One amount of work; `size` of that which `experiment` has more and more of."""

    experiment: str
    size: int
    data: str
    """The file, or the pattern of the files, below the folder of inputs."""
    records: int
    columns: int


def cases(*, full: bool) -> list[Case]:
    """Return the amounts of work; the first is a single record."""
    rows = [1, 10, 100] if full else [1, 10]
    return [
        Case("start", 1, "one.ndjson", 1, 7),
        *(Case("rows", n * MILLION, f"rows-{n}m.ndjson", n * MILLION, 7) for n in rows),
        Case("columns", 1, "columns-1.ndjson", MILLION, 1),
        Case("columns", 10, "columns-10.ndjson", MILLION, 10),
        Case("columns", 100, "columns-100.ndjson", MILLION // 10, 100),
        Case("files", 1, "rows-1m.ndjson", MILLION, 7),
        Case("files", 1000, "files/*.ndjson", MILLION, 7),
    ]


def make(case: Case, folder: Path) -> None:
    """Write what the case reads, unless it is there."""
    if case.experiment == "columns":
        inputs.write(folder / case.data, lambda: floats(case.records, case.columns))
        return
    inputs.write(folder / "one.ndjson", lambda: inputs.sensors(1))
    inputs.write(folder / "rows-1m.ndjson", lambda: inputs.sensors(MILLION))
    if case.experiment == "rows":
        repeat(folder / "rows-1m.ndjson", folder / case.data, case.size // MILLION)
    elif case.experiment == "files" and case.size > 1:
        cut(folder / "rows-1m.ndjson", folder / "files", MILLION // case.size)


def floats(records: int, columns: int) -> Iterator[str]:
    """Yield records of so many numbers; all columns are of one kind, so that a value costs the same everywhere."""
    chance = random.Random(20261201).random  # noqa: S311
    line = "{" + ",".join(f'"c{n:03}":%.4f' for n in range(columns)) + "}\n"
    for _ in range(records):
        yield line % tuple(1000 * chance() for _ in range(columns))


def repeat(source: Path, target: Path, times: int) -> None:
    """Write the same records so many times over into one file."""
    if target.exists():
        return
    part = target.with_suffix(".part")
    with part.open("wb") as out:
        for _ in range(times):
            with source.open("rb") as file:
                shutil.copyfileobj(file, out, 2**20)
    part.rename(target)


def cut(source: Path, folder: Path, records: int) -> None:
    """Write the records into files of so many each."""
    if folder.exists():
        return
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    with source.open("rb") as lines:
        for number in count():
            if not (some := list(islice(lines, records))):
                break
            (part / f"{number:06}.ndjson").write_bytes(b"".join(some))
    part.rename(folder)


def run(case: Case, storage: str, data: Path) -> tuple[float, float, float]:
    """Run a case once, see that all of it is stored, and return seconds, seconds of CPU and peak MiB."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory(dir=data.parent) as name:
        folder = Path(name)
        (folder / "out").mkdir()
        text = PIPELINE.format(data=data / case.data, storage=STORAGES[storage])
        (folder / "scaling.yaml").write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "collectors", "run", "--quiet", "scaling.yaml"]
        os.sync()
        found = timed(command, folder, environ)
        rows = stored(folder, storage)
    if rows != case.records:
        raise SystemExit(f"{case}, {storage}: {rows:,} rows are stored, not {case.records:,}")
    return found


def stored(folder: Path, storage: str) -> int:
    """Return how many rows there are; those of Parquet files in a process of its own, so that this one stays small."""
    if storage == "sqlite":
        with closing(sqlite3.connect(folder / "out/out.db")) as database:
            return int(database.execute("SELECT count(*) FROM rows").fetchone()[0])
    command = [sys.executable, str(HERE / "outputs.py"), storage]
    done = subprocess.run(command, capture_output=True, check=True, cwd=folder)
    return int(json.loads(done.stdout)["rows"])


def measure(case: Case, storage: str, data: Path, rounds: int, start: float) -> dict[str, Any]:
    """Return a line of figures; `start` is the CPU time of a run of a single record."""
    runs = [run(case, storage, data) for _ in range(rounds)]
    wall, cpu = (statistics.median(each[n] for each in runs) for n in (0, 1))
    more = (cpu - start) / case.records * 1e9
    return {
        "experiment": case.experiment,
        "storage": storage,
        "size": case.size,
        "records": case.records,
        "columns": case.columns,
        "wall_s": [round(each[0], 3) for each in runs],
        "cpu_s": round(cpu, 3),
        "records_per_second": round(case.records / wall),
        "cpu_ns_per_record": round(cpu / case.records * 1e9, 1),
        "more_cpu_ns_per_record": round(more, 1),
        "more_cpu_ns_per_value": round(more / case.columns, 2),
        "peak_mib": round(max(each[2] for each in runs), 1),
    }


def show(line: dict[str, Any]) -> None:
    """Print a result."""
    print(
        f"{line['experiment']:8} {line['size']:>11,} {line['storage']:8} {line['records_per_second']:>10,} records/s  "
        f"CPU {line['cpu_s']:>7.2f} s, a record {line['cpu_ns_per_record']:>13,.0f} ns, more {line['more_cpu_ns_per_record']:>7,.0f} ns, "
        f"a value {line['more_cpu_ns_per_value']:>6,.1f} ns  {line['peak_mib']:>5,.0f} MiB",
        flush=True,
    )


def bulk(options: argparse.Namespace, data: Path) -> Iterator[dict[str, Any]]:
    """Measure what is read from files."""
    wanted = [case for case in cases(full=options.full) if case.experiment in {"start", *options.only}]
    for storage in STORAGES:
        start = 0.0
        for case in wanted:
            make(case, data)
            line = measure(case, storage, data, options.rounds, start)
            if case.experiment == "start":
                start = line["cpu_s"]
            show(line)
            yield line


def main() -> None:
    """Measure, print, and record if asked to."""
    experiments = ["rows", "columns", "files", "sources"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=experiments, default=experiments)
    parser.add_argument("--full", action="store_true", help="also 100 million rows, in a file of 13 GB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=20, help="how long polled sources are measured, after a warm-up"
    )
    parser.add_argument(
        "--sources", type=int, nargs="+", default=polling.SIZES, help="how many sources are polled"
    )
    parser.add_argument("--data", type=Path, default=HERE / ".data", help="where the inputs are or are made")
    parser.add_argument("--record", action="store_true", help="append to results/scaling.jsonl")
    options = parser.parse_args()
    data = options.data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    about = record.circumstances()

    def lines() -> Iterator[dict[str, Any]]:
        if set(options.only) - {"sources"}:
            yield from bulk(options, data)
        if "sources" in options.only:
            yield from polling.lines(options.sources, options.seconds, data.parent)

    for line in lines():
        if options.record:
            record.append("scaling.jsonl", about | line)
    if options.record:
        subprocess.run([environments.python_of("chart"), HERE / "chart.py"], check=True)


if __name__ == "__main__":
    main()
