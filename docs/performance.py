"""The tables of docs/performance.md: the newest runs of `make bench`, with targets, of `bench-scaling` and `bench-latency`.

Called by generate.py. The page itself is written by hand; each table stands between two comments that name it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
OURS = "collectors"
TARGETS: dict[tuple[str, str, int], float] = {
    ("parquet", "dlt (Arrow)", 1): 1.7,
    ("parquet", "dlt (Arrow)", 2): 2.5,
    ("parquet", "Bytewax (orjson)", 1): 2.7,
    ("parquet", "DuckDB alone", 1): 0.65,
    ("parquet", "DuckDB alone", 2): 0.65,
    ("sqlite", "dlt (Arrow)", 1): 2.5,
    ("sqlite", "dlt (Arrow)", 2): 3.0,
    ("duckdb", "dlt (Arrow)", 1): 2.0,
    ("duckdb", "dlt (Arrow)", 2): 2.5,
    ("postgres", "dlt (Arrow)", 1): 1.5,
    ("postgres", "dlt (Arrow)", 2): 1.6,
    ("access-log", "rsyslog", 1): 1.4,
    ("access-log", "rsyslog", 2): 1.8,
    ("python", "Bytewax (orjson)", 1): 1.8,
    ("python", "Bytewax (orjson)", 2): 1.8,
    ("nested", "dlt", 1): 20.0,
    ("one", "dlt (Arrow)", 1): 2.5,
}
"""How many times as fast as the peer we want to be, of the time of the whole process."""
MEMORY_TARGETS = {("parquet", "dlt (Arrow)", 1): 0.45, ("parquet", "dlt (Arrow)", 2): 0.5}
"""Which part of the peer's peak memory ours may be."""
SCALED = {
    "rows": "more_cpu_ns_per_record",
    "columns": "more_cpu_ns_per_value",
    "files": "more_cpu_ns_per_record",
}
"""What there is more and more of, and the figure that must not grow with it."""
MISSED_PERCENT, POLLING_MIB = 0.1, 500
"""What polled sources may miss, and the memory that they may take."""


def page(text: str) -> str:
    """Return the page with its tables made anew."""
    parts = {"table": table(newest()), "scaling": scaling(), "polling": polling(), "latency": latency()}
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise SystemExit(f"{PAGE} has no part '{name}'")
        text = pattern.sub(lambda found, part=part: f"{found[1]}\n{part}\n{found[2]}", text)
    return text


def newest() -> list[dict[str, Any]]:
    """Return the newest line of each job, contestant and number of cores, in the order of the first run."""
    return _newest("throughput.jsonl", "job", "contestant", "cores")


def _newest(file: str, *keys: str) -> list[dict[str, Any]]:
    """Return the newest line of each case, in the order of the first run."""
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    if (RESULTS / file).exists():
        for text in (RESULTS / file).read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            lines[tuple(line.get(key) for key in keys)] = line
    return list(lines.values())


def table(lines: list[dict[str, Any]]) -> str:
    """Return a part for each job."""
    if not lines:
        return "No run is recorded yet."
    parts: list[str] = []
    for job in dict.fromkeys(line["job"] for line in lines):
        of_job = sorted(
            (line for line in lines if line["job"] == job),
            key=lambda line: (line["cores"], line["contestant"] != OURS, -line["records_per_second"]),
        )
        parts += [
            f"### {of_job[0]['title']}",
            "",
            "| | cores | records/s | seconds | CPU s for a million | peak MiB | we are … times as fast | target |",
            "|---|---|---|---|---|---|---|---|",
            *(_row(line, of_job) for line in of_job),
            "",
        ]
    versions = sorted({f"{line['contestant']} {line['version']}" for line in lines})
    return "\n".join([*parts, f"Versions: {'; '.join(versions)}.", "", _measured(lines)])


def _measured(lines: list[dict[str, Any]]) -> str:
    runs = sorted({f"{line['at'][:10]}, {line['commit']}, {line['machine']}" for line in lines})
    return f"Measured: {'; '.join(runs)}."


