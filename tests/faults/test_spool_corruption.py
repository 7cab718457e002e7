"""Any damage to any file of a spool: every chunk is read, or counted among the lost; nothing silent, no crash."""

from __future__ import annotations

import os
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from collectors.models import CollectedData
from collectors.runtime import spool as spool_module
from collectors.runtime.spool import Spool

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def opened(folder: Path, told: list[str]) -> Spool:
    spool = Spool(folder, "in", 2**30, now=lambda: NOW, tell=told.append)
    spool.open()
    return spool


def chunk(number: int, size: int) -> CollectedData:
    return CollectedData("in", NOW, "ndjson", "Test", b"%d " % number + b"z" * size, {"n": number})


def make(folder: Path, rng: random.Random) -> int:
    """Fill a spool with a few segments, some of them trimmed; returns the number of its last chunk."""
    spool = opened(folder, [])
    count = rng.randint(5, 40)
    number = 0
    while number < count:
        group = [chunk(number + i + 1, rng.randint(0, 300)) for i in range(rng.randint(1, 4))]
        spool.append(group)
        number += len(group)
        if rng.random() < 0.1:
            spool.close()
            spool = opened(folder, [])
    if rng.random() < 0.5:
        chunks = spool.read(None, rng.randint(1, 2000))
        spool.trim(chunks[-1].position)
    spool.close()
    return number


def damage(folder: Path, rng: random.Random) -> str:
    """Do one thing to one file."""
    path = rng.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    data = bytearray(path.read_bytes())
    size = len(data)
    at, length = rng.randrange(size), rng.randint(1, 700)
    kind = rng.choice(["flip", "truncate", "zero", "swap", "delete", "repeat", "garbage", "empty"])
    if kind == "delete":
        path.unlink()
    elif kind == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        del data[at:]
    elif kind == "empty":
        data.clear()
    elif kind == "zero":
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif kind == "garbage":
        data[at : at + length] = rng.randbytes(len(data[at : at + length]))
    elif kind == "repeat":
        data[at:at] = data[max(0, at - length) : at]
    elif kind == "swap":
        other = rng.randrange(size)
        length = min(length, size - max(at, other))
        data[at : at + length], data[other : other + length] = (
            data[other : other + length],
            data[at : at + length],
        )
    if kind != "delete":
        path.write_bytes(data)
    return f"{kind} {path.name} at {at}, {length} bytes"


def look(folder: Path, last: int, first_left: int) -> str | None:
    """Return what is wrong with what a reader of the damaged spool is given; None if nothing is."""
    told: list[str] = []
    spool = opened(folder, told)
    spool.append([chunk(last + 1, 10)])
    seen: list[int] = []
    lost: list[int] = []
    since = None
    while chunks := spool.read(since, 500):
        since = chunks[-1].position
        for data in chunks:
            if data.data_format == "rejected":
                lost += range(data.metadata["first"], data.metadata["last"] + 1)
            else:
                number = data.metadata["n"]
                if data.raw_data.split()[0] != str(number).encode():
                    return f"chunk {number} has the bytes of another"
                seen.append(number)
    spool.close()
    if seen != sorted(set(seen)) or seen[-1] != last + 1:
        return f"read {seen}"
    missing = set(range(first_left, last + 1)) - set(seen)
    if missing - set(lost):
        return f"missing without a word: {sorted(missing - set(lost))}; told {told}"
    if set(lost) & set(seen):
        return f"told as lost, but read: {sorted(set(lost) & set(seen))}"
    if lost and not told:
        return "a loss was not told"
    return None


@pytest.mark.timeout(600)
def test_corruption(tmp_path, monkeypatch, full, figure):
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 1500)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)
    rounds = 20_000 if full else 1_000
    problems = []
    for seed in range(rounds):
        rng = random.Random(seed)
        folder = tmp_path / "spool"
        last = make(folder, rng)
        intact = opened(folder, [])
        left = intact.read(None, 1)
        intact.close()
        first_left = left[0].metadata["n"] if left else last + 1
        what = damage(folder, rng)
        try:
            problem = look(folder, last, first_left)
        except Exception as error:
            problem = repr(error)
        if problem:
            problems.append(f"seed {seed}: {what}: {problem}")
        shutil.rmtree(folder)
    figure("spool corruptions", rounds=rounds, silent=len(problems))
    assert not problems, "\n".join(problems[:10])
