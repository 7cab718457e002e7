"""A call that fails, or writes half, at each point of a whole run: the run goes on, or it stops and says why.

Either way nothing is lost and nothing stored twice, at the latest after the next start. A disk that was full for a
while holds a running pipeline up and no more.
"""

from __future__ import annotations

import errno
import time
from collections import Counter

import pytest
from _stack import FOREVER, STACKS, SYNC, WRITE, Stack, errno_at, finish, short_at

DAY = 86_400.0

STEPS = {"duckdb": 40}
FAULTS = {
    "disk full once": lambda point: errno_at(point, errno.ENOSPC),
    "quota reached once": lambda point: errno_at(point, errno.EDQUOT),
    "disk error once": lambda point: errno_at(point, errno.EIO),
    "interrupted": lambda point: errno_at(point, errno.EINTR, kinds=WRITE | SYNC),
    "half a write": short_at,
}


def each_point(memory, name, step):
    """Yield each point of a run and a stack made anew, until the caller is past the end of the run."""
    for point in range(1, 10_000, step):
        stack = Stack(memory / name, STACKS[name]).make()
        yield point, stack
        stack.clear()


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("fault", FAULTS)
def test_one_call_fails(lives, memory, name, fault, full, figure):
    began = time.monotonic()
    ends: Counter = Counter()
    for point, stack in each_point(memory, name, 1 if full else STEPS.get(name, 11)):
        ended = lives.life(stack, FAULTS[fault](point))
        if ended["passed"] < point:
            break
        if ended["exit"] == 0:
            assert ended["balanced"]
            assert not stack.differences(), (point, stack.differences())
        else:
            assert ended["errors"], (point, ended)
            assert all(str(stack.data) in error for error in ended["errors"]), (point, ended)
            finish(lives, stack)
        ends["went on" if ended["exit"] == 0 else "stopped and said why"] += 1
    assert ends["went on"]
    runs = ends.total()
    per_second = round(runs / (time.monotonic() - began), 1)
    figure(
        "failing calls",
        stack=name,
        fault=fault,
        runs=runs,
        **ends,
        lost=0,
        duplicated=0,
        per_second=per_second,
    )


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "duckdb" else name for name in STACKS]
)
def test_a_full_disk_holds_a_running_pipeline_up_and_no_more(lives, memory, name, full, figure):
    """From some point on every call that needs room fails, until people have been told twice that it does."""
    runs = 0
    clean = lives.life(Stack(memory / name, STACKS[name]).make(), {"kinds": WRITE})
    for point, stack in each_point(memory, name, 1 if full else 3):
        if point <= clean["started"]:
            continue
        ended = lives.life(
            stack,
            errno_at(point, errno.ENOSPC, last=FOREVER, kinds=WRITE),
            calm_after_notices=2,
            patience=DAY,  # a minute is a third of a second here, too short for a machine that is busy
        )
        if ended["passed"] < point:
            break
        assert (ended["exit"], ended["balanced"]) == (0, True), (point, ended)
        assert not stack.differences(), (point, stack.differences())
        runs += 1
    assert runs > 3
    figure("disk full for a while", stack=name, runs=runs, lost=0, duplicated=0)
