"""What expressions give, on one table with every kind of column, and what does not fit it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from collectors.errors import ConfigurationError
from collectors.processing.expressions import compile_expression

BIG = 2**53 + 1
TABLE = pa.table(
    {
        "i": [1, 2, None, 7],
        "big": [BIG, BIG - 1, None, 2**63 - 1],
        "small": pa.array([1, -128, None, 127], pa.int8()),
        "u": pa.array([1, 2**64 - 1, None, 5], pa.uint64()),
        "f": [1.5, None, -2.5, float(BIG - 1)],
        "d": pa.array([Decimal("1.50"), Decimal("2.00"), None, Decimal("-7.25")], pa.decimal128(10, 2)),
        "s": ["ab", "5", None, "a%B"],
        "dic": pa.array(["u", "v", None, "u"]).dictionary_encode(),
        "b": [True, False, None, True],
        "ts": pa.array([0, 10**6, None, 1_700_000_000_123_456], pa.timestamp("us", "UTC")),
        "naive": pa.array([0, 1000, None, 5], pa.timestamp("ms")),
        "day": pa.array([0, 1, None, 20_000], pa.date32()),
        "null": pa.nulls(4),
        "o": pa.array([{"x": 1, "y": {"z": "q"}}, None, {"x": None, "y": None}, {"x": 3, "y": {"z": None}}]),
        "tags": [["a"], [], None, ["b", "c"]],
        'weird "name"': [1, 2, 3, 4],
    }
)
N, T, F = None, True, False


def evaluate(text, table=TABLE):
    compiled = compile_expression(text, table.schema)
    result = compiled.evaluate(table)
    assert isinstance(result, pa.ChunkedArray)
    assert result.type == compiled.type
    assert len(result) == table.num_rows
    return result.to_pylist()


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


CASES = {
    "logic": [
        ("b and null", [N, F, N, N]),
        ("b or null", [T, N, N, T]),
        ("not b", [F, T, N, F]),
        ("null = null", [N] * 4),
        ("b is true", [T, F, F, T]),
        ("b is not true", [F, T, T, F]),
        ("b is false", [F, T, F, F]),
        ("null", [N] * 4),
        ("true", [T] * 4),
        ("b and (i = 1 or i = 2) and true", [T, F, N, F]),
    ],
    "comparison": [
        ("i = 2", [F, T, N, F]),
        ("i == 2", [F, T, N, F]),
        ("i <> 2", [T, F, N, T]),
        ("i != 2", [T, F, N, T]),
        ("i between 2 and 7", [F, T, N, T]),
        ("i not between 2 and 7", [T, F, N, F]),
        ("i between null and 1", [N, F, N, F]),
        ("i between 2 and null", [F, N, N, N]),
        ("i in (1, 7)", [T, F, N, T]),
        ("i in (1, null)", [T, N, N, N]),
        ("i not in (1, 7)", [F, T, N, F]),
        ("i in (1.5, 2.0)", [F, T, N, F]),
        ("f in (1.5, 7)", [T, N, F, F]),
        ("s in ('5', 'x')", [F, T, N, F]),
        ("i is null", [F, F, T, F]),
        ("i is not null", [T, T, F, T]),
        ("tags is null", [F, F, T, F]),
        ("i is distinct from 1", [F, T, T, T]),
        ("i is not distinct from null", [F, F, T, F]),
        ("s < 'a'", [F, T, N, F]),
        ("b = true", [T, F, N, T]),
        ("null = i", [N] * 4),
        ('"null" = 5', [N] * 4),
    ],
    "numbers of different kinds": [
        ("i > 1.5", [F, T, N, T]),
        ("1.5 < i", [F, T, N, T]),
        (f"big = {BIG}", [T, F, N, F]),
        (f"big > {BIG - 1}.0", [T, F, N, T]),
        (f"big = {BIG - 1}.0", [F, T, N, F]),
        (f"f = {BIG}", [F, N, F, F]),
        (f"f = {BIG - 1}", [F, N, F, T]),
        ("big = f", [F, N, N, F]),
        ("big < 9223372036854775808.0", [T, T, N, T]),
        ("u = 18446744073709551615", [F, T, N, F]),
        ("u > 18446744073709551614.0", [F, T, N, F]),
        ("d = 1.5", [T, F, N, F]),
        ("d = f", [T, N, N, F]),
        ("d < i", [F, F, N, T]),
        ("99999999999999999999 > i", [T, T, N, T]),
    ],
    "arithmetic": [
        ("i + 1", [2, 3, N, 8]),
        ("small * 127", [127, -16256, N, 16129]),
        ("i / 2", [0.5, 1.0, N, 3.5]),
        ("i / 0", [N] * 4),
        ("f / (i - 1)", [N, N, N, float(BIG - 1) / 6]),
        ("i % 0", [N] * 4),
        ("-7 % i", [0, -1, N, 0]),
        ("-7 % (i * -1)", [0, -1, N, 0]),
        ("7 % -1", [0] * 4),
        ("-9223372036854775808 % -i", [0, 0, N, -1]),
        ("1.0 % 0.1", [1.0 % 0.1] * 4),
        ("mod(i, 2)", [1, 0, N, 1]),
        ("-i", [-1, -2, N, -7]),
        ("- - 5", [5] * 4),
        ("-9223372036854775808", [-(2**63)] * 4),
        ("i * f", [1.5, N, N, 7 * float(BIG - 1)]),
        ("i + null", [N] * 4),
        ("u + 1", [Decimal(2), Decimal(2**64), N, Decimal(6)]),
        ("d + 1", [Decimal("2.50"), Decimal("3.00"), N, Decimal("-6.25")]),
        ("d * 2.5", [Decimal("3.750"), Decimal("5.000"), N, Decimal("-18.125")]),
        ("d * f", [2.25, N, N, -7.25 * float(BIG - 1)]),
        ("d % 2", [Decimal("1.50"), Decimal("0.00"), N, Decimal("-1.25")]),
        ("d / 2", [0.75, 1.0, N, -3.625]),
        ("-d", [Decimal("-1.50"), Decimal("-2.00"), N, Decimal("7.25")]),
        ("2 + 3 * 4 - 6 / 3", [12.0] * 4),
        ("i * 9 / 5 + 32", [33.8, 35.6, N, 44.6]),
    ],
    "functions of numbers": [
        ("abs(-i)", [1, 2, N, 7]),
        ("abs(f)", [1.5, N, 2.5, float(BIG - 1)]),
        ("round(f)", [2.0, N, -3.0, float(BIG - 1)]),
        ("round(d, 1)", [Decimal("1.50"), Decimal("2.00"), N, Decimal("-7.30")]),
        ("round(i)", [1, 2, N, 7]),
        ("round(2.345, 2)", [2.35] * 4),
        ("ceil(f)", [2.0, N, -2.0, float(BIG - 1)]),
        ("floor(d)", [Decimal("1.00"), Decimal("2.00"), N, Decimal("-8.00")]),
        ("floor(i)", [1, 2, N, 7]),
        ("sqrt(i - 2)", [N, 0.0, N, 5**0.5]),
        ("ln(i - 1)", [N, 0.0, N, 1.791759469228055]),
        ("log(100)", [2.0] * 4),
        ("log10(1000)", [3.0] * 4),
        ("log2(8)", [3.0] * 4),
        ("log(3, 9)", [2.0] * 4),
        ("exp(0)", [1.0] * 4),
        ("power(2, i)", [2.0, 4.0, N, 128.0]),
        ("power(-8, 0.5)", [N] * 4),
        ("sign(f)", [1, N, -1, 1]),
        ("greatest(i, 2)", [2, 2, 2, 7]),
        ("least(i, f)", [1.0, 2.0, -2.5, 7.0]),
        ("greatest(s, 'b')", ["b", "b", "b", "b"]),
    ],
    "text": [
        ("s || '!'", ["ab!", "5!", N, "a%B!"]),
        ("s || i", ["ab1", "52", N, "a%B7"]),
        ("concat(s, i, b)", ["ab1true", "52false", "", "a%B7true"]),
        ("lower(s)", ["ab", "5", N, "a%b"]),
        ("upper(s)", ["AB", "5", N, "A%B"]),
        ("length(s)", [2, 1, N, 3]),
        ("length('🎈é')", [2] * 4),
        ("trim('  x ')", ["x"] * 4),
        ("ltrim('xxa', 'x')", ["a"] * 4),
        ("rtrim('axx', 'x')", ["a"] * 4),
        ("substr(s, 2)", ["b", "", N, "%B"]),
        ("substr(s, 1, 1)", ["a", "5", N, "a"]),
        ("substr(s, -1)", ["b", "5", N, "B"]),
        ("substr(s, -2, 1)", ["a", "", N, "%"]),
        ("replace(s, 'a', '')", ["b", "5", N, "%B"]),
        ("starts_with(s, 'a')", [T, F, N, T]),
        ("ends_with(s, 'b')", [T, F, N, F]),
        ("suffix(s, 'B')", [F, F, N, T]),
        ("contains(s, '%')", [F, F, N, T]),
        ("s like 'a%'", [T, F, N, T]),
        ("s like 'a_'", [T, F, N, F]),
        ("s not like 'a%'", [F, T, N, F]),
        ("s ilike 'A%b'", [T, F, N, T]),
        ("s not ilike 'A%b'", [F, T, N, F]),
        ("s like 'a!%%' escape '!'", [F, F, N, T]),
        ("'a.c' like 'a.c' and 'abc' not like 'a.c'", [T] * 4),
        ("'two\nlines' like 'two%lines'", [T] * 4),
        ("regexp_matches(s, '^a.?b$')", [T, F, N, F]),
        ("regexp_matches(s, '^a.?b$', 'i')", [T, F, N, T]),
        ("regexp_extract(s, '(a)(.*)', 2)", ["b", N, N, "%B"]),
        ("regexp_extract(s, '[a-z]+')", ["ab", N, N, "a"]),
        ("split_part(s, '%', 2)", ["", "", N, "B"]),
        ("split_part('a,b,c', ',', 2)", ["b"] * 4),
        ("'it''s'", ["it's"] * 4),
        ("dic = 'u'", [T, F, N, T]),
        ("upper(dic)", ["U", "V", N, "U"]),
    ],
    "branches": [
        ("case when i = 1 then 'one' when b then 'b' end", ["one", N, N, "b"]),
        ("case i when 1 then 'one' when 2 then 'two' else 'many' end", ["one", "two", "many", "many"]),
        ("case when i > 1 then 1 else 2.5 end", [2.5, 1.0, 2.5, 1.0]),
        ("if(b, 'x', 'y')", ["x", "y", "y", "x"]),
        ("coalesce(null, i, 0)", [1, 2, 0, 7]),
        ("ifnull(s, 'none')", ["ab", "5", "none", "a%B"]),
        ("nullif(i, 1)", [N, 2, N, 7]),
        ("nullif(nullif(i, 1), 2)", [N, N, N, 7]),
        ("coalesce(o, null)", TABLE["o"].to_pylist()),
    ],
    "time": [
        ("ts > '1970-01-01'", [F, T, N, T]),
        ("ts >= '1970-01-01T01:00:01+01:00'", [F, T, N, T]),
        ("'1970-01-01T00:00:00.5Z' > ts", [T, F, N, F]),
        ("naive > '1970-01-01 00:00:00.0001'", [F, T, N, T]),
        ("naive = ts", [T, T, N, F]),
        ("day = ts", [T, F, N, F]),
        ("day > '1970-01-01'", [F, T, N, T]),
        ("day = date '2024-10-04'", [F, F, N, T]),
        ("ts in ('1970-01-01', '1970-01-01T00:00:01Z')", [T, T, N, F]),
        (
            "coalesce(ts, '2026-01-01')",
            [at("1970-01-01"), at("1970-01-01T00:00:01"), at("2026-01-01"), at("2023-11-14T22:13:20.123456")],
        ),
        ("year(ts)", [1970, 1970, N, 2023]),
        ("extract(month from day)", [1, 1, N, 10]),
        ("hour(ts)", [0, 0, N, 22]),
        ("minute(ts) * 60 + second(ts)", [0, 1, N, 13 * 60 + 20]),
        ("dayofweek(day)", [4, 5, N, 5]),
        ("isodow(ts)", [4, 4, N, 2]),
        ("quarter(day)", [1, 1, N, 4]),
        ("week(day)", [1, 1, N, 40]),
        ("dayofyear(day)", [1, 2, N, 278]),
        ("epoch(ts)", [0.0, 1.0, N, 1700000000.123456]),
        ("extract(epoch from day)", [0.0, 86400.0, N, 1728000000.0]),
        ("date_trunc('hour', ts)", [at("1970-01-01"), at("1970-01-01"), N, at("2023-11-14T22:00:00")]),
        (
            "to_timestamp(i)",
            [at("1970-01-01T00:00:01"), at("1970-01-01T00:00:02"), N, at("1970-01-01T00:00:07")],
        ),
        (
            "to_timestamp(d)",
            [at("1970-01-01T00:00:01.5"), at("1970-01-01T00:00:02"), N, at("1969-12-31T23:59:52.75")],
        ),
        ("strptime('05.03.2026', '%d.%m.%Y')", [at("2026-03-05")] * 4),
        ("timestamp '2026-01-01'", [at("2026-01-01")] * 4),
    ],
    "types": [
        ("i::float", [1.0, 2.0, N, 7.0]),
        ("cast(i as string)", ["1", "2", N, "7"]),
        ("cast(ts as date)", [date(1970, 1, 1), date(1970, 1, 1), N, date(2023, 11, 14)]),
        ("cast(b as int)", [1, 0, N, 1]),
        ("cast(null as int)", [N] * 4),
        ("try_cast(s as int)", [N, 5, N, N]),
        ("try_cast(f as int)", [N, N, N, BIG - 1]),
        ("cast(i as decimal(5, 2))", [Decimal("1.00"), Decimal("2.00"), N, Decimal("7.00")]),
        ("'12'::int + 1", [13] * 4),
    ],
    "names": [
        ('"weird ""name""" + 1', [2, 3, 4, 5]),
        ("o.x", [1, N, N, 3]),
        ("o['y']['z'] = 'q'", [T, N, N, N]),
        ("o.y.z", ["q", N, N, N]),
        ("tags", TABLE["tags"].to_pylist()),
        ("1 /* a comment */ + -- another\n 1", [2] * 4),
    ],
}


