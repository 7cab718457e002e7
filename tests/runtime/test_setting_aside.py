"""Bad rows that nobody names, the error budget, and runs that do not balance."""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pyarrow.compute as pc
import pytest

from collectors.config.load import from_mapping
from collectors.errors import DataError, ErrorBudgetError, FatalError
from collectors.processing.base import Processor, ProcessorConfig
from collectors.runtime.dead_letters import look
from collectors.runtime.engine import Engine
from collectors.runtime.replay import Replay
from collectors.runtime.runs import read_runs
from collectors.storage.backends.sqlite import SqliteBackend, SqliteConfig
from collectors.storage.base import Backend, BackendConfig

ROWS = 65_536


class Plain(Backend[BackendConfig]):
    """Takes rows, whole tables only, and does not say which row it does not like."""

    def __init__(self, bad=(), **settings):
        super().__init__(id="plain", **settings)
        self.bad, self.rows, self.tries = set(bad), [], 0

    def write(self, table, key):
        self.tries += 1
        rows = table["n"].to_pylist()
        if self.bad.intersection(rows):
            raise DataError("some row is bad")
        self.rows += rows


class Transactional(SqliteBackend):
    """Refuses a commit or a rehearsal as a whole."""

    bad: set[int] = {40_000}
    tries = 0

    def _look(self, delivery):
        type(self).tries += 1
        if (
            delivery.table.num_rows
            and pc.any(pc.is_in(delivery.table["n"], value_set=_values(self.bad))).as_py()
        ):
            raise DataError("some row is bad")

    def commit(self, delivery):
        self._look(delivery)
        return super().commit(delivery)

    def rehearse(self, delivery):
        self._look(delivery)


def _values(rows):
    import pyarrow as pa

    return pa.array(sorted(rows), pa.int64())


class Picky(Processor[ProcessorConfig]):
    """Raises for a whole table."""

    bad = 12_345

    def transform(self, table):
        if self.bad in table["n"].to_pylist():
            raise ZeroDivisionError("by zero")
        return table


def config(folder, store, rows=ROWS, processors=(), **settings):
    path = folder / "in.ndjson"
    if not path.exists():
        path.write_text("".join(f'{{"n":{n}}}\n' for n in range(rows)))
    source = {"type": "file", "id": "numbers", "path": "in.ndjson", "format": "ndjson"}
    return from_mapping(
        {"sources": [source], "processors": list(processors), "storage": [store], **settings},
        folder=folder,
        name="test",
    )


def run(configured):
    return asyncio.run(Engine(configured).run())


def letters(configured):
    return asyncio.run(look(configured)).letters


def test_a_store_that_names_no_row_loses_that_row_alone(tmp_path):
    store = Plain({40_000})
    configured = config(tmp_path, store)
    report = run(configured)
    assert report.balanced
    assert sorted(store.rows) == [n for n in range(ROWS) if n != 40_000]
    assert store.tries < 40
    (letter,) = letters(configured)
    assert (letter.step, letter.reason, letter.raw) == ("store plain", "some row is bad", b'{"n":40000}')


def test_a_store_with_transactions_rehearses(tmp_path):
    Transactional.bad, Transactional.tries = {40_000}, 0
    store = Transactional(SqliteConfig(path=str(tmp_path / "out.db"), table="numbers"))
    configured = config(tmp_path, store)
    report = run(configured)
    assert report.balanced
    assert report.flows[0].edges[0].counts.stored == ROWS - 1
    assert Transactional.tries < 40
    (letter,) = letters(configured)
    assert letter.raw == b'{"n":40000}'
    Transactional.bad = set()
    again = asyncio.run(Replay(configured, [letter.key]).run())
    assert again.balanced
    assert letters(configured) == []


class Unique(Transactional):
    """Refuses rows only because of other rows."""

    def _look(self, delivery):
        rows = delivery.table["n"].to_pylist()
        if len(set(rows)) < len(rows):
            raise DataError("a number is there twice")


def test_rows_that_are_refused_because_of_others_are_found(tmp_path):
    (tmp_path / "in.ndjson").write_text("".join(f'{{"n":{n}}}\n' for n in [*range(1000), 5, 500]))
    store = Unique(SqliteConfig(path=str(tmp_path / "out.db"), table="numbers"))
    configured = config(tmp_path, store)
    assert run(configured).balanced
    assert {letter.raw for letter in letters(configured)} == {b'{"n":5}', b'{"n":500}'}


def test_a_processor_that_fails_as_a_whole_loses_one_row(tmp_path):
    store = Plain()
    configured = config(tmp_path, store, processors=[Picky()])
    assert run(configured).balanced
    assert len(store.rows) == ROWS - 1
    (letter,) = letters(configured)
    assert letter.reason == "ZeroDivisionError: by zero"


def test_a_store_that_refuses_everything_stops_the_flow_soon(tmp_path):
    store = Plain(range(ROWS))
    report = run(config(tmp_path, store))
    assert isinstance(report.flows[0].error, FatalError)
    assert "too many of 65,536 rows" in str(report.flows[0].error)
    assert store.tries < 2_100
    assert store.rows == []


def bad_lines(folder, rows, bad):
    (folder / "in.ndjson").write_text(
        "".join("broken\n" if n in bad else f'{{"n":{n}}}\n' for n in range(rows))
    )


SQLITE = {"type": "sqlite", "path": "out.db", "table": "numbers"}


