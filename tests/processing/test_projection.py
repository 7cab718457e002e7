"""Columns that a function of a record does not look at: told for certain or not at all, and the result is the same."""

from __future__ import annotations

import builtins
import importlib.util
import sys
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.processing.processors.python import Python
from collectors.processing.projection import Projection, projection_of

LIMIT = 3


def reads_and_adds(record):
    if record["n"] is None or record.get("t") == "x":
        return None
    record["twice"] = record["n"] * 2
    return record


def copies(record):
    return {**record, "f": 1.5, "long": len(record["t"] or "")} if "n" in record else None


def takes_out(record):
    record.pop("f", None)
    del record["t"]
    return record


def makes_new(record):
    return {"t": record["n"], "only": record["t"]}


def makes_two(record):
    return [{"n": record["n"]}, {"n": None}]


def changes_within(record):
    record["tags"].append("more")
    return record


def fails_for_some(record):
    record["share"] = 10 / (record["n"] or 0)
    return record


def adds_up(record):
    record["n"] += LIMIT
    return record


def looks_at_nothing(record):
    record["new"] = 1
    return record


def leaves_all(record):
    return record


def sets_a_default(record):
    record.setdefault("f", 0.0)
    record.setdefault("late", record["s"] is None)
    return record


def of_another_kind(record):
    record["t"] = record["n"] if (record["n"] or 0) % 2 else record["t"]
    return record


FUNCTIONS = [
    reads_and_adds,
    copies,
    takes_out,
    makes_new,
    makes_two,
    changes_within,
    fails_for_some,
    adds_up,
    looks_at_nothing,
    leaves_all,
    sets_a_default,
    of_another_kind,
]


def test_what_is_told():
    def found(function):
        projection = projection_of(function)
        return sorted(projection.columns), sorted(projection.changed), projection.passes_on

    assert found(reads_and_adds) == (["n", "t", "twice"], ["twice"], True)
    assert found(copies) == (["f", "long", "n", "t"], ["f", "long"], True)
    assert found(takes_out) == (["f", "t"], ["f", "t"], True)
    assert found(makes_new) == (["n", "t"], [], False)
    assert found(adds_up) == (["n"], ["n"], True)
    assert found(sets_a_default) == (["f", "late", "s"], ["f", "late"], True)
    assert projection_of(leaves_all) == Projection(frozenset(), frozenset(), passes_on=True)


@pytest.mark.parametrize(
    "body",
    [
        "print(record); return record",
        "other = record; return other",
        "for name in record: record[name] = None\n    return record",
        "name = 'a'; return {'b': record[name]}",
        "record = dict(record); return record",
        "record |= {'a': 1}; return record",
        "record.update(a=1); return record",
        "return {'a': record['a'], **record}",
        "return {**record, name: 1}",
        "return record if record['a'] else {'a': 1}",
        "return [record]",
        "return (lambda: record['a'])() and record",
        "def inner(record): return record['a']\n    return inner({'a': 1})",
        "class A:\n        x = record['a']\n    return record",
        "return locals()['record']",
        "return builtins.vars()['record']",
        "return {**record, 'a': eval('record')}",
        "return sys._getframe().f_locals['record']",
        "yield record['a']",
        "try: 1 / record['a']\n    except ZeroDivisionError as record: pass\n    return record",
        "import sys as record; return record['a']",
        "import record.x; return record['a']",
        "match record['a']:\n        case [*record]: pass\n    return record",
        "match record['a']:\n        case {'x': 1, **record}: pass\n    return record",
        "match record['a']:\n        case int() as record: pass\n    return record",
        "with open('x') as record: pass\n    return record",
        "(record := {'a': 1}); return record",
        "return {**record, 'a': record}",
        "return record.get(*['a'])",
        "return {'a': record.get('b', record)}",
        "return {'a': 'b' in record in [1]}",
        "return {'a': 'b' == record}",
        "global LIMIT; LIMIT = record; return record",
    ],
)
def test_what_is_not_told(body, tmp_path):
    assert (
        projection_of(loaded(tmp_path, f"LIMIT = 1\nname = 'x'\ndef function(record):\n    {body}\n")) is None
    )


