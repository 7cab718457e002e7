"""Run as a script by test_replay.py: lives of a replay of all letters, each killed at the next crash point.

The first life is the run that sets records aside, through `first.yaml`; every other one replays through `fixed.yaml`.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from collectors import registry
from collectors.config.load import load
from collectors.errors import ConfigurationError
from collectors.runtime.dead_letters import look
from collectors.runtime.engine import Engine
from collectors.runtime.replay import Replay
from collectors.runtime.state import State
from collectors.storage.sqlite_store import Database

Parquet = registry.find("backend", "parquet")
for kind, name in (("source", "file"), ("codec", "ndjson"), ("backend", "sqlite")):
    registry.find(kind, name)

try:
    DuckDB = registry.find("backend", "duckdb")
except ConfigurationError:  # its library is not installed: no test will ask for it
    DuckDB = Parquet

POINTS: list[tuple[Any, str]] = [
    (Database, "execute"),
    (Database, "executemany"),
    (Parquet, "commit"),
    (Parquet, "flush"),
    *([(DuckDB, "commit"), (DuckDB, "forget_letters")] if DuckDB is not Parquet else []),
    (State, "_open"),
    *[(os, name) for name in ("fsync", "link", "mkdir", "rename", "replace", "unlink")],
]


def arm(kill_at: int) -> None:
    """Patch the points; before or behind one of them, the kill_at-th passage, this process ends."""
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

        setattr(owner, name, wrapped)


def replay(folder: Path) -> None:
    """Replay all letters."""
    config = load(folder / "fixed.yaml")
    box = asyncio.run(look(config))
    report = asyncio.run(Replay(config, [letter.key for letter in box.letters]).run())
    assert not report.failed, report.reason
    assert report.balanced, report.imbalances()


def survives(folder: Path, kill_at: int) -> bool:
    """Fork a life; return whether it came to its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            arm(kill_at)
            replay(folder)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert status == 0, "a life ended with an error, see above"
    return True


def main(folder: Path, first: int, step: int, most: int) -> None:
    """Let lives end at points first, first + step, …, each going on where the last was killed, until one survives."""
    child = os.fork()
    if child == 0:
        report = asyncio.run(Engine(load(folder / "first.yaml")).run())
        os._exit(0 if report.balanced and not report.failed else 1)
    assert os.waitpid(child, 0)[1] == 0
    kills = 0
    while kills < most and not survives(folder, first + kills * step):
        kills += 1
    assert survives(folder, 10**9)
    sys.stdout.write(json.dumps({"kills": kills}))


main(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:5]))
