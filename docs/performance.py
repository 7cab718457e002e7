"""The table of docs/performance.md: the newest run of `make bench`, with the targets that each job has.

Called by generate.py. The page itself is written by hand; the table stands between two comments.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results" / "throughput.jsonl"
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


def page(text: str) -> str:
    """Return the page with its table made anew."""
    pattern = re.compile(r"(<!-- table: .*? -->\n).*?(<!-- end of table -->)", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise SystemExit(f"{PAGE} has no part 'table'")
    return pattern.sub(lambda found: f"{found[1]}\n{table(newest())}\n{found[2]}", text)


def newest() -> list[dict[str, Any]]:
    """Return the newest line of each job, contestant and number of cores, in the order of the first run."""
    lines: dict[tuple[str, str, int], dict[str, Any]] = {}
    if RESULTS.exists():
        for text in RESULTS.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            lines[line["job"], line["contestant"], line["cores"]] = line
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
    runs = sorted({f"{line['at'][:10]}, {line['commit']}, {line['machine']}" for line in lines})
    return "\n".join([*parts, f"Versions: {'; '.join(versions)}.", "", f"Measured: {'; '.join(runs)}."])


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