def loaded(folder, text):
    path = folder / "some_functions.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("some_functions", path)
    module = importlib.util.module_from_spec(spec)
    module.builtins, module.sys = builtins, sys
    spec.loader.exec_module(module)
    return module.function


def test_only_plain_functions_whose_source_is_there(tmp_path):
    text = "def function(record):\n    return {'a': record['a']}\n"
    function = loaded(tmp_path, text)
    assert projection_of(function) is not None
    (tmp_path / "some_functions.py").write_text(text.replace("'a'", "'b'"))
    assert projection_of(function) is None  # the file is no longer what runs
    (tmp_path / "some_functions.py").write_text("def function(record:\n")
    assert projection_of(function) is None
    (tmp_path / "some_functions.py").unlink()
    assert projection_of(function) is None
    decorated = (
        "def twice(function):\n    return function\n\n@twice\ndef function(record):\n    return record\n"
    )
    closure = "def outer(x):\n    def inner(record):\n        nonlocal x\n        return {'a': x}\n    return inner\nfunction = outer(1)\n"
    for other in (
        decorated,
        closure,
        "async " + text,
        "function = lambda record: record\n",
        "def function(*r):\n    return r\n",
    ):
        assert projection_of(loaded(tmp_path, other)) is None
    assert projection_of(len) is None


def test_functions_from_the_future(tmp_path):
    text = "from __future__ import annotations\n\ndef function(record: dict[str, int]) -> dict | None:\n    return record\n"
    assert projection_of(loaded(tmp_path, text)) is not None


ROWS = st.fixed_dictionaries(
    {
        "n": st.none() | st.integers(-3, 3),
        "t": st.none() | st.sampled_from(["", "x", "é"]),
        "f": st.none() | st.floats(allow_nan=False),
        "s": st.none() | st.dictionaries(st.sampled_from("ab"), st.integers(0, 9), min_size=1),
        "tags": st.lists(st.text(max_size=2), max_size=2),
        "d": st.none() | st.just(Decimal("1.50")),
        "at": st.none() | st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    }
)
SCHEMA = pa.schema(
    {
        "s": pa.struct({"a": pa.int64(), "b": pa.int64()}),
        "n": pa.int32(),
        "t": pa.string(),
        "f": pa.float64(),
        "tags": pa.list_(pa.string()),
        "d": pa.decimal128(9, 2),
        "at": pa.timestamp("ms", "UTC"),
    }
)


@given(
    records=st.lists(ROWS, min_size=1, max_size=12), function=st.sampled_from(FUNCTIONS), wide=st.booleans()
)
@settings(max_examples=300, deadline=None)
def test_the_result_is_the_same(records, function, wide):
    schema = SCHEMA.set(1, pa.field("n", pa.int64())) if wide else SCHEMA
    table = pa.Table.from_pylist(records, schema)
    narrow, whole = Python(function=function), Python(function=function)
    whole._projection = None
    assert narrow._projection is not None
    for _ in range(2):  # the second time the names are known
        ours, theirs = narrow.apply(table), whole.apply(table)
        assert ours.rejected == theirs.rejected
        assert ours.table.to_pylist() == theirs.table.to_pylist()
        assert ours.table.column_names == theirs.table.column_names
        for field in ours.table.schema:
            was = schema.field(field.name).type if field.name in schema.names else None
            assert field.type in {theirs.table.schema.field(field.name).type, was}


def test_a_column_that_python_has_no_value_for_is_no_problem_where_nobody_looks():
    table = pa.table({"n": [1, 2], "at": pa.array([1, 2], pa.timestamp("ns"))})
    outcome = Python(function=adds_up).apply(table)
    assert outcome.rejected == []
    assert outcome.table == pa.table({"n": [4, 5], "at": table["at"]})
