"""What one step costs: seen, not declared."""

from __future__ import annotations

import sys

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from collectors.codecs.ndjson import NdjsonCodec
from collectors.runtime.measuring import fresh, memory_of, python_lines, typical_seconds

NUMBERS = list(range(1000))
TABLE = pa.table({"a": NUMBERS, "b": [str(n) for n in NUMBERS], "c": [{"x": n} for n in NUMBERS]})


def in_a_loop():
    total = 0
    for n in NUMBERS:
        total += n
    return total


@pytest.mark.parametrize(
    ("call", "lines"),
    [
        (in_a_loop, 2),
        (lambda: [n + 1 for n in NUMBERS], 1),
        (lambda: sum(n for n in NUMBERS), 1),
        (lambda: sum(NUMBERS), 0),
        (lambda: pc.sum(TABLE["a"]), 0),
        (lambda: [name.upper() for name in TABLE.column_names], 0),
    ],
)
def test_lines_that_run_for_every_record(call, lines):
    result, found = python_lines(call, len(NUMBERS))
    assert found == lines
    assert result == call()


def test_a_loop_over_columns_is_none_over_records():
    assert python_lines(lambda: [name.upper() for name in TABLE.column_names], 3)[1] is None


def test_a_tracer_that_is_there_stays():
    def tracer(frame, event, _):
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        python_lines(in_a_loop, 1000)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


def test_a_failing_call_leaves_no_tracer():
    before = sys.gettrace()
    with pytest.raises(ZeroDivisionError):
        python_lines(lambda: 1 / 0, 1000)
    assert sys.gettrace() is before


def test_one_bad_line_makes_a_chunk_of_json_run_line_by_line():
    codec = NdjsonCodec()
    good = b'{"a": 1, "b": "x"}\n' * 1000
    schema = codec.decode(good).table.schema
    assert python_lines(lambda: codec.decode(good, schema), 1000)[1] == 0
    assert python_lines(lambda: codec.decode(good + b"{\n", schema), 1000)[1] > 0


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda table: table, []),
        (lambda table: table.select(["b"]).rename_columns(["z"]), []),
        (lambda table: table.slice(10, 20), []),
        (lambda table: table.append_column("d", pc.add(table["a"], 1)), ["d"]),
        (lambda table: table.set_column(0, "a", pc.add(table["a"], 1)), ["a"]),
        (lambda table: table.filter(pc.greater(table["a"], 5)), ["a", "b", "c"]),
        (lambda table: table.append_column("d", table["b"].dictionary_encode()), ["d"]),
        (lambda table: table.append_column("d", pc.struct_field(table["c"], "x")), []),
    ],
)
def test_columns_that_are_new_memory(change, names):
    found, size = fresh(change(TABLE), memory_of(TABLE))
    assert found == names
    assert (size > 0) == bool(names)


def test_new_bytes_are_counted_once():
    doubled = pc.add(TABLE["a"], TABLE["a"])
    table = TABLE.append_column("d", doubled).append_column("e", doubled)
    size = sum(buffer.size for buffer in doubled.chunk(0).buffers() if buffer is not None)
    assert size >= 8 * len(NUMBERS)
    assert fresh(table, memory_of(TABLE)) == (["d", "e"], size)


def test_the_typical_time_is_the_median_of_enough():
    now = 0.0
    times = iter([9.0, 0.05, 0.06, 0.07])

    def call():
        nonlocal now
        now += next(times, 0.0)

    assert typical_seconds(call, lambda: now) == pytest.approx(0.06)
    now, times = 0.0, iter([0.05, 0.05, 0.05, 0.09, 0.01])
    assert typical_seconds(call, lambda: now) == pytest.approx(0.05)
    assert list(times) == [0.01], "until 0.2 s are together"
