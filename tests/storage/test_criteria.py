from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.errors import ConfigurationError
from collectors.models import QueryCriteria
from collectors.storage.criteria import Condition, Ordering, ordering, parse, select_rows, sort_key

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def criteria(filters=None, sort_by=None, limit=None, offset=None) -> QueryCriteria:
    return QueryCriteria(filters or {}, sort_by, limit, offset)


def matches(value, operator, wanted) -> bool:
    return bool(select_rows([{"c": value}], criteria({"c": {operator: wanted}})))


def test_a_plain_value_asks_for_equality_and_none_for_null() -> None:
    assert parse(criteria({"a": 1, "b": None, "c": {"!=": None}})) == [
        Condition("a", "=", 1),
        Condition("b", "is null", None),
        Condition("c", "is not null", None),
    ]


def test_several_operators_on_one_column_must_all_hold() -> None:
    assert select_rows([{"n": n} for n in range(6)], criteria({"n": {">": 1, "<=": 3}})) == [
        {"n": 2},
        {"n": 3},
    ]


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (criteria({"a": {"=>": 1}}), "unknown operator '=>'"),
        (criteria({"a": {"drop table": 1}}), "unknown operator 'drop table'"),
        (criteria({"a": {None: 1}}), "unknown operator None"),
        (criteria({"a": {"is null": 1}}), "unknown operator 'is null'"),
        (criteria({"a": {}}), "column 'a'"),
        (criteria({"a": {"in": 3}}), "'in' needs a list, got 3"),
        (criteria({"a": {"not in": "abc"}}), "'not in' needs a list"),
        (criteria({"a": {"like": 3}}), "'like' needs a text"),
        (criteria({"a": {"<": None}}), "'<' needs a value"),
        (criteria({"a": "\ud800"}), "not valid Unicode"),
        (criteria({"a": {"in": ["\ud800"]}}), "not valid Unicode"),
        (criteria({1: 2}), "got 1"),
        (QueryCriteria([], None, None, None), "expected a mapping"),
        (criteria(limit=-1), "limit: expected a whole number from 0 on, got -1"),
        (criteria(limit=True), "limit"),
        (criteria(limit="1; drop table x"), "limit"),
        (criteria(limit=2**63), "limit"),
        (criteria(offset=1.5), "offset"),
        (criteria(sort_by=""), "sort_by"),
        (criteria(sort_by="-"), "sort_by"),
        (criteria(sort_by=3), "sort_by"),
    ],
)
def test_what_is_wrong_is_named(bad: QueryCriteria, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        select_rows([{"a": 1}], bad)
    assert named in str(caught.value)


def test_an_unknown_column_is_refused_when_the_columns_are_known() -> None:
    with pytest.raises(ValueError, match="no column 'b'; there are: a"):
        select_rows([{"a": 1}], criteria({"b": 1}), ["a"])
    with pytest.raises(ValueError, match="no column 'b'"):
        select_rows([{"a": 1}], criteria(sort_by="-b"), ["a"])
    assert select_rows([{"a": 1}], criteria({"b": 1})) == []


@pytest.mark.parametrize(
    ("value", "operator", "wanted", "expected"),
    [
        (None, "=", 0, False),
        (None, "!=", 0, False),
        (None, "<", 0, False),
        (None, "in", [1, None], True),
        (None, "not in", [1], False),
        (2, "not in", [1, None], True),
        (1, "in", [], False),
        (1, "not in", [], True),
        (True, "=", 1, True),
        (5, "=", "5", False),
        ("5", "=", 5, False),
        ("5", "!=", 5, True),
        ("a", "<", 5, False),
        ("a", ">", 5, False),
        (b"a", "=", "a", False),
        (b"a", "<", b"b", True),
        (2**53 + 1, "=", float(2**53), False),
        (2**53 + 1, ">", float(2**53), True),
        (Decimal("1.1"), "=", 1.1, True),
        (Decimal("1.10"), "<", 2, True),
        (float("nan"), "=", float("nan"), False),
        (float("nan"), "!=", 1, True),
        (float("inf"), ">", 10**400, True),
        (NOON, "=", "2026-01-02T13:00:00+01:00", True),
        (NOON, ">", "2026-01-02", True),
        (NOON, "=", "soon", False),
        (NOON, "!=", "soon", True),
        (NOON, "=", NOON.astimezone(timezone(timedelta(hours=5))), True),
        (NOON.replace(tzinfo=None), "=", NOON, True),
        (NOON.replace(tzinfo=None), "=", NOON.replace(tzinfo=None), True),
        (date(2026, 1, 2), "<", NOON, True),
        (date(2026, 1, 2), "=", "2026-01-02", True),
        (datetime.min, "<", NOON, True),
        ("2026-01-02T12:00:00+00:00", "=", NOON, False),
        (time(1), "<", time(2), True),
        (time(1, tzinfo=UTC), "<", time(2), False),
        ({"b": 1, "a": [1]}, "=", {"a": [1], "b": 1}, True),
        ({"a": 1}, "<", {"a": 2}, False),
        ([1], "!=", [2], True),
        ([1.0, (2,)], "=", [1, [2]], True),
        ("abc", "like", "a%", True),
        ("Abc", "like", "a%", False),
        ("abc", "like", "a_c", True),
        ("abc", "like", "b", False),
        ("a\nc", "like", "a%c", True),
        ("a.c", "like", "a.c", True),
        ("abc", "like", "a.c", False),
        ("10%", "like", "10\\%", True),
        ("100", "like", "10\\%", False),
        ("abab", "like", "%ab", True),
        ("xaxbxa", "like", "%a%b%", True),
        ("ab", "like", "%b%a%", False),
        ("", "like", "%", True),
        (5, "like", "5", False),
    ],
)
def test_comparisons(value, operator, wanted, expected) -> None:
    assert matches(value, operator, wanted) is expected


def test_a_hostile_pattern_takes_no_time() -> None:
    assert not matches("a" * 3000, "like", "%a" * 200 + "%b")


def test_sorting_is_stable_and_none_is_last_both_ways() -> None:
    rows = [{"n": n, "i": i} for i, n in enumerate([2, None, 1, 2, None, 1])]
    assert [row["i"] for row in select_rows(rows, criteria(sort_by="n"))] == [2, 5, 0, 3, 1, 4]
    assert [row["i"] for row in select_rows(rows, criteria(sort_by="-n"))] == [0, 3, 2, 5, 1, 4]
    assert ordering(criteria(sort_by="-n")) == Ordering("n", descending=True)


def test_offset_then_limit() -> None:
    rows = [{"n": n} for n in range(5)]
    assert select_rows(rows, criteria(offset=1, limit=2)) == [{"n": 1}, {"n": 2}]
    assert select_rows(rows, criteria(limit=0)) == []
    assert select_rows(rows, criteria(offset=9)) == []


def test_kinds_have_an_order_among_each_other() -> None:
    ordered = [
        True,
        2.5,
        Decimal(3),
        float("inf"),
        float("nan"),
        date(2026, 1, 1),
        NOON,
        "a",
        b"a",
        [1],
        {"a": 1},
    ]
    keys = [sort_key(value) for value in ordered]
    assert keys[0:9] == sorted(keys[0:9])
    assert sorted(keys) is not None


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals(allow_nan=True)
    | st.text()
    | st.binary()
    | st.datetimes()
    | st.datetimes(timezones=st.just(UTC))
    | st.dates()
    | st.times()
    | st.timedeltas(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(anything, max_size=6),
    anything.filter(lambda value: value is not None),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    st.booleans(),
)
def test_mixed_values_never_raise_and_the_operators_fit_together(values, wanted, operator, down) -> None:
    rows = [{"c": value} for value in values]
    sort_by = "-c" if down else "c"
    found = select_rows(rows, criteria({"c": {operator: wanted}}, sort_by))
    opposite = {"=": "!=", "!=": "="}.get(operator)
    if opposite:
        others = select_rows(rows, criteria({"c": {opposite: wanted}}))
        assert len(found) + len(others) == sum(value is not None for value in values)
    if operator == "<=":
        parts = [select_rows(rows, criteria({"c": {part: wanted}})) for part in ("<", "=")]
        assert len(found) == sum(map(len, parts))
