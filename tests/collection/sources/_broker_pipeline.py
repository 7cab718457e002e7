"""A pipeline from a broker into SQLite, in processes that die, and what it has stored."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

LIVES = Path(__file__).with_name("_broker_lives.py")


def lives(pipeline, rows, *, first, step, most):
    """Kill one life after the other at crash points until one has stored all rows; return how many were killed."""
    arguments = [pipeline, *map(str, (rows, first, step, most))]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", LIVES, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["kills"]


def stored(folder):
    with sqlite3.connect(folder / "out.db") as database:
        found = Counter(row[0] for row in database.execute("select id from numbers"))
        read, kept = database.execute("select sum(read), sum(stored) from _collectors_ledger").fetchone()
    database.close()
    assert read == kept == found.total()
    return found


class Pipeline:
    """The command line in a process of its own."""

    def __init__(self, path):
        self.path = path
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        with (self.path.parent / "errors").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "collectors", "run", self.path.name],
                cwd=self.path.parent,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def dies_and_lives(self):
        self.kill()
        self.start()

    def ends(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=30) == 0, (self.path.parent / "errors").read_text()

    def count(self):
        with suppress(sqlite3.Error):
            database = sqlite3.connect(f"file:{self.path.parent / 'out.db'}?mode=ro", uri=True)
            try:
                return database.execute("select count(distinct id) from numbers").fetchone()[0]
            finally:
                database.close()
        return 0

    def reaches(self, count, within=40.0):
        end = time.monotonic() + within
        while self.count() < count:
            assert self.process.poll() is None, (self.path.parent / "errors").read_text()
            assert time.monotonic() < end, (self.count(), count, (self.path.parent / "errors").read_text())
            time.sleep(0.05)
