"""Kill -9 of a pipeline whose source cannot replay: what the sender was told is kept is stored, once."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PIPELINE = """
name: pushed
sources:
  - {type: "_pushed:Pushed", id: push, folder: FOLDER}
storage:
  - {type: sqlite, path: out.db, table: numbers}
"""


@pytest.mark.parametrize("first", range(1, 8))
def test_what_was_acknowledged_is_stored_once(tmp_path, first):
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(PIPELINE.replace("FOLDER", str(tmp_path)))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "_lives.py"), str(pipeline), str(first), "7", "40"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ | {"PYTHONPATH": str(HERE)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kills"] > 10
    with sqlite3.connect(tmp_path / "out.db") as database:
        stored = Counter(row[0] for row in database.execute("select id from numbers"))
        read, kept_count = database.execute(
            "select sum(read), sum(stored) from _collectors_ledger"
        ).fetchone()
    database.close()
    sent = Counter(int(line) for line in (tmp_path / "sent").read_text().split())
    kept = [int(line) for line in (tmp_path / "kept").read_text().split()]
    assert sorted(set(kept)) == list(range(120))
    assert set(stored) == set(kept)
    assert not [number for number in stored if stored[number] > sent[number]]
    assert read == kept_count == stored.total()
