"""What is read without sqlglot means what sqlglot would read: the same tree, or none."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError
from sqlglot import TokenType, exp
from sqlglot.dialects.duckdb import DuckDB

from collectors.processing import _simple, _syntax

UNUSED = {"typed", "safe"}


def shape(node):
    """Return a tree of either kind as tuples."""
    if not hasattr(node, "args"):
        return node
    if isinstance(node, exp.Expression):
        assert "negate" not in node.args
    args = {
        name: value
        for name, value in node.args.items()
        if value not in (None, False, []) and name not in UNUSED
    }
    return node.key, {
        name: [shape(item) for item in value] if isinstance(value, list) else shape(value)
        for name, value in args.items()
    }


def same(text):
    """Compare the trees where there is a simple one; return whether there is."""
    simple = _simple.parse(text)
    if simple is not None:
        assert shape(simple) == shape(_syntax.parse(text)), text
    return simple is not None


@pytest.mark.parametrize(
    "text",
    [
        "status <> 'fail' and temperature between -50 and 60",
        "temperature * 9 / 5 + 32",
        "a",
        ' "weird name" ',
        'place."a.b".c = 1.50',
        "a.b.c.d = 'x'",
        "1",
        "- 3",
        "''",
        "'é\nü'",
        "null",
        "TRUE and False",
        "not a = 1 or not b and c or d",
        "a and b and c and (d and e)",
        "a - b - c * d * -e % f",
        "a not in (1, -2.5, 'x') and b in (3)",
        "a is null or b is not null",
        "a not between b + 1 and c",
        "((a >= 1)) and (b<2)and c!=3",
    ],
)
def test_simple(text):
    assert same(text)


@pytest.mark.parametrize(
    "text",
    [
        *["", " ", "(", ")", "a b", "a,b", "a - - - 1", "a = 1 = 2", "a < b is null", "a is true", "a between 1", "not", "a not", "a not is null"],
        *["a in ()", "a in (b)", "a in (1,)", "(a, b)", "abs(a)", "a::int", "a || b", "a -- b", "a /* b */", "a=-1"],
        *["1e5", "1.", ".5", "1x", "0x1", "1_0", "'it''s'", "'a' 'b'", "'a\\\\b'", '"a""b"', '""', "x'ff'", "date '2026-01-01'"],
        *["a.b.c.d.e", "a.*", "a . b", "a[1]", "a ~ b", "a ? b", "$1", "é = 1", "a\u00a0= 1", "now()", "current_date", "case"],
        *["9" * 20, "not " * 60 + "a", "(" * 31 + "a" + ")" * 31, "a" + " + 1" * 60, "a;", "a\0"],
    ],
)  # fmt: skip
def test_left_to_sqlglot(text):
    assert not same(text)


NAMES = ["a", "B_1", '"x y"', "o.x", 'o."y z".w', "date", "timestamp", "value", "user", "order", "end"]
VALUES = st.sampled_from([*NAMES, "1", "2.50", "007", "'t'", "'%'", "''", "null", "true", "-1", "-a"])
FORMS = [
    *[
        f"{{}}{sign}{{}}"
        for sign in (" + ", "-", " * ", "/", " % ", " = ", "<>", " != ", "<", " <= ", ">", " >= ")
    ],
    *[
        "{} and {}",
        "{} or {}",
        "not {}",
        "-{}",
        "({})",
        "({})",
        "{} is null",
        "{} IS NOT NULL",
        "{} between {} and {}",
    ],
    *[
        "{} not between {} and {}",
        "{} in ({}, {})",
        "{} not in ({})",
        "{} \n and\t{}",
        "{} like {}",
        "abs({})",
    ],
]


@st.composite
def expressions(draw, depth=3):
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(VALUES)
    form = draw(st.sampled_from(FORMS))
    return form.format(*(draw(expressions(depth - 1)) for _ in range(form.count("{}"))))


@hypothesis_settings(max_examples=200, deadline=None)
@given(expressions())
def test_same_tree(text):
    same(text)


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *"()[],.+-*/%=<>;:~!'\"|\\ ",
                *NAMES,
                "1",
                "2.5",
                "'x'",
                "and",
                "or",
                "not",
                "is",
                "in",
                "null",
                "between",
            ]
        )
    )
)
def test_no_text_is_simple_that_sqlglot_refuses(parts):
    same("".join(parts))
    same(" ".join(parts))


def words():
    """Return every word that has a meaning somewhere in sqlglot, as far as its tables tell."""
    texts = [*DuckDB.tokenizer_class.KEYWORDS, *vars(exp)]
    for name in dir(DuckDB.parser_class):
        table = getattr(DuckDB.parser_class, name)
        if isinstance(table, (dict, set, frozenset, tuple, list)):
            texts += [getattr(each, "name", None) or each for each in table]
    texts += [each for kind in TokenType for each in (kind.name, kind.value)]
    return sorted({word for text in texts for word in re.findall(r"[A-Za-z_]\w*", str(text).lower())})


def test_words_of_sql():
    assert len(words()) > 1000
    for word in words():
        for form in ("{0}", "1 + {0} < 2 and {0} = {0} and not {0} and {0} in (1)", "q.{0} = {0}.q",
                     "({0}) and 3 between {0} and {0} and {0} is null and {0} not in (1) and {0} >2 and {0}-1 = -{0}"):  # fmt: skip
            same(form.format(word))


def test_what_is_wrong_is_told_as_sqlglot_places_it():
    with pytest.raises(PydanticCustomError):
        _syntax.parse("a = ")
    program = (
        "import sys, pyarrow\nfrom collectors.processing.expressions import compile_expression\n"
        "schema = pyarrow.schema([('a', 'int64'), ('s', 'string')])\n"
        "compile_expression('a > 1 and s is null', schema)\nprint('sqlglot' in sys.modules)\n"
        "try:\n    compile_expression('a > 1 and\\n  s > 2', schema)\nexcept Exception as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported, message = done.stdout.splitlines()
    assert imported == "False"
    assert message == (
        "the types do not meet: s is a string and 2 is an int; cast one of them, for example: cast(s as int) (line 2, column 3)"
    )
