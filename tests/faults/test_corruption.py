"""Damage to any file of the state folder or of Parquet's log: nothing is lost or doubled without a word.

A run is killed, one file damaged, a new run started. Either everything is there once at its end, or it stops with a
message that names what is damaged. Dead letters of
backends without room for them are in the state file alone: rows are compared. (The spool has such a test of its own, test_spool_corruption.py; a database of the
user's is SQLite's business.)
"""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter

import pytest
from _stack import Stack, seeded, signal_at

MUTATIONS_QUICK, MUTATIONS_FULL = 150, 7000
KINDS = ["flip", "truncate", "zero", "swap", "duplicate", "delete"]
NAMED = "is damaged", "is missing", "is not a SQLite database", "cannot be read again as it was"


def damage(path, chance) -> str:
    """Do something to a file; return what."""
    kind, data = chance.choice(KINDS), path.read_bytes()
    at, size = chance.randrange(len(data) + 1), max(1, len(data) // 4)
    if kind == "delete":
        path.unlink()
        return kind
    if kind == "flip" and data:
        flipped = bytearray(data)
        flipped[at % len(data)] ^= 1 << chance.randrange(8)
        data = bytes(flipped)
    elif kind == "truncate":
        data = data[:at]
    elif kind == "zero":
        start = at - at % 512
        data = data[:start] + bytes(len(data[start : start + 512])) + data[start + 512 :]
    elif kind == "swap":
        data = data[size : 2 * size] + data[:size] + data[2 * size :]
    elif kind == "duplicate":
        data += data
    path.write_bytes(data)
    return kind


def files(stack: Stack) -> list:
    """Return the files under test."""
    folders = [stack.data / "hidden", stack.data / "lake" / "_collectors"]
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.suffix in {".json", ".db", ".db-wal", ".tmp"})


def is_newest(path) -> bool:
    """Return whether a file is the newest entry of the log, or an intent. Without it all looks as if the last thing
    that happened had not: nothing can tell that has no second copy.
    """
    return path.suffix == ".json" and path == max(path.parent.glob("*.json"))


def outcome(lives, stack: Stack, *, undetectable: bool) -> str:
    """Start a run and return how it ended; assert that nothing went wrong without a word."""
    ended = lives.life(stack)
    if ended["exit"] != 0:
        assert any(text in error for error in ended["errors"] for text in NAMED), ended
        return "stopped and named it"
    if undetectable:
        return "as if it had not happened"
    ids = {backend: stack.ids(backend) for backend in stack.backends}
    assert all(found == stack.expected for found in ids.values()), stack.differences()
    return "nothing lost, nothing doubled"


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("backends", [["parquet"], ["sqlite", "parquet"]], ids=["parquet", "both"])
def test_damage_is_mended_or_told(lives, memory, backends, full, figure):
    began = time.monotonic()
    stack = Stack(memory / "stack", backends).make()
    points = lives.life(stack)["passed"]
    images = []
    for number, share in enumerate([0.5, 0.7, 0.85, 0.95]):
        stack.clear()
        lives.life(stack.make(), signal_at(int(points * share), signal.SIGKILL))
        images.append(memory / f"image-{number}")
        shutil.copytree(stack.data, images[-1])
    ends: Counter = Counter()
    for number in range(MUTATIONS_FULL if full else MUTATIONS_QUICK):
        chance = seeded(*backends, number)
        shutil.rmtree(stack.data)
        shutil.copytree(chance.choice(images), stack.data, ignore=shutil.ignore_patterns("*-shm"))
        path = chance.choice(files(stack))
        newest = is_newest(path)
        kind = damage(path, chance)
        try:
            ends[outcome(lives, stack, undetectable=newest and kind == "delete")] += 1
        except AssertionError as error:
            raise AssertionError(f"mutation {number}: {kind} {path.relative_to(stack.data)}") from error
    figure(
        "corruptions",
        stack=" + ".join(backends),
        mutations=ends.total(),
        silent=0,
        **ends,
        per_second=round(ends.total() / (time.monotonic() - began), 1),
    )
