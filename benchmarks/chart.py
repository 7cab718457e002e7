"""Draws the newest runs of run.py, scaling.py and latency.py, as far as there are any: SVG files beside the results.

python benchmarks/chart.py     (in the environment that has matplotlib)
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

RESULTS = Path(__file__).resolve().parent / "results"
COLOURS = {
    "collectors": "#1b6ca8",
    "dlt (Arrow)": "#e07a5f",
    "dlt": "#e07a5f",
    "Bytewax (orjson)": "#f2b134",
    "DuckDB alone": "#9aa5b1",
    "rsyslog": "#81a88d",
}


SCALED = {
    "rows": ("more_cpu_ns_per_record", "CPU ns a record, by rows"),
    "columns": ("more_cpu_ns_per_value", "CPU ns a value, by columns"),
    "files": ("more_cpu_ns_per_record", "CPU ns a record, by files"),
    "sources": ("cpu_us_per_reading", "CPU µs a reading, by sources"),
}


def newest(file: str, *keys: str) -> list[dict]:
    """Return the newest line of each case; none when there is no such file."""
    lines: dict[tuple, dict] = {}
    path = RESULTS / file
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        line = json.loads(text)
        lines[tuple(line.get(key) for key in keys)] = line
    return list(lines.values())


def save(figure: mpl.figure.Figure, name: str, what: str, about: dict) -> None:
    """Write a chart with what it shows, when and where it was measured."""
    figure.supxlabel(f"{what} · {about['at'][:10]} · {about['machine']}", fontsize=8)
    figure.savefig(RESULTS / name, metadata={"Date": None})


def throughput() -> None:
    """Draw bars for each job."""
    lines = [
        line
        for line in newest("throughput.jsonl", "job", "contestant", "cores")
        if line["records"] > 1 and line["cores"] == 1
    ]
    if not lines:
        return
    jobs = list(dict.fromkeys(line["job"] for line in lines))
    figure, axes = plt.subplots(len(jobs), 1, figsize=(8, 1.1 * len(jobs) + 0.6), layout="constrained")
    for axis, job in zip(axes, jobs, strict=True):
        of_job = sorted(
            (line for line in lines if line["job"] == job), key=lambda line: line["records_per_second"]
        )
        names = [line["contestant"] for line in of_job]
        values = [line["records_per_second"] for line in of_job]
        bars = axis.barh(names, values, color=[COLOURS[name] for name in names])
        axis.bar_label(bars, [f"{value:,.0f}" for value in values], padding=4)
        axis.set_title(of_job[0]["title"], loc="left", fontsize=10, fontweight="bold")
        axis.set_xlim(0, 1.15 * max(values))
        axis.xaxis.set_visible(False)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    save(figure, "throughput.svg", "records a second, one core, whole process", lines[0])


def scaling() -> None:
    """Draw what one of many costs, for each thing that there is more and more of: what does not grow is level."""
    lines = newest("scaling.jsonl", "experiment", "storage", "kind", "size")
    shown = [name for name in SCALED if any(line["experiment"] == name for line in lines)]
    if not shown:
        return
    figure, axes = plt.subplots(
        1, len(shown), figsize=(3 * len(shown), 2.8), layout="constrained", squeeze=False
    )
    for axis, experiment in zip(axes[0], shown, strict=True):
        value, title = SCALED[experiment]
        of_experiment = sorted(
            (line for line in lines if line["experiment"] == experiment), key=lambda line: line["size"]
        )
        for name in dict.fromkeys(line.get("storage") or line["kind"] for line in of_experiment):
            own = [line for line in of_experiment if name in {line.get("storage"), line.get("kind")}]
            axis.plot([line["size"] for line in own], [line[value] for line in own], marker="o", label=name)
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    save(figure, "scaling.svg", "level: the cost does not grow", lines[0])


def latency() -> None:
    """Draw the latency of each source at each rate: p50, and p99 above it."""
    lines = sorted(
        newest("latency.jsonl", "source", "latency", "rate"),
        key=lambda line: (line["source"], -line["rate"], line["latency"]),
    )
    if not lines:
        return
    figure, axis = plt.subplots(figsize=(8, 0.4 * len(lines) + 1), layout="constrained")
    low = {"low": ", latency: low", "normal": ""}
    names = [f"{line['source']}, {line['rate']:,}/s{low[line['latency']]}" for line in lines]
    bars = axis.barh(names, [line["p99_ms"] for line in lines], color="#c9d8e6", label="p99")
    axis.barh(names, [line["p50_ms"] for line in lines], color=COLOURS["collectors"], label="p50")
    axis.bar_label(bars, [f"{line['p50_ms']:.1f} / {line['p99_ms']:.1f}" for line in lines], padding=4)
    axis.set_xlabel("ms from arrival to stored")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    save(figure, "latency.svg", "SQLite, each commit with its fsync", lines[0])


def main() -> None:
    """Draw what there is."""
    mpl.rcParams |= {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "svg.hashsalt": "bench",
    }
    throughput()
    scaling()
    latency()


if __name__ == "__main__":
    main()
