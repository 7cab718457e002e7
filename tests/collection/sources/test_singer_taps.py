"""Real Singer taps, as the package index has them: what they have is stored, after a kill and in later runs too."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

PATIENCE = 90.0


def tap(name):
    """Return where a tap is; it lies beside Python when it came with the test group."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"there is no {name}; install it: pip install --group test")
    return found


def write_pipeline(folder, source):
    source = {"type": "singer", "id": "tap", "chunk_size": "32 KiB", **source}
    storage = {"type": "sqlite", "path": "out.db", "table": "rows"}
    (folder / "p.yaml").write_text(json.dumps({"name": "p", "sources": [source], "storage": [storage]}))


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "collectors", "run", "p.yaml", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder):
    process = start(folder)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    report = json.loads(out.splitlines()[-1])
    assert report["balanced"]
    return report["flows"][0]


def kill_behind(folder, rows):
    """Run it until so many rows are stored, and kill it."""
    process = start(folder)
    deadline = time.monotonic() + PATIENCE
    while len(query(folder, "select 1 from rows")) < rows:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it does not get there"
        time.sleep(0.02)
    process.kill()
    process.communicate()


def query(folder, sql):
    if not (folder / "out.db").exists():
        return []
    with (
        closing(sqlite3.connect(folder / "out.db", timeout=5)) as database,
        suppress(sqlite3.OperationalError),
    ):
        return database.execute(sql).fetchall()
    return []


def test_tap_jsonl(tmp_path):
    """A tap of files, unsorted: what it gives once more after a kill may come twice, in a later run only what changed."""
    rows = [{"id": n, "name": f"u{n}", "big": 2**60 + n, "half": n / 2} for n in range(12_000)]
    data = tmp_path / "users.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[:10]))
    config = {"path": str(data), "stream_name": "users", "primary_keys": ["id"]}
    source = {"command": [tap("tap-jsonl")], "tap_config": config, "streams": ["users"], "log_level": "info"}
    write_pipeline(tmp_path, source)
    report = run(tmp_path)
    assert report["storage"][0]["stored"] == 10
    assert [line for line in report["notices"] if "Beginning sync of 'users'" in line]
    assert run(tmp_path)["storage"][0]["stored"] == 0  # it gives all of them again, as they were
    (stored,) = query(tmp_path, "select id, name, big, half, _sdc_last_modified from rows where id = 7")
    assert stored[:4] == tuple(rows[7].values())
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kill_behind(tmp_path, 1000)
    assert len(query(tmp_path, "select 1 from rows")) < 12_010
    run(tmp_path)
    found = Counter(n for (n,) in query(tmp_path, "select id from rows"))
    assert set(found) == set(range(12_000))


@pytest.mark.slow
def test_tap_postgres(tmp_path, postgres_server):
    """A tap of a database, in the order of a key: each row once, after a kill and in later runs, with all its digits."""
    count = 12_000
    with psycopg.connect(postgres_server.dsn, autocommit=True) as database:
        database.execute("drop table if exists orders")
        database.execute(
            "create table orders (id bigint primary key, price numeric(14, 4), at timestamptz, note text)"
        )
        insert = """insert into orders select n, n * 1.1001, timestamptz '2026-01-01 00:00Z' + n * interval '1 s',
            repeat('x', n %% 50) from generate_series(%s::int, %s::int) n"""
        database.execute(insert, [1, count])
        place = postgres_server.dsn.rpartition("@")[2]
        source = {
            "command": [tap("tap-postgres")],
            "tap_config": {"sqlalchemy_url": f"postgresql://postgres:hush@{place}"},
            "discover": True,
            "streams": {"public-orders": {"replication-method": "INCREMENTAL", "replication-key": "id"}},
            "columns": {"price": "decimal(14, 4)", "at": "timestamp"},
        }
        write_pipeline(tmp_path, source)
        kill_behind(tmp_path, 3000)
        assert 0 < len(query(tmp_path, "select 1 from rows")) < count
        run(tmp_path)
        found = query(tmp_path, "select id, price, note from rows order by id")
        assert [row[0] for row in found] == list(range(1, count + 1))
        assert all(Decimal(str(price)) == n * Decimal("1.1001") for n, price, _ in found)
        assert all(len(note) == n % 50 for n, _, note in found)
        database.execute(insert, [count + 1, count + 20])
        assert run(tmp_path)["storage"][0]["stored"] == 20
        (row,) = query(tmp_path, f"select at from rows where id = {count + 20}")
        assert row == ("2026-01-01T03:20:20.000000Z",)
        assert len(query(tmp_path, "select 1 from rows")) == count + 20
        database.execute("drop table orders")
