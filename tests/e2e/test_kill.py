"""Kill -9 at crash points: whatever the moment, every record is stored once, in every backend, and none is unexplained."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.dataset as ds
import pytest

ROWS = 900
BAD = {100, 555}

PIPELINE = """
name: readings
sources:
  - {type: file, id: readings, path: in.ndjson, chunk_size: 4 KiB}
processors:
  - {type: filter, where: "id % 10 <> 0"}
storage:
"""
SQLITE = "  - {type: sqlite, path: out.db, table: readings}\n"
PARQUET = "  - {type: parquet, path: lake, max_rows: 200}\n"


def make(folder: Path, storage: str) -> Path:
    lines = [
        '{"id": broken' if n in BAD else json.dumps({"id": n, "note": "x" * (n % 40)}) for n in range(ROWS)
    ]
    (folder / "in.ndjson").write_text("\n".join(lines) + "\n")
    (folder / "p.yaml").write_text(PIPELINE + storage)
    return folder / "p.yaml"


EXPECTED = Counter(n for n in range(ROWS) if n not in BAD and n % 10 != 0)


def in_sqlite(folder: Path) -> tuple[Counter[int], int, tuple[int, ...]]:
    with sqlite3.connect(folder / "out.db") as database:
        ids = Counter(row[0] for row in database.execute("select id from readings"))
        letters = database.execute("select count(*) from _collectors_dead_letters").fetchone()[0]
        ledger = database.execute(
            "select sum(read), sum(added), sum(stored), sum(filtered), sum(set_aside) from _collectors_ledger"
        ).fetchone()
    database.close()
    return ids, letters, ledger


def in_parquet(folder: Path) -> Counter[int]:
    paths = [str(path) for path in (folder / "lake").rglob("*.parquet") if "_collectors" not in path.parts]
    return Counter(ds.dataset(paths, format="parquet").to_table(columns=["id"])["id"].to_pylist())


def lives(pipeline: Path, first: int, step: int, most: int) -> int:
    script = Path(__file__).with_name("_lives.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(pipeline), str(first), str(step), str(most)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["kills"]


def check_sqlite(folder: Path) -> None:
    ids, letters, ledger = in_sqlite(folder)
    assert ids == EXPECTED
    assert letters == len(BAD)
    read, added, stored, filtered, set_aside = ledger
    assert (read, added) == (ROWS, 0)
    assert (stored, filtered, set_aside) == (len(EXPECTED), ROWS - len(EXPECTED) - len(BAD), len(BAD))


@pytest.mark.parametrize("first", range(1, 6))
def test_sqlite(tmp_path, first):
    assert lives(make(tmp_path, SQLITE), first, 5, 40) > 10
    check_sqlite(tmp_path)


@pytest.mark.parametrize("first", range(1, 4))
def test_parquet(tmp_path, first):
    assert lives(make(tmp_path, PARQUET), first, 3, 40) > 10
    assert in_parquet(tmp_path) == EXPECTED


@pytest.mark.parametrize("first", range(1, 4))
def test_both_at_once(tmp_path, first):
    assert lives(make(tmp_path, SQLITE + PARQUET), first, 4, 60) > 10
    check_sqlite(tmp_path)
    assert in_parquet(tmp_path) == EXPECTED
