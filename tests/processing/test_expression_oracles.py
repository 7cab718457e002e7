"""Expressions against SQLite, and against Python where Python is exact."""

from __future__ import annotations

import operator
import re
import sqlite3
from contextlib import closing
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collectors.errors import DataError
from collectors.processing.casting import cast
from collectors.processing.expressions import compile_expression

NUMBER, TEXT, TRUTH = "number", "text", "truth"
INTS = st.none() | st.integers(-20, 20)
WORDS = st.none() | st.text(alphabet="abAB %_'0", max_size=4)
ROWS = st.lists(st.tuples(INTS, INTS, WORDS, WORDS), min_size=1, max_size=5)
LEAVES = {
    NUMBER: st.sampled_from(["a", "b", "null"]) | st.integers(0, 20).map(str),
    TEXT: st.sampled_from(["s", "t"])
    | st.text(alphabet="abAB %_0", max_size=3).map(lambda text: f"'{text}'"),
    TRUTH: st.sampled_from(["true", "false", "a > 0", "s = 'a'"]),
}
FORMS = {
    NUMBER: [
        *[(f"({{}} {sign} {{}})", NUMBER, NUMBER) for sign in "+-*%"],
        ("(-{})", NUMBER),
        ("abs({})", NUMBER),
        ("sign({})", NUMBER),
        ("length({})", TEXT),
        ("coalesce({}, {})", NUMBER, NUMBER),
        ("nullif({}, {})", NUMBER, NUMBER),
        ("case when {} then {} else {} end", TRUTH, NUMBER, NUMBER),
        ("case {} when {} then {} end", NUMBER, NUMBER, NUMBER),
        ("if({}, {}, {})", TRUTH, NUMBER, NUMBER),
    ],
    TEXT: [
        ("({} || {})", TEXT, TEXT),
        ("lower({})", TEXT),
        ("upper({})", TEXT),
        ("trim({})", TEXT),
        ("ltrim({}, 'a ')", TEXT),
        ("rtrim({}, '%')", TEXT),
        ("substr({}, 2)", TEXT),
        ("substr({}, 1, 2)", TEXT),
        ("substr({}, -2, 1)", TEXT),
        ("replace({}, 'a', 'bb')", TEXT),
        ("coalesce({}, {})", TEXT, TEXT),
        ("case when {} then {} else {} end", TRUTH, TEXT, TEXT),
        ("cast({} as string)", NUMBER),
    ],
    TRUTH: [
        *[(f"({{}} {sign} {{}})", NUMBER, NUMBER) for sign in ("=", "<>", "<", "<=", ">", ">=")],
        *[(f"({{}} {sign} {{}})", TEXT, TEXT) for sign in ("=", "<>", "<", ">=")],
        ("({} and {})", TRUTH, TRUTH),
        ("({} or {})", TRUTH, TRUTH),
        ("(not {})", TRUTH),
        ("({} between {} and {})", NUMBER, NUMBER, NUMBER),
        ("({} not between {} and {})", NUMBER, NUMBER, NUMBER),
        ("({} in ({}, {}))", NUMBER, NUMBER, NUMBER),
        ("({} not in ({}, 3, null))", NUMBER, NUMBER),
        ("({} in ('a', 'b'))", TEXT),
        ("({} is null)", NUMBER),
        ("({} is not null)", TEXT),
        ("({} is distinct from {})", NUMBER, NUMBER),
        ("({} is not distinct from {})", TEXT, TEXT),
        ("({} is true)", TRUTH),
        ("({} is not false)", TRUTH),
        ("({} like '%a_')", TEXT),
        ("({} not like 'b%')", TEXT),
        ("({} like '_!%' escape '!')", TEXT),
    ],
}


def expressions(sort, depth):
    if not depth:
        return LEAVES[sort]

    def fill(form):
        template, *sorts = form
        return st.tuples(*[expressions(part, depth - 1) for part in sorts]).map(
            lambda parts: template.format(*parts)
        )

    return LEAVES[sort] | st.sampled_from(FORMS[sort]).flatmap(fill)


def by_sqlite(text, rows):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("pragma case_sensitive_like = on")
        connection.execute("create table data (a integer, b integer, s text, t text)")
        connection.executemany("insert into data values (?, ?, ?, ?)", rows)
        written = re.sub(r"\bif\(", "iif(", text.replace(" as string)", " as text)"))
        return [value for (value,) in connection.execute(f"select {written} from data order by rowid")]


def by_us(text, rows):
    columns = [pa.int64(), pa.int64(), pa.string(), pa.string()]
    arrays = [pa.array(values, type_) for values, type_ in zip(zip(*rows, strict=True), columns, strict=True)]
    table = pa.table(arrays, names=["a", "b", "s", "t"])
    return compile_expression(text, table.schema).evaluate(table).to_pylist()


@pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 39), reason="this SQLite has no IS DISTINCT FROM")
@hypothesis_settings(max_examples=300, deadline=None)
@given(st.sampled_from([NUMBER, TEXT, TRUTH]).flatmap(lambda sort: expressions(sort, 3)), ROWS)
def test_as_sqlite(text, rows):
    assert by_us(text, rows) == by_sqlite(text, rows)


