"""Draws the newest run of run.py: results/throughput.svg. Run by the environment that has matplotlib.

python benchmarks/chart.py
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


def main() -> None:
    newest: dict[tuple[str, str, int], dict] = {}
    for text in (RESULTS / "throughput.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        newest[line["job"], line["contestant"], line["cores"]] = line
    lines = [line for line in newest.values() if line["records"] > 1 and line["cores"] == 1]
    jobs = list(dict.fromkeys(line["job"] for line in lines))
    mpl.rcParams |= {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "svg.hashsalt": "bench",
    }
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
    about = lines[0]
    figure.supxlabel(
        f"records a second, one core, whole process · {about['at'][:10]} · {about['machine']}", fontsize=8
    )
    figure.savefig(RESULTS / "throughput.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
