"""Steps in an order: over any data behind the specification's interface, and over whole tables for the runtime."""

from __future__ import annotations

import asyncio
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.errors import DataError, FatalError
from collectors.interfaces import IProcessor
from collectors.mocks import MockProcessor
from collectors.models import ProcessingResult
from collectors.processing.base import Processor
from collectors.processing.pipeline import Pipeline


class Doubler(Processor):
    """Doubles n in whole tables; refuses negative ones."""

    def transform(self, table):
        values = table.column("n").to_pylist()
        bad = {row: f"{n} is negative" for row, n in enumerate(values) if n < 0}
        if bad:
            raise DataError("negative numbers", rows=bad)
        return pa.table({"n": [2 * n for n in values]}, schema=pa.schema([("n", pa.int64())]))


class Plain(IProcessor):
    """A third party's processor: knows only the interface and gives what a function gives."""

    def __init__(self, function, name="plain"):
        self.function, self.name = function, name

    async def process(self, data):
        return ProcessingResult(True, self.function(data), None, 0.5)

    def get_processor_name(self):
        return self.name

    def validate_input(self, data):
        return isinstance(data, dict) and data.get("valid", True)


def pipeline_of(*processors):
    pipeline = Pipeline()
    for processor in processors:
        pipeline.append(processor)
    return pipeline


def executed(data, *processors):
    return asyncio.run(pipeline_of(*processors).execute(data))


@settings(max_examples=100, deadline=None)
@given(orders=st.lists(st.integers(-(10**6), 10**6), max_size=8))
def test_steps_run_in_ascending_order_and_an_order_is_taken_once(orders):
    async def main():
        pipeline, taken = Pipeline(), []
        for order in orders:
            if order in taken:
                with pytest.raises(ValueError, match=f"order {order} is taken"):
                    await pipeline.add_step(MockProcessor(str(order)), order)
            else:
                await pipeline.add_step(MockProcessor(str(order)), order)
                taken.append(order)
        assert [step.order for step in pipeline.get_steps()] == sorted(taken)
        result = await pipeline.execute({})
        assert list(result.final_data) == [f"processed_by_{order}" for order in sorted(taken)]

    asyncio.run(main())


@pytest.mark.parametrize(("processor", "order"), [(None, 1), (dict, 1), (MockProcessor, 1), (len, 1)])
def test_what_is_no_processor_is_refused(processor, order):
    with pytest.raises(ValueError, match="expected a processor"):
        asyncio.run(Pipeline().add_step(processor, order))


@pytest.mark.parametrize("order", [None, "1", 1.0, True])
def test_an_order_is_a_whole_number(order):
    with pytest.raises(ValueError, match="whole number"):
        asyncio.run(Pipeline().add_step(MockProcessor("m"), order))


def test_a_step_can_be_taken_out_and_its_order_taken_again():
    async def main():
        pipeline = Pipeline()
        step_id = await pipeline.add_step(MockProcessor("a"), 1)
        await pipeline.add_step(MockProcessor("b"), 2)
        await pipeline.remove_step(step_id)
        assert [step.processor.get_processor_name() for step in pipeline.get_steps()] == ["b"]
        with pytest.raises(KeyError):
            await pipeline.remove_step(step_id)
        await pipeline.add_step(MockProcessor("c"), 1)
        assert pipeline.step_names() == ["c", "b"]

    asyncio.run(main())


def test_a_step_that_is_taken_out_while_it_runs_ends_its_run():
    async def main():
        pipeline, began, may_go_on = Pipeline(), asyncio.Event(), asyncio.Event()

        class Slow(MockProcessor):
            async def process(self, data):
                began.set()
                await may_go_on.wait()
                return await super().process(data)

        first = await pipeline.add_step(Slow("slow"), 1)
        second = await pipeline.add_step(MockProcessor("next"), 2)
        run = asyncio.create_task(pipeline.execute({}))
        await began.wait()
        await pipeline.remove_step(first)
        await pipeline.remove_step(second)
        may_go_on.set()
        assert (await run).final_data == {"processed_by_slow": True, "processed_by_next": True}
        assert pipeline.get_statistics() == []

    asyncio.run(main())


def test_the_list_of_steps_is_a_copy():
    pipeline = pipeline_of(MockProcessor("a"))
    pipeline.get_steps().clear()
    assert len(pipeline.get_steps()) == 1


