"""What the text of an expression may be: everything else is refused with line, column and plain words."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError
from sqlglot import exp

from collectors.errors import ConfigurationError, DataError
from collectors.processing import _grammar
from collectors.processing._functions import FUNCTIONS
from collectors.processing._syntax import check, name_groups, parse
from collectors.processing.expressions import RULES, Sql, compile_expression

TABLE = pa.table(
    {
        "i": [1, 2, None, 7],
        "big": [2**53 + 1, -(2**63), None, 2**63 - 1],
        "small": pa.array([1, -128, None, 127], pa.int8()),
        "u": pa.array([1, 2**64 - 1, None, 5], pa.uint64()),
        "f": [1.5, None, -2.5, float("nan")],
        "d": pa.array([Decimal("1.50"), Decimal("2.00"), None, Decimal("-7.25")], pa.decimal128(10, 2)),
        "s": ["ab", "5", None, "a%B"],
        "dic": pa.array(["u", "v", None, "u"]).dictionary_encode(),
        "b": [True, False, None, True],
        "ts": pa.array([0, 10**6, None, 1_700_000_000_123_456], pa.timestamp("us", "UTC")),
        "naive": pa.array([0, 1000, None, 5], pa.timestamp("ms")),
        "day": pa.array([0, 1, None, 20_000], pa.date32()),
        "null": pa.nulls(4),
        "o": pa.array([{"x": 1}, None, {"x": None}, {"x": 3}]),
        "tags": [["a"], [], None, ["b", "c"]],
    }
)


def refused(text):
    """Return line, column and message; None when the text is an expression."""
    try:
        parse(text)
    except PydanticCustomError as error:
        found = error
    else:
        return None
    line, column = found.context["line"], found.context["column"]
    lines = text.split("\n")
    assert found.type == "sql"
    assert 1 <= line <= len(lines)
    assert 1 <= column <= max(len(lines[line - 1]), 1)
    return line, column, found.message()


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "expected an expression, for example"),
        ("  -- only a comment", 1, 1, "expected an expression"),
        ("a =", 1, 3, "expected a value behind '='"),
        ("a <> and x", 1, 6, "expected a value behind '<>'"),
        ("a and\n\n  b <>", 3, 5, "expected a value behind '<>'"),
        ("a between 1", 1, 11, "expected a value behind '1'"),
        ("a is", 1, 3, "expected a value behind 'is'"),
        ("a is 1", 1, 1, "expected null, not null, true, false or distinct from behind 'is'"),
        ("a in", 1, 1, "expected a list of values behind 'in'"),
        ("a in ()", 1, 1, "expected a list of values behind 'in'"),
        ("not", 1, 1, "expected a value behind 'not'"),
        ("(a", 1, 2, "expected ')' behind 'a'"),
        ("a)", 1, 2, "did not expect ')' here"),
        ("a b", 1, 3, "did not expect 'b' here"),
        ("a as b", 1, 3, "did not expect 'as' here"),
        ("a, b", 1, 2, "did not expect ',' here"),
        ("from = 1", 1, 1, "did not expect 'from' here; a column of that name is written \"from\""),
        ("case when a then", 1, 13, "expected a value behind 'then'"),
        ("case when a then 1", 1, 18, "expected end behind '1'"),
        ("cast(a as", 1, 8, "expected type behind 'as'"),
        ("cast(a as elephant)", 1, 6, "expected a type: bool, int, float, string"),
        ("cast(a as decimal(99, 2))", 1, 6, "with 1 to 38 digits"),
        ("a::int[]", 1, 1, "expected a type: bool, int, float, string"),
        ("'abc", 1, 1, "what opens here with ' is never closed"),
        ("a = 'x' or \"b", 1, 12, 'what opens here with " is never closed'),
        ("a /* x", 1, 3, "what opens here with /* is never closed"),
        ("a = foo(x)", 1, 5, "unknown function 'foo': did you mean 'floor'?"),
        ("1 +\n   flor(x)", 2, 4, "unknown function 'flor': did you mean 'floor'?"),
        ("zzzzzz(x)", 1, 1, "unknown function 'zzzzzz': there are: abs, "),
        ("count(*)", 1, 1, "unknown function 'count'"),
        ("sum(a) over ()", 1, 1, "unknown function 'sum'"),
        ("read_text('/etc/passwd')", 1, 1, "unknown function 'read_text'"),
        ("abs()", 1, 5, "expected a value in front of ')'"),
        ("mod(a)", 1, 6, "expected a value in front of ')'"),
        ("abs(a, b)", 1, 9, "too many values in front of ')'"),
        ("now()", 1, 1, "now is not repeatable, and a replay must give the same rows as the first run"),
        ("a > random()", 1, 5, "random is not repeatable"),
        ("a < current_timestamp", 1, 5, "current_timestamp is not repeatable"),
        ("a in (select 1)", 1, 7, "a SELECT cannot stand here: expected one expression over a single row"),
        ("a; b", 1, 2, "expected one expression; nothing may stand at or behind ';'"),
        ("1; drop table x", 1, 2, "expected one expression"),
        ("drop table x", 1, 1, "did not expect 'drop' here"),
        ("a ~ 'x'", 1, 3, "write regexp_matches(text, 'pattern')"),
        ("a & b", 1, 1, "what stands at 'a & b' is not part of the expression language"),
        ("a.*", 1, 1, "expected the name of a column"),
        ("a[1]", 1, 1, "expected the name of a field in the brackets, for example: place['city']"),
        ("a = ?", 1, 1, "is not part of the expression language"),
        ("$1", 1, 1, "is not part of the expression language"),
        ("a like b", 1, 8, "expected a text in single quotes here, not a column"),
        ("a like 'x' escape '!!'", 1, 1, "expected one character behind 'escape'"),
        ("substr(a, b)", 1, 11, "expected a whole number here, not a column"),
        ("substr(a, 0)", 1, 1, "characters are counted from 1"),
        ("substr(a, 1, -1)", 1, 1, "the length cannot be negative"),
        ("split_part(a, ',', 0)", 1, 1, "parts are counted from 1"),
        ("split_part(a, '', 1)", 1, 1, "a delimiter of at least one character"),
        ("round(a, 1.5)", 1, 10, "expected a whole number here"),
        ("regexp_matches(a, '(')", 1, 1, "the pattern is not a regular expression"),
        ("regexp_matches(a, '(?<=x)y')", 1, 1, "the pattern is not a regular expression"),
        ("regexp_matches(a, 'x', 'g')", 1, 1, "the only flag of regexp_matches is 'i'"),
        ("regexp_extract(a, '(x)', 2)", 1, 1, "the pattern has no group 2: it has 1"),
        ("extract(century from a)", 1, 22, "expected one of day, dayofweek"),
        ("date_trunc('decade', a)", 1, 1, "expected one of day, hour"),
        ("ceil(a, 1)", 1, 6, "is not part of the expression language"),
        ("log(a, b)", 1, 1, "expected a number written out as the base of log"),
        ("9" * 39, 1, 1, "a number has at most 38 digits"),
        ("1e999", 1, 1, "the number is too large"),
        ("0E", 1, 1, "'0E' is no number"),
        ("(" * 60 + "a" + ")" * 60, 1, 51, "nested too deeply: at most 50 levels"),
        ("not " * 3000 + "a", 1, 1, "nested too deeply"),
        ("a" + " + 1" * 60, 1, 1, "nested too deeply"),
        ("a" * 20_001, 1, 1, "too long: 20001 characters, at most 20000"),
        ("a " * 6000, 1, 1, "too long: 6000 words and signs, at most 5000"),
        ("é = foo('ü')", 1, 5, "unknown function 'foo'"),
    ],
)
def test_refused(text, line, column, message):
    found = refused(text)
    assert found is not None
    if "too deeply" in message or message == "is not part of the expression language":
        assert message in found[2]
    else:
        assert found[:2] == (line, column)
        assert message in found[2]


@pytest.mark.parametrize(
    "text", ["timestamp > '2026-01-01'", "order", '"from" = 1', "level = 'x'", "value", "user"]
)
def test_words_of_sql_that_may_be_columns(text):
    assert refused(text) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [("a > 1", "a > 1"), (5, "5"), (1.5, "1.5"), (True, "true"), (False, "false"), (-3, "-3")],
)
def test_values_of_yaml(value, text):
    assert TypeAdapter(Sql).validate_python(value) == text


@pytest.mark.parametrize("value", [None, [], {}, b"a"])
def test_no_text(value):
    with pytest.raises(ValidationError):
        TypeAdapter(Sql).validate_python(value) if value != b"a" else TypeAdapter(Sql).validate_python(
            b"\xff"
        )


def test_json_schema_of_the_type():
    kinds = {option["type"] for option in TypeAdapter(Sql).json_schema()["anyOf"]}
    assert kinds == {"string", "integer", "number", "boolean"}


NODES = sorted(
    {cls for cls in vars(exp).values() if isinstance(cls, type) and issubclass(cls, exp.Expression)},
    key=lambda cls: cls.__name__,
)


def test_nodes_that_are_not_listed_are_refused():
    """By themselves, as an operand, and in a list: whatever sqlglot's parser may come to make of a text."""
    others = [cls for cls in NODES if cls not in _grammar.NODES and cls not in _grammar.STRUCTURE]
    assert len(others) > 800
    for cls in others:
        for tree in (cls(), exp.Not(this=cls()), exp.In(this=exp.Null(), expressions=[cls()])):
            with pytest.raises(PydanticCustomError):
                check(tree, "text")


