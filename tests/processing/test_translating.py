"""Python functions in SQL: the same for all records, or no translation."""

from __future__ import annotations

import functools
import itertools
import linecache
import warnings

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import registry
from collectors.processing.pipeline import Pipeline
from collectors.processing.processors.python import Python
from collectors.processing.translating import NotSimpleError, translate

SCHEMA = pa.schema(
    [
        ("s", pa.string()),
        ("t", pa.string()),
        ("i", pa.int64()),
        ("j", pa.int64()),
        ("f", pa.float64()),
        ("ok", pa.bool_()),
        ("at", pa.timestamp("us", "UTC")),
        ("Odd name", pa.int64()),
    ]
)
numbers = itertools.count()


def function_of(body, head="def clean(record):"):
    """Return the function with this body, its source where `inspect` finds it."""
    text = "\n".join([head, *(f"    {line}" for line in body.splitlines())]) + "\n"
    name = f"<translated {next(numbers)}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space = {}
    with warnings.catch_warnings(action="ignore", category=SyntaxWarning):  # '"ab" is None'
        exec(compile(text, name, "exec"), space)
    return space["clean"]


def through(steps, table):
    pipeline = Pipeline()
    for step in steps:
        pipeline.append(
            registry.create("processor", step["type"], {k: v for k, v in step.items() if k != "type"})
        )
    applied = pipeline.apply(table)
    return applied.table, [item for step in applied.steps for item in step.rejected]


def assert_same(function, steps, table):
    """Compare on the records that the function does not fail for; those would be set aside."""
    processor = Python(function=function)
    failed = {item.record for item in processor.apply(table).rejected}
    good = table.take(pa.array([row for row in range(table.num_rows) if row not in failed], pa.int64()))
    ours = processor.apply(good)
    theirs, rejected = through(steps, good)
    assert not ours.rejected
    assert not rejected
    assert theirs.num_rows == ours.table.num_rows
    if ours.table.num_rows:
        assert theirs.column_names == ours.table.column_names
        assert repr(theirs.to_pylist()) == repr(ours.table.to_pylist())
        for one, other in zip(ours.table.schema, theirs.schema, strict=True):
            empty = ours.table.column(one.name).null_count == ours.table.num_rows
            assert empty or one.type == other.type


ROWS = pa.Table.from_pylist(
    [
        {"s": "ok", "t": " b ", "i": 1, "j": 3, "f": 2.5, "ok": True, "Odd name": 1},
        {"s": "fail", "t": None, "i": -4, "j": 0, "f": -70.0, "ok": False, "Odd name": 2},
        {"s": None, "t": "it's", "i": None, "j": 7, "f": None, "ok": None, "Odd name": 3},
        {"s": "", "t": "x", "i": 2, "j": 2, "f": float("nan"), "ok": True, "Odd name": None},
    ],
    SCHEMA,
)