EDGES = [0, 1, -1, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63 - 2, -(2**63), -(2**53) - 1, 2**62 + 1]
LONG_INTS = st.sampled_from(EDGES) | st.integers(-(2**63), 2**63 - 1)
FLOATS = (
    st.sampled_from([float(edge) for edge in EDGES] + [0.5, -0.0, 2.0**63, 2.0**64, -(2.0**63), float("inf")])
    | st.floats()
    | LONG_INTS.map(float)
)
SIGNS = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(LONG_INTS, FLOATS), min_size=1, max_size=12), st.sampled_from(sorted(SIGNS)))
@example([(2**53 + 1, 2.0**53), (2**63 - 1, 2.0**63)], "=")
def test_ints_and_floats_compare_exactly(pairs, sign):
    """Python compares an int with a float as the numbers they are."""
    table = pa.table({"i": [i for i, _ in pairs], "f": [f for _, f in pairs]})
    for text, function in ((f"i {sign} f", SIGNS[sign]), (f"f {sign} i", lambda i, f: SIGNS[sign](f, i))):
        assert compile_expression(text, table.schema).evaluate(table).to_pylist() == [
            function(*pair) for pair in pairs
        ]


@hypothesis_settings(max_examples=120, deadline=None)
@given(
    st.lists(LONG_INTS, min_size=1, max_size=12),
    FLOATS.filter(lambda f: abs(f) < 1e37),
    st.sampled_from(sorted(SIGNS)),
)
def test_literals_compare_exactly(values, literal, sign):
    table = pa.table({"i": values, "f": [float(value) for value in values]})
    written = format(Decimal(literal), "f")
    if len(written.replace("-", "").replace(".", "").lstrip("0")) > 38:
        return
    written = written if "." in written else f"{written}.0"
    found = compile_expression(f"i {sign} {written}", table.schema).evaluate(table).to_pylist()
    assert found == [SIGNS[sign](value, literal) for value in values]
    whole = int(literal)
    found = compile_expression(f"f {sign} {whole}", table.schema).evaluate(table).to_pylist()
    assert found == [SIGNS[sign](float(value), whole) for value in values]


@hypothesis_settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(LONG_INTS, LONG_INTS), min_size=1, max_size=12), st.sampled_from("+-*"))
def test_ints_are_exact_or_fail(pairs, sign):
    function = {"+": operator.add, "-": operator.sub, "*": operator.mul}[sign]
    right = [function(*pair) for pair in pairs]
    outside = {row for row, value in enumerate(right) if not -(2**63) <= value < 2**63}
    table = pa.table({"a": [a for a, _ in pairs], "b": [b for _, b in pairs]})
    expression = compile_expression(f"a {sign} b", table.schema)
    if outside:
        with pytest.raises(DataError) as caught:
            expression.evaluate(table)
        assert set(caught.value.rows) == outside
    else:
        assert expression.evaluate(table).to_pylist() == right


@hypothesis_settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(LONG_INTS, LONG_INTS), min_size=1, max_size=12))
@example([(-(2**63), -1), (2**63 - 1, -(2**63))])
def test_remainders(pairs):
    table = pa.table({"a": [a for a, _ in pairs], "b": [b for _, b in pairs]})
    found = compile_expression("a % b", table.schema).evaluate(table).to_pylist()
    assert found == [abs(a) % abs(b) * (-1 if a < 0 else 1) if b else None for a, b in pairs]


@hypothesis_settings(max_examples=120, deadline=None)
@given(st.text(alphabet="ab%_\\.!\n*", max_size=6), st.text(alphabet="abAB%_\\.!\n*", max_size=8))
def test_like(pattern, text):
    table = pa.table({"s": [text]})
    wild = "".join({"%": ".*", "_": "."}.get(character, re.escape(character)) for character in pattern)
    for sign, flags in (("like", re.DOTALL), ("ilike", re.DOTALL | re.IGNORECASE)):
        found = compile_expression(f"s {sign} '{pattern}'", table.schema).evaluate(table).to_pylist()
        assert found == [re.fullmatch(wild, text, flags) is not None]


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
MONEY = st.decimals(-(10**8), 10**8, places=2, allow_nan=False)


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    st.lists(NUMBERS, min_size=1, max_size=12),
    st.lists(LONG_INTS, min_size=1, max_size=12),
    st.lists(MONEY, min_size=1, max_size=12),
)
def test_casts_there_and_back(floats, ints, money):
    """What can be cast comes back as it was; decimals of money and their floats are the same to people."""
    price = pa.decimal128(12, 2)
    for values, there in [
        (pa.array(floats), pa.string()),
        (pa.array(ints), pa.string()),
        (pa.array(ints), pa.decimal128(38, 3)),
        (pa.array(money, price), pa.string()),
        (pa.array(money, price), pa.float64()),
    ]:
        middle, bad = cast(values, there)
        assert bad == []
        back, bad = cast(middle, values.type)
        assert bad == []
        assert back.equals(values)
    assert cast(pa.array(money, price), pa.float64())[0].to_pylist() == [float(value) for value in money]


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.lists(LONG_INTS | st.none(), min_size=1, max_size=12), st.lists(FLOATS, min_size=1, max_size=12))
def test_casts_lose_nothing(ints, floats):
    result, bad = cast(pa.array(ints, pa.int64()), pa.float64())
    assert bad == [row for row, value in enumerate(ints) if value is not None and int(float(value)) != value]
    assert all(
        value is None or int(value) == ints[row]
        for row, value in enumerate(result.to_pylist())
        if row not in bad
    )
    result, bad = cast(pa.array(floats, pa.float64()), pa.int64())
    fits = [abs(f) < 2**63 + 1 and f.is_integer() and -(2**63) <= int(f) < 2**63 for f in floats]
    assert bad == [row for row, fit in enumerate(fits) if not fit]
    assert [value for value in result.to_pylist() if value is not None] == [
        int(f) for f, fit in zip(floats, fits, strict=True) if fit
    ]
