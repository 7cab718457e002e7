"""`collectors compact` on a folder of Parquet files, killed at every call and cut off its power behind every call.

Who reads by the log sees each row once at any moment. Who takes every file of the folder sees each at least once, and
once when a pipeline or another compaction has started since.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from _images import Disk, read_journal
from msgspec.structs import replace

from collectors.storage.backends.parquet import ParquetBackend
from collectors.testing.deliveries import delivery, everything

FLOW = "contract/source"
ROWS = 6


def opened(lake):
    backend = ParquetBackend(path=str(lake), max_rows=1, partition_by=["day"])
    backend.open()
    return backend


def fill(lake):
    """Store what becomes a file for each of two folders."""
    backend = opened(lake)
    epoch = backend.claim(FLOW).epoch
    for seq in (1, 2):
        table = pa.table({"n": [3 * seq - 3, 3 * seq - 2, 3 * seq - 1], "day": ["a", "b", "b"]})
        backend.commit(replace(delivery(seq, seq, epoch), table=table))


def state(lake):
    """Return what readers of the log see: rows in the order that each folder has them, counts, how far it is stored."""
    backend = opened(lake)
    rows = [(row["day"], row["n"]) for row in backend.select(everything())]
    return (
        sorted(rows, key=lambda row: row[0]),
        backend.ledger("run-1"),
        replace(backend.stored(FLOW), epoch=0),
    )


def everyone(lake):
    """Return how often those who take every file see each row."""
    seen = Counter()
    for path in lake.rglob("*.parquet"):
        table = pq.ParquetFile(path).read()
        seen.update(table.column(0).to_pylist())
    return seen


def see(lake, before, where, *, once=False):
    assert state(lake) == before, where
    seen = everyone(lake)
    assert set(seen) == set(range(ROWS)), (where, seen)
    assert max(seen.values()) <= (1 if once else 2), (where, seen)


def see_the_end(lake, before, where, *, merged=True):
    """See that all is done once a pipeline has started, and that nothing but rows and log is left."""
    see(lake, before, where, once=merged)
    assert len(list(lake.rglob("*.parquet"))) == 2 or not merged, where
    opened(lake).claim(FLOW)
    see(lake, before, where, once=True)
    log = [path for path in (lake / "_collectors").rglob("*") if path.is_file()]
    assert {path.suffix for path in log if path.name != "lock"} == {".json"}, (where, log)


class Compactions:
    def __init__(self, shim):
        script = Path(__file__).with_name("_compactions.py")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"LD_PRELOAD": str(shim)},
            text=True,
        )

    def __call__(self, lake, **more):
        self._process.stdin.write(json.dumps({"folder": str(lake), **more}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(30) == 0


@pytest.fixture(scope="module")
def compact(shim):
    server = Compactions(shim)
    yield server
    server.close()


@pytest.mark.timeout(3000)
def test_killed_at_every_call(compact, memory, full, figure):
    """The next one is killed, too, somewhere; then a pipeline starts, or another compaction ends."""
    fill(memory / "lake")
    before = state(memory / "lake")
    chance, lake = random.Random(1), memory / "killed"
    shutil.copytree(memory / "lake", lake)
    points = compact(lake)["passed"]
    see_the_end(lake, before, "never killed")
    moments = range(1, points + 1, 1 if full else 3)
    seconds = 5 if full else 1
    for moment in moments:
        for again in (chance.randint(1, points) for _ in range(seconds)):
            shutil.rmtree(lake)
            shutil.copytree(memory / "lake", lake)
            where = f"killed at {moment} of {points}, then at {again}"
            assert compact(lake, kill=moment) == {"killed": signal.SIGKILL}
            see(lake, before, where)
            compact(lake, kill=again)
            see(lake, before, where)
            if moment % 2:
                see_the_end(lake, before, where, merged=False)
            assert "passed" in compact(lake)
            see_the_end(lake, before, where)
    figure("compaction killed", points=points, lives=2 * seconds * points, lost=0, doubled=0)


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("model", ["ext4", "posix"])
def test_power_cut_behind_every_call(compact, memory, model, full, figure):
    lake, image = memory / "lake", memory / "image"
    fill(lake)
    before = state(lake)
    disk = Disk(lake)
    assert "passed" in compact(lake, journal=str(memory / "journal"))
    calls = read_journal(memory / "journal")
    chance, done = random.Random(2), 0
    for moment, call in enumerate(calls, 1):
        disk.do(call)
        for _ in range(20 if full else 1):
            disk.cut(image, model, chance)
            where = f"behind call {moment}, {call.kind} {call.path} {call.path2}"
            see(image, before, where)
            if moment % 2:
                see_the_end(image, before, where, merged=False)
            assert "passed" in compact(image)
            see_the_end(image, before, where)
            shutil.rmtree(image)
            done += 1
    figure("compaction power cuts", model=model, cuts=done, lost=0, doubled=0)