@settings(max_examples=100, deadline=None)
@given(names=st.lists(st.sampled_from(["a", "a-2", "a-3", "b", "", "a-2-2"]), max_size=10))
def test_each_step_has_a_name_of_its_own(names):
    unique = pipeline_of(*map(MockProcessor, names)).step_names()
    assert len(set(unique)) == len(names)
    assert all(given.startswith(name) for given, name in zip(unique, names, strict=True))
    assert all(unique[names.index(name)] == name for name in set(names) if name in {"a", "b", ""})


def test_the_second_of_a_name_is_numbered_in_failures_too():
    result = executed({}, MockProcessor("m"), MockProcessor("m", should_fail=True))
    assert result.failed_step == "m-2"


@pytest.mark.parametrize("data", [{"n": 1}, [{"n": 1}], None, "text", b"", 0])
def test_without_steps_the_data_come_back(data):
    result = executed(data)
    assert (result.success, result.final_data, result.step_results) == (True, data, [])


def test_a_record_that_is_filtered_out_ends_the_run_as_a_success():
    result = executed({"n": 1}, Plain(lambda data: None), MockProcessor("after"))
    assert (result.success, result.final_data, len(result.step_results)) == (True, None, 1)


@pytest.mark.parametrize(
    ("processor", "error"),
    [
        (Plain(lambda data: data["x"]), "KeyError: 'x'"),
        (MockProcessor("m", should_fail=True), "the mock processor 'm' failed as told"),
        (Doubler(id="d"), "d does not take str input"),
    ],
)
def test_the_error_of_a_step_is_in_its_result(processor, error):
    result = executed("text" if isinstance(processor, Doubler) else {}, processor)
    assert (result.success, result.step_results[0].error) == (False, error)


def test_input_that_a_step_does_not_validate_is_not_processed():
    result = executed({"valid": False}, Plain(lambda data: 1 / 0))
    assert result.step_results[0].error == "plain does not take dict input"


def test_a_step_that_returns_something_else_fails():
    class Wrong(MockProcessor):
        async def process(self, data):
            return data

    assert executed({}, Wrong("w")).step_results[0].error == "w returned dict, not a ProcessingResult"


@pytest.mark.parametrize(
    ("data", "expected"), [({"n": 1}, {"n": 4}), ([{"n": 1}, {"n": 2}], [{"n": 4}, {"n": 8}])]
)
def test_processors_of_tables_take_records_too(data, expected):
    assert executed(data, Doubler(id="a"), Doubler(id="b")).final_data == expected


def test_statistics_are_those_of_execute():
    pipeline = pipeline_of(Plain(lambda data: data), MockProcessor("m", should_fail=True))
    for _ in range(3):
        asyncio.run(pipeline.execute({}))
    pipeline.apply(pa.table({"n": [1]}))
    first, second = pipeline.get_statistics()
    assert (first.step_name, first.execution_count, first.success_count, first.average_time) == (
        "plain",
        3,
        3,
        0.5,
    )
    assert (second.step_name, second.execution_count, second.failure_count) == ("m", 3, 3)


def test_apply_runs_tables_through_and_tells_what_each_step_did():
    applied = pipeline_of(Doubler(id="a"), Doubler(id="b")).apply(pa.table({"n": [1, -1, 3, -2]}))
    assert applied.table.to_pylist() == [{"n": 4}, {"n": 12}]
    first, second = applied.steps
    assert (first.name, first.rows_in, first.rows_out) == ("a", 4, 2)
    assert [(each.record, each.reason, json.loads(each.raw)) for each in first.rejected] == [
        (1, "-1 is negative", {"n": -1}),
        (3, "-2 is negative", {"n": -2}),
    ]
    assert (second.name, second.rows_in, second.rows_out, second.rejected) == ("b", 2, 2, [])
    assert first.seconds >= 0


TABLE = pa.table({"n": [1, 2, 3, 4]})


def applied_records(function, table=TABLE):
    """Return the records that a plain processor makes of a table, and what was set aside of it."""
    applied = pipeline_of(Plain(function)).apply(table)
    (step,) = applied.steps
    assert step.rows_out == applied.table.num_rows
    return applied.table, [(each.record, each.reason) for each in step.rejected]


def test_a_plain_processor_is_driven_record_by_record():
    table, rejected = applied_records(lambda data: {**data, "m": data["n"] * 10})
    assert (table.to_pydict(), rejected) == ({"n": [1, 2, 3, 4], "m": [10, 20, 30, 40]}, [])