def test_parts_are_no_values():
    for cls in _grammar.STRUCTURE:
        assert cls not in FUNCTIONS
        assert cls.key not in RULES
        with pytest.raises(PydanticCustomError):
            check(cls(this="x"), "text")


def test_arguments_that_are_not_listed_are_refused():
    for cls, allowed in _grammar.NODES.items():
        for name in set(cls.arg_types) - allowed:
            with pytest.raises(PydanticCustomError):
                check(cls(**{name: exp.Null()}), "text")


def test_every_listed_node_has_a_rule():
    others = {cls for cls in _grammar.NODES if cls.key not in RULES}
    assert others - set(FUNCTIONS) == {exp.Column, exp.Dot, exp.Bracket}
    assert set(FUNCTIONS) <= others
    assert set(RULES) <= {cls.key for cls in _grammar.NODES}


WORDS = st.sampled_from(
    [
        *"()[],.+-*/%=<>;:~!?$'\"`{}|&^@#\\\n",
        *[
            "<>",
            "<=",
            "::",
            "||",
            "--",
            "/*",
            "*/",
            "$$",
            "and",
            "or",
            "not",
            "is",
            "null",
            "true",
            "in",
            "like",
        ],
        *[
            "between",
            "case",
            "when",
            "then",
            "else",
            "end",
            "cast(",
            "as",
            "int",
            "decimal(",
            "interval",
            "select",
        ],
        *[
            "from",
            "distinct",
            "escape",
            "i",
            "f",
            "s",
            "b",
            "ts",
            "o.x",
            "d",
            "u",
            "1",
            "2.5",
            "'a'",
            "'5'",
            "1e5",
        ],
        *[
            "lambda",
            "->",
            "over",
            "exists",
            "array",
            "struct",
            "x'ff'",
            "e'a'",
            "date '2026-01-01'",
            "with",
            "union",
        ],
        *[f"{name}(" for name in sorted(_grammar.FUNCTION_NAMES)],
    ]
)
TEXTS = st.text(max_size=60) | st.lists(WORDS, max_size=14).map(" ".join)


