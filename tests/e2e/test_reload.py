"""The pipeline file changes while the pipeline runs: what changed is taken over, nothing is lost, the rest runs on."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

PIPELINE = """name: live
sources:
  - {type: file, id: a, path: a.ndjson, follow: true}
  - {type: file, id: b, path: b.ndjson, follow: true}
storage:
  - {type: sqlite, path: out.db}
pipelines:
  first: {from: a, processors: [{type: set, columns: {side: "'old'"}}]}
  second: {from: b}
"""


class Running:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        for name in "abc":
            (folder / f"{name}.ndjson").touch()
        self.write(PIPELINE)
        self.told = (folder / "told").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "collectors", "run", "p.yaml", "--json"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=self.told,
            text=True,
        )

    def write(self, text: str) -> None:
        new = self.folder / "new.yaml"
        new.write_text(text)
        new.replace(self.folder / "p.yaml")

    def add(self, name: str, count: int = 50) -> None:
        with (self.folder / f"{name}.ndjson").open("a") as file:
            for _ in range(count):
                file.write(json.dumps({"n": self.number}) + "\n")
                self.number += 1

    def rows(self, table: str, columns: str = "n") -> list[tuple]:
        if not (self.folder / "out.db").exists():
            return []
        database = sqlite3.connect(f"file:{self.folder / 'out.db'}?mode=ro", uri=True)
        try:
            return database.execute(f'select {columns} from "{table}" order by n').fetchall()
        except sqlite3.OperationalError:
            return []
        finally:
            database.close()

    def until(self, condition) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert self.process.poll() is None, (self.folder / "told").read_text()
            assert time.monotonic() < deadline, (self.folder / "told").read_text()
            time.sleep(0.02)

    def says(self, text: str) -> None:
        self.until(lambda: text in (self.folder / "told").read_text())

    def end(self) -> dict:
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, (self.folder / "told").read_text()
        return json.loads(out)


@pytest.fixture
def running(tmp_path):
    run = Running(tmp_path)
    yield run
    run.process.kill()
    run.process.wait()
    run.process.stdout.close()
    run.told.close()


@pytest.mark.parametrize("by_signal", [False, True])
def test_a_changed_step_is_taken_over_and_the_other_flow_runs_on(running, by_signal):
    running.add("a")
    running.add("b")
    running.until(lambda: len(running.rows("a")) == 50 and len(running.rows("b")) == 50)
    running.write(PIPELINE.replace("'old'", "'new'"))
    if by_signal:
        os.kill(running.process.pid, signal.SIGHUP)
    running.says("p.yaml has changed: started anew a")
    running.add("a")
    running.add("b")
    running.until(lambda: len(running.rows("a")) == 100 and len(running.rows("b")) == 100)
    report = running.end()
    assert [side for _, side in running.rows("a", "n, side")] == ["old"] * 50 + ["new"] * 50
    assert report["balanced"]
    assert [flow["source"] for flow in report["flows"]] == ["a", "b", "a"]
    assert [flow["read"] for flow in report["flows"]] == [50, 100, 50]


def test_a_mistake_changes_nothing(running):
    running.add("a")
    running.until(lambda: len(running.rows("a")) == 50)
    running.write(PIPELINE.replace("type: set", "type: sett"))
    running.says("is not taken over")
    running.write(PIPELINE.replace("first:", "renamed:"))
    running.says("is not taken over: storage 'sqlite' has rows of source 'a' by the route 'first'")
    (running.folder / "folder.db").mkdir()
    running.write(PIPELINE.replace("out.db}", "folder.db}"))
    running.says("folder.db is a folder")
    running.add("a")
    running.until(lambda: len(running.rows("a")) == 100)
    assert running.end()["balanced"]


def test_sources_come_and_go(running):
    running.add("a")
    running.add("b")
    running.until(lambda: len(running.rows("a")) == 50 and len(running.rows("b")) == 50)
    running.write(
        PIPELINE.replace("id: b, path: b.ndjson", "id: c, path: c.ndjson").replace("from: b", "from: c")
    )
    running.says("started c; ended b")
    running.add("b")
    running.add("c")
    running.add("a")
    running.until(lambda: len(running.rows("a")) == 100 and len(running.rows("c")) == 50)
    running.write(PIPELINE)
    running.says("started b; ended c")
    running.until(lambda: len(running.rows("b")) == 100)
    assert running.end()["balanced"]
    assert [len(running.rows(name)) for name in "abc"] == [100, 100, 50]


def told(running) -> int:
    return (running.folder / "told").read_text().count("started anew a")


def test_under_load_nothing_is_lost_or_doubled(running):
    """The file changes ten times while records come in all the time."""
    running.add("a", 20)
    running.until(lambda: running.rows("a"))
    for change in range(10):
        running.write(PIPELINE.replace("'old'", f"'{change}'"))
        for _ in range(20):
            running.add("a", 20)
            time.sleep(0.01)
        running.until(lambda seen=change + 1: told(running) >= seen)
    running.until(lambda: len(running.rows("a")) == 4020)
    assert running.end()["balanced"]
    assert [n for (n,) in running.rows("a")] == list(range(4020))