def test_a_plain_processor_filters_and_splits():
    table, rejected = applied_records(lambda data: [data] * (data["n"] - 1) or None)
    assert (table.column("n").to_pylist(), rejected) == ([2, 3, 3, 4, 4, 4], [])


def test_a_plain_processor_that_filters_everything_out_keeps_the_columns():
    table, rejected = applied_records(lambda data: None)
    assert (table.num_rows, table.schema, rejected) == (0, TABLE.schema, [])


def test_a_column_that_a_later_record_brings_is_kept():
    table, rejected = applied_records(
        lambda data: {"n": data["n"]} if data["n"] < 4 else {"n": 4, "late": "x"}
    )
    assert table.to_pydict() == {"n": [1, 2, 3, 4], "late": [None, None, None, "x"]}
    assert rejected == []


def test_what_a_plain_processor_refuses_is_set_aside_with_the_reason():
    table, rejected = applied_records(lambda data: 12 // (data["n"] - 2) and data)
    assert table.column("n").to_pylist() == [1, 3, 4]
    assert rejected == [(1, "ZeroDivisionError: integer division or modulo by zero")]


def test_what_is_no_record_is_set_aside():
    table, rejected = applied_records(lambda data: data if data["n"] % 2 else "text")
    assert table.column("n").to_pylist() == [1, 3]
    assert rejected == [(row, "expected a dict or a list of dicts, got str") for row in (1, 3)]


def test_a_value_that_does_not_fit_its_column_sets_aside_the_whole_record_it_came_from():
    table, rejected = applied_records(
        lambda data: [{"n": data["n"]}, {"n": "three"}] if data["n"] == 3 else {"n": data["n"]}
    )
    assert table.column("n").to_pylist() == [1, 2, 4]
    assert [row for row, _ in rejected] == [2]
    assert "column 'n'" in rejected[0][1]


def test_records_that_no_column_can_hold_are_all_set_aside():
    table, rejected = applied_records(lambda data: {"n": object()})
    assert (table.num_rows, table.schema) == (0, TABLE.schema)
    assert [row for row, _ in rejected] == [0, 1, 2, 3]


@settings(max_examples=100, deadline=None)
@given(verdicts=st.lists(st.sampled_from(["keep", "drop", "twice", "raise", "wrong", "misfit"]), max_size=12))
def test_no_row_is_lost_or_doubled_by_a_plain_processor(verdicts):
    def judge(data):
        verdict = verdicts[data["n"]]
        if verdict == "raise":
            raise ValueError("told to")
        made = {"drop": None, "twice": [data, data], "wrong": 7, "misfit": {"n": object()}}
        return made.get(verdict, data)

    table = pa.table({"n": pa.array(range(len(verdicts)), pa.int64())})
    made, rejected = applied_records(judge, table)
    due = {"keep": 1, "twice": 2}
    expected = [n for n, verdict in enumerate(verdicts) for _ in range(due.get(verdict, 0))]
    assert made.column("n").to_pylist() == expected
    bad = [n for n, verdict in enumerate(verdicts) if verdict in {"raise", "wrong", "misfit"}]
    assert [row for row, _ in rejected] == bad


class Nameless(Plain):
    """A third party's processor that cannot say its name."""

    def get_processor_name(self):
        if isinstance(self.name, Exception):
            raise self.name
        return self.name


@pytest.mark.parametrize("name", [KeyError("name"), None, 7])
def test_a_processor_that_cannot_say_its_name_has_that_of_its_type(name):
    result = executed({"valid": False}, Nameless(dict, name), MockProcessor("b"))
    assert (result.success, result.failed_step) == (False, "Nameless")
    assert result.step_results[0].error == "Nameless does not take dict input"


def test_steps_are_handed_out_as_copies():
    pipeline = pipeline_of(MockProcessor("a"), MockProcessor("b"))
    pipeline.get_steps()[0].order = 99
    assert [step.order for step in pipeline.get_steps()] == [1, 2]


def test_a_step_without_memory_is_named():
    class Hungry(Processor):
        def transform(self, table):
            raise pa.ArrowMemoryError("malloc of size 9 failed") if table.num_rows else MemoryError

    with pytest.raises(FatalError, match=r"^step 'hungry' has run out of memory: malloc of size 9 failed$"):
        pipeline_of(Hungry(id="hungry")).apply(pa.table({"n": [1]}))
    with pytest.raises(FatalError, match=r"^step 'hungry' has run out of memory$"):
        pipeline_of(Hungry(id="hungry")).apply(pa.table({"n": []}))