def use(text):
    """Parse, compile and evaluate; only the errors of these steps may come out of it."""
    if refused(text) is not None:
        return
    try:
        compile_expression(text, TABLE.schema).evaluate(TABLE)
    except (ConfigurationError, DataError):
        return


@hypothesis_settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_any_text(text):
    use(text)


COLUMNS = [
    "i",
    "big",
    "small",
    "u",
    "f",
    "d",
    "s",
    "dic",
    "b",
    "ts",
    "naive",
    "day",
    '"null"',
    "o",
    "o.x",
    "tags",
]
NUMBERS = ["1", "0", "-1", "2.5", "1e300", "9223372036854775807", "99999999999999999999"]
VALUES = st.sampled_from([*COLUMNS, *NUMBERS, "''", "'5'", "'2026-01-01'", "true", "null"])
SIGNS = ["+", "-", "*", "/", "%", "=", "<>", "<", ">=", "||", "and", "or"]
OF_NUMBERS = ["abs", "round", "floor", "ceil", "sqrt", "ln", "exp", "sign", "to_timestamp"]
OF_OTHERS = ["lower", "length", "trim", "year", "week", "epoch", "dayofweek", "second"]
FORMS = [
    *[f"({{}} {sign} {{}})" for sign in SIGNS],
    *["(not {})", "(- {})", "({} is null)", "({} is true)", "({} in ({}, {}))", "({} between {} and {})"],
    *["({} is distinct from {})", "case when {} then {} else {} end", "case {} when {} then {} end", "coalesce({}, {})"],
    *["nullif({}, {})", "greatest({}, {})", "least({}, {}, {})", "concat({}, {})", "power({}, {})", "mod({}, {})"],
    *["({} like '%5')", "regexp_extract({}, '(.)', 1)", "split_part({}, ',', 2)", "substr({}, -2, 1)"],
    *[f"{name}({{}})" for name in [*OF_NUMBERS, *OF_OTHERS]],
    *["date_trunc('week', {})", "strptime({}, '%Y')"],
    *[f"{cast}({{}} as {name})" for cast in ("cast", "try_cast") for name in
      ("int", "float", "string", "bool", "date", "timestamp", "binary", "decimal(9, 3)")],
]  # fmt: skip


