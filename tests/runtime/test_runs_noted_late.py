"""A state file that is full when a run begins: the run goes on, and is remembered as soon as there is room."""

from __future__ import annotations

import asyncio

import pytest

from collectors.chunks import Counts
from collectors.config.load import from_mapping
from collectors.errors import TransientError
from collectors.runtime.engine import Engine
from collectors.runtime.ledger import EdgeReport, FlowReport, RunReport
from collectors.runtime.runs import Runs, _read, read_runs
from collectors.runtime.state import State
from collectors.storage.backends.sqlite import SqliteBackend, SqliteConfig
from collectors.testing._sim_stores import Store, make_backend
from collectors.testing.clock import ManualEnv
from collectors.testing.deliveries import delivery


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


def test_what_a_run_that_died_has_stored_is_counted_once_after_a_reload(tmp_path):
    """It noted a flow, and the one that a reload made of it; the store has more. Another place is not asked any more."""
    backend = SqliteBackend(SqliteConfig(id="sqlite", path=str(tmp_path / "out.db")))
    state, env = State(tmp_path / "state.db", ManualEnv()), ManualEnv()

    def flow(where, read):
        edge = EdgeReport("sqlite", where, "contract/source", counts=Counts(read=read, stored=read))
        return FlowReport("source", edges=[edge])

    async def main():
        await state.open()
        await backend.connect()
        await backend.call(backend.claim, "contract/source")
        await backend.call(backend.commit, delivery(1, 2, letters=0))
        here = backend.describe()
        died = RunReport("p", "run-1", env.now(), [flow(here, 2), flow("elsewhere", 1), flow(here, 1)])
        await Runs(state, env).begin(died, "v1", {})
        await Runs(state, env).begin(RunReport("p", "run-2", env.now(), []), "v1", {"sqlite": backend})
        found = await state.call(_read)
        await state.close()
        await backend.disconnect()
        return [each["storage"][0]["read"] for each in found[0].report["flows"]]

    assert asyncio.run(main()) == [2, 1, 4]


@pytest.mark.parametrize("flows", [1, 2])
def test_what_a_run_that_died_has_stored_stays_noted_when_its_store_is_gone(tmp_path, flows):
    """The store at that place is an empty one now, or an older copy: it has less than the run knew to be stored."""
    backend = SqliteBackend(SqliteConfig(id="sqlite", path=str(tmp_path / "out.db")))
    state, env = State(tmp_path / "state.db", ManualEnv()), ManualEnv()

    async def main():
        await state.open()
        await backend.connect()
        edges = [
            EdgeReport(
                "sqlite", backend.describe(), "contract/source", counts=Counts(read=9, stored=8, set_aside=1)
            )
            for _ in range(flows)
        ]
        died = RunReport("p", "run-1", env.now(), [FlowReport("source", edges=[edge]) for edge in edges])
        await Runs(state, env).begin(died, "v1", {})
        await Runs(state, env).begin(RunReport("p", "run-2", env.now(), []), "v1", {"sqlite": backend})
        found = await state.call(_read)
        await state.close()
        await backend.disconnect()
        return [each["storage"][0] for each in found[0].report["flows"]]

    for told in asyncio.run(main()):
        assert (told["read"], told["stored"], told["set_aside"]) == (9, 8, 1)
