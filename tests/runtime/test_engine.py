"""The engine with sources and backends that fail as told: isolation, retries, stops, locks, the ledger."""

from __future__ import annotations

import asyncio
import json

import pyarrow as pa
import pytest

from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError, DataError, FatalError, TransientError
from collectors.processing.base import Processor, ProcessorConfig
from collectors.runtime.engine import Engine
from collectors.storage.base import Backend, BackendConfig
from collectors.testing.clock import ManualEnv


async def until(condition):
    """Let other tasks and threads work until the condition holds."""
    for _ in range(50_000):
        if condition():
            return
        await asyncio.to_thread(int)
    raise AssertionError("it never came to that")


class NumbersConfig(SourceConfig):
    limit: int = 10
    per_chunk: int = 3
    failures: dict[int, int] = {}
    endless: bool = False


class Numbers(Source[NumbersConfig]):
    """Counts; fails as often as told before it gives a number."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.left = dict(self.config.failures)
        self.committed = []
        self.connections = 0

    async def open(self):
        self.connections += 1

    async def read(self, since):
        first = since["n"] if since else 0
        while first < self.config.limit:
            last = min(first + self.config.per_chunk, self.config.limit)
            if self.left.get(first, 0):
                self.left[first] -= 1
                raise TransientError(f"away at {first}")
            yield self.chunk(b"".join(b'{"n": %d}\n' % n for n in range(first, last)), {"n": last})
            first = last
        if self.config.endless:
            await asyncio.Event().wait()

    async def commit(self, position):
        self.committed.append(position["n"])


class Broken(Source[SourceConfig]):
    async def read(self, since):
        yield self.chunk(b'{"n": 1000}\n', {"n": 1})
        raise FatalError("the meter is gone")


class Flaky(Backend[BackendConfig]):
    """Keeps rows in a list; fails as often as told, refuses numbers as told; keeps no position."""

    def __init__(self, failures=0, refuse=()):
        super().__init__()
        self.rows = []
        self.failures = failures
        self.refuse = set(refuse)

    def write(self, table, key):
        if self.failures:
            self.failures -= 1
            raise TransientError("the store is away")
        bad = {row: "not this one" for row, n in enumerate(table["n"].to_pylist()) if n in self.refuse}
        if bad:
            raise DataError("refused", rows=bad)
        self.rows += table["n"].to_pylist()
        return table.num_rows

    def get_backend_id(self):
        return self.config.id or "flaky"


def engine(tmp_path, sources, storage, processors=(), env=None, **options):
    config = from_mapping(
        {
            "sources": list(sources),
            "processors": list(processors),
            "storage": list(storage),
            "state": str(tmp_path / "state"),
        },
        folder=tmp_path,
        name="test",
    )
    return Engine(config, env=env or ManualEnv(hurry=True), **options)


def test_everything_arrives_once_and_the_source_is_told(tmp_path):
    source, store = Numbers(limit=100), Flaky()
    report = asyncio.run(engine(tmp_path, [source], [store]).run())
    assert store.rows == list(range(100))
    assert source.committed[-1] == 100
    assert source.committed == sorted(source.committed)
    assert report.balanced
    assert report.flows[0].read == 100


def test_a_source_that_is_away_for_a_while(tmp_path):
    source, store, told = Numbers(failures={0: 2, 6: 3}), Flaky(), []
    report = asyncio.run(engine(tmp_path, [source], [store], on_notice=told.append).run())
    assert store.rows == list(range(10))
    assert report.balanced
    assert source.connections == 6
    assert any("away at 6" in line and "reading again in" in line for line in told)
    assert any("going on" in line for line in told)


def test_a_source_that_stays_away_ends_the_run(tmp_path):
    env = ManualEnv(hurry=True)
    report = asyncio.run(engine(tmp_path, [Numbers(failures={3: 10**6})], [Flaky()], env=env).run())
    assert str(report.flows[0].error) == "away at 3"
    assert report.flows[0].edges[0].counts.stored == 3
    assert env.monotonic() >= 60


def test_a_failing_source_stops_no_other_and_what_it_gave_is_stored(tmp_path):
    good, store = Numbers(id="good", limit=500, per_chunk=1), Flaky()
    report = asyncio.run(engine(tmp_path, [Broken(id="bad"), good], [store]).run())
    by_name = {flow.source: flow for flow in report.flows}
    assert str(by_name["bad"].error) == "the meter is gone"
    assert by_name["good"].status == "done"
    assert sorted(store.rows) == [*range(500), 1000]


def test_a_store_that_is_away_for_a_while(tmp_path):
    store = Flaky(failures=5)
    report = asyncio.run(engine(tmp_path, [Numbers()], [store]).run())
    assert store.rows == list(range(10))
    assert report.balanced


def test_rows_that_the_store_refuses_become_dead_letters(tmp_path):
    store = Flaky(refuse=[2, 7])
    running = engine(tmp_path, [Numbers()], [store])
    report = asyncio.run(running.run())
    assert store.rows == [n for n in range(10) if n not in {2, 7}]
    counts = report.flows[0].edges[0].counts
    assert (counts.read, counts.stored, counts.set_aside) == (10, 8, 2)
    letters = asyncio.run(_letters(running.config))
    assert [(letter.step, json.loads(letter.raw)) for letter in letters] == [
        ("store flaky", {"n": 2}),
        ("store flaky", {"n": 7}),
    ]


async def _letters(config):
    from collectors.runtime.dead_letters import read_letters

    return await read_letters(config)


def test_a_slow_store_does_not_hold_up_the_other(tmp_path):
    away, ready = Flaky(failures=10**9), {"type": "memory"}
    away.config = BackendConfig(id="away")
    running = engine(tmp_path, [Numbers(limit=30)], [away, ready])
    report = asyncio.run(running.run())
    stored = {edge.backend: edge.counts.stored for edge in report.flows[0].edges}
    assert stored["away"] == 0
    assert not report.balanced


def test_stop_drains_what_was_read(tmp_path):
    async def scenario():
        source, store = Numbers(limit=50, endless=True), Flaky()
        running = engine(tmp_path, [source], [store], env=ManualEnv())
        work = asyncio.ensure_future(running.run())
        await until(lambda: len(store.rows) == 50)
        running.stop()
        report = await asyncio.wait_for(work, 20)
        assert report.flows[0].status == "stopped"
        assert report.balanced
        assert store.rows == list(range(50))

    asyncio.run(scenario())


def test_stop_ends_at_the_deadline_when_the_store_is_away(tmp_path):
    async def scenario():
        env = ManualEnv()
        running = engine(tmp_path, [Numbers(endless=True)], [Flaky(failures=10**9)], env=env, drain=30)
        work = asyncio.ensure_future(running.run())
        await until(lambda: running.report.flows and running.report.flows[0].read)
        running.stop()
        await asyncio.sleep(0)
        await env.advance(31)
        report = await asyncio.wait_for(work, 20)
        assert report.flows[0].in_flight == report.flows[0].read > 0
        assert (report.status, report.balanced) == ("stopped", True)

    asyncio.run(scenario())


def test_a_second_run_is_refused_while_the_first_is_running(tmp_path):
    async def scenario():
        first = engine(tmp_path, [Numbers(endless=True)], [Flaky()], env=ManualEnv())
        work = asyncio.ensure_future(first.run())
        await until(lambda: first.report.flows)
        with pytest.raises(ConfigurationError, match="'test' is running already \\(process"):
            await engine(tmp_path, [Numbers()], [Flaky()]).run()
        first.stop()
        await work

    asyncio.run(scenario())


def test_the_next_run_goes_on_behind_the_last(tmp_path):
    store = Flaky()
    asyncio.run(engine(tmp_path, [Numbers(limit=10)], [store]).run())
    report = asyncio.run(engine(tmp_path, [Numbers(limit=25)], [store]).run())
    assert store.rows == list(range(25))
    assert report.flows[0].read == 15
    assert report.flows[0].resumed_at == {"n": 10}


class Doubles(Processor[ProcessorConfig]):
    def transform(self, table):
        return pa.concat_tables([table, table])


class Losing(Processor[ProcessorConfig]):
    def apply(self, table):
        raise ZeroDivisionError("a bug")

    def transform(self, table):
        return table


def test_rows_that_a_processor_makes_are_counted(tmp_path):
    store = Flaky()
    report = asyncio.run(engine(tmp_path, [Numbers()], [store], [Doubles()]).run())
    counts = report.flows[0].edges[0].counts
    assert (counts.read, counts.added, counts.stored) == (10, 10, 20)
    assert report.balanced


def test_a_bug_in_a_processor_stops_the_flow_and_stores_nothing(tmp_path):
    store = Flaky()
    report = asyncio.run(engine(tmp_path, [Numbers()], [store], [Losing()]).run())
    assert isinstance(report.flows[0].error, ZeroDivisionError)
    assert store.rows == []


def test_a_malformed_record_is_in_the_ledger_and_the_letters(tmp_path):
    (tmp_path / "in.ndjson").write_bytes(b'{"n": 1}\nnot json\n{"n": 2}\n')
    store = Flaky()
    running = engine(tmp_path, [{"type": "file", "path": "in.ndjson"}], [store])
    report = asyncio.run(running.run())
    assert store.rows == [1, 2]
    assert report.set_aside == 1
    (letter,) = asyncio.run(_letters(running.config))
    assert letter.raw.strip() == b"not json"
    assert letter.step == "decode"
    assert letter.position == {"path": str(tmp_path / "in.ndjson"), "offset": 9}


def test_memory_stays_under_its_budget_with_a_store_that_is_away(tmp_path):
    async def scenario():
        env = ManualEnv()
        source = Numbers(limit=10**6, per_chunk=1000)
        running = engine(tmp_path, [source], [Flaky(failures=10**9)], env=env)
        running.budget.limit = 200_000
        work = asyncio.ensure_future(running.run())
        await until(lambda: running.budget.used > 100_000)
        for _ in range(200):
            await asyncio.to_thread(int)
        assert 0 < running.budget.used <= 400_000
        running.stop()
        running.stop()
        await work

    asyncio.run(scenario())


def test_two_backends_without_room_for_letters_do_not_lose_them(tmp_path):
    (tmp_path / "in.ndjson").write_bytes(b'{"n": 1}\nnot json\n{"n": 2}\n')
    storage = [{"type": "parquet", "id": name, "path": name} for name in ("a", "b")]
    running = engine(tmp_path, [{"type": "file", "path": "in.ndjson"}], storage)
    report = asyncio.run(running.run())
    assert report.set_aside == 1
    assert [letter.raw.strip() for letter in asyncio.run(_letters(running.config))] == [b"not json"]


def test_two_tables_of_one_file_do_not_lose_letters(tmp_path):
    (tmp_path / "in.ndjson").write_bytes(b'{"n": 1}\nnot json\n{"n": 2}\n')
    storage = [{"type": "sqlite", "id": name, "path": "out.db", "table": name} for name in ("a", "b")]
    running = engine(tmp_path, [{"type": "file", "path": "in.ndjson"}], storage)
    report = asyncio.run(running.run())
    assert report.balanced
    assert [letter.raw.strip() for letter in asyncio.run(_letters(running.config))] == [b"not json"]


class RefusesTwice(Flaky):
    """Refuses one row at a time, as a store does that checks types first and constraints later."""

    def write(self, table, key):
        for row, n in enumerate(table["n"].to_pylist()):
            if n in self.refuse:
                raise DataError("refused", rows={row: "not this one"})
        return super().write(table, key)


def test_rows_refused_one_after_the_other_each_have_a_letter(tmp_path):
    store = RefusesTwice(refuse=[1, 2, 4])
    running = engine(tmp_path, [Numbers(limit=6, per_chunk=6)], [store])
    report = asyncio.run(running.run())
    assert store.rows == [0, 3, 5]
    assert report.balanced
    letters = asyncio.run(_letters(running.config))
    assert [(letter.record, json.loads(letter.raw)["n"]) for letter in letters] == [(1, 1), (2, 2), (4, 4)]
