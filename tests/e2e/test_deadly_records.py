"""A record that kills the process is found after three deaths, and set aside alone."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

DEADLY = {4321, 4322, 7777}
STEPS = """
import os, signal

def careful(record):
    if record.get("id") in {4321, 4322, 7777}:
        HOW
    return record
"""
PIPELINE = """
name: deadly
sources:
  - {type: file, id: in, path: PATH, chunk_size: 64 KiB}
processors:
  - {type: python, function: "deadly_steps:careful"}
storage:
  - {type: sqlite, path: out.db, table: out}
"""


def live(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collectors", "run", str(folder / "p.yaml"), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )


def make(folder: Path, how: str, path: str) -> None:
    (folder / "p.yaml").write_text(PIPELINE.replace("PATH", path))
    (folder / "deadly_steps.py").write_text(STEPS.replace("HOW", how))
    if path.endswith("csv"):
        lines = ["id,note", *(f"{n},{'x' * (n % 50)}" for n in range(10_000))]
    else:
        lines = [json.dumps({"id": n, "note": "x" * (n % 50)}) for n in range(10_000)]
    (folder / path).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("how", "path", "told"),
    [
        ("os.abort()", "in.ndjson", "was ended by SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "in.csv", "was ended by SIGSEGV"),
        ("os._exit(7)", "in.ndjson", "ended with exit code 7"),
    ],
)
def test_the_culprits_are_set_aside(tmp_path, how, path, told):
    make(tmp_path, how, path)
    for _ in range(3):
        assert live(tmp_path).returncode != 0
    last = live(tmp_path)
    assert last.returncode == 0, last.stderr
    report = json.loads(last.stdout)
    assert report["balanced"]
    with sqlite3.connect(tmp_path / "out.db") as database:
        stored = [row[0] for row in database.execute("select id from out order by id")]
        letters = database.execute("select raw, reason from _collectors_dead_letters").fetchall()
        ledger = database.execute(
            "select sum(read), sum(stored), sum(set_aside) from _collectors_ledger"
        ).fetchone()
    database.close()
    assert stored == [n for n in range(10_000) if n not in DEADLY]
    assert {json.loads(raw)["id"] for raw, _ in letters} == DEADLY
    assert all(told in reason for _, reason in letters)
    assert ledger == (10_000, 9_997, 3)
    assert "in a process of their own" in report["flows"][0]["notices"][0]


def test_a_clean_end_forgets_the_deaths(tmp_path):
    make(tmp_path, "os.abort() if not os.path.exists('tame') else None", "in.ndjson")
    for _ in range(2):
        assert live(tmp_path).returncode != 0
    (tmp_path / "deadly_steps.py").write_text("def careful(record):\n    return record\n")
    assert live(tmp_path).returncode == 0
    report = json.loads(live(tmp_path).stdout)
    assert report["flows"][0]["notices"] == []
    with sqlite3.connect(tmp_path / "out.db") as database:
        assert database.execute("select count(*) from out").fetchone() == (10_000,)
    database.close()
