"""What must hold whatever the weather: nothing lost, doubled, out of order or told before it is true."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from collectors.chunks import DeadLetter
from collectors.errors import FencedError, TransientError
from collectors.runtime.ledger import EdgeReport, FlowReport
from collectors.storage.sqlite_store import DeliveryTables, open_database
from collectors.testing._sim_sources import Series
from collectors.testing._sim_stores import OutsideStore, Store
from collectors.testing._sim_world import PIPELINE, Run, World

__all__ = ["check_commit", "check_end", "check_run"]

_NUMBER = re.compile(rb"(\d+)\D*$")
_STEPS = {"malformed": "decode", "refused": "decode", "rejected": "sieve"}


def check_run(world: World, run: Run) -> list[str]:
    """Return what is wrong after a process has ended."""
    found = [
        problem
        for store in world.plan.stores
        for series in world.plan.series
        for problem in _check_rows(world, series, store, final=False)
    ]
    if run.process.dead:
        return found
    if run.stopped_at is None or run.clean:  # else a thread may still be in the middle of something
        found += world.loop.leftovers(run.process)
    if run.error is not None:
        found.append(f"the engine raised {run.error!r}")
    if run.ended_at > max(run.stop_by, world.busy(run)) + run.frozen_seconds + 1.0:
        found.append(f"asked to stop at {run.stopped_at}, it ended at {run.ended_at}, due {run.stop_by}")
    for flow in run.report.flows if run.report is not None else []:
        found += _check_report(world, run, flow)
    return [f"process {run.process.name}: {problem}" for problem in found]


def check_end(world: World) -> list[str]:
    """Return what is wrong after the last process, which nothing disturbed, has ended."""
    last = world.runs[-1]
    flows = last.report.flows if last.report is not None else []
    if any(_may_be_stuck(world, flow) for flow in flows):
        return []
    found = [] if last.clean else ["the last process, which nothing disturbed, has not stored everything"]
    for series in world.plan.series:
        for store in world.plan.stores:
            found += _check_rows(world, series, store, final=True)
    return found + _check_letters(world)


def check_commit(world: World, series: Series, position: int) -> list[str]:
    """Return what a source was told to be stored although a crash would lose it."""
    if series.pushed:
        return _check_spool(world, series, position)
    if _jumps(world, series):
        return []
    return [
        f"{series.id} was told {position}, but {store.id} lacks {sorted(missing)}"
        for store in world.plan.stores
        if (missing := set(_expected(series, store, position)) - set(store.numbers(series.id)))
    ]


def _check_spool(world: World, series: Series, position: int) -> list[str]:
    folder = world.spool(series.id)
    kept = b"".join(path.read_bytes() for path in folder.rglob("*.spool"))
    gone = {n for n in range(series.told, position) if series.line(n) not in kept}
    missing = {
        n
        for store in world.plan.stores
        for n in gone & set(_expected(series, store, position)) - set(store.numbers(series.id))
    }
    return [f"{series.id} was told {position}, but {sorted(missing)} are not in its spool"] if missing else []


def _expected(series: Series, store: Store, end: int) -> list[int]:
    return [n for n in range(end) if series.fates[n] == "stored" and store.takes(n)]


def _jumps(world: World, series: Series) -> bool:
    """Return whether a storage that is behind may have to go on where another one is, which the report then tells."""
    one = len(world.plan.stores) == 1
    return not one and (len(world.plan.hosts) > 1 or not (series.replays or series.pushed))


def _check_rows(world: World, series: Series, store: Store, *, final: bool) -> list[str]:
    stored = store.numbers(series.id)
    expected = _expected(series, store, series.count)
    where = f"{store.kind} {store.id} of {series.id}"
    unclean = sum(not run.clean for run in world.runs)
    repeats = unclean if store.kind == "plain" else 0
    counts = Counter(stored)
    found = [
        f"{where}: {n} is there {count} times"
        for n, count in counts.items()
        if count > max(repeats, 0) + max(1, series.handed[n] if series.pushed else 1)
    ]
    descents = sum(later <= earlier for earlier, later in pairwise(stored))
    if descents > repeats + (len(world.runs) if series.pushed else 0):
        found.append(f"{where}: out of order: {stored}")
    first = list(counts)
    if strange := sorted(set(first) - set(expected)):
        found.append(f"{where}: {strange} do not belong there")
    elif _jumps(world, series):
        return found
    elif first != expected[: len(first)]:
        found.append(f"{where}: has {first}, expected {expected[: len(first)]}")
    elif final and len(first) < len(expected):
        found.append(f"{where}: {expected[len(first) :]} are lost")
    return found


def _check_letters(world: World) -> list[str]:
    found: list[str] = []
    letters = _letters(world)
    seen_by_all = len(world.plan.hosts) == 1 or all(store.kind == "lettered" for store in world.plan.stores)
    keepers = (
        1 if seen_by_all else len(world.runs)
    )  # one machine does not see what is in the state of the other
    for series in world.plan.series:
        counts = Counter(
            (int(_NUMBER.findall(letter.raw)[0]), letter.step)
            for letter in letters
            if letter.source == series.id
        )
        expected = {(n, _STEPS[fate]) for n in range(series.count) if (fate := series.fates[n]) in _STEPS}
        expected |= {
            (n, f"store {store.id}")
            for store in world.plan.stores
            for n in range(series.count)
            if series.fates[n] == "stored" and not store.takes(n)
        }
        for (n, step), count in counts.items():
            if count > (series.handed[n] if series.pushed else keepers):
                found.append(f"{series.id}: {count} letters of {n} at '{step}'")
        if strange := set(counts) - expected:
            found.append(f"{series.id}: letters of {sorted(strange)} do not belong there")
        missing = expected - set(counts)
        if missing and not _jumps(world, series):
            found.append(f"{series.id}: no letters of {sorted(missing)}")
    return found


def _letters(world: World) -> list[DeadLetter]:
    found = [letter for store in world.plan.stores for letter in store.kept_letters(PIPELINE)]
    for host in range(len(world.plan.hosts)):
        path = world.state(host) / "state.db"
        if path.exists():
            database = open_database(path, read_only=True)
            found += DeliveryTables(database).dead_letters(PIPELINE)
            database.close()
    return found


def _check_report(world: World, run: Run, flow: FlowReport) -> list[str]:
    found = []
    taken_over = len(world.plan.hosts) > 1 and str(flow.error).startswith(f"{PIPELINE}/{flow.source}:")
    patient = run.life.patience == float("inf")
    if flow.error is not None and not (
        (taken_over and isinstance(flow.error, FencedError))
        or _may_be_stuck(world, flow)
        or (isinstance(flow.error, TransientError) and (not patient or run.expired))
    ):
        found.append(f"{flow.source} failed: {flow.error!r}")
    ended = flow.error is None and not run.expired
    if ended and not flow.balanced:
        found.append(f"{flow.source} does not balance: {flow.as_dict()}")
    for edge in flow.edges:
        found += _check_edge(world, flow, edge, ended=ended)
    return found


def _may_be_stuck(world: World, flow: FlowReport) -> bool:
    """Return whether a flow has said that it needs the state of the other machine to go on."""
    several = len(world.plan.stores) > 1 and len(world.plan.hosts) > 1
    return several and "is behind the others" in str(flow.error)


def _check_edge(world: World, flow: FlowReport, edge: EdgeReport, *, ended: bool) -> list[str]:
    found = []
    where = f"{flow.source} to {edge.backend}"
    if edge.counts.in_flight:
        found.append(f"{where}: the counts do not add up: {edge.counts}")
    store = next(store for store in world.plan.stores if store.id == edge.backend)
    run = next(run for run in world.runs if run.report is not None and flow in run.report.flows)
    if store.kind == "plain" or isinstance(store, OutsideStore):
        return found
    actual = sum(
        source == flow.source and name == f"run-{run.process.name}" for source, _, name in store.rows
    )
    if edge.counts.stored > actual or (ended and edge.counts.stored != actual):
        found.append(f"{where}: {edge.counts.stored} rows are said to be stored, {actual} are")
    return found
