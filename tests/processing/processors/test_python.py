"""Functions of the user: what they are given, what may come back, and what one bad record costs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from operator import itemgetter
from unittest.mock import patch

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors import rows
from collectors.errors import ConfigurationError, DataError, FatalError, TransientError
from collectors.processing.processors import python
from collectors.processing.processors.python import Python
from collectors.testing.processor_contract import ProcessorContract

TABLE = pa.table({"n": [1, 2, 3, 4], "s": ["a", "b", None, "d"]})


def with_square(record):
    if record["n"] < 0:
        raise ValueError(f"{record['n']} is below zero")
    return {**record, "square": record["n"] ** 2}


async def with_square_later(record):
    await asyncio.sleep(0)
    return with_square(record)


def table_with_square(table):
    if pc.any(pc.less(table["n"], 0)).as_py():
        raise ValueError("there is a number below zero")
    return table.append_column("square", pc.multiply(table["n"], table["n"]))


def odd_ones_twice(record):
    if record["n"] < 0:
        return "below zero"
    return [record, {**record, "n": -record["n"]}] if record["n"] % 2 else None


class TestPython(ProcessorContract):
    component = "python"
    settings = {"function": with_square}
    poison = {"n": -1, "s": "x"}

    def given(self):
        return TABLE

    def expected(self):
        return TABLE.append_column("square", pa.array([1, 4, 9, 16]))


class TestAsync(TestPython):
    component = "python"
    settings = {"function": with_square_later}


class TestTable(TestPython):
    component = "python"
    settings = {"function": table_with_square, "per": "table"}


class TestSplitAndLeaveOut(TestPython):
    component = "python"
    settings = {"function": odd_ones_twice}
    one_to_one = False

    def expected(self):
        return pa.table({"n": [1, -1, 3, -3], "s": ["a", "a", None, None]})


def run(function, table=TABLE, **settings):
    outcome = Python(function=function, **settings).apply(table)
    return outcome.table, {item.record: item.reason for item in outcome.rejected}


RESULTS = [
    {"a": 1, "b": "x"},
    {"a": None, "b": None},
    {"b": "y", "a": 2},
    {"a": 3},
    {"a": 4, "b": "z", "c": True},
    {"a": 5.5, "b": "x"},
    {"a": 2**70, "b": "x"},
    {"a": 6, "b": "\ud800"},
    {"a": [1], "b": None},
    {"a": 7, 1: 2},
    {},
    None,
    [],
    [{"a": 8, "b": "w"}, {"a": 9, "b": "v"}],
    "no record",
    ValueError("raised"),
    SystemExit(1),
]


@pytest.mark.skipif(rows._functions() is None, reason="there is no C compiler or no Python.h")
@given(
    numbers=st.lists(st.one_of(st.just(0), st.just(0), st.integers(0, len(RESULTS) - 1)), max_size=30),
    more=st.sampled_from([[], [[1]], [None]]),
    batch=st.integers(1, 8),
)
@example(numbers=[9, 1], more=[], batch=1)
@example(numbers=[0, 0, 11, 0, 15, 0, 0, 0, 0, 3, 0], more=[], batch=2)
@settings(max_examples=400, deadline=None)
def test_compiled_code_makes_the_same(numbers, more, batch):
    """Two tables in a row, so that the keys of what the function returns are known in the second one."""
    names = "abcdefgh"[: len(more)]
    tables = [
        pa.table({"n": part, **{name: more * len(part) for name in names}})
        for part in (numbers, numbers[::-1])
    ]

    def outcomes(functions):
        called = []

        def function(record):
            called.append(record["n"])
            result = RESULTS[record["n"]]
            if isinstance(result, BaseException):
                raise result
            return dict(result) if isinstance(result, dict) else result

        with patch.object(rows, "_functions", functions), patch.object(python, "BATCH_ROWS", batch):
            processor = Python(function=function)
            made = [processor.apply(table) for table in tables]
        return [(each.table.schema, each.table.to_pylist(), each.rejected) for each in made], called

    compiled = outcomes(rows._functions)
    assert compiled == outcomes(lambda: None)
    assert compiled[1] == numbers + numbers[::-1]


def test_interrupted_between_alike_records():
    def function(record):
        if record["n"] == 3:
            raise KeyboardInterrupt
        return {"n": record["n"]}

    processor = Python(function=function)
    processor.apply(TABLE.slice(0, 2))
    with pytest.raises(KeyboardInterrupt):
        processor.apply(TABLE)


def test_code_without_lines_has_no_place():
    processor = Python(function=itemgetter("o"))
    table = pa.table({"o": [{"n": 1}, {"n": 2}]})
    assert processor.apply(table).table == pa.table({"n": [1, 2]})
    (rejected,) = processor.apply(pa.table({"p": [2]})).rejected
    assert rejected.reason == "KeyError: 'o'"


def test_reason_names_the_line_of_the_user():
    def invert(record):
        return {"x": 1 // (record["n"] - 2)}

    table, reasons = run(invert)
    line = invert.__code__.co_firstlineno + 1
    assert reasons == {1: f"ZeroDivisionError: integer division or modulo by zero  (test_python.py:{line})"}
    assert table["x"].to_pylist() == [-1, 1, 0]


def test_line_is_the_users_own_even_in_a_library():
    _, reasons = run(lambda record: json.loads(record["s"]), TABLE.slice(0, 1))
    assert "JSONDecodeError" in reasons[0]
    assert "(test_python.py:" in reasons[0]


def test_good_records_are_not_run_twice():
    seen = []

    def count(record):
        seen.append(record["n"])
        if record["n"] == 3:
            raise ValueError("three")
        return record

    table, reasons = run(count)
    assert seen == [1, 2, 3, 4]
    assert table["n"].to_pylist() == [1, 2, 4]
    assert list(reasons) == [2]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (5, "TypeError: give returned int, expected a dict, None or a list of dicts"),
        (["x"], "TypeError: give returned str in a list, expected a dict, None or a list of dicts"),
        ({1: 2}, "TypeError: give returned a dict with the key 1, expected text"),
        ({"\ud800": 2}, "TypeError: give returned a dict with the key '\\ud800', expected text"),
        ({"x": {1, 2}}, "column 'x': no column can hold {1, 2}, of the type set"),
        ({"x": 2**70}, f"column 'x': {2**70} does not fit in 64 bits"),
        ({"x": "\ud800"}, "column 'x': 'utf-8' codec can't encode character '\\ud800'"),
    ],
)
def test_wrong_results_cost_their_record_alone(result, reason):
    def give(record):
        return result if record["n"] == 2 else {"x": None}

    table, reasons = run(give)
    assert table.num_rows == 3
    assert list(reasons) == [1]
    assert reasons[1].startswith(reason)


def test_mixed_types_cost_the_record_that_differs():
    values = {1: 1, 2: "two", 3: 3, 4: 4}
    table, reasons = run(lambda record: {"x": values[record["n"]]})
    assert table["x"].to_pylist() == [1, 3, 4]
    assert reasons == {1: "column 'x': 'two' is of the type string, and the records before it have int"}


def test_a_record_that_is_split_is_set_aside_as_a_whole():
    def split(record):
        return [{"x": 1}, {"x": "text" if record["n"] == 2 else 2}]

    table, reasons = run(split)
    assert table["x"].to_pylist() == [1, 2] * 3
    assert list(reasons) == [1]


def test_setting_aside_the_first_changes_what_a_column_is():
    """The record that made x an int is set aside for its y, with all it was split into; then x is text."""
    results = {
        1: [{"x": 1, "y": 0}, {"x": 1, "y": "odd"}],
        2: {"x": "a", "y": 1},
        3: {"x": "b", "y": 2},
        4: {"x": 3, "y": 3},
    }
    table, reasons = run(lambda record: results[record["n"]])
    assert table.num_rows + len(reasons) == 4
    assert reasons[0] == "column 'y': 'odd' is of the type string, and the records before it have int"
    assert len({type(value) for value in table["x"].to_pylist()}) <= 1


def test_ints_floats_and_decimals():
    values = iter([1, 2.5, 2**53 + 1, None])
    table, reasons = run(lambda _record: {"x": next(values)})
    assert table["x"].to_pylist() == [1.0, 2.5, None]
    assert reasons == {2: "column 'x': 9007199254740993 is no float without loss"}
    decimals = iter([1, Decimal("2.5"), None, 3])
    table, reasons = run(lambda _record: {"x": next(decimals)})
    assert table["x"].to_pylist() == [Decimal("1.0"), Decimal("2.5"), None, Decimal("3.0")]
    assert reasons == {}


def test_types_of_the_input_stay_where_values_fit():
    table = pa.table(
        {
            "small": pa.array([1, 2], pa.int8()),
            "price": pa.array([Decimal("1.50"), None], pa.decimal128(12, 2)),
            "at": pa.array([datetime(2026, 1, 1, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
            "naive": pa.array([datetime(2026, 1, 1, 5), None], pa.timestamp("ms")),
            "empty": pa.array([None, None], pa.date32()),
            "place": pa.array(
                [{"x": 1, "y": None}, None], pa.struct([("x", pa.int64()), ("y", pa.string())])
            ),
            "tags": pa.array([["a"], []], pa.list_(pa.string())),
        }
    )
    result, reasons = run(lambda record: record, table)
    assert reasons == {}
    assert result.equals(table)


def test_types_change_where_values_ask_for_it():
    table = pa.table(
        {"small": pa.array([1, 2], pa.int8()), "at": pa.array([1, 2], pa.timestamp("us", "UTC"))}
    )
    result, _ = run(lambda record: {"at": 5, "small": record["small"] * 1000}, table)
    assert result.to_pylist() == [{"small": 1000, "at": 5}, {"small": 2000, "at": 5}]
    result, _ = run(lambda record: {"small": record["small"] + 0.5}, table)
    assert result["small"].to_pylist() == [1.5, 2.5]


def test_new_keys_of_later_records_are_columns():
    table, _ = run(lambda record: {f"x{record['n']}": record["n"], "s": record["s"]})
    assert table.column_names == ["s", "x1", "x2", "x3", "x4"]
    assert table["x4"].to_pylist() == [None, None, None, 4]


def test_new_fields_of_objects_are_kept():
    table = pa.table({"o": pa.array([{"a": 1}], pa.struct([("a", pa.int64())]))})
    result, _ = run(lambda record: {"o": {**record["o"], "b": 2}}, table)
    assert result["o"].to_pylist() == [{"a": 1, "b": 2}]


def test_records_with_unlike_fields():
    table, reasons = run(lambda record: {"o": {"a": "x" if record["n"] == 3 else record["n"]}})
    assert table["o"].to_pylist() == [{"a": 1}, {"a": 2}, {"a": 4}]
    assert list(reasons) == [2]


def test_all_left_out_keeps_the_schema():
    table, _ = run(lambda _record: None)
    assert table.schema == TABLE.schema
    assert table.num_rows == 0


@pytest.mark.parametrize("error", [FatalError("no"), TransientError("later"), ConfigurationError("bad")])
@pytest.mark.parametrize("per", ["record", "table"])
def test_errors_about_the_function_are_passed_on(error, per):
    def fail(_given):
        raise error

    with pytest.raises(type(error)):
        run(fail, per=per)


@pytest.mark.parametrize("per", ["record", "table"])
def test_without_memory_no_record_is_to_blame(per):
    """The function is named, and its line, as of any other exception."""

    def hungry(_given):
        raise MemoryError

    with pytest.raises(
        FatalError, match=r"^hungry has run out of memory: MemoryError  \(test_python\.py:\d+\)$"
    ):
        run(hungry, per=per)


def test_a_data_error_is_the_reason():
    def fail(_record):
        raise DataError("the meter was off")

    assert run(fail, TABLE.slice(0, 1))[1] == {0: "the meter was off"}


def test_table_function_that_fails_is_halved():
    table = pa.table({"n": [*range(100), -1, *range(100)]})
    result, reasons = run(table_with_square, table, per="table")
    assert list(reasons) == [100]
    assert reasons[100].startswith("ValueError: there is a number below zero  (test_python.py:")
    assert result.num_rows == 200


def test_table_function_that_cannot_work_on_nothing():
    def first(table):
        if table["n"][0].as_py() < 0:
            raise ValueError("negative")
        return table

    result, reasons = run(first, pa.table({"n": [-1]}), per="table")
    assert result.num_rows == 0
    assert list(reasons) == [0]


def test_table_function_with_a_wrong_result():
    with pytest.raises(ConfigurationError, match=r"returned int, expected a pyarrow\.Table"):
        run(lambda _table: 5, per="table")
    (batch,) = TABLE.to_batches()
    assert run(lambda _table: batch, per="table")[0].equals(TABLE)


class Callable_:
    def __call__(self, record):
        return {**record, "n": record["n"] * 10}

    def method(self, record):
        return self(record)


@pytest.mark.parametrize(
    "function",
    [Callable_(), Callable_().method, partial(lambda factor, record: {"n": record["n"] * factor}, 10)],
)
def test_everything_that_can_be_called(function):
    assert run(function)[0]["n"].to_pylist() == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda: None, r"got <lambda>\(\)"),
        (lambda a, b: None, r"got <lambda>\(a, b\)"),
        (lambda *, a: None, r"got <lambda>\(\*, a\)"),
        (dict, "got dict"),
    ],
)
def test_signature(function, got):
    with pytest.raises(ConfigurationError, match=rf"expected a function of one argument.*{got}"):
        Python(function=function)


def test_generators_are_refused():
    def plain(record):
        yield record

    async def later(record):
        yield record

    for function in (plain, later):
        with pytest.raises(ConfigurationError, match="return a list instead of yielding"):
            Python(function=function)


@pytest.mark.parametrize("value", [5, None, "clean", ":clean", "module:", ["x"]])
def test_name_of_a_function(value):
    with pytest.raises(ValidationError, match="expected 'module:function'"):
        Python(function=value)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_functions_by_name(folder):
    (folder / "my_own_functions.py").write_text(
        "class Tools:\n    @staticmethod\n    def clean(record):\n        return {'n': -record['n']}\n"
        "def clean(record):\n    return {'n': record['n'] + 1}\n"
    )
    assert run("my_own_functions:clean")[0]["n"].to_pylist() == [2, 3, 4, 5]
    assert run("my_own_functions:Tools.clean")[0]["n"].to_pylist() == [-1, -2, -3, -4]
    with pytest.raises(ConfigurationError, match="'my_own_functions' has no 'claen': did you mean 'clean'"):
        Python(function="my_own_functions:claen")
    with pytest.raises(
        ConfigurationError, match="no module 'my_own_function': did you mean 'my_own_functions'"
    ):
        Python(function="my_own_function:clean")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_module_of_mine", "'broken_module' needs 'no_such_module_of_mine'"),
        ("x = 1 / 0", r"cannot be imported: ZeroDivisionError: division by zero  \(broken_module.py:1\)"),
        ("def f(:", "cannot be imported: SyntaxError"),
    ],
)
def test_modules_that_cannot_be_imported(folder, text, message):
    (folder / "broken_module.py").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        Python(function="broken_module:f")


def test_dicts_go_to_the_function_as_they_are():
    marker = object()
    result = asyncio.run(Python(function=lambda record: record).process({"x": marker}))
    assert result.processed_data["x"] is marker


def test_a_value_that_python_has_no_type_for_costs_its_record_alone():
    days = pa.array([1, -720000, 5], pa.int32()).cast(pa.date32())
    outcome = Python(function=lambda record: record).apply(pa.table({"n": [1, 2, 3], "d": days}))
    assert outcome.table["n"].to_pylist() == [1, 3]
    (rejected,) = outcome.rejected
    assert (rejected.record, rejected.raw) == (1, b'{"n":2,"d":"-0002-09-16"}')
    assert "column 'd': Python has no value for -0002-09-16" in rejected.reason


def test_what_a_dict_of_another_kind_makes_up_is_not_stored():
    def count(record):
        return Counter(a=1, b=2) if record["n"] != 2 else Counter(a=5)

    outcome = Python(function=count).apply(pa.table({"n": [1, 2, 3]}))
    assert outcome.table.to_pylist() == [{"a": 1, "b": 2}, {"a": 5, "b": None}, {"a": 1, "b": 2}]


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("raised", [Mute, asyncio.CancelledError])
def test_whatever_is_raised_costs_its_record_alone(raised):
    def fail(record):
        if record["n"] == 2:
            raise raised
        return record

    table, reasons = run(fail)
    assert table["n"].to_pylist() == [1, 3, 4]
    assert reasons[1].startswith(raised.__name__)


def test_a_value_that_cannot_be_shown_costs_its_record_alone():
    table, reasons = run(lambda record: {"x": Mute() if record["n"] == 2 else 1})
    assert table.num_rows == 3
    assert reasons == {1: "column 'x': no column can hold <Mute>, of the type Mute"}
