"""Rows made from columns are those that pairs of names and values would give, whatever the names are."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from collectors.rows import batches, encodable, to_dicts

NAMES = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["id", "class", "__init__", "__x", "_y", "a b", 'a"b', "a\\b", "é", "ﬁ", "f0", "self", "1", "\n"]
    ),
)
TABLES = st.integers(0, 5).flatmap(
    lambda count: st.lists(
        st.tuples(
            NAMES, st.lists(st.one_of(st.none(), st.integers(), st.text()), min_size=count, max_size=count)
        ),
        max_size=5,
    ).map(lambda columns: ([name for name, _ in columns], [values for _, values in columns], count))
)


@given(TABLES)
def test_dicts(table):
    names, columns, count = table
    assert to_dicts(names, columns, count) == [
        dict(zip(names, (column[row] for column in columns), strict=True)) for row in range(count)
    ]


@given(TABLES)
def test_json(table):
    dicts = [msgspec.json.decode(msgspec.json.encode(row)) for row in to_dicts(*table)]
    rows = [msgspec.json.decode(msgspec.json.encode(row)) for row in encodable(*table)]
    assert rows == dicts
    assert [list(row) for row in rows] == [list(row) for row in dicts]


@given(st.integers(0, 20_000))
def test_batches(count):
    covered = [row for start, size in batches(count) for row in (start, start + size)]
    assert covered == sorted(covered)
    assert covered[:1] + covered[-1:] == ([0, count] if count else [])
    assert sum(size for _, size in batches(count)) == count