def scaling() -> str:
    """Return what a record costs where there is more and more to do, as often as what the smallest amount costs."""
    found = _newest("scaling.jsonl", "experiment", "storage", "kind", "size")
    lines = [line for line in found if line["experiment"] in SCALED]
    if not lines:
        return "No run is recorded yet."
    head = [
        "| | storage | records/s | CPU ns a record | more ns a record | more ns a value | of the smallest | peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = []
    for line in sorted(
        lines, key=lambda line: (list(SCALED).index(line["experiment"]), line["storage"], line["size"])
    ):
        of_kind = [
            each
            for each in lines
            if each["experiment"] == line["experiment"] and each["storage"] == line["storage"]
        ]
        what = SCALED[line["experiment"]]
        smallest = min(of_kind, key=lambda each: each["size"])
        cells = [
            f"{line['size']:,} {line['experiment']}",
            line["storage"],
            f"{line['records_per_second']:,}",
            f"{line['cpu_ns_per_record']:,.0f}",
            f"{line['more_cpu_ns_per_record']:,.0f}",
            f"{line['more_cpu_ns_per_value']:,.1f}",
            f"{line[what] / smallest[what]:.2f}",
            f"{line['peak_mib']:,.0f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*head, *rows, "", _measured(lines)])


def polling() -> str:
    """Return what polled sources cost and miss, with the targets."""
    found = _newest("scaling.jsonl", "experiment", "storage", "kind", "size")
    lines = [line for line in found if line["experiment"] == "sources"]
    if not lines:
        return "No run is recorded yet."
    head = [
        "| sources | function | missed % | target | interval ms, mean and p99 | CPU µs a reading | cores | all have read, s | MiB | target |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = [_polled(line) for line in sorted(lines, key=lambda line: (line["kind"], line["size"]))]
    return "\n".join([*head, *rows, "", _measured(lines)])


def _polled(line: dict[str, Any]) -> str:
    mean, p99 = line["interval_mean_ms"], line["interval_p99_ms"]
    all_read = line["sources_that_read"] == line["size"]
    cells = [
        f"{line['size']:,}",
        line["kind"],
        f"{line['missed_percent']:.2f}",
        _within(line["missed_percent"], MISSED_PERCENT),
        "" if mean is None else f"{mean:,.0f}, {p99:,.0f}",
        f"{line['cpu_us_per_reading']:,.0f}",
        f"{line['cpu_cores']:.2f}",
        f"{line['all_have_read_s']:.1f}" if all_read else f"only {line['sources_that_read']:,} have",
        f"{line['peak_mib']:,.0f}",
        _within(line["peak_mib"], POLLING_MIB),
    ]
    return f"| {' | '.join(cells)} |"


def latency() -> str:
    """Return how long small messages take until they are stored."""
    lines = _newest("latency.jsonl", "source", "latency", "rate")
    if not lines:
        return "No run is recorded yet."
    columns = (
        "| source | `latency` | records/s | p50 ms | p99 ms | max ms | p99 since due | seen, p50 and p99 | commits/s | rows a commit | cores | "
        "CPU µs a record | disk ms |"
    )
    rows = []
    for line in lines:
        reader = f"{line['seen_p50_ms']:.1f}, {line['seen_p99_ms']:.1f}" if "seen_p50_ms" in line else ""
        rows.append(
            f"| {line['source']} | {line['latency']} | {line['rate']:,} | {line['p50_ms']:.1f} | {line['p99_ms']:.1f} | {line['max_ms']:.1f} | "
            f"{line['p99_since_due_ms']:.1f} | {reader} | {line['commits_per_second']:,.0f} | {line['rows_per_commit']:,.1f} | "
            f"{line['cpu_cores']:.2f} | {line['cpu_us_per_record']:,.0f} | {line['disk_sync_ms']:.2f} |"
        )
    return "\n".join([columns, "|---" * 13 + "|", *rows, "", _measured(lines)])


def _within(value: float, most: float) -> str:
    return f"{most:g} {'✓' if value <= most else '✗'}"


def _row(line: dict[str, Any], of_job: list[dict[str, Any]]) -> str:
    ours = next(item for item in of_job if item["contestant"] == OURS and item["cores"] == line["cores"])
    ratio, target, memory = "", "", f"{line['peak_mib']:.0f}"
    if line is not ours:
        key = (line["job"], line["contestant"], line["cores"])
        factor = ours["records_per_second"] / line["records_per_second"]
        wanted = TARGETS.get(key)
        if key in MEMORY_TARGETS:
            part, most = ours["peak_mib"] / line["peak_mib"], MEMORY_TARGETS[key]
            memory += f"; ours is {part:.2f} of it, target {most:g} {'✓' if part <= most else '✗'}"
        ratio = f"{factor:.2f}"
        target = "" if wanted is None else f"{wanted:g} {'✓' if factor >= wanted else '✗'}"
    seconds = sorted(line["wall_s"])
    cells = [
        line["contestant"] if line is not ours else f"**{OURS}**",
        str(line["cores"]),
        _rounded(line["records_per_second"]),
        f"{seconds[len(seconds) // 2]:.2f} ({seconds[0]:.2f} to {seconds[-1]:.2f})",
        f"{1e6 / line['records_per_cpu_second']:,.1f}" if line["records"] > 1 else "",
        memory,
        ratio,
        target,
    ]
    return f"| {' | '.join(cells)} |"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