@pytest.mark.parametrize(
    ("limit", "bad", "stops"),
    [
        ("1%", 10, False),
        ("1%", 11, True),
        (0, 1, True),
        (0, 0, False),
        ("100%", 1000, False),
        (None, 900, False),
    ],
)
def test_the_error_budget(tmp_path, limit, bad, stops):
    bad_lines(tmp_path, 1000, range(bad))
    configured = config(tmp_path, SQLITE, **({} if limit is None else {"stop_above": limit}))
    report = run(configured)
    assert isinstance(report.flows[0].error, ErrorBudgetError) is stops
    assert report.balanced
    assert report.set_aside == bad == len(letters(configured))


def test_what_each_of_two_storages_refuses_is_counted(tmp_path):
    bad_lines(tmp_path, 10, [0])
    for name, refused in (("a", "3"), ("b", "3, 4")):
        with sqlite3.connect(tmp_path / f"{name}.db") as database:
            database.execute(f"create table numbers (n integer check (n not in ({refused})))")
        database.close()
    storage = [{"type": "sqlite", "id": name, "path": f"{name}.db", "table": "numbers"} for name in "ab"]
    source = {"type": "file", "id": "numbers", "path": "in.ndjson"}
    configured = from_mapping({"sources": [source], "storage": storage}, folder=tmp_path, name="test")
    report = run(configured)
    assert report.balanced
    assert report.set_aside == 4 == len(letters(configured))


def test_the_error_budget_stops_in_the_middle_and_nothing_is_lost(tmp_path):
    bad_lines(tmp_path, 20_000, range(5_000, 7_000))
    source = {"type": "file", "id": "numbers", "path": "in.ndjson", "chunk_size": "2 KiB"}
    mapping = {
        "sources": [source],
        "storage": [SQLITE, {"type": "parquet", "path": "lake"}],
        "stop_above": "5%",
        "memory": "32 KiB",
    }
    configured = from_mapping(mapping, folder=tmp_path, name="test")
    first = run(configured)
    error, edges = first.flows[0].error, first.flows[0].edges
    assert isinstance(error, ErrorBudgetError)
    assert f"{edges[0].counts.set_aside:,} x decode: not JSON" in str(error)
    set_aside = len(letters(configured))
    assert 0 < set_aside < 2000
    assert edges[0].counts == edges[1].counts
    assert edges[0].counts.set_aside == set_aside
    runs = 1
    while first.failed:
        first = run(configured)
        runs += 1
        assert runs < 50
    assert len(letters(configured)) == 2000
    totals = [each.report["flows"][0]["storage"][0] for each in asyncio.run(read_runs(configured))]
    assert sum(edge["stored"] for edge in totals) == 18_000
    assert sum(edge["read"] for edge in totals) == 20_000


def test_a_source_has_a_budget_of_its_own(tmp_path):
    bad_lines(tmp_path, 200, range(20))
    source = {"type": "file", "id": "numbers", "path": "in.ndjson", "stop_above": "50%"}
    mapping = {"sources": [source], "storage": [SQLITE], "stop_above": 0}
    assert not run(from_mapping(mapping, folder=tmp_path, name="test")).failed


class Forgetful(SqliteBackend):
    """Loses a count: its ledger says one record less than it has acknowledged."""

    def ledger(self, run):
        from msgspec.structs import replace

        return {
            flow: replace(counts, stored=counts.stored - 1) for flow, counts in super().ledger(run).items()
        }


def test_a_run_that_does_not_balance_says_where(tmp_path):
    configured = config(
        tmp_path, Forgetful(SqliteConfig(id="sqlite", path=str(tmp_path / "out.db"))), rows=10
    )
    report = run(configured)
    assert not report.balanced
    assert report.imbalances() == ["numbers → sqlite: the store's own ledger has stored 9 instead of 10"]
    (noted,) = asyncio.run(read_runs(configured))
    assert noted.status == "unbalanced"


def test_runs_are_noted_with_their_steps(tmp_path):
    configured = config(tmp_path, SQLITE, rows=10, processors=[{"type": "filter", "where": "n > 3"}])
    run(configured)
    run(configured)
    first, second = asyncio.run(read_runs(configured))
    assert (first.status, first.kind, first.reason) == ("done", "run", "")
    steps = first.report["flows"][0]["steps"]
    assert [(step["step"], step["in"], step["out"], step["filtered"]) for step in steps] == [
        ("decode", 10, 10, 0),
        ("filter", 10, 6, 4),
    ]
    assert second.report["flows"][0]["read"] == 0
    assert json.loads(json.dumps(first.as_dict()))["status"] == "done"


def test_rows_that_break_a_constraint_are_set_aside_alone(tmp_path):
    with sqlite3.connect(tmp_path / "out.db") as database:
        database.execute("create table numbers (n integer primary key check (n <> 77))")
    (tmp_path / "in.ndjson").write_text("".join(f'{{"n":{n}}}\n' for n in [*range(1000), 5, 500]))
    configured = config(tmp_path, SQLITE)
    assert run(configured).balanced
    found = letters(configured)
    assert {letter.raw for letter in found} == {b'{"n":5}', b'{"n":77}', b'{"n":500}'}
    assert {letter.reason.split(":")[0] for letter in found} == {
        "CHECK constraint failed",
        "UNIQUE constraint failed",
    }
    with sqlite3.connect(tmp_path / "out.db") as database:
        assert database.execute("select count(*) from numbers").fetchone() == (999,)
