"""Run as a script by test_mqtt_faults.py: lives of a pipeline that reads MQTT, each killed at the next crash point.

Everything is imported once, then each life is a fork. A crash point is the moment before or behind one of the calls in
POINTS. A life that is not killed ends when as many rows are stored as it is told, and nothing more is under way.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from collectors import registry
from collectors.collection.sources._mqtt_connection import Connection
from collectors.config.load import load
from collectors.runtime import flow
from collectors.runtime.engine import Engine
from collectors.runtime.spool import Spool

for kind, name in (("source", "mqtt"), ("backend", "sqlite"), ("codec", "ndjson")):
    registry.find(kind, name)

POINTS = [(Connection, "send"), (Spool, "append"), (os, "fdatasync"), (os, "fsync"), (os, "replace")]
flow.DEATHS = 10**9  # these deaths are ours: no record is to be looked for, in processes of their own


def arm(kill_at):
    """Patch the points; the kill_at-th passage is the last thing this process does."""
    passed = 0

    def point():
        nonlocal passed
        passed += 1
        if passed == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    for owner, name in POINTS:
        original = getattr(owner, name)

        @functools.wraps(original)
        def wrapped(*args, _original=original, **kwargs):
            point()
            result = _original(*args, **kwargs)
            point()
            return result

        setattr(owner, name, wrapped)


def rows(folder):
    if not (folder / "out.db").exists():
        return 0
    try:
        with closing(sqlite3.connect(f"{(folder / 'out.db').as_uri()}?mode=ro", uri=True)) as database:
            return database.execute("select count(distinct id) from readings").fetchone()[0]
    except sqlite3.OperationalError:  # there is no table yet
        return 0


async def run(pipeline, wanted):
    engine = Engine(load(pipeline))
    running = asyncio.ensure_future(engine.run())
    while rows(pipeline.parent) < wanted and not running.done():
        await asyncio.wait([running], timeout=0.03)
    engine.stop()
    report = await running
    assert report.balanced
    assert not report.failed, [str(each.error) for each in report.failed]


def live(pipeline, wanted, kill_at):
    """Fork a life; return whether it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            arm(kill_at)
            asyncio.run(run(pipeline, wanted))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert status == 0, "a life ended with an error, see above"
    return False


def main(pipeline, wanted, first, step, most):
    kills = 0
    while kills < most and live(pipeline, wanted, first + kills * step):
        kills += 1
    assert not live(pipeline, wanted, 10**9)
    sys.stdout.write(str(kills))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:6]))
