"""A storage gets another place, or other settings, while the pipeline runs: its ledger is compared with what it got."""

from __future__ import annotations

import asyncio
import json

import pytest
from msgspec.structs import replace

from collectors.config.load import load
from collectors.errors import TransientError
from collectors.runtime import reload
from collectors.runtime.engine import Engine
from collectors.storage.backends.sqlite import SqliteBackend

PIPELINE = """name: live
sources: [{type: file, id: z, path: z.ndjson, follow: true}]
storage: [%s]
"""
STORES = {
    "sqlite": ("{type: sqlite, id: out, path: %s}", "{type: sqlite, id: out, path: %s, lock_timeout: 3s}"),
    "duckdb": (
        "{type: duckdb, id: out, path: %s}",
        "{type: duckdb, id: out, path: %s, checkpoint_after: 3s}",
    ),
    "parquet": ("{type: parquet, id: out, path: %s}", "{type: parquet, id: out, path: %s, max_rows: 3}"),
}


class Live:
    """A pipeline in this process; `flows` are those that have begun, `told` what people were told."""

    def __init__(self, folder):
        self.folder = folder
        self.told = []
        self.added = 0

    async def start(self, storage):
        self.add(0)
        self.write(storage)
        self.engine = Engine(load(self.folder / "p.yaml"), on_notice=self.told.append)
        self.running = asyncio.ensure_future(self.engine.run())
        await self.until(lambda: self.flows)

    @property
    def flows(self):
        return self.engine.report.flows

    def write(self, storage):
        (self.folder / "p.yaml").write_text(PIPELINE % storage)

    def add(self, count):
        with (self.folder / "z.ndjson").open("a") as file:
            for _ in range(count):
                file.write(json.dumps({"n": self.added}) + "\n")
                self.added += 1

    async def change(self, storage):
        before = len(self.flows)
        self.write(storage)
        await self.until(lambda: len(self.flows) > before)

    async def has(self, count):
        await self.until(lambda: self.flows[-1].edges[0].committed.read == count)

    async def until(self, condition):
        async with asyncio.timeout(60):
            while not condition():
                assert not self.running.done(), self.told
                await asyncio.to_thread(int)

    async def end(self):
        self.engine.stop()
        return await self.running


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr(reload, "LOOK_SECONDS", 0.02)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind == "duckdb" else kind for kind in STORES]
)
def test_each_place_has_a_ledger_of_its_own(tmp_path, kind):
    """That of a place that is used again, or by other settings, goes on where it was."""
    plain, otherwise = STORES[kind]

    async def scenario():
        live = Live(tmp_path)
        await live.start(plain % "one")
        live.add(2)
        await live.has(2)
        await live.change(plain % "two")
        live.add(3)
        await live.has(5)
        await live.change(plain % "one")
        await live.has(3)
        await live.change(otherwise % "one")
        live.add(4)
        await live.has(4)
        return await live.end()

    report = asyncio.run(scenario())
    assert report.imbalances() == []
    assert report.status == "stopped"
    assert [flow.edges[0].counts.stored for flow in report.flows] == [2, 5, 3, 4]
    assert report.flows[-1].edges[0].ledger == report.flows[-1].edges[0].counts


def test_a_ledger_that_is_wrong_after_a_move_is_told(tmp_path, monkeypatch):
    plain, _ = STORES["sqlite"]
    ledger = SqliteBackend.ledger

    def one_less(self, run):
        return {
            flow: replace(counts, stored=counts.stored - 1) if counts.stored == 5 else counts
            for flow, counts in ledger(self, run).items()
        }

    monkeypatch.setattr(SqliteBackend, "ledger", one_less)

    async def scenario():
        live = Live(tmp_path)
        await live.start(plain % "one")
        live.add(2)
        await live.has(2)
        await live.change(plain % "two")
        live.add(3)
        await live.has(5)
        return await live.end()

    assert asyncio.run(scenario()).imbalances() == [
        "z → out: the store's own ledger has stored 4 instead of 5"
    ]


def test_a_flow_that_never_reached_its_storage_again_is_not_compared(tmp_path, monkeypatch):
    """Its ledger has what the flow before it has stored."""
    plain, otherwise = STORES["sqlite"]
    claim = SqliteBackend.claim

    def away(self, flow):
        if self.config.lock_timeout == 3:
            raise TransientError("away")
        return claim(self, flow)

    monkeypatch.setattr(SqliteBackend, "claim", away)

    async def scenario():
        live = Live(tmp_path)
        await live.start(plain % "one")
        live.add(2)
        await live.has(2)
        await live.change(otherwise % "one")
        await live.until(lambda: any("away" in line for line in live.told))
        live.engine.stop()  # with what `end` does: at once
        return await live.end()

    report = asyncio.run(scenario())
    assert report.imbalances() == []
    assert [flow.edges[0].counts.stored for flow in report.flows] == [2, 0]
