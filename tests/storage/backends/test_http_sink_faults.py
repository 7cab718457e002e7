"""Whatever happens to the process, the API and the connection: each row arrives, and with an API that knows keys, once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from _sink_api import Kept, Seen, SinkApi
from aiohttp import web

from collectors import registry
from collectors.config.load import load
from collectors.runtime.engine import Engine
from collectors.testing.proxy import Proxy

LIVES = Path(__file__).parents[2] / "e2e" / "_lives.py"
ROWS = 400


def lines(first: int, last: int) -> str:
    return "".join(f'{{"n": {n}, "text": "{n * 7}"}}\n' for n in range(first, last))


def pipeline(folder: Path, port: int, rows: int = ROWS, **more: Any) -> Path:
    """Write a pipeline with small chunks and requests, that neither divide each other."""
    (folder / "in.ndjson").write_text(lines(0, rows))
    storage = {
        "type": "http",
        "url": f"http://127.0.0.1:{port}/rows",
        "allow_private": True,
        "timeout": "5s",
        "max_rows": 7,
        **more,
    }
    source = {"type": "file", "id": "numbers", "path": "in.ndjson", "chunk_size": "300"}
    (folder / "p.yaml").write_text(json.dumps({"name": "p", "sources": [source], "storage": [storage]}))
    return folder / "p.yaml"


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "collectors", "run", "p.yaml", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["balanced"]


def stored(folder: Path, name: str = "n") -> Counter[int]:
    """Return what the state file says is stored, as numbers from the front."""
    import sqlite3

    database = sqlite3.connect(folder / ".collectors" / "p" / "state.db")
    try:
        return Counter(range(database.execute("select sum(stored) from _collectors_ledger").fetchone()[0]))
    finally:
        database.close()


class Killer:
    """Kills the process that is watched once the n-th request has come: before its rows are kept, or behind that."""

    def __init__(self, api: SinkApi) -> None:
        self.at = 0
        self.process: subprocess.Popen[str] | None = None
        self._ready = threading.Event()
        self._api = api

    def watch(self, process: subprocess.Popen[str], at: int) -> None:
        self.process, self.at = process, len(self._api.seen) + at
        self._ready.set()

    def __call__(self, seen: Seen) -> web.Response | None:
        if self.at and len(self._api.seen) >= self.at and self.process is not None:
            self.at = 0
            os.kill(self.process.pid, signal.SIGKILL)
        return None


@pytest.mark.parametrize("concurrency", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("honours", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_killed_as_requests_come(tmp_path: Path, honours: bool, concurrency: int) -> None:
    """Kill -9 of the real command; between its lives the file grows, so that deliveries end elsewhere."""
    with SinkApi(honours=honours) as api:
        pipeline(tmp_path, api.port, concurrency=concurrency)
        killer = Killer(api)
        rows = ROWS
        for moment, at in (("before", 5), ("behind", 9), ("behind", 1), ("before", 30)):
            api.before = api.behind = lambda _: None
            setattr(api, moment, killer)
            killer.at = len(api.seen) + at
            process = start(tmp_path)
            killer.process = process
            process.communicate(timeout=60)
            assert process.returncode == -signal.SIGKILL
            with (tmp_path / "in.ndjson").open("a") as file:
                file.write(lines(rows, rows + 30))
            rows += 30
        api.before = api.behind = lambda _: None
        finish(start(tmp_path))
        assert set(api.kept.counted()) == set(range(rows))
        if honours:
            assert api.kept.counted() == Counter(range(rows))
            assert api.kept.repeated > 0
        assert stored(tmp_path) == Counter(range(rows))


@pytest.mark.parametrize(
    "first", [5, pytest.param(9, marks=pytest.mark.slow), pytest.param(17, marks=pytest.mark.slow)]
)
def test_killed_at_one_crash_point_after_another(tmp_path: Path, first: int) -> None:
    """Before and behind the calls with which the state file commits."""
    with SinkApi(honours=True) as api:
        path = pipeline(tmp_path, api.port)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(LIVES), str(path), str(first), "7", "12"],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["kills"] >= 5
        assert api.kept.counted() == Counter(range(ROWS))


def go(path: Path, until: Callable[[], Any] | None = None) -> None:
    """Run a pipeline here, over failures, with an impatient clock."""

    async def work() -> Any:
        engine = Engine(load(path))
        running = asyncio.ensure_future(engine.run())
        if until is not None:
            await until()
        return await asyncio.wait_for(running, 60)

    for kind, name in (("source", "file"), ("backend", "http")):
        registry.find(kind, name)  # type: ignore[arg-type]
    report = asyncio.run(work())
    assert not report.failed, [str(flow.error) for flow in report.failed]
    assert report.balanced


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the waits between two tries be short."""
    monkeypatch.setattr("collectors.runtime.retry.FIRST_SECONDS", 0.01)
    monkeypatch.setattr("collectors.runtime.retry.LONGEST_SECONDS", 0.02)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_api_that_is_restarted_under_load(tmp_path: Path, concurrency: int) -> None:
    kept = Kept()

    async def restarts() -> None:
        for number in range(3):
            api = apis[-1]
            goal = len(api.seen) + 8
            async with asyncio.timeout(30):
                while len(api.seen) < goal:
                    await asyncio.sleep(0.005)
            await asyncio.to_thread(api.stop)
            apis.append(SinkApi(kept, port=apis[0].port, honours=True))
            await asyncio.to_thread(apis[-1].__enter__)
            assert number < 3

    apis = [SinkApi(kept, honours=True)]
    apis[0].__enter__()
    try:
        go(pipeline(tmp_path, apis[0].port, 1500, concurrency=concurrency), restarts)
    finally:
        apis[-1].stop()
    assert kept.counted() == Counter(range(1500))


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("moment", ["before", "with", "answered"])
def test_connections_that_are_cut(tmp_path: Path, moment: Any) -> None:
    """Reset before the API has a request, at once, and with its answer lost."""
    with SinkApi(honours=True) as api, Proxy("127.0.0.1", api.port) as proxy:
        proxy.cuts(b"POST /rows", moment, {1, 5, 6, 20, 50})
        go(pipeline(tmp_path, proxy.port))
        assert proxy.cut == 5
        assert api.kept.counted() == Counter(range(ROWS))
        if moment == "answered":
            assert api.kept.repeated == 5


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("concurrency", [1, 3])
def test_answers_of_all_kinds(tmp_path: Path, concurrency: int) -> None:
    """Every second request fails, each time in another way, before or behind the rows are kept; bad rows are set aside."""
    failures = cycle(
        [
            lambda _: web.Response(status=503, headers={"Retry-After": "0"}),
            lambda _: web.Response(status=429, text="slow down"),
            lambda _: web.Response(status=500, body=b"\xff" * 5000),
            lambda _: web.Response(status=409),
        ]
    )
    turns = cycle([True, False, False])
    with SinkApi(honours=True, refuses=lambda row: row["n"] % 97 == 13) as api:
        api.before = lambda seen: next(failures)(seen) if next(turns) else None
        api.behind = lambda seen: next(failures)(seen) if next(turns) else None
        go(pipeline(tmp_path, api.port, concurrency=concurrency))
        good = [n for n in range(ROWS) if n % 97 != 13]
        assert api.kept.counted() == Counter(good)
        assert stored(tmp_path).total() == len(good)