@pytest.mark.parametrize(
    ("body", "steps"),
    [
        (
            'if record["s"] == "fail" or not -50 <= record["f"] <= 60: return None\nrecord["g"] = record["f"] * 9 / 5 + 32\nreturn record',
            [
                {"type": "filter", "where": "s is distinct from 'fail' and f between -50 and 60"},
                {"type": "set", "columns": {"g": "f * 9 / 5 + 32"}},
            ],
        ),
        (
            'return record if record["i"] > 0 and record["ok"] else None',
            [{"type": "filter", "where": "i > 0 and ok"}],
        ),
        (
            'if record["t"] is not None:\n    return record\nreturn None',
            [{"type": "filter", "where": "t is not null"}],
        ),
        (
            'return None if record["s"] in ("a", "it\'s") else {**record, "n": len(record["s"])}',
            [
                {"type": "filter", "where": "s is null or s not in ('a', 'it''s')"},
                {"type": "set", "columns": {"n": "length(s)"}},
            ],
        ),
        (
            'record.pop("s")\ndel record["t"]\nrecord.pop("at", None)\nreturn record',
            [{"type": "select", "drop": ["s", "t", "at"]}],
        ),
        (
            'record["a"] = record["i"] + 1\nrecord["b"] = -record["j"]\nrecord["c"] = record["a"] * 2\nreturn record',
            [
                {"type": "set", "columns": {"a": "i + 1", "b": "-j"}},
                {"type": "set", "columns": {"c": "a * 2"}},
            ],
        ),
        (
            'return {"x": record["Odd name"], "i": record.get("i", 5), "u": record["t"].strip().upper() + "!"}',
            [
                {"type": "set", "columns": {"x": '"Odd name"', "u": "upper(trim(t)) || '!'"}},
                {"type": "select", "columns": ["i", "x", "u"]},
            ],
        ),
        (
            'if record["i"] != 1:\n    record["k"] = "other"\nelse:\n    record["k"] = None\nreturn record',
            [
                {
                    "type": "set",
                    "columns": {"k": "case when i is distinct from 1 then 'other' else null end"},
                }
            ],
        ),
        (
            '"""Says what it does."""\nf = record["f"]\nrecord["w"] = f is not None and not record["ok"]\nreturn record',
            [{"type": "set", "columns": {"w": "f is not null and ok is not true"}}],
        ),
        (
            'record["i"] -= (record["j"] - 1) - 2\nreturn record',
            [{"type": "set", "columns": {"i": "i - (j - 1 - 2)"}}],
        ),
    ],
)
def test_translations(body, steps):
    function = function_of(body)
    assert translate(function, SCHEMA) == steps
    assert_same(function, steps, ROWS)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('record["x"] = record["i"] % 2\nreturn record', "record['i'] % 2"),
        ('record["x"] = record["i"] // 2\nreturn record', "record['i'] // 2"),
        ('record["x"] = round(record["f"], 1)\nreturn record', "round(record['f'], 1)"),
        ('record["x"] = str(record["i"])\nreturn record', "str(record['i'])"),
        ('record["x"] = record["s"] or "none"\nreturn record', "or 'none'"),
        ('record["x"] = LIMIT\nreturn record', "LIMIT"),
        ('record["x"] = record["none"]\nreturn record', "the records of the sample have no 'none'"),
        ('return record if record["s"] else None', "record['s']"),
        ('return record if record["s"] > 3 else None', "it compares string with int"),
        ('return record if record["ok"] == 1 else None', "it compares bool with int"),
        ('return record if record["at"] > record["at"] else None', "record['at']"),
        ("return [record, record]", "return [record, record]"),
        ("for name in record:\n    pass\nreturn record", "for name in record:"),
        ("other = record\nreturn other", "record"),
        ('if record["ok"]:\n    return record\nrecord["i"] = 1\nreturn record', "if record['ok']:"),
        ('x = record["i"]\nrecord["i"] = 2\nrecord["k"] = x\nreturn record', "x"),
        ('record["x"] = 1e300\nreturn record', "1e+300"),
        ('record["x"] = 9223372036854775808\nreturn record', "9223372036854775808"),
        ('record["s"] = record["s"].strip("x")\nreturn record', "strip('x')"),
        ('record["x"] = 1', "it ends without a return"),
    ],
)
def test_what_is_not_simple_has_no_translation(body, why):
    with pytest.raises(NotSimpleError) as told:
        translate(function_of(body), SCHEMA)
    assert why in str(told.value)


@pytest.mark.parametrize(
    "head", ["async def clean(record):", "@staticmethod\ndef clean(record):", "def clean(record, *more):"]
)
def test_only_plain_functions(head):
    function = function_of("return record", head)
    with pytest.raises(NotSimpleError):
        translate(getattr(function, "__func__", function), SCHEMA)


def test_only_functions_with_a_source():
    for function in (len, lambda record: record, Python, functools.partial(function_of("return record"))):
        with pytest.raises(NotSimpleError):
            translate(function, SCHEMA)


def test_a_built_in_that_the_module_has_redefined():
    function = function_of('record["x"] = len(record["s"])\nreturn record')
    function.__globals__["len"] = lambda text: 0
    with pytest.raises(NotSimpleError):
        translate(function, SCHEMA)


