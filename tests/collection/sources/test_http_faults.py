"""Whatever happens to the process, the API and the connection: each record is stored, and once."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from _rest_api import Api, rows
from aiohttp import web

from collectors import registry
from collectors.config.load import load
from collectors.runtime.engine import Engine
from collectors.testing.proxy import Proxy

LIVES = Path(__file__).parents[2] / "e2e" / "_lives.py"
FASHIONS = {
    "page": "records: data.items, paging: {type: page}",
    "cursor": "records: items, paging: {type: cursor, param: after, field: meta.next}",
    "link": "paging: {type: link}",
}


def write(folder, port, fashion, more=""):
    """Write a pipeline for one fashion of paging."""
    (folder / "p.yaml").write_text(
        f"""
name: p
sources:
  - type: http
    url: http://127.0.0.1:{port}
    allow_private: true
    timeout: 5s
    incremental: {{cursor: updated_at, param: since}}
    {more}
    endpoints:
      - {{name: things, path: {fashion}, {FASHIONS[fashion]}}}
storage:
  - {{type: sqlite, path: out.db, table: things}}
"""
    )
    return folder / "p.yaml"


def stored(folder, name="out.db"):
    database = sqlite3.connect(folder / name)
    try:
        ids = Counter(n for (n,) in database.execute("select id from things"))
        assert database.execute("select sum(stored) from _collectors_ledger").fetchone() == (ids.total(),)
        return ids
    finally:
        database.close()


def run(folder, **more):
    """Run the pipeline to its end, in a process of its own."""
    command = [sys.executable, "-m", "collectors", "run", "p.yaml", "--json"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False, **more
    )


@pytest.mark.parametrize(
    ("fashion", "first"),
    [
        ("page", 1),
        pytest.param("cursor", 2, marks=pytest.mark.slow),
        pytest.param("link", 3, marks=pytest.mark.slow),
    ],
)
def test_killed_at_each_moment_of_a_commit(tmp_path, fashion, first):
    with Api(rows(range(1, 100)), size=5) as api:
        pipeline = write(tmp_path, api.port, fashion)
        command = [sys.executable, "-W", "ignore", str(LIVES), str(pipeline), str(first), "3", "12"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kills"] == 12
    assert stored(tmp_path) == Counter(range(1, 100))


@pytest.mark.slow
def test_killed_at_requests_while_the_api_gets_more(tmp_path):
    """Kill -9 of the real command, as its n-th request arrives; between its lives there are new records, and late ones."""
    with Api(rows(range(1, 40)), size=5) as api:
        write(tmp_path, api.port, "cursor")
        running = []

        def kill(request, at):
            if next(counter) == at:
                os.kill(running[-1].pid, signal.SIGKILL)

        for at, new in zip(
            (2, 5, 9, 4), (range(40, 50), range(50, 52), range(52, 75), range(75, 76)), strict=True
        ):
            counter = itertools.count(1)
            api.answers["/cursor"] = lambda request, at=at: kill(request, at)
            running.append(
                subprocess.Popen([sys.executable, "-m", "collectors", "run", "p.yaml"], cwd=tmp_path)
            )
            assert running[-1].wait(60) in {-signal.SIGKILL, 0}
            api.records += rows(new)
        assert [process.returncode for process in running].count(-signal.SIGKILL) >= 3
        del api.answers["/cursor"]
        for _ in range(2):
            done = run(tmp_path)
            assert done.returncode == 0, done.stderr
    assert stored(tmp_path) == Counter(range(1, 76))


def go(pipeline, until=None):
    """Run a pipeline here, over failures, with an impatient clock."""

    async def work():
        engine = Engine(load(pipeline))
        running = asyncio.ensure_future(engine.run())
        if until is not None:
            await until()
        return await asyncio.wait_for(running, 60)

    for kind, name in (("source", "http"), ("backend", "sqlite")):
        registry.find(kind, name)
    report = asyncio.run(work())
    assert not report.failed, [str(flow.error) for flow in report.failed]
    assert report.balanced


@pytest.fixture
def impatient(monkeypatch):
    """Let the waits between two tries be short."""
    monkeypatch.setattr("collectors.runtime.retry.FIRST_SECONDS", 0.01)
    monkeypatch.setattr("collectors.runtime.retry.LONGEST_SECONDS", 0.02)


@pytest.mark.parametrize("fashion", FASHIONS)
def test_answers_of_all_kinds(tmp_path, impatient, fashion):
    """Every second request fails, each time in another way; what is asked again is what was not answered."""
    failures = itertools.cycle(
        [
            lambda _: web.Response(status=503, headers={"Retry-After": "0"}),
            lambda _: web.Response(status=429, text="slow down"),
            lambda _: web.Response(status=500, body=b"\xff" * 5000),
            lambda request: request.transport.abort() or web.Response(),
            lambda _: web.Response(body=b'[{"id": 1' if fashion == "link" else b'{"items": [{"id"'),
            lambda _: web.Response(status=408),
            lambda _: web.Response(body=b"x", headers={"Content-Encoding": "gzip"}),
        ]
    )
    turns = itertools.cycle([True, False])
    with Api(rows(range(1, 60)), size=4) as api:
        api.answers[f"/{fashion}"] = lambda request: next(failures)(request) if next(turns) else None
        go(write(tmp_path, api.port, fashion))
        assert len(api.seen) >= 30
    assert stored(tmp_path) == Counter(range(1, 60))


def test_an_api_that_is_restarted(tmp_path, impatient):
    with Api(rows(range(1, 100)), size=2) as first:
        port, records = first.port, first.records
        pipeline = write(tmp_path, port, "cursor")
        reached = asyncio.Event()

        async def restart():
            loop = asyncio.get_running_loop()

            def note(_):
                if len(first.seen) == 9:
                    loop.call_soon_threadsafe(reached.set)

            first.answers["/cursor"] = note
            await asyncio.wait_for(reached.wait(), 30)
            await asyncio.to_thread(first.stop)
            await asyncio.to_thread(second.__enter__)

        second = Api(records, size=2, port=port)
        try:
            go(pipeline, restart)
            assert second.seen
        finally:
            second.stop()
    assert stored(tmp_path) == Counter(range(1, 100))


@pytest.mark.parametrize("moment", ["before", "with", "answered"])
def test_connections_that_are_cut(tmp_path, impatient, moment):
    """Reset while pages are on their way: before the API has the request, at once, and with its answer lost."""
    with Api(rows(range(1, 100)), size=2) as api, Proxy("127.0.0.1", api.port) as proxy:
        pipeline = write(tmp_path, proxy.port, "cursor")
        proxy.cuts(b"GET /cursor", moment, {1, 5, 6, 20, 50})
        go(pipeline)
        assert proxy.cut == 5
    assert stored(tmp_path) == Counter(range(1, 100))


def test_a_storage_that_is_behind_another_after_a_kill(tmp_path):
    """One is locked once it has a page, and the process killed eight pages later: what it lacks is asked for again."""
    with Api(rows(range(1, 100)), size=5) as api:
        pipeline = write(tmp_path, api.port, "cursor")
        with pipeline.open("a") as file:
            file.write("  - {type: sqlite, id: second, path: second.db, table: things}\n")
        lock = sqlite3.connect(tmp_path / "second.db", check_same_thread=False, isolation_level=None)
        running, locked = [], []

        def act(_):
            if not locked and lock.execute("select 1 from sqlite_master where name = 'things'").fetchone():
                lock.execute("begin immediate")
                locked.append(len(api.seen))
            if locked and len(api.seen) == locked[0] + 8:
                os.kill(running[0].pid, signal.SIGKILL)

        api.answers["/cursor"] = act
        running.append(subprocess.Popen([sys.executable, "-m", "collectors", "run", "p.yaml"], cwd=tmp_path))
        assert running[0].wait(60) == -signal.SIGKILL
        lock.execute("rollback")
        lock.close()
        ahead = stored(tmp_path)
        assert stored(tmp_path, "second.db").total() < ahead.total()
        api.seen.clear()
        done = run(tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(api.seen) > 20 - ahead.total() // 5
    assert stored(tmp_path) == Counter(range(1, 100))
    assert stored(tmp_path, "second.db") == Counter(range(1, 100))