@pytest.mark.parametrize(("text", "result"), [case for cases in CASES.values() for case in cases])
def test_result(text, result):
    found = evaluate(text)
    assert [type(value) for value in found] == [type(value) for value in result]
    for value, right in zip(found, result, strict=True):
        assert value == (pytest.approx(right, abs=0, rel=1e-15) if isinstance(right, float) else right)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("case when s = '5' then s::int end", [N, 5, N, N]),
        ("case when s <> '5' then 0 else s::int end", [0, 5, N, 0]),
        ("s = '5' and s::int = 5", [F, T, N, F]),
        ("s <> '5' or s::int = 5", [T, T, N, T]),
        ("coalesce(i, s::int)", None),
        ("case when b then case when i = 2 then s::int else 1 end end", [1, N, N, 1]),
    ],
)
def test_what_is_not_needed_does_not_fail(text, result):
    if result is None:
        table = pa.table({"i": [1, None], "s": ["x", "5"]})
        assert evaluate(text, table) == [1, 5]
    else:
        assert evaluate(text) == result


def test_columns_are_those_used():
    assert compile_expression("i > 1 and o.x = big or i = 2", TABLE.schema).columns == {"i", "o", "big"}
    assert compile_expression("1 + 1", TABLE.schema).columns == frozenset()


