"""Power cuts: whatever a disk may have left, what was said to be stored is, and a restart ends with everything there once.

Runs are recorded call by call; folders that a cut at some moment could leave are worked out from that (_images.py).
"""

from __future__ import annotations

import json
import shutil
import signal
import time

import pytest
from _images import Disk, read_journal
from _stack import STACKS, Stack, finish, seeded, signal_at

CUTS_QUICK, CUTS_FULL = 30, 400


def record(lives, memory, name, *, kills=()):
    """Run a pipeline with a journal; return the stack, the folder as it was before, and the calls."""
    stack = Stack(memory / name, STACKS[name], may_tear=True).make()
    disk = Disk(stack.data)
    journal = memory / f"{name}.journal"
    for point in kills:
        assert "killed" in lives.life(stack, signal_at(point, signal.SIGKILL), journal=str(journal))
    assert lives.life(stack, journal=str(journal))["exit"] == 0
    return stack, disk, read_journal(journal)


def acknowledged(calls) -> dict[str, int]:
    """Return up to which chunk each backend had said that it keeps them."""
    stored: dict[str, int] = {}
    for mark in marks(calls):
        if "edge" in mark:
            stored[mark["edge"]] = max(stored.get(mark["edge"], 0), mark["seq"])
    return stored


def marks(calls) -> list[dict]:
    return [json.loads(call.data) for call in calls if call.kind == "mark"]


@pytest.mark.parametrize("name", STACKS)
def test_the_journal_is_complete(lives, memory, name):
    """Nothing changes a file unseen: the folder worked out from the calls is the one that is there."""
    stack, disk, calls = record(lives, memory, name, kills=[50, 70])
    for call in calls:
        disk.do(call)
    disk.write_all(memory / "again")
    found = {path.relative_to(stack.data): path for path in stack.data.rglob("*") if path.is_file()}
    again = {
        path.relative_to(memory / "again"): path for path in (memory / "again").rglob("*") if path.is_file()
    }
    assert found.keys() == again.keys()
    for path, file in found.items():
        assert file.read_bytes() == again[path].read_bytes(), path


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("model", ["ext4", "posix"])
@pytest.mark.parametrize("name", STACKS)
def test_power_cut(lives, memory, name, model, full, figure):
    began = time.monotonic()
    cuts = CUTS_FULL if full else CUTS_QUICK // (3 if name == "duckdb" else 1)
    chance = seeded(name, model)
    done = 0
    for kills in ((), (45, 60)):
        stack, disk, calls = record(lives, memory, name, kills=kills)
        moments = sorted(chance.randint(1, len(calls)) for _ in range(cuts // 2))
        passed = 0
        for number, moment in enumerate(moments):
            for call in calls[passed:moment]:
                disk.do(call)
            passed = moment
            shutil.rmtree(stack.data)
            disk.cut(stack.data, model, seeded(name, model, kills, number))
            diary = "".join(mark.get("diary", "") for mark in marks(calls[:moment]))
            (stack.folder / "diary").write_text(diary)  # the client is on another machine
            try:
                for backend, seq in acknowledged(calls[:moment]).items():
                    assert stack.stored_seq(backend) >= seq, f"{backend} said that it keeps chunk {seq}"
                finish(lives, stack)
            except AssertionError as error:
                last = calls[moment - 1]
                raise AssertionError(
                    f"cut {number} of {name}, {model}, kills {kills}: after call {moment}, {last.kind} {last.path}{last.path2}"
                ) from error
            done += 1
        stack.clear()
        (memory / f"{name}.journal").unlink()
    figure(
        "power cuts",
        stack=name,
        model=model,
        cuts=done,
        lost=0,
        duplicated=0,
        per_second=round(done / (time.monotonic() - began), 1),
    )
