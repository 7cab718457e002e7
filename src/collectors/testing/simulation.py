"""Runs the real runtime in a simulated world: one seed, one run, the same each time.

    python -m collectors.testing.simulation 4711

tells the story of a seed: processes start, are killed, frozen, asked to stop and taken over; sources and stores fail,
hang and answer too late; clocks jump. After each process and at the end it is checked that every record is in exactly
one place, in order, that no source was told too early, that reports tell the truth, and that everything comes to its end.
"""

from __future__ import annotations

import gc
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from collectors.storage.base import Backend
from collectors.testing._sim_loop import StuckError
from collectors.testing._sim_oracle import check_commit, check_end, check_run
from collectors.testing._sim_plan import make_plan
from collectors.testing._sim_stores import outside_store
from collectors.testing._sim_world import World

__all__ = ["Outcome", "SimulationError", "simulate"]

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # folders in it are made by tempfile

_SHOWN = 5


class Outcome(Struct, frozen=True):
    """What a seed led to: processes that lived, steps, simulated seconds, and a number that names the very order."""

    seed: int
    lives: int
    steps: int
    seconds: float
    digest: int
    story: list[str]


class SimulationError(AssertionError):
    """A seed under which something that must hold does not; the story is in it."""

    def __init__(self, seed: int, problems: list[str], story: list[str]) -> None:
        text = "\n".join([*problems[:_SHOWN], "…"] if len(problems) > _SHOWN else problems)
        super().__init__(f"seed {seed}: {text}\nto see it: python -m collectors.testing.simulation {seed}")
        self.seed = seed
        self.problems = problems
        self.story = story


def simulate(seed: int, backend: Callable[[str, Path], Backend[Any]] | None = None) -> Outcome:
    """Let the run of a seed happen. Raises SimulationError when it shows a fault.

    `backend` puts a real store in the place of a simulated one: it is called in every process, with the id that the
    backend must have and an empty folder to keep its data in.
    """
    folder = tempfile.mkdtemp(dir=_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None)
    problems: list[str] = []
    outside = None if backend is None else outside_store("b0", partial(backend, "b0", Path(folder, "b0")))
    plan = make_plan(f"{seed}/plan", outside)
    world = World(
        plan,
        f"{seed}/order",
        Path(folder),
        on_run=lambda run: problems.extend(check_run(world, run)),
        on_commit=lambda series, position: problems.extend(check_commit(world, series, position)),
    )
    collecting = gc.isenabled()
    gc.disable()  # what it finds, and when, would depend on what ran before
    try:
        world.play()
        problems += check_end(world)
    except (StuckError, TimeoutError) as error:
        problems.append(f"it does not come to its end: {error!r}")
    finally:
        shutil.rmtree(folder)
        if collecting:
            gc.enable()
    if problems:
        raise SimulationError(seed, problems, world.story)
    loop = world.loop
    return Outcome(seed, len(world.runs), loop.steps, loop.time(), loop.digest, world.story)


def _main() -> None:
    try:
        outcome = simulate(int(sys.argv[1]))
    except SimulationError as error:
        sys.stdout.write("\n".join([*error.story, str(error), ""]))
        sys.exit(1)
    sys.stdout.write("\n".join([*outcome.story, f"nothing is wrong: {outcome.lives} lives", ""]))


if __name__ == "__main__":
    _main()
