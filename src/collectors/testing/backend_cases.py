"""What the contract of backends stores and asks: hostile names and texts, random rows and criteria."""

from __future__ import annotations

from datetime import UTC, date
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from collectors.models import QueryCriteria
from collectors.testing.deliveries import NOON

__all__ = [
    "HOSTILE_NAMES",
    "HOSTILE_TEXTS",
    "INJECTIONS",
    "as_typed_table",
    "stored_and_asked",
]

INJECTIONS = (
    "' or '1'='1",
    '" or ""="',
    "x'; drop table records; --",
    'n"; delete from records; --',
    "1) union select sql from sqlite_schema --",
    "`n`",
    "[n]",
    "n desc limit 1; --",
    "\\",
    "%s %(n)s {n} ${n}",
    "",
)
HOSTILE_NAMES = (
    "select",
    'a "quoted" one',
    "it's",
    "a;b",
    "a--b",
    "ünï cödé",
    "a b",
    "a.b",
    "[x]",
    "`y`",
    "é",
    "%s",
    "?",
    "😀",
)
HOSTILE_TEXTS = (
    *INJECTIONS,
    "\0",
    "a\0b",
    "\r\n\t",
    "😀 \u202e ﷽",
    "e\u0301",
    "null",
    "NaN",
    "1e999",
    "0x10",
    "00012",
    " 1 ",
    "2026-01-02",
    "a" * 70_000,
)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(HOSTILE_TEXTS[:-1])
_NUMBERS = st.sampled_from([-1, 0, 1, 2**53, 2**53 + 1, 2**63 - 1])
_COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int": (pa.int64(), _NUMBERS | st.integers(-(2**63), 2**63 - 1)),
    "unsigned": (pa.uint64(), st.integers(0, 2**64 - 1) | st.integers(0, 3)),
    "float": (pa.float64(), _NUMBERS.map(float) | st.floats(allow_nan=False)),
    "flag": (pa.bool_(), st.booleans()),
    "text": (pa.string(), _TEXT),
    "time": (pa.timestamp("us", "UTC"), st.just(NOON) | st.datetimes(timezones=st.just(UTC))),
    "clock": (pa.timestamp("us"), st.just(NOON.replace(tzinfo=None)) | st.datetimes()),
    "day": (pa.date32(), st.just(NOON.date()) | st.dates()),
    "bytes": (pa.binary(), st.binary(max_size=4)),
    "decimal": (pa.decimal128(38, 9), st.decimals(-(10**20), 10**20, places=9) | st.just(Decimal("1.1"))),
    "nested": (
        pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]),
        st.fixed_dictionaries({"a": st.none() | _NUMBERS, "b": st.none() | st.lists(_TEXT, max_size=2)}),
    ),
}
_ODD_VALUES = st.sampled_from(
    [
        float("nan"),
        float("inf"),
        10**400,
        -(10**30),
        1.1,
        Decimal("1.1"),
        "2026-01-02",
        "2026-01-02T12:00:00Z",
        date.min,
    ]
)


def as_typed_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows that `stored_and_asked` made as a table with the types that it meant."""
    kinds = {"n": pa.int64()} | {name: kind for name, (kind, _) in _COLUMNS.items()}
    return pa.table({name: pa.array([row[name] for row in rows], kinds[name]) for name in rows[0]})


@st.composite
def stored_and_asked(
    draw: st.DrawFn, cannot_store: str = ""
) -> tuple[list[list[dict[str, Any]]], list[QueryCriteria]]:
    """Draw one to three lists of rows, each stored by itself with columns of its own, and criteria for all of them.

    The rows have none of the characters in `cannot_store`; the criteria may.
    """
    parts: list[list[dict[str, Any]]] = []
    for _ in range(draw(st.integers(1, 3))):
        columns = draw(st.lists(st.sampled_from(sorted(_COLUMNS)), min_size=1, max_size=4, unique=True))
        count, start = draw(st.integers(1, 4)), sum(map(len, parts))
        parts.append(
            [
                {"n": start + row}
                | {name: _without(cannot_store, draw(st.none() | _COLUMNS[name][1])) for name in columns}
                for row in range(count)
            ]
        )
    stored = [row for part in parts for row in part]
    names = sorted({name for row in stored for name in row} - {"n"})
    return parts, draw(st.lists(_criteria(names, stored), min_size=1, max_size=4))


def _without(characters: str, value: Any) -> Any:
    """Return the value with these characters taken out of every text in it."""
    if isinstance(value, str):
        return value.translate(dict.fromkeys(map(ord, characters)))
    if isinstance(value, dict):
        return {name: _without(characters, item) for name, item in value.items()}
    return [_without(characters, item) for item in value] if isinstance(value, list) else value


@st.composite
def _criteria(draw: st.DrawFn, names: list[str], stored: list[dict[str, Any]]) -> QueryCriteria:
    filters: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(names), max_size=2, unique=True)):
        present = [row[name] for row in stored if row.get(name) is not None]
        value = _COLUMNS[name][1] | _ODD_VALUES | _COLUMNS[draw(st.sampled_from(sorted(_COLUMNS)))][1]
        if present:
            value = st.sampled_from(present) | value
        operator = draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "in", "not in", "like", None]))
        if operator is None:
            filters[name] = draw(st.sampled_from([None, {"!=": None}]))
        elif operator == "like":
            filters[name] = {operator: draw(st.text("%_\\a1'0", max_size=4))}
        elif operator in {"in", "not in"}:
            filters[name] = {operator: draw(st.lists(value | st.none(), max_size=3))}
        else:
            filters[name] = {operator: draw(value)}
    sort_by = draw(st.none() | st.sampled_from([f"{sign}{name}" for name in names for sign in ("", "-")]))
    limits = st.none() | st.integers(0, 5)
    return QueryCriteria(filters, sort_by, draw(limits), draw(limits))