def test_compiled_once_for_a_schema():
    other = pa.schema([TABLE.schema.field("i")])
    first = compile_expression("i + 1", TABLE.schema)
    assert compile_expression("i + 1", pa.schema(list(TABLE.schema))) is first
    assert compile_expression("i + 1", other) is not first


def test_name_of_two_columns():
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "a", "b"])
    assert evaluate("b", table) == [3]
    with pytest.raises(ConfigurationError, match="there are 2 columns named 'a'"):
        evaluate("a", table)


@pytest.mark.parametrize("text", [text for cases in CASES.values() for text, _ in cases])
def test_layout_makes_no_difference(text):
    whole = evaluate(text)
    pieces = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1, 0), TABLE.slice(1, 3)])
    assert evaluate(text, pieces) == whole
    assert evaluate(text, TABLE.slice(1, 2)) == whole[1:3]
    assert evaluate(text, TABLE.slice(0, 0)) == []


def test_strings_of_all_layouts():
    for type_ in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.large_string())):
        table = pa.table({"s": pa.array(["a", None, "b"]).cast(type_)})
        assert evaluate("upper(s) || case when s = 'a' then s else 'x' end", table) == ["Aa", None, "Bx"]


def test_zones_are_the_same_moment():
    table = pa.table({"t": pa.array([1_750_000_000], pa.timestamp("s", "Europe/Berlin"))})
    assert evaluate("hour(t)", table) == [15]
    assert evaluate("cast(t as string)", table) == ["2025-06-15T15:06:40Z"]
    assert evaluate("t = '2025-06-15T17:06:40+02:00'", table) == [True]


def test_a_time_of_day_meets_text():
    table = pa.table({"t": pa.array([3600, None], pa.time32("s"))})
    assert evaluate("t >= '01:00:00'", table) == [True, None]
    with pytest.raises(ConfigurationError, match="'noon' is not a time"):
        evaluate("t = 'noon'", table)


def test_a_long_chain_is_not_deep():
    text = " or ".join(f"i = {n}" for n in range(300))
    assert evaluate(text) == [T, T, N, T]


def test_nested_use_of_a_part_is_computed_once():
    """Each level uses the one below twice; without sharing 2**24 evaluations would follow."""
    text = "i"
    for level in range(24):
        text = f"nullif({text}, {-level - 1})"
    assert evaluate(text) == [1, 2, N, 7]
