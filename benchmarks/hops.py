"""Where the time of our jobs goes: CPU seconds of each hop, and what one record costs from start to end.

    taskset -c 1 python benchmarks/hops.py parquet sqlite

Prints a row of a Markdown table for each pipeline of benchmarks/pipelines. The hops are wrapped, and the CPU time of the
threads that run them is taken; `start` is a run of `one.yaml`, `rest` is what is left: the event loop, the state file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import inputs

HERE = Path(__file__).resolve().parent
HOPS = ("read", "decode", "process", "store")
seconds: Counter[str] = Counter()


def timed(hop: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def run(*arguments: Any, **more: Any) -> Any:
        began = time.thread_time()
        try:
            return function(*arguments, **more)
        finally:
            seconds[hop] += time.thread_time() - began

    return run


def wrap_hops() -> None:
    """Put a clock around what reads, decodes, processes and stores."""
    from collectors.collection.sources.file import FileSource
    from collectors.runtime.preparing import Preparer
    from collectors.storage.base import Backend

    read, call = FileSource.read, Backend.call

    def chunks(source: FileSource, since: Any) -> Iterator[Any]:
        found = read(source, since)
        following = timed("read", lambda: next(found, None))
        while (chunk := following()) is not None:
            yield chunk

    async def clocked(backend: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        return await call(backend, timed("store", function), *arguments)

    FileSource.read, Backend.call = chunks, clocked
    for hop in ("decode", "process"):
        setattr(Preparer, f"_{hop}", timed(hop, getattr(Preparer, f"_{hop}")))


def inside(pipeline: str) -> None:
    """Run a pipeline in this process, and print its figures as JSON to standard error."""
    from collectors.cli.main import main as cli

    wrap_hops()
    try:
        cli(["run", "--quiet", pipeline])
    finally:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps({"all": usage.ru_utime + usage.ru_stime} | seconds), file=sys.stderr)


def measure(pipeline: str, data: Path, rounds: int) -> dict[str, float]:
    """Return the figures of the fastest of some runs."""
    found = []
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"BENCH_INPUT": str(data), "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE / "pipelines")))}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=data.parent) as folder:
            Path(folder, "out").mkdir()
            shutil.copy(HERE / "pipelines" / pipeline, folder)
            done = subprocess.run(
                [sys.executable, __file__, "--inside", pipeline],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                check=True,
                cwd=folder,
                env=environ,
            )
        found.append(json.loads(done.stderr.splitlines()[-1]))
    return min(found, key=lambda figures: figures["all"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "jobs", nargs="*", default=["parquet", "sqlite", "duckdb", "access-log", "python", "nested"]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=HERE / ".data")
    parser.add_argument("--inside", metavar="PIPELINE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options.inside)
        return
    data = inputs.inputs(options.data.resolve())
    start = measure("one.yaml", data, options.rounds)["all"]
    print("| CPU seconds | all | start | " + " | ".join(HOPS) + " | rest |\n" + "|---" * 8 + "|")
    for job in options.jobs:
        figures = measure(f"{job}.yaml", data, options.rounds)
        parts = [figures[hop] for hop in HOPS]
        cells = [figures["all"], start, *parts, figures["all"] - start - sum(parts)]
        print(f"| {job} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
