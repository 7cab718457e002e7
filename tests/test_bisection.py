"""Finding the rows that make a whole table fail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.bisection import search
from collectors.errors import FatalError


def drive(rows, bad, most=10**6):
    """Return what the search finds, the parts that passed, and the number of tries."""
    passed, tries = [], 0
    searching = search(rows, "some row is bad", most)
    try:
        part = next(searching)
        while True:
            tries += 1
            why = next((f"row {row}" for row in range(*part) if row in bad), None)
            if why is None:
                passed.append(part)
            part = searching.send(why)
    except StopIteration as done:
        return done.value, passed, tries


@given(
    st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1)))
)
def test_every_culprit_is_found_and_every_other_row_passes_once_in_order(case):
    rows, bad = case
    found, passed, _ = drive(rows, bad)
    assert set(found) == bad
    assert [row for part in passed for row in range(*part)] == sorted(set(range(rows)) - bad)
    if rows > 1:
        assert all(reason == f"row {row}" for row, reason in found.items())


@pytest.mark.parametrize("row", [0, 1, 40_000, 65_535])
def test_one_in_65536_costs_a_few_tries_more_than_its_logarithm(row):
    found, _, tries = drive(65_536, {row})
    assert set(found) == {row}
    assert tries <= 32


def test_all_rows_refused_ends_soon():
    with pytest.raises(FatalError, match="too many of 65,536 rows"):
        drive(65_536, set(range(65_536)), 500)


def test_rows_that_are_refused_only_together_are_no_culprits():
    found, passed, _ = drive(4, set())
    assert found == {}
    assert passed == [(0, 2), (2, 3), (3, 4)]
