"""A state file that is full when a run begins: the run goes on, and is remembered as soon as there is room."""

from __future__ import annotations

import asyncio

from collectors.config.load import from_mapping
from collectors.errors import TransientError
from collectors.runtime.engine import Engine
from collectors.runtime.runs import Runs, read_runs
from collectors.testing._sim_stores import Store, make_backend
from collectors.testing.clock import ManualEnv


def test_a_run_that_could_not_be_noted_at_its_beginning(tmp_path, monkeypatch):
    opened = Runs._open
    failures = [TransientError("the disk is full")]

    def full(runs, database):
        if failures:
            raise failures.pop()
        return opened(runs, database)

    monkeypatch.setattr(Runs, "_open", full)
    config = from_mapping(
        {
            "sources": [lambda: iter([{"s": "one", "n": 1}])],
            "storage": [make_backend(Store("one", "plain", 0, 1))],
        },
        folder=tmp_path,
        name="test",
    )

    async def main():
        report = await Engine(config, env=ManualEnv(hurry=True)).run()
        return report, await read_runs(config)

    report, runs = asyncio.run(main())
    assert not failures
    assert [run.run for run in runs] == [report.run]
    assert (runs[0].status, runs[0].report["balanced"]) == ("done", True)
