"""A pipeline from a growing file into a broker, in processes that die."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import yaml

__all__ = ["SinkPipeline", "lives", "wait_for"]

LIVES = Path(__file__).parents[2] / "e2e" / "_lives.py"


class SinkPipeline:
    """The command line in a process of its own; `rows` were appended to its file so far, numbered in `n`."""

    def __init__(self, folder: Path, storage: dict[str, Any], **source: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.rows = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.file = folder / "in.ndjson"
        self.file.touch()
        self.pipeline = folder / "p.yaml"
        file = {"type": "file", "id": "numbers", "path": str(self.file), "chunk_size": "2 KiB", **source}
        parts = {"name": "p", "sources": [file], "storage": [storage]}
        self.pipeline.write_text(yaml.safe_dump(parts))

    def append(self, count: int) -> None:
        with self.file.open("a") as file:
            numbers = range(self.rows, self.rows + count)
            file.writelines(f'{{"n": {n}, "text": "{"x" * (n % 40)}"}}\n' for n in numbers)
        self.rows += count

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "collectors", "run", "p.yaml"],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def ends(self) -> int:
        """Ask it to end, and return with which code it did."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def log(self) -> str:
        return (self.folder / "log").read_text()


def lives(pipeline: Path, first: int, step: int, most: int) -> int:
    """Kill one life after the other at crash points; return how many were killed until one was not."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(LIVES), str(pipeline), str(first), str(step), str(most)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout)["kills"])


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.05)
