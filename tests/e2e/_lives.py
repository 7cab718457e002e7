"""Run as a script by test_kill.py: lives of one pipeline, each killed at the next crash point, until one survives.

Everything is imported once, then each life is a fork, so that a life costs little more than its work. A crash point is
the moment before or behind one of the calls in POINTS.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import obstore

from collectors import registry
from collectors.config.load import load
from collectors.runtime import flow
from collectors.runtime.engine import Engine
from collectors.runtime.state import State
from collectors.storage.sqlite_store import Database

Sqlite = registry.find("backend", "sqlite")
Parquet = registry.find("backend", "parquet")
Postgres = registry.find("backend", "postgres")
Duckdb = registry.find("backend", "duckdb")
registry.find("backend", "object_store")
for kind in ("source", "codec"):
    registry.find(kind, {"source": "file", "codec": "ndjson"}[kind])

POINTS: list[tuple[Any, str]] = [
    (Database, "execute"),
    (Database, "executemany"),
    (Parquet, "commit"),
    (Parquet, "flush"),
    (State, "_open"),
    (sys.modules[Postgres.__module__].Connection, "wait"),
    *[(sys.modules[Duckdb.__module__].Connection, name) for name in ("execute", "insert", "close")],
    *[(obstore, name) for name in ("put", "get", "get_range", "list", "delete")],
    *[
        (os, name)
        for name in ("writev", "fdatasync", "fsync", "link", "mkdir", "rename", "replace", "unlink")
    ],
]

BROKERS = {
    "kafka": ("_kafka_sending", "Sender", ("send", "take_over", "begin", "commit")),
    "nats": ("_nats_publishing", "Connection", ("publish", "request")),
}
"""Storages whose libraries are imported only for pipelines that need them: module, class, and its calls."""

flow.DEATHS = 10**9  # these deaths are ours: no record is to be looked for, in processes of their own


def arm(kill_at: int) -> list[int]:
    """Patch the points; the kill_at-th passage is the last thing this process does."""
    passed = [0]

    def point() -> None:
        passed[0] += 1
        if passed[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    for owner, name in POINTS:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
            point()
            result = _original(*args, **kwargs)
            point()
            return result

        @functools.wraps(original)
        async def awaited(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
            point()
            result = await _original(*args, **kwargs)
            point()
            return result

        setattr(owner, name, awaited if inspect.iscoroutinefunction(original) else wrapped)
    return passed


def add_brokers(pipeline: Path) -> None:
    """Make the calls of the brokers' storages that this pipeline has points, too."""
    for kind, (module, owner, names) in BROKERS.items():
        if f"type: {kind}" in pipeline.read_text():
            registry.find("backend", kind)
            cls = getattr(sys.modules[f"collectors.storage.backends.{module}"], owner)
            POINTS.extend((cls, name) for name in names)


def live(pipeline: Path, kill_at: int) -> int | None:
    """Fork a life; return None when it was killed, else how many points it passed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        passed = arm(kill_at)
        report = asyncio.run(Engine(load(pipeline)).run())
        done = {
            "passed": passed[0],
            "balanced": report.balanced,
            "errors": [str(flow.error) for flow in report.failed],
        }
        os.write(writing, json.dumps(done).encode())
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


def main(pipeline: Path, first: int, step: int, most: int) -> None:
    """Let lives end at points first, first + step, …, each one going on where the last was killed, until one survives."""
    add_brokers(pipeline)
    kills = 0
    while kills < most:
        if live(pipeline, first + kills * step) is not None:
            break
        kills += 1
    assert live(pipeline, 10**9) is not None
    sys.stdout.write(json.dumps({"kills": kills}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:5]))
