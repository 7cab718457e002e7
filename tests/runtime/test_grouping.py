"""What goes into one commit: as many rows as a storage wishes for, but never without a bound on what is no row."""

from __future__ import annotations

import pyarrow as pa
import pytest

from collectors.runtime import grouping
from collectors.runtime.grouping import Grouping
from collectors.runtime.preparing import Part, Prepared


def prepared(*, read=1000, rows=None, letters=0, size=1000):
    table = pa.table({"n": range(read if rows is None else rows)})
    part = Part(table, [], None)
    return Prepared(1, 1, None, None, size, read, [None] * letters, [part])


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def taken(wish, item, clock=None, most=2000):
    """Return how many alike go together when there are always more on their way."""
    group = Grouping(0, wish, clock or Clock())
    joins, count = group.begin(item), 1
    while group.wants_more() and count < most and joins(item):
        count += 1
    return count


def test_a_storage_without_a_wish_waits_for_nothing():
    assert taken(0, prepared()) == 1


def test_it_waits_for_as_many_rows_as_are_wished_for():
    assert taken(100_000, prepared()) == 100


def test_rows_that_are_filtered_bound_it_as_well():
    assert taken(100_000, prepared(rows=0)) == 200


@pytest.mark.parametrize("letters", [1, 100, 1000])
def test_many_that_are_set_aside_end_it(letters):
    assert taken(10**9, prepared(rows=0, letters=letters)) == -(-grouping.MOST_LETTERS // letters)


def test_bytes_bound_it():
    assert taken(10**9, prepared(size=2**20)) == 16


def test_it_waits_for_a_second_at_most():
    clock = Clock()

    class Slow(Prepared):
        @property
        def read(self):
            clock.now += 0.1
            return 1

        @read.setter
        def read(self, value):
            pass

    item = prepared()
    slow = Slow(1, 1, None, None, 10, 1, [], item.parts)
    assert 8 <= taken(10**9, slow, clock) <= 12