NUMBER, INT, TEXT, TRUTH = "number", "int", "text", "truth"
LEAVES = {
    INT: ['record["i"]', 'record.get("j")', "7", "-2", "0"],
    NUMBER: ['record["f"]', "0.5", "9", 'record["i"]'],
    TEXT: ['record["s"]', 'record["t"]', '"ab"', "''"],
    TRUTH: [
        'record["ok"]',
        'record["ok"] == True',
        "False",
        'record["s"] is None',
        'record["i"] is not None',
    ],
}
FORMS = {
    INT: [
        *[(f"({{}} {sign} {{}})", INT, INT) for sign in "+-*"],
        ("-{}", INT),
        ("abs({})", INT),
        ("len({})", TEXT),
        ("({} if {} else {})", INT, TRUTH, INT),
    ],
    NUMBER: [
        *[(f"({{}} {sign} {{}})", NUMBER, NUMBER) for sign in "+-*/"],
        ("{}", INT),
        ("-{}", NUMBER),
        ("abs({})", NUMBER),
    ],
    TEXT: [
        ("({} + {})", TEXT, TEXT),
        ("{}.upper()", TEXT),
        ("{}.lower()", TEXT),
        ("{}.strip()", TEXT),
        ("({} if {} else {})", TEXT, TRUTH, TEXT),
        ("({} if {} else None)", TEXT, TRUTH),
    ],
    TRUTH: [
        *[(f"({{}} {sign} {{}})", NUMBER, NUMBER) for sign in ("==", "!=", "<", "<=", ">", ">=")],
        *[(f"({{}} {sign} {{}})", TEXT, TEXT) for sign in ("==", "!=", "<", ">=")],
        ("({} and {})", TRUTH, TRUTH),
        ("({} or {})", TRUTH, TRUTH),
        ("(not {})", TRUTH),
        ("({} <= {} <= {})", NUMBER, NUMBER, NUMBER),
        ("(-3 <= {} <= 4.5)", NUMBER),
        ("({} < {} < {})", INT, INT, NUMBER),
        ('({} in ("ab", "b"))', TEXT),
        ('({} not in ["ab"])', TEXT),
        ("({} in (7, -2))", INT),
        ("({} is None)", TEXT),
        ("({} != None)", INT),
    ],
}
STATEMENTS = [
    ('record["i"] = {}', INT),
    ('record["f"] = {}', NUMBER),
    ('record["t"] = {}', TEXT),
    ('record["new"] = {}', NUMBER),
    ('record["word"] = {}', TEXT),
    ('record["flag"] = {}', TRUTH),
    ('record["i"] += {}', INT),
    ('x = {}\nrecord["x"] = x', INT),
    ("if {}:\n    return None", TRUTH),
    ('if {}:\n    record["i"] = {}', TRUTH, INT),
    ('if {}:\n    record["k"] = {}\nelse:\n    record["k"] = {}', TRUTH, INT, INT),
    ('record.pop("at", None)',),
]
ENDS = [
    ("return record",),
    ("return record if {} else None", TRUTH),
    ("return None if {} else record", TRUTH),
    ("if {}:\n    return record\nreturn None", TRUTH),
    ('return {{**record, "u": {}, "i": {}}}', TEXT, INT),
    ('return {{"u": {}, "s": record["s"], "v": {}}}', TEXT, INT),
]


def expressions(sort, depth=2):
    leaves = st.sampled_from(LEAVES[sort])
    if not depth:
        return leaves
    return leaves | st.sampled_from(FORMS[sort]).flatmap(lambda form: filled(form, depth - 1))


def filled(form, depth=2):
    text, *sorts = form
    return st.tuples(*(expressions(sort, depth) for sort in sorts)).map(lambda parts: text.format(*parts))


BODIES = st.tuples(
    st.lists(st.sampled_from(STATEMENTS).flatmap(filled), max_size=3), st.sampled_from(ENDS).flatmap(filled)
).map(lambda parts: "\n".join([*parts[0], parts[1]]))
WORDS = st.none() | st.text(alphabet="abAB '\"_0", max_size=4)
SMALL = st.none() | st.integers(-30, 30)
RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "s": WORDS,
            "t": WORDS,
            "i": SMALL,
            "j": SMALL,
            "f": st.none() | st.floats(-100, 100) | st.just(float("nan")),
            "ok": st.none() | st.booleans(),
            "at": st.none(),
            "Odd name": SMALL,
        }
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def tally():
    """Count what was translated: a property about nothing would hold as well."""
    counts = {"translated": 0, "refused": 0}
    yield counts
    assert counts["translated"] > counts["refused"] / 4
    assert counts["translated"] > 50


@settings(max_examples=200, deadline=None)
@given(body=BODIES, records=RECORDS)
def test_functions_and_their_translations_do_the_same(tally, body, records):
    function = function_of(body)
    try:
        steps = translate(function, SCHEMA)
    except NotSimpleError:
        tally["refused"] += 1
        return
    tally["translated"] += 1
    assert_same(function, steps, pa.Table.from_pylist(records, SCHEMA))
