"""DuckDB's write-ahead log lost or damaged behind every kill: what was told as durable stays, nothing is lost or doubled."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import duckdb
import pytest

ROWS, BAD = 4000, {100, 2555}
EXPECTED = Counter(n for n in range(ROWS) if n not in BAD and n % 10 != 0)
KILLS = 40
PIPELINE = """
name: readings
sources:
  - {type: file, id: readings, path: in.ndjson, chunk_size: 4 KiB}
processors:
  - {type: filter, where: "id % 10 <> 0"}
storage:
  - {type: duckdb, path: out.duckdb, table: readings}
"""


def lives(folder: Path, seed: int) -> dict:
    """Run a pipeline through lives that end by a kill and a damaged log; return what was damaged."""
    folder.mkdir()
    lines = [f'{{"id": {n}' + (" broken" if n in BAD else f', "note": "{n % 40}"}}') for n in range(ROWS)]
    (folder / "in.ndjson").write_text("\n".join(lines) + "\n")
    (folder / "p.yaml").write_text(PIPELINE)
    script = Path(__file__).with_name("_log_lives.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(folder / "p.yaml"), str(seed), str(KILLS)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    return json.loads(done.stdout)


def check(folder: Path) -> None:
    database = duckdb.connect(folder / "out.duckdb", read_only=True)
    ids = Counter(row[0] for row in database.execute("select id from readings").fetchall())
    letters = database.execute("select count(*) from _collectors_dead_letters").fetchall()
    counts = "select sum(read), sum(stored), sum(filtered), sum(set_aside) from _collectors_ledger"
    ledger = database.execute(counts).fetchall()
    database.close()
    assert ids == EXPECTED
    assert letters == [(len(BAD),)]
    assert ledger == [(ROWS, len(EXPECTED), ROWS - len(EXPECTED) - len(BAD), len(BAD))]


@pytest.mark.timeout(3000)
def test_a_damaged_log_costs_nothing(memory, full, figure):
    wanted, seed, moved = 200 if full else 10, 0, 0
    damaged: Counter[str] = Counter()
    while damaged.total() < wanted:
        told = lives(memory / f"{seed}", seed)
        check(memory / f"{seed}")
        damaged.update(told["damaged"])
        moved += told["moved"]
        seed += 1
    assert moved  # some could not be replayed
    figure("duckdb log damaged", kills=damaged.total(), **damaged, moved_aside=moved, lost=0, doubled=0)
