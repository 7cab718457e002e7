"""What happens where an expression does not fit: the columns, or a value."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from collectors.errors import ConfigurationError, DataError
from collectors.processing.expressions import compile_expression

BIG = 2**53 + 1
TABLE = pa.table(
    {
        "i": [1, 2, None, 7],
        "big": [BIG, BIG - 1, None, 2**63 - 1],
        "small": pa.array([1, -128, None, 127], pa.int8()),
        "f": [1.5, None, -2.5, float(BIG - 1)],
        "d": pa.array([Decimal("1.50"), Decimal("2.00"), None, Decimal("-7.25")], pa.decimal128(10, 2)),
        "s": ["ab", "5", None, "a%B"],
        "dic": pa.array(["u", "v", None, "u"]).dictionary_encode(),
        "b": [True, False, None, True],
        "ts": pa.array([0, 10**6, None, 1_700_000_000_123_456], pa.timestamp("us", "UTC")),
        "day": pa.array([0, 1, None, 20_000], pa.date32()),
        "o": pa.array([{"x": 1, "y": {"z": "q"}}, None, {"x": None, "y": None}, {"x": 3, "y": {"z": None}}]),
        "tags": [["a"], [], None, ["b", "c"]],
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("big + 1", {3: "9223372036854775807 + 1 does not fit in 64 bits"}),
        ("big * big", dict.fromkeys([0, 1, 3], "does not fit in 64 bits")),
        ("-2 - big", {3: "-2 - 9223372036854775807 does not fit in 64 bits"}),
        ("abs(-big - 1)", {3: "-(-9223372036854775808) does not fit in 64 bits"}),
        ("cast(s as int)", {0: "'ab' is not an int", 3: "'a%B' is not an int"}),
        ("s::int + s::float", {0: "'ab' is not an int", 3: "'a%B' is not an int"}),
        ("cast(f as int)", {0: "1.5 cannot be an int without loss", 2: "-2.5 cannot be an int without loss"}),
        ("coalesce(big, f)", {0: f"{BIG} cannot be a float", 3: "9223372036854775807 cannot be a float"}),
        ("to_timestamp(big)", dict.fromkeys([0, 1, 3], "seconds are not in the years 1 to 9999")),
        ("strptime(s, '%d')", {0: "'ab' is not written as '%d'", 3: "'a%B' is not written as '%d'"}),
        ("case when i = 1 then s::int end", {0: "'ab' is not an int"}),
        ("i = 7 and s::int = 1", {3: "'a%B' is not an int"}),
        ("i <> 7 or s::int = 1", {3: "'a%B' is not an int"}),
        ("9223372036854775807 + 1", dict.fromkeys(range(4), "does not fit")),
    ],
)
def test_every_row_that_fails_is_named(text, rows):
    with pytest.raises(DataError) as caught:
        compile_expression(text, TABLE.schema).evaluate(TABLE)
    assert list(caught.value.rows) == list(rows)
    assert all(part in caught.value.rows[row] for row, part in rows.items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dict = 5", "no column 'dict' (line 1, column 1): did you mean 'dic'? There are: i, big, small"),
        ("1 +\n  I", "no column 'I' (line 2, column 3): there are: i,"),
        ("i = 1 and later = 2", "A column that only later records have can be declared under 'columns'"),
        ('s = "fail"', "If it is meant as text, write it in single quotes: 'fail'"),
        (
            "s > 5",
            "the types do not meet: s is a string and 5 is an int; cast one of them, for example: cast(s as int)",
        ),
        (
            "i = '5'",
            "the types do not meet: i is an int and '5' is a string; cast one of them, for example: cast(i as",
        ),
        ("b = 1", "b is a bool and 1 is an int"),
        ("ts > 5", "ts is a timestamp and 5 is an int"),
        (
            "1 = 1 and ts > 'soon'",
            "'soon' is not a timestamp: write it as '2026-01-31T12:30:00Z' (line 1, column 16)",
        ),
        ("day = '2026-02-30'", "'2026-02-30' is not a date: write it as '2026-01-31'"),
        ("date '2026-02-30'", "'2026-02-30' is not a date"),
        ("tags = tags", "a list cannot be compared"),
        ("o = o", "a struct cannot be compared"),
        ("o.q", "o is a struct without a field 'q' (line 1, column 3): there are: x, y"),
        ("s.q", "s is a string and has no field 'q'"),
        ("i and b", "i is an int, and true or false is needed: compare it with something"),
        ("not s", "s is a string, and true or false is needed"),
        ("s + 'x'", "s is a string, and '+' needs numbers; texts are joined with ||"),
        ("ts - ts", "epoch(…) gives the seconds of a timestamp"),
        ("-s", "s is a string, and a number is needed"),
        ("lower(i)", "i is an int, and a string is needed: cast(i as string)"),
        ("sqrt(s)", "s is a string, and a number is needed"),
        ("year(i)", "i is an int, and a timestamp is needed: see to_timestamp and strptime"),
        (
            "cast(ts as int)",
            "ts is a timestamp and cannot become an int; see epoch(timestamp) and to_timestamp",
        ),
        ("cast(tags as string)", "tags is a list and cannot become a string"),
        ("tags || 'x'", "tags is a list and cannot become a string"),
        ("coalesce(s, i)", "the types do not meet: s is a string and i is an int"),
        ("case when b then 1 else 'x' end", "1 is an int and 'x' is a string"),
        ("s in ('a', 1)", "s is a string and 1 is an int"),
        ("round(i, -1)", "an int is rounded to places behind the point only"),
        ("d * 0.00000000000000000001 * 0.00000000000000000001", "digits; cast one to float"),
        ("greatest(b, true)", "b is a bool, which has no order"),
    ],
)
def test_what_does_not_fit_the_columns(text, message):
    with pytest.raises(ConfigurationError) as caught:
        compile_expression(text, TABLE.schema)
    assert message in str(caught.value)
