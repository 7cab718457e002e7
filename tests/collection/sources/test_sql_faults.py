"""Faults while a pipeline reads a database into SQLite: every row is stored once all the same.

The pipeline is a process of its own: it is killed by SIGKILL at moments spread over its work, and started again.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from collectors.testing.postgres_server import PostgresServer
from collectors.testing.proxy import Proxy

ROWS = 3000
LIVES = Path(__file__).parents[2] / "e2e" / "_lives.py"
PATIENCE = 60.0
PIPELINE = """
name: copy
sources:
  - {{type: sql, id: rows, url: "{url}", table: {table}, chunk_size: 2 KiB, timeout: 20s, {by}}}
storage:
  - {{type: sqlite, path: out.db, table: rows}}
"""
BY = {"full": "key: id", "incremental": "cursor: n, key: id"}


class Rows:
    """A table on a server or in a file; rows have an id, and a number that grows and is not unique."""

    def __init__(self, url, connect, mark):
        self.url, self.connect, self.mark = url, connect, mark
        self.table = f"r{uuid4().hex}"
        with closing(connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(
                f"create table {self.table} (id integer primary key, n integer not null, note varchar(99))"
            )
            connection.commit()

    def add(self, first, count):
        """Add rows in one transaction; some are equal in their cursor."""
        with closing(self.connect()) as connection:
            connection.cursor().executemany(
                f"insert into {self.table} values ({self.mark}, {self.mark}, {self.mark})",
                [(n, n // 7, "x" * (n % 50)) for n in range(first, first + count)],
            )
            connection.commit()


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def rows(request, tmp_path):
    if request.param == "sqlite":
        path = tmp_path / "in.db"
        return Rows(f"sqlite:///{path}", lambda: sqlite3.connect(path, timeout=30), "?")
    if request.param == "postgres":
        server = request.getfixturevalue("postgres_server")
        return Rows(server.dsn, lambda: psycopg.connect(server.dsn), "%s")
    server = request.getfixturevalue("mariadb_server")
    return Rows(server.url, lambda: server.connect(autocommit=False), "%s")


def write_pipeline(folder, url, table, by):
    (folder / "p.yaml").write_text(PIPELINE.format(url=url, table=table, by=by))


def start(folder):
    with (folder / "errors").open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "collectors", "run", "p.yaml"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=os.environ,
        )


def stored(folder):
    """Return how often each id is stored."""
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{folder}/out.db?mode=ro", uri=True, timeout=30)) as database,
    ):
        return Counter(n for (n,) in database.execute("select id from rows"))
    return Counter()


def wait_until(reached, process, folder):
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end, (folder / "errors").read_text()[-2000:]
        if process.poll() is not None:
            assert process.returncode == 0, (folder / "errors").read_text()[-2000:]
            break
        time.sleep(0.02)


def lives(folder, first):
    """Run the pipeline in processes that are killed one crash point after the other; return how many were."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(LIVES), str(folder / "p.yaml"), str(first), "11", "4"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["kills"]


@pytest.mark.parametrize("by", BY)
def test_kill_at_crash_points(rows, tmp_path, by):
    """Before and behind calls of the storage, in the first pass and when there is more."""
    write_pipeline(tmp_path, rows.url, rows.table, BY[by])
    rows.add(0, 400)
    kills = lives(tmp_path, 20)
    rows.add(400, 200)
    kills += lives(tmp_path, 24)
    assert kills > 4
    assert stored(tmp_path) == Counter(range(600))


def test_kill_while_reading(tmp_path, postgres_server):
    """At any moment, by SIGKILL from outside, while others write."""
    rows = Rows(postgres_server.dsn, lambda: psycopg.connect(postgres_server.dsn), "%s")
    write_pipeline(tmp_path, rows.url, rows.table, BY["incremental"] + ", every: 20ms")
    dice = random.Random(1)
    with writing(rows.add, 0) as written:
        for _ in range(4):
            process = start(tmp_path)
            goal = stored(tmp_path).total() + dice.randrange(1, 300)
            wait_until(lambda goal=goal: stored(tmp_path).total() >= goal, process, tmp_path)
            process.kill()
            assert process.wait() != 0
    write_pipeline(tmp_path, rows.url, rows.table, BY["incremental"])
    assert start(tmp_path).wait(PATIENCE) == 0
    assert stored(tmp_path) == Counter(range(written[-1]))


