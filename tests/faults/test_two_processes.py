"""Two processes with one pipeline: whoever comes second takes the flow over, and the first one cannot store any more.

The first is stopped (SIGSTOP) before a call that changes a file, the second runs, the first goes on (SIGCONT). The
dangerous case is two hosts: two state folders, so that no lock keeps the second out, and one place for the data.
"""

from __future__ import annotations

import signal
from collections import Counter

import pytest
from _stack import REPLAYABLE, Lives, Stack, finish, seeded, signal_at

ROUNDS_QUICK, ROUNDS_FULL = 14, 300
TAKEN_OVER = "another process has taken this flow over"
LOCKED = "another process", "locking protocol"
TIDIED = "No such file or directory"
BEHIND = "cannot be read again as it was without the state folder of the run before"


def two_hosts(memory, name) -> tuple[Stack, Stack]:
    first = Stack(memory / name, REPLAYABLE[name]).make()
    text = first.pipeline.read_text().replace("out.db,", "out.db, lock_timeout: 20ms,")
    first.pipeline.write_text(text)
    second = Stack(first.folder, REPLAYABLE[name])
    second.pipeline = first.folder / "other.yaml"
    second.pipeline.write_text(text.replace("data/hidden", "data/other"))
    return first, second


def end_of(ended: dict) -> str:
    """Return how a process ended; any way that is not meant to be is an error."""
    assert "crash" not in ended, ended
    if ended["exit"] == 0:
        return "done"
    if ended["exit"] == 75:
        assert all(TAKEN_OVER in error or "do not follow chunk" in error for error in ended["errors"]), ended
        return "fenced"
    if all(BEHIND in error for error in ended["errors"]):
        return "stopped, since it lacks the other's state"
    if all(TIDIED in error for error in ended["errors"]):  # a second try would tell it that it is fenced
        return "stopped, since the other removed its unfinished files"
    assert all(any(reason in error for reason in LOCKED) for error in ended["errors"]), ended
    return "kept out by a lock"


def check(lives: Lives, stack: Stack) -> str:
    """Run to the end what neither has finished, then compare.

    Where no backend has room for letters they are in the state files, each host's own.
    """
    last = lives.life(stack, patience=60)
    if end_of(last).startswith("stopped"):
        assert not [text for text in stack.differences() if "doubled" in text]
        return end_of(last)
    assert last["exit"] == 0, last
    found = stack.differences()
    if "sqlite" not in stack.backends:
        assert set(stack.letters()) | set(stack.letters("other")) == {
            stack.raw(number) for number in stack.bad
        }
        found = [text for text in found if not text.startswith("letters")]
    assert not found, found
    return "all there"


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", REPLAYABLE)
def test_a_host_that_was_thought_dead_comes_back(lives, memory, name, full, figure):
    ends: Counter = Counter()
    rounds = ROUNDS_FULL if full else ROUNDS_QUICK
    points = lives.life(Stack(memory / name, REPLAYABLE[name]).make())["passed"]
    for number in range(rounds):
        first, second = two_hosts(memory, name)
        point = 1 + number * points // rounds
        stopped = lives.wait(lives.start(first, signal_at(point, signal.SIGSTOP)))
        if "stopped" not in stopped:
            continue
        other = lives.wait(lives.start(second, patience=10))
        lives.go_on(stopped["pid"])
        ended = lives.wait(stopped["pid"])
        ends[f"first {end_of(ended)}, second {end_of(other)}"] += 1
        try:
            ends[f"then {check(lives, first)}"] += 1
        except AssertionError as error:
            raise AssertionError(f"stopped at point {point}: {ended}, {other}") from error
        first.clear()
    told = "second kept out by a lock" if name == "duckdb" else "first fenced"
    assert any(told in end for end in ends)
    figure(
        "a second host takes over",
        stack=name,
        rounds=ends.total() // 2,
        ends=dict(ends),
        lost=0,
        duplicated=0,
    )


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", REPLAYABLE)
def test_two_hosts_start_together(lives, memory, name, full, figure):
    ends: Counter = Counter()
    for number in range(ROUNDS_FULL if full else ROUNDS_QUICK):
        first, second = two_hosts(memory, name)
        pids = [lives.start(stack, patience=10) for stack in (first, second)]
        ended = [lives.wait(pid) for pid in pids]
        ends[" and ".join(sorted(map(end_of, ended)))] += 1
        try:
            ends[f"then {check(lives, first)}"] += 1
        except AssertionError as error:
            raise AssertionError(f"round {number}: {ended}") from error
        first.clear()
    figure(
        "two hosts start together",
        stack=name,
        rounds=ends.total() // 2,
        ends=dict(ends),
        lost=0,
        duplicated=0,
    )


@pytest.mark.parametrize("name", REPLAYABLE)
def test_on_one_host_the_second_is_told_that_there_is_a_first(lives, memory, name):
    chance = seeded(name)
    for _ in range(5):
        stack = Stack(memory / name, REPLAYABLE[name]).make()
        stopped = lives.wait(lives.start(stack, signal_at(chance.randint(10, 100), signal.SIGSTOP)))
        assert stopped["stopped"]
        other = lives.life(stack)
        assert other["exit"] == 2
        assert "is running already (process " in other["errors"][0]
        lives.go_on(stopped["pid"])
        assert lives.wait(stopped["pid"])["exit"] == 0
        finish(lives, stack)
        stack.clear()
