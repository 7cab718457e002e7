"""The real runtime in a simulated world: thousands of seeds, and bugs planted to see that they are found."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from collectors import registry
from collectors.errors import TransientError
from collectors.runtime.delivery import Edge
from collectors.runtime.flow import Flow
from collectors.runtime.intake import Intake
from collectors.runtime.shutdown import Shutdown
from collectors.runtime.state import State
from collectors.testing import _sim_stores
from collectors.testing.simulation import SimulationError, simulate

SEEDS = Path(__file__).parent / "seeds" / "simulation.txt"
PARTS = 4


@pytest.fixture(autouse=True)
def _few_collections():
    """Let the garbage collector look only at what a simulation makes."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_schedules(full, figure, part):
    count = (200_000 if full else 1_000) // PARTS
    started = time.process_time()
    outcomes = [simulate(seed) for seed in range(part * count, (part + 1) * count)]
    seconds = time.process_time() - started
    figure(
        "simulated schedules",
        seeds=f"seeds {part * count:,} to {(part + 1) * count - 1:,}",
        schedules=count,
        processes=sum(outcome.lives for outcome in outcomes),
        steps=sum(outcome.steps for outcome in outcomes),
        simulated_hours=round(sum(outcome.seconds for outcome in outcomes) / 3600, 1),
        violations=0,
        per_cpu_second=round(count / seconds, 1),
    )


REAL = {
    "sqlite": lambda name, folder: registry.create(
        "backend", "sqlite", {"id": name, "path": f"{folder}/store.db", "table": "rows"}
    ),
    "parquet": lambda name, folder: registry.create("backend", "parquet", {"id": name, "path": f"{folder}"}),
    "parquet of few rows": lambda name, folder: registry.create(
        "backend", "parquet", {"id": name, "path": f"{folder}", "max_rows": 3}
    ),
}


@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("name", REAL)
def test_real_stores(full, figure, name):
    count = 5_000 if full else 40
    lives = sum(simulate(seed, REAL[name]).lives for seed in range(count))
    figure(
        "simulated schedules with a real store", store=name, schedules=count, processes=lives, violations=0
    )


def test_a_real_store_that_promises_too_much_is_found(monkeypatch):
    parquet = registry.find("backend", "parquet")
    commit = parquet.commit
    monkeypatch.setattr(parquet, "commit", lambda self, made: max(commit(self, made), made.key.seq))
    assert "was told" in found(60, REAL["parquet"]).problems[0]


@pytest.mark.parametrize("line", [line for line in SEEDS.read_text().splitlines() if line[0] != "#"])
def test_seeds_that_failed_once(line):
    simulate(int(line.split()[0]))


def test_a_seed_is_the_same_run_each_time():
    seeds = [3, 50, 170]
    again = "from collectors.testing.simulation import simulate\nprint([simulate(s).digest for s in [3, 50, 170]])"
    told = subprocess.run(
        [sys.executable, "-c", again],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    digests = [simulate(seed).digest for seed in seeds]
    assert digests == [simulate(seed).digest for seed in seeds]
    assert told.stdout.strip() == str(digests)
    assert len(set(digests)) == len(seeds)


def test_a_failing_seed_says_how_to_see_it(monkeypatch):
    monkeypatch.setattr(Edge, "_acknowledge", told_at_once)
    error = found(200)
    assert f"python -m collectors.testing.simulation {error.seed}" in str(error)
    assert any("starts" in line for line in error.story)


def found(most, backend=None):
    """Return the first fault within so many seeds."""
    for seed in range(most):
        try:
            simulate(seed, backend)
        except SimulationError as error:
            return error
    raise AssertionError(f"not found within {most} seeds")


acknowledge = Edge._acknowledge


async def told_at_once(edge, seq):
    """Take for durable what a backend has only in its buffer."""
    await acknowledge(edge, max(seq, edge.seq))


async def counted_at_once(edge, seq):
    """Count what a backend has only in its buffer as stored."""
    while edge._buffered:
        edge.report.counts += edge._buffered.popleft()[1]
    await acknowledge(edge, seq)


async def position_first(edge, delivery, *args, commit=Edge._commit, **options):
    """Remember the position before the rows are stored."""
    if edge._transactional:
        return await commit(edge, delivery, *args, **options)
    seq = await edge._hooks.state.commit(delivery)
    if not options.get("written"):
        await edge.backend.call(edge.backend.write, delivery.table, delivery.key)
    return seq


async def blindly(edge, attempt, seq=None):
    """Try again without asking what became of the first try."""
    return await edge._hooks.retrying(attempt)


def checks_nothing(stored, delivery):
    """Store whatever comes."""
    return True


def checks_no_epoch(stored, delivery):
    """Let everybody store who goes on where the others are."""
    return stored.seq < delivery.key.seq


async def furthest(flow, on_durable=Flow._on_durable):
    """Tell the source what one of its backends has, not all of them."""
    durable = [edge.durable for edge in flow._edges]
    for edge in flow._edges:
        edge.durable = max(durable)
    await on_durable(flow)


async def answered_first(intake, group, keep=Intake._keep):
    """Answer senders before the spool has what they sent."""
    with suppress(TransientError):
        await intake._source.commit(group[-1].position)
    await keep(intake, group)


async def nothing(*args):
    """Do not do it."""


PLANTED = {
    "told before it is durable": ("was told", [(Edge, "_acknowledge", told_at_once)]),
    "counted before it is durable": ("are said to be stored", [(Edge, "_acknowledge", counted_at_once)]),
    "position before rows": (
        "no letters|plain .* expected|plain .* lost|balance",
        [(Edge, "_commit", position_first)],
    ),
    "commit repeated blindly": (
        "is there 2 times",
        [(Edge, "_retrying", blindly), (_sim_stores, "check_follows", checks_nothing)],
    ),
    "no fence": ("rows are said|expected|lost|times", [(_sim_stores, "check_follows", checks_no_epoch)]),
    "told what one of two backends has": ("was told", [(Flow, "_on_durable", furthest)]),
    "answered before it is in the spool": ("are not in its spool", [(Intake, "_keep", answered_first)]),
    "boundaries not recorded": ("was told|lost|is behind the others", [(State, "record_boundary", nothing)]),
    "draining has no end": ("asked to stop", [(Shutdown, "_after", lambda *_: None)]),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(monkeypatch, bug):
    said, changes = PLANTED[bug]
    for owner, name, wrong in changes:
        monkeypatch.setattr(owner, name, wrong)
    error = found(600)
    assert re.search(said, error.problems[0]), error
