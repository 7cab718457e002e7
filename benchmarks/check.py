"""Whether a hot function has become slower: each is measured beside a yardstick, and compared with what is recorded.

    make bench-check               fails when a function is more than 15 % slower than recorded
    make bench-check RECORD=1      records the figures of now in benchmarks/results/hot.json

What counts is CPU time of the process: the least of many rounds, divided by the least of a yardstick that is measured
right in front of the function and behind it (hot/conftest.py). So a machine that is slower as a whole, or busy, changes little.
The yardstick is no other machine, though: where the processor is of another kind, record there first. A function that
looks slower is measured again, up to three times, and its best counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import record

HERE = Path(__file__).resolve().parent
RECORDED = record.RESULTS / "hot.json"
LIMIT = 0.15
TRIES = 3


def measure(only: list[str]) -> dict[str, dict[str, float]]:
    """Run the functions, or only those, and return microseconds and yardsticks of each."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "hot.json"
        command = [sys.executable, "-m", "pytest", str(HERE / "hot"), "-q"]
        command += ["-p", "no:cacheprovider", "-p", "no:xdist", "--benchmark-timer=time.process_time"]
        command += ["--benchmark-disable-gc", f"--benchmark-json={found}", "--benchmark-quiet"]
        if only:
            command += ["-k", " or ".join(f"test_{name}" for name in only)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent)
        if done.returncode != 0:
            raise SystemExit(done.stdout[-5000:] + done.stderr[-2000:])
        rounds = json.loads(found.read_text(encoding="utf-8"))["benchmarks"]
    return {
        each["name"].removeprefix("test_"): {
            "us": round(each["stats"]["min"] * 1e6, 1),
            "yardsticks": round(each["stats"]["min"] / each["extra_info"]["yardstick"], 4),
        }
        for each in rounds
    }


def slower(found: dict[str, dict[str, float]], recorded: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return by how much each function is slower than recorded; those that are not recorded are left out."""
    return {
        name: figures["yardsticks"] / recorded[name]["yardsticks"] - 1
        for name, figures in found.items()
        if name in recorded
    }


def best(tries: int) -> dict[str, dict[str, float]]:
    """Return the best of some complete runs."""
    runs = [measure([]) for _ in range(tries)]
    return {name: min((run[name] for run in runs), key=lambda each: each["yardsticks"]) for name in runs[0]}


def check(recorded: dict[str, dict[str, float]]) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Measure; what looks slower again. Return the figures, and how much slower each function is."""
    found = measure([])
    for _ in range(TRIES):
        late = [name for name, by in slower(found, recorded).items() if by > LIMIT]
        for name, again in (measure(late) if late else {}).items():
            found[name] = min(found[name], again, key=lambda each: each["yardsticks"])
    return found, slower(found, recorded)


def main() -> None:
    """Print a table; exit with 1 when something is slower."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="record the figures of now")
    options = parser.parse_args()
    if options.record:
        functions = best(TRIES)
        RECORDED.write_text(json.dumps(record.circumstances() | {"functions": functions}, indent=1) + "\n")
        print(f"recorded in {os.path.relpath(RECORDED)}")
        return
    if not RECORDED.exists():
        raise SystemExit("nothing is recorded yet: make bench-check RECORD=1")
    about = json.loads(RECORDED.read_text(encoding="utf-8"))
    found, change = check(about["functions"])
    for name, figures in found.items():
        by = f"{change[name]:+7.1%}" if name in change else "    new"
        print(f"{name:24} {figures['us']:>10,.0f} µs  {figures['yardsticks']:>8.3f} yardsticks  {by}")
    print(f"recorded: {about['at']}, {about['commit']}, {about['machine']}")
    missing = sorted(about["functions"].keys() - found.keys())
    late = [name for name, by in change.items() if by > LIMIT]
    if late or missing:
        raise SystemExit(f"more than {LIMIT:.0%} slower: {late}; recorded and not measured: {missing}")


if __name__ == "__main__":
    main()
