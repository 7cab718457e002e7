"""Run as a script: lives of one pipeline that reads a broker, each killed at the next crash point, until one has it all.

As tests/e2e/_lives.py does it, for sources that never end: a life ends when so many rows are stored. A crash point is
the moment before or behind a call that changes something: in the storage, on the disk, at the broker.

    _broker_lives.py PIPELINE ROWS FIRST STEP MOST
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
import signal
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from collectors import registry
from collectors.config.load import load
from collectors.runtime import flow
from collectors.runtime.engine import Engine
from collectors.storage.sqlite_store import Database

LIFE_SECONDS = 30.0
POINTS: list[tuple[Any, str]] = [
    (Database, "execute"),
    (Database, "executemany"),
    *[(os, name) for name in ("writev", "fdatasync", "fsync", "unlink")],
]
flow.DEATHS = 10**9  # these deaths are ours: no record is to be looked for, in processes of their own


def broker_points(kind: str) -> list[tuple[Any, str]]:
    """Return the calls of a source that change something at its broker."""
    registry.find("source", kind)
    clients = {"nats": "collectors.nats_client", "redis": "collectors.collection.sources._redis_connection"}
    if kind not in clients:  # it only reads
        return []
    module = sys.modules[clients[kind]]
    return [
        (module.Connection, name)
        for name in ("publish", "request", "call")
        if hasattr(module.Connection, name)
    ]


def arm(points: list[tuple[Any, str]], kill_at: int) -> list[int]:
    """Patch the points; the kill_at-th passage is the last thing this process does."""
    passed = [0]

    def point() -> None:
        passed[0] += 1
        if passed[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def patched(original: Any) -> Any:
        @functools.wraps(original)
        def plain(*args: Any, **kwargs: Any) -> Any:
            point()
            result = original(*args, **kwargs)
            point()
            return result

        @functools.wraps(original)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            point()
            result = await original(*args, **kwargs)
            point()
            return result

        return awaited if inspect.iscoroutinefunction(original) else plain

    for owner, name in points:
        setattr(owner, name, patched(getattr(owner, name)))
    return passed


async def run(pipeline: Path, rows: int) -> dict[str, Any]:
    """Run until so many rows are stored."""
    engine = Engine(load(pipeline))
    running = asyncio.ensure_future(engine.run())
    async with asyncio.timeout(LIFE_SECONDS):
        while count(pipeline.parent / "out.db") < rows and not running.done():
            await asyncio.sleep(0.02)
    await asyncio.wait({running}, timeout=0.3)  # what is stored twice comes behind what is stored once
    engine.stop()
    report = await running
    return {"balanced": report.balanced, "errors": [str(flow.error) for flow in report.failed]}


def count(path: Path) -> int:
    with suppress(sqlite3.Error):
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return int(database.execute("select count(distinct id) from numbers").fetchone()[0])
        finally:
            database.close()
    return 0


def live(pipeline: Path, rows: int, points: list[tuple[Any, str]], kill_at: int) -> int | None:
    """Fork a life; return None when it was killed, else how many points it passed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        passed = arm(points, kill_at)
        done = asyncio.run(run(pipeline, rows))
        os.write(writing, json.dumps(done | {"passed": passed[0]}).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        told = file.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    assert told, "a life ended with an error, see above"
    result = json.loads(told)
    assert result["balanced"], result
    assert not result["errors"], result
    return int(result["passed"])


def main(pipeline: Path, rows: int, first: int, step: int, most: int) -> None:
    """Let lives end at points first, first + step, …, each one going on where the last was killed."""
    kind = yaml.safe_load(pipeline.read_text())["sources"][0]["type"]
    points = [*POINTS, *broker_points(kind)]
    kills = 0
    while kills < most:
        if live(pipeline, rows, points, first + kills * step) is not None:
            break
        kills += 1
    assert live(pipeline, rows, points, 10**9) is not None
    sys.stdout.write(json.dumps({"kills": kills}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:6]))
