"""Run as a script by test_duckdb_log.py: lives of a pipeline into DuckDB, each killed, its log damaged behind it.

What a life has told the source as durable must be there in the next one. Arguments: pipeline, seed, number of kills.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from _lives import POINTS, Duckdb, live

from collectors.runtime import grouping
from collectors.runtime.delivery import Edge
from collectors.runtime.preparing import Preparer

FILE = sys.modules[Duckdb.__module__]
OPENING, TEN_COMMITS = 20, 60


def watch(told: Path) -> None:
    """Note what is told as durable, and compare with it at every start."""
    acknowledge, claim = Edge._acknowledge, Edge.claim

    async def noted(self, seq):
        await acknowledge(self, seq)
        told.write_text(str(self.durable))

    async def compared(self):
        checkpoint = await claim(self)
        before = int(told.read_text() or 0) if told.exists() else 0
        assert checkpoint.seq >= before, f"chunk {before} was told as durable, {checkpoint.seq} is there"
        return checkpoint

    Edge._acknowledge, Edge.claim = noted, compared


def damage(log: Path, rng: random.Random) -> str:
    """Delete, cut or change the log, or leave it."""
    how = rng.choice(["leave", "delete", "cut", "flip", "flip", "zero"])
    if not log.exists():
        return "none"
    data = bytearray(log.read_bytes())
    place = rng.randrange(len(data)) if data else 0
    if how == "delete":
        log.unlink()
    elif how == "cut":
        log.write_bytes(data[:place])
    elif how == "flip" and data:
        for at in (place, *(rng.randrange(len(data)) for _ in range(rng.randrange(3)))):
            data[at] ^= 1 << rng.randrange(8)
        log.write_bytes(data)
    elif how == "zero":
        data[place : place + 512] = bytes(len(data[place : place + 512]))
        log.write_bytes(data)
    return how


def main(pipeline: Path, seed: int, kills: int) -> None:
    """Kill within the first commits of a life, damage, go on."""
    rng = random.Random(seed)
    watch(pipeline.with_name("told"))
    POINTS[:] = [(FILE.Connection, "execute"), (FILE.Connection, "insert")]
    FILE.CHECKPOINT_BYTES = rng.choice([2**12, 2**14, 2**26])
    grouping.GROUP_ROWS = Duckdb.commit_rows = 1  # and so a commit for each chunk
    Preparer.joining = lambda *_: lambda _: False
    done: Counter[str] = Counter()
    for _ in range(kills):
        if live(pipeline, rng.randrange(OPENING, OPENING + TEN_COMMITS)) is not None:
            break
        for log in pipeline.parent.glob("out.duckdb.wal"):
            done[damage(log, rng)] += 1
    assert live(pipeline, 10**9) is not None
    moved = len(list(pipeline.parent.glob("out.duckdb.broken-wal.*")))
    sys.stdout.write(json.dumps({"damaged": done, "moved": moved}))


if __name__ == "__main__":
    os.environ["PYTHONWARNINGS"] = "ignore"
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