def filled(parts):
    form = st.sampled_from(FORMS)
    return form.flatmap(
        lambda text: st.tuples(*[parts] * text.count("{}")).map(lambda values: text.format(*values))
    )


@hypothesis_settings(max_examples=600, deadline=None)
@given(st.recursive(VALUES, filled, max_leaves=8))
def test_any_meeting_of_types(text):
    """Well-formed expressions over all types: a result of the promised type and length, or one of the two errors."""
    assert refused(text) is None
    try:
        compiled = compile_expression(text, TABLE.schema)
    except ConfigurationError:
        return
    good = TABLE
    try:
        result = compiled.evaluate(good)
    except DataError as error:
        keep = [row for row in range(TABLE.num_rows) if row not in error.rows]
        good = TABLE.take(pa.array(keep, pa.int64()))
        result = compiled.evaluate(good)
    assert len(result) == good.num_rows
    assert result.type == compiled.type
    result.validate(full=True)


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab()[]?:P<>|*+\\QE^$.1", max_size=12))
def test_groups_of_any_pattern(pattern):
    """Naming the groups of a pattern never changes what it matches, and never fails but with the pattern."""
    try:
        plain = pc.match_substring_regex(pa.array(["ab(1)", "", "aabb"]), pattern)
    except pa.ArrowInvalid:
        return
    if refused("regexp_extract(s, '" + pattern + "')") is None:
        named = pc.is_valid(pc.extract_regex(pa.array(["ab(1)", "", "aabb"]), name_groups(pattern)[0]))
        assert named.to_pylist() == plain.to_pylist()