def test_a_pass_without_a_key(rows, tmp_path):
    """Goes through the spool; what is stored is a whole snapshot, each row once."""
    rows.add(0, ROWS)
    write_pipeline(tmp_path, rows.url, rows.table, "columns: [id, note]")
    assert start(tmp_path).wait(PATIENCE) == 0, (tmp_path / "errors").read_text()[-2000:]
    assert stored(tmp_path) == Counter(range(ROWS))


@contextmanager
def writing(add, first):
    """Have rows added, a few at a time, as long as the block takes; yields a list whose end is the number of the next one."""
    stop, written = threading.Event(), [first]

    def write():
        while not stop.wait(0.02):
            with suppress(psycopg.Error):
                add(written[-1], 20)
                written.append(written[-1] + 20)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        stop.set()
        thread.join()


def test_restart_of_the_server_under_load(tmp_path):
    """PostgreSQL dies twice while rows are written and read, and comes back."""
    with PostgresServer() as server:
        rows = Rows(server.dsn, lambda: psycopg.connect(server.dsn), "%s")
        write_pipeline(tmp_path, server.dsn, rows.table, BY["incremental"] + ", every: 50ms")
        process = start(tmp_path)
        try:
            with writing(rows.add, 0) as written:
                for goal in (200, 600):
                    wait_until(lambda goal=goal: stored(tmp_path).total() >= goal, process, tmp_path)
                    server.kill()
                    server.start()
                wait_until(lambda: stored(tmp_path).total() >= 1000, process, tmp_path)
            with psycopg.connect(server.dsn) as connection:
                ids = {n for (n,) in connection.execute(f"select id from {rows.table}")}
            assert len(ids) >= written[-1]
            wait_until(lambda: stored(tmp_path).total() >= len(ids), process, tmp_path)
        finally:
            process.terminate()
            process.wait(PATIENCE)
        assert stored(tmp_path) == Counter(ids)


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
@pytest.mark.parametrize(
    "fault",
    [pytest.param("drops", marks=pytest.mark.slow), pytest.param("refuses", marks=pytest.mark.slow), "cuts"],
)
def test_a_cut_connection(request, tmp_path, kind, fault):
    """The connection is reset several times in the middle of a result; a proxy between does it."""
    if kind == "postgres":
        server = request.getfixturevalue("postgres_server")
        rows = Rows(server.dsn, lambda: psycopg.connect(server.dsn), "%s")
    else:
        server = request.getfixturevalue("mariadb_server")
        rows = Rows(server.url, lambda: server.connect(autocommit=False), "%s")
    rows.add(0, ROWS)
    with Proxy("127.0.0.1", server.port) as proxy:
        proxy.slows_to(40_000)
        if fault == "cuts":
            proxy.cuts(b"FETCH" if kind == "postgres" else b"select", "answered", {2, 5, 9})
        write_pipeline(tmp_path, rows.url.replace(str(server.port), str(proxy.port)), rows.table, BY["full"])
        process = start(tmp_path)
        for goal in (1, 1000):
            wait_until(lambda goal=goal: stored(tmp_path).total() >= goal, process, tmp_path)
            if fault == "refuses":
                proxy.refuses()
                proxy.slows_to(40_000)
            elif fault == "drops":
                proxy.drops()
        assert process.wait(PATIENCE) == 0, (tmp_path / "errors").read_text()[-2000:]
        assert proxy.connections > 1
    assert stored(tmp_path) == Counter(range(ROWS))


def test_a_server_that_says_nothing(tmp_path, postgres_server):
    """It is given up after `timeout`, and read again when it answers."""
    rows = Rows(postgres_server.dsn, lambda: psycopg.connect(postgres_server.dsn), "%s")
    rows.add(0, 500)
    with Proxy("127.0.0.1", postgres_server.port) as proxy:
        url = rows.url.replace(str(postgres_server.port), str(proxy.port))
        write_pipeline(tmp_path, url, rows.table, BY["full"] + ", every: 50ms")
        (tmp_path / "p.yaml").write_text((tmp_path / "p.yaml").read_text().replace("20s", "1s"))
        process = start(tmp_path)
        try:
            wait_until(lambda: stored(tmp_path).total() >= 500, process, tmp_path)
            proxy.hangs()
            rows.add(500, 100)
            seen = proxy.connections
            wait_until(lambda: proxy.connections > seen, process, tmp_path)
            proxy.passes()
            wait_until(lambda: stored(tmp_path).total() >= 600, process, tmp_path)
        finally:
            process.terminate()
            process.wait(PATIENCE)
    assert stored(tmp_path) == Counter(range(600))
