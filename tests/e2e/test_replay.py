"""Replay of dead letters under kill -9: whatever the moment, every letter is stored once or set aside once more."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from collectors.config.load import load
from collectors.runtime.dead_letters import look
from collectors.runtime.engine import run
from collectors.runtime.replay import Replay

ROWS = 400
BROKEN = {50, 51, 300}  # no JSON, and never will be
LATER = set(range(7, ROWS, 40))  # "x7": a number only for the fixed pipeline
SQLITE = "  - {type: sqlite, path: out.db, table: readings}\n"
DUCKDB = "  - {type: duckdb, path: out.duckdb, table: readings}\n"
PARQUET = "  - {type: parquet, path: lake, max_rows: 3}\n"
FIRST = """
name: readings
sources:
  - {type: file, id: readings, path: in.ndjson, chunk_size: 2 KiB}
processors:
  - {type: cast, columns: {v: int}}
storage:
"""
FIXED = FIRST.replace(
    "processors:\n", "processors:\n  - {type: set, columns: {v: \"replace(v, 'x', '')\"}}\n"
)


def make(folder: Path, storage: str) -> None:
    (folder / "in.ndjson").write_text(
        "".join(
            f'{{"id": {n}, broken\n'
            if n in BROKEN
            else json.dumps({"id": n, "v": f"x{n}" if n in LATER else str(n)}) + "\n"
            for n in range(ROWS)
        )
    )
    (folder / "first.yaml").write_text(FIRST + storage)
    (folder / "fixed.yaml").write_text(FIXED + storage)


def lives(folder: Path, first: int, step: int, most: int) -> int:
    script = Path(__file__).with_name("_replay_lives.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(folder), str(first), str(step), str(most)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["kills"]


def in_sqlite(folder: Path) -> Counter[tuple[int, int]]:
    with sqlite3.connect(folder / "out.db") as database:
        return Counter(database.execute("select id, v from readings").fetchall())


def in_duckdb(folder: Path) -> Counter[tuple[int, int]]:
    import duckdb

    with duckdb.connect(str(folder / "out.duckdb"), read_only=True) as database:
        return Counter(database.execute("select id, v from readings").fetchall())


def in_parquet(folder: Path) -> Counter[tuple[int, int]]:
    paths = [str(path) for path in (folder / "lake").rglob("*.parquet") if "_collectors" not in path.parts]
    table = ds.dataset(paths, format="parquet").to_table(columns=["id", "v"])
    return Counter(zip(table["id"].to_pylist(), table["v"].to_pylist(), strict=True))


EXPECTED = Counter((n, n) for n in range(ROWS) if n not in BROKEN)


def check_letters(folder: Path) -> None:
    box = asyncio.run(look(load(folder / "fixed.yaml")))
    assert sorted(int(letter.raw.split()[1][:-1]) for letter in box.letters) == sorted(BROKEN)
    assert not box.replaying
    assert all(letter.attempt > 1 and letter.origin.startswith("readings:") for letter in box.letters)
    set_aside = len(BROKEN | LATER)
    again = sum(letter.attempt - 1 for letter in box.letters)
    assert box.replayed == set_aside - len(BROKEN) + again


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("storage", "step"),
    [
        (SQLITE, 5),
        pytest.param(PARQUET, 7, marks=pytest.mark.slow),
        pytest.param(SQLITE + PARQUET, 9, marks=pytest.mark.slow),
        pytest.param(DUCKDB, 5, marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_killed_at_any_moment(tmp_path, full, figure, storage, step):
    if "duckdb" in storage:
        pytest.importorskip("duckdb", reason="pip install 'collectors-io[duckdb]'")
    kills = 0
    for first in range(1, step + 1) if full else [1]:
        folder = tmp_path / str(first)
        folder.mkdir()
        make(folder, storage)
        kills += lives(folder, first, step, 60)
        for name, stored in (("sqlite", in_sqlite), ("duckdb", in_duckdb), ("parquet", in_parquet)):
            if name in storage:
                assert stored(folder) == EXPECTED
        check_letters(folder)
        ledgers_agree(folder)
    assert kills > 10
    figure(
        "kill -9 of replays",
        storage=" ".join(re.findall(r"type: (\w+)", storage)),
        kills=kills,
        lost=0,
        doubled=0,
    )


def ledgers_agree(folder: Path) -> None:
    """See that over all runs what was read again is what was set aside, less what is still there."""
    from collectors.runtime.runs import read_runs

    runs = asyncio.run(read_runs(load(folder / "fixed.yaml")))
    assert {run.status for run in runs} <= {"done", "crashed"}
    assert runs[-1].status == "done"
    for place in range(len(runs[0].report["flows"][0]["storage"])):
        edges = [
            flow["storage"][place]
            for run in runs
            for flow in run.report["flows"]
            if len(flow["storage"]) > place
        ]
        for edge in edges:
            assert edge["read"] == edge["stored"] + edge["filtered"] + edge["set_aside"]
        replayed = sum(edge["read"] for edge in edges if "#replay" in edge["flow"])
        assert sum(edge["set_aside"] for edge in edges) - replayed == len(BROKEN)
        assert sum(edge["stored"] for edge in edges) == len(EXPECTED)


@pytest.mark.timeout(300)
def test_one_bad_record_in_many_is_set_aside_alone_and_comes_back(tmp_path, full, figure):
    rows = 1_000_000 if full else 100_000
    chance = random.Random(rows)
    for attempt in range(10 if full else 2):
        bad = chance.randrange(rows)
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with (folder / "in.ndjson").open("w") as file:
            file.writelines(f'{{"id":{n},"v":"{"x" if n == bad else ""}{n}"}}\n' for n in range(rows))
        (folder / "first.yaml").write_text(FIRST.replace(", chunk_size: 2 KiB", "") + SQLITE)
        (folder / "fixed.yaml").write_text(FIXED.replace(", chunk_size: 2 KiB", "") + SQLITE)
        report = run(folder / "first.yaml")
        assert (report.balanced, report.set_aside) == (True, 1)
        config = load(folder / "fixed.yaml")
        (letter,) = asyncio.run(look(config)).letters
        assert json.loads(letter.raw) == {"id": bad, "v": f"x{bad}"}
        again = asyncio.run(Replay(config, [letter.key]).run())
        assert again.balanced
        assert asyncio.run(look(config)).letters == []
        with sqlite3.connect(folder / "out.db") as database:
            found = database.execute(
                "select count(*), count(distinct id), min(id), max(id), sum(v = id) from readings"
            ).fetchone()
        assert found == (rows, rows, 0, rows - 1, rows)
    figure("one bad record in many", rows=rows, rounds=attempt + 1, lost=0, doubled=0)
