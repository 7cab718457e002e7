"""`explain` says what each step costs, how it works, and leaves everything as it was."""

from __future__ import annotations

import asyncio
import json

import pyarrow as pa
import pytest

from collectors.config.load import from_mapping
from collectors.processing.base import Processor, ProcessorConfig
from collectors.runtime import explaining, measuring, trying
from collectors.runtime.env import Env
from collectors.runtime.explaining import explain
from collectors.testing.clock import ManualEnv

READINGS = "".join(
    json.dumps({"device": f"d-{n % 9}", "status": "fail" if n % 10 == 0 else "ok", "celsius": n % 40 + 0.5})
    + "\n"
    for n in range(1000)
)


def clean(record):
    if record["status"] == "fail":
        return None
    record["fahrenheit"] = record["celsius"] * 9 / 5 + 32
    return record


def split(record):
    return {**record, "number": record["device"].split("-")[1]}


def per_table(table):
    return table.append_column("same", table["celsius"])


def per_table_by_record(table):
    return pa.Table.from_pylist([{**record, "more": 1} for record in table.to_pylist()])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(measuring, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(trying, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(explaining, "WANTED_RECORDS", 2000)


@pytest.fixture
def explained(tmp_path):
    """Return what explains the pipeline with these processors; settings are those of the pipeline."""

    def run(*processors, text=READINGS, source=None, storage=None, env=None, **settings):
        (tmp_path / "in.ndjson").write_text(text)
        config = from_mapping(
            {
                "sources": [source or {"type": "file", "id": "in", "path": "in.ndjson"}],
                "processors": list(processors),
                "storage": storage or [{"type": "stdout"}],
                **settings,
            },
            folder=tmp_path,
            name="explained",
        )
        told = []
        found = asyncio.run(explain(config, 10.0, told.append, env))
        assert told
        return found[0] if len(found) == 1 else found

    return run


def costs(found):
    assert found.problem is None
    return {cost.step: cost for cost in found.costs}


FILTER = {"type": "filter", "where": "celsius > 10"}
SET = {"type": "set", "columns": {"f": "celsius * 9 / 5 + 32"}}
RENAME = {"type": "rename", "columns": {"celsius": "c"}}


def test_every_step_and_how_it_works(explained):
    found = costs(explained(FILTER, SET, RENAME, {"type": "python", "function": split}))
    assert list(found) == ["read", "decode", "filter", "set", "rename", "python"]
    assert {step: cost.runs for step, cost in found.items()} == {
        "read": "chunks",
        "decode": "columns",
        "filter": "columns",
        "set": "columns",
        "rename": "columns",
        "python": "per record",
    }
    assert all(cost.seconds > 0 for cost in found.values())
    assert found["python"].seconds > found["set"].seconds


def test_copies(explained):
    found = costs(explained(FILTER, SET, RENAME))
    assert {step: (cost.columns, cost.new) for step, cost in found.items() if cost.new is not None} == {
        "decode": (3, ["device", "status", "celsius"]),
        "filter": (3, ["device", "status", "celsius"]),
        "set": (4, ["f"]),
        "rename": (4, []),
    }
    assert found["rename"].new_bytes == 0
    assert 8 <= found["set"].new_bytes < 9
    assert found["set"].bytes == pytest.approx(found["filter"].bytes + found["set"].new_bytes, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "runs"),
    [
        ({"function": split}, "per record"),
        ({"function": per_table, "per": "table"}, "columns"),
        ({"function": per_table_by_record, "per": "table"}, "per record"),
    ],
)
def test_a_function_is_judged_by_what_it_does(explained, settings, runs):
    assert costs(explained({"type": "python", **settings}))["python"].runs == runs


class Doubling(Processor[ProcessorConfig]):
    """Works on records in Python, and does not say so."""

    def transform(self, table):
        values = []
        for value in table["celsius"].to_pylist():
            values.append(2 * value)
        return table.append_column("doubled", pa.array(values))


def test_a_processor_of_somebody_else_is_seen_through(explained):
    found = explained(Doubling())
    (name, cost) = list(costs(found).items())[-1]
    assert (name, cost.runs) == ("test_explaining", "per record")
    (slow,) = found.functions
    assert (slow.replacement, slow.reason) == (None, "it is no function of one record")


def test_bad_lines_make_decoding_run_line_by_line(explained):
    assert costs(explained())["decode"].runs == "columns"
    found = explained(text=READINGS + "no record\n")
    assert costs(found)["decode"].runs == "per record"
    assert (found.records, found.refused) == (1001, 1)


def test_a_function_that_slows_is_warned_of_with_the_sql_for_it(explained, monkeypatch):
    monkeypatch.setattr(explaining, "WORTH_A_WARNING", 1.0)  # it is a quick one, and the machine may be busy
    found = explained({"type": "python", "function": clean})
    (slow,) = found.functions
    assert slow.warns
    assert slow.function == "clean"
    assert slow.replacement.steps == [
        {"type": "filter", "where": "status is distinct from 'fail'"},
        {"type": "set", "columns": {"fahrenheit": "celsius * 9 / 5 + 32"}},
    ]
    assert slow.replacement.factor > 1
    (with_sql,) = [cost for cost in found.costs if cost.step == "python"]
    rest = found.seconds - with_sql.seconds
    assert slow.factor == pytest.approx(found.seconds / rest)


def test_two_slow_functions_do_not_hide_each_other(explained, monkeypatch):
    monkeypatch.setattr(explaining, "WORTH_A_WARNING", 1.5)
    found = explained({"type": "python", "function": clean}, {"type": "python", "function": split})
    assert [slow.step for slow in found.functions if slow.warns] == ["python", "python-2"]
    assert "split('-')" in found.functions[1].reason


def test_no_python_no_warning(explained):
    assert explained(FILTER, SET, RENAME).functions == []


def test_stores_are_measured_elsewhere(explained, tmp_path):
    storage = [
        {"type": "sqlite", "path": "out.db"},
        {"type": "parquet", "path": "lake"},
        {"type": "memory"},
        {"type": "stdout"},
    ]
    found = explained(FILTER, storage=storage)
    assert [step for step in costs(found) if step.startswith("store")] == ["store sqlite", "store parquet"]
    assert costs(found)["store sqlite"].seconds > 0
    assert [step for step, _ in found.unmeasured] == ["store memory", "store stdout"]
    assert [path.name for path in tmp_path.iterdir()] == ["in.ndjson"]


def test_a_store_that_takes_no_such_table_is_said(explained):
    found = explained(
        {"type": "set", "columns": {"DEVICE": "1"}}, storage=[{"type": "sqlite", "path": "o.db"}]
    )
    assert found.problem is None
    assert [step for step, _ in found.unmeasured] == ["store sqlite"]


def test_routes_are_told_apart(explained):
    found = explained(
        FILTER,
        pipelines={"main": {}, "short": {"processors": [{"type": "select", "columns": ["device"]}]}},
    )
    assert list(costs(found)) == ["read", "decode", "filter", "short: select"]


def test_small_samples_are_repeated(explained):
    found = explained(FILTER, text=READINGS[: READINGS.index("\n") + 1] * 3)
    assert (found.records, found.measured) == (3, 2000 - 2000 % 3)
    found = explained(
        FILTER,
        text="status,celsius\n" + "ok,11.5\n" * 30,
        source={"type": "file", "path": "in.ndjson", "format": "csv"},
    )
    assert (found.records, found.refused, found.measured) == (30, 0, 1980)


class SlowEnv(Env):
    """A clock that goes on by a second with each record that `wait` was called for."""

    waited = 0

    def monotonic(self):
        return float(self.waited)


def test_a_very_slow_function_is_measured_on_few_records(explained):
    env = SlowEnv()

    def wait(record):
        env.waited += 1
        return record

    found = explained({"type": "python", "function": wait}, env=env)
    assert found.measured == 1
    assert costs(found)["python"].seconds == 1.0


def test_a_source_that_cannot_be_read_again(explained):
    def numbers():
        for n in range(100):
            yield {"celsius": n + 0.5}

    found = explained(FILTER, source={"type": "python", "id": "numbers", "function": numbers})
    assert [step for step, _ in found.unmeasured] == ["read", "store stdout"]
    assert found.records == 100, "its first chunks are put together"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "in: there is no record, so nothing can be measured"),
        ("no record\n", "in: none of the 1 records of the sample can be decoded: "),
    ],
)
def test_without_records_nothing_is_known(explained, text, problem):
    found = explained(FILTER, text=text)
    assert found.problem.startswith(problem)
    assert not found.misconfigured
    assert found.costs == []


def test_a_source_that_waits(explained):
    found = explained(
        source={"type": "webhook", "id": "hook", "listen": "127.0.0.1:0"}, env=ManualEnv(hurry=True)
    )
    assert found.problem == "hook: no record came within 10 s, so nothing can be measured"


def test_settings_that_do_not_fit(explained):
    found = explained({"type": "filter", "where": "kelvin > 3"})
    assert found.misconfigured
    assert "step 'filter': where: no column 'kelvin'" in found.problem


def test_a_function_without_memory_is_named(explained):
    def hungry(_record):
        raise MemoryError

    found = explained({"type": "python", "function": hungry})
    assert found.problem.startswith("in: hungry has run out of memory: MemoryError  (test_explaining.py:")
