"""kill -9 before each call that changes a file: whatever the moment, every record is stored once, and none is unexplained.

For every point of a whole run, a first life is killed there; a few more are killed while they recover, at random points;
then one runs to its end and everything is compared.
"""

from __future__ import annotations

import signal
import time

import pytest
from _stack import STACKS, Lives, Stack, finish, seeded, signal_at

REPEATS_FULL = 12
CHAIN = 4
STEPS = {"duckdb": 8, "spool to both": 4}
"""How far apart the points are in the quick size, where lives are slow or the code is that of another stack; else 2."""


def chain(lives: Lives, stack: Stack, first: int, chance) -> int:
    """Kill lives one after the other until one survives its point; return how many were killed."""
    kills = 0
    point = first
    while kills < CHAIN and "killed" in lives.life(stack, signal_at(point, signal.SIGKILL)):
        kills += 1
        point = chance.randint(1, first + 20)
    return kills


SLOW = {"both", "spool to both"}


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in STACKS]
)
def test_kill_at_every_point(lives, memory, name, full, figure):
    began = time.monotonic()
    rounds = series = 0
    for repeat in range(REPEATS_FULL if full else 1):
        point = 0
        while True:
            point += 1 if full else STEPS.get(name, 2)
            stack = Stack(memory / name, STACKS[name]).make()
            kills = chain(lives, stack, point, seeded(name, repeat, point))
            try:
                finish(lives, stack)
            except AssertionError as error:
                raise AssertionError(f"killed at point {point}, seed {name}-{repeat}-{point}") from error
            stack.clear()
            if not kills:
                break
            rounds += kills
            series += 1
    assert series >= 20
    figure(
        "kill -9 rounds",
        stack=name,
        rounds=rounds,
        points=point,
        lost=0,
        duplicated=0,
        per_second=round(rounds / (time.monotonic() - began), 1),
    )
