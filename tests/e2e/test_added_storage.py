"""A storage is added to a pipeline file that has run before: whatever its kind, it gets what comes from then on."""

from __future__ import annotations

import json
import sqlite3

import duckdb
import pyarrow.dataset as ds
import pytest

from collectors.runtime.engine import run

PIPELINE = """name: story
sources:
  - {type: file, id: z, path: z.ndjson}
storage:
  - {type: sqlite, path: first.db}
"""
NEW = "is new and begins where the others of source 'z' are; what they have from before is not in it"


def in_sqlite(path):
    with sqlite3.connect(path) as database:
        return [n for (n,) in database.execute("select n from z order by n")]


def in_duckdb(path):
    with duckdb.connect(path, read_only=True) as database:
        return [n for (n,) in database.execute("select n from z order by n").fetchall()]


def in_parquet(path):
    return sorted(ds.dataset(sorted(path.glob("*.parquet"))).to_table()["n"].to_pylist())


ADDED = {
    "sqlite": ("{type: sqlite, id: second, path: second}", in_sqlite),
    "duckdb": ("{type: duckdb, id: second, path: second}", in_duckdb),
    "parquet": ("{type: parquet, id: second, path: second}", in_parquet),
    "stdout": ("{type: stdout, id: second}", None),
}


@pytest.mark.parametrize("came_before", [True, False])
@pytest.mark.parametrize("kind", ADDED)
def test_it_has_what_came_since(tmp_path, capfd, kind, came_before):
    pipeline, file = tmp_path / "p.yaml", tmp_path / "z.ndjson"
    settings, read = ADDED[kind]
    numbers = iter(range(100))

    def go_on(count):
        with file.open("a") as lines:
            lines.writelines(json.dumps({"n": next(numbers)}) + "\n" for _ in range(count))
        report = run(pipeline)
        assert report.status == "done", report.reason
        return report.flows[0].notices

    pipeline.write_text(PIPELINE)
    go_on(3)
    pipeline.write_text(f"{PIPELINE}  - {settings}\n")
    told = [go_on(count) for count in ((2, 0, 1) if came_before else (0, 0, 3))]
    assert told == [[f"storage second {NEW}"], [], []]
    assert in_sqlite(tmp_path / "first.db") == [0, 1, 2, 3, 4, 5]
    printed = [json.loads(line)["n"] for line in capfd.readouterr().out.splitlines()]
    assert (read(tmp_path / "second") if read else printed) == [3, 4, 5]
