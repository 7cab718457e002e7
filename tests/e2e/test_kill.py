"""Kill -9 at crash points: whatever the moment, every record is stored once, in every backend, and none is unexplained."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset as ds
import pytest

from collectors import registry
from collectors.testing.deliveries import everything
from collectors.testing.s3_server import S3Server

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
DUCKDB = "  - {type: duckdb, path: out.duckdb, table: readings}\n"
PARQUET = "  - {type: parquet, path: lake, max_rows: 200}\n"


def make(folder: Path, storage: str) -> Path:
    lines = [
        '{"id": broken' if n in BAD else json.dumps({"id": n, "note": "x" * (n % 40)}) for n in range(ROWS)
    ]
    (folder / "in.ndjson").write_text("\n".join(lines) + "\n")
    (folder / "p.yaml").write_text(PIPELINE + storage)
    return folder / "p.yaml"


EXPECTED = Counter(n for n in range(ROWS) if n not in BAD and n % 10 != 0)


QUESTIONS = (
    "select id from readings",
    "select count(*) from _collectors_dead_letters",
    "select sum(read), sum(added), sum(stored), sum(filtered), sum(set_aside) from _collectors_ledger",
)


def check_database(database) -> None:
    ids, letters, ledger = (database.execute(question).fetchall() for question in QUESTIONS)
    database.close()
    assert Counter(row[0] for row in ids) == EXPECTED
    assert letters == [(len(BAD),)]
    assert ledger == [(ROWS, 0, len(EXPECTED), ROWS - len(EXPECTED) - len(BAD), len(BAD))]


def in_parquet(folder: Path) -> Counter[int]:
    paths = [str(path) for path in (folder / "lake").rglob("*.parquet") if "_collectors" not in path.parts]
    return Counter(ds.dataset(paths, format="parquet").to_table(columns=["id"])["id"].to_pylist())


def in_duckdb(folder: Path) -> Counter[int]:
    with duckdb.connect(folder / "out.duckdb", read_only=True) as database:
        return Counter(n for (n,) in database.execute("select id from readings").fetchall())


async def check_objects(settings) -> None:
    backend = registry.create("backend", "object_store", settings)
    await backend.connect()
    rows = await backend.query(everything())
    letters = await backend.call(lambda: list(backend.dead_letters("readings")))
    await backend.disconnect()
    assert Counter(row["id"] for row in rows) == EXPECTED
    assert len(letters) == len({letter.letter_id for letter in letters}) == len(BAD)


def begins(end: int) -> list[Any]:
    """Return the points at which a test begins to kill; together they are all points, the first goes along always."""
    return [1, *(pytest.param(first, marks=pytest.mark.slow) for first in range(2, end))]


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


@pytest.mark.parametrize("first", begins(6))
def test_sqlite(tmp_path, first):
    assert lives(make(tmp_path, SQLITE), first, 5, 40) > 10
    check_database(sqlite3.connect(tmp_path / "out.db"))


@pytest.mark.parametrize("first", begins(4))
def test_duckdb(tmp_path, first):
    assert lives(make(tmp_path, DUCKDB), first, 7, 40) > 10
    check_database(duckdb.connect(tmp_path / "out.duckdb", read_only=True))


@pytest.mark.parametrize("first", begins(4))
def test_parquet(tmp_path, first):
    assert lives(make(tmp_path, PARQUET), first, 3, 40) > 10
    assert in_parquet(tmp_path) == EXPECTED


@pytest.fixture(scope="module")
def s3_server():
    with S3Server() as server:
        yield server


@pytest.mark.parametrize("first", begins(4))
@pytest.mark.parametrize("where", [pytest.param("s3", marks=pytest.mark.slow), "file"])
def test_object_store(tmp_path, s3_server, where, first):
    """Killed before and behind each request; what is stored, what was set aside and how far it is are all in the store."""
    settings = s3_server.settings(f"{where}-{first}") if where == "s3" else {"url": f"file://{tmp_path}/lake"}
    storage = {"type": "object_store", "max_rows": 200, **settings}
    assert lives(make(tmp_path, f"  - {json.dumps(storage)}\n"), first, 3, 40) > 10
    asyncio.run(check_objects(settings))


@pytest.mark.parametrize("first", begins(4))
def test_both_at_once(tmp_path, first):
    assert lives(make(tmp_path, SQLITE + PARQUET), first, 4, 60) > 10
    check_database(sqlite3.connect(tmp_path / "out.db"))
    assert in_parquet(tmp_path) == EXPECTED


@pytest.mark.parametrize("added", [PARQUET, pytest.param(DUCKDB, marks=pytest.mark.slow)])
def test_one_that_is_added_later(tmp_path, added):
    """Killed at one point after another while it begins; it has all that has come since, once, and nothing of before."""
    pipeline = make(tmp_path, SQLITE)
    lines = (tmp_path / "in.ndjson").read_text().splitlines(keepends=True)
    (tmp_path / "in.ndjson").write_text("".join(lines[:300]))
    assert lives(pipeline, 10**9, 1, 1) == 0
    pipeline.write_text(PIPELINE + SQLITE + added)
    assert lives(pipeline, 80, 2, 45) > 20
    with (tmp_path / "in.ndjson").open("a") as file:
        file.writelines(lines[300:])
    assert lives(pipeline, 10**9, 1, 1) == 0
    check_database(sqlite3.connect(tmp_path / "out.db"))
    ids = in_parquet(tmp_path) if added == PARQUET else in_duckdb(tmp_path)
    assert ids == Counter({n: 1 for n in EXPECTED if n >= 300})
