"""In which order objects are read: whatever comes when, and wherever one goes on, each is read once, and none is missed."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.collection.sources import _object_orders
from collectors.collection.sources._object_bucket import Found
from collectors.collection.sources._object_orders import ByName, ByTime, Selection
from collectors.object_stores import Place

LAG = 5
SECOND = 1_000_000


class Objects:
    """A bucket in memory; it lists by name, or, where it is not `sorted`, in the order of arrival."""

    def __init__(self, *, in_order=True):
        self.place = Place("s3", "b", "")
        self.sorted = in_order
        self.found = {}

    def put(self, key, second, tag):
        self.found.pop(key, None)
        self.found[key] = Found(key, 1, second * SECOND, tag)

    def objects(self, folder, after):
        listed = list(self.found.values())
        if self.sorted:
            listed.sort(key=lambda found: found.key)
        return iter([found for found in listed if found.key > after])


@pytest.fixture(autouse=True, scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_object_orders, "PAGE", 4)
        patch.setattr(_object_orders, "_LOOKED_AT", 3)
        patch.setattr(_object_orders, "_BLOCK_LETTERS", 3 * 12)
        yield


def read(order, told=None, most=None):
    """Read what is new, up to so many objects, as the source does: the next ones are looked for before one is finished."""
    done, waiting = [], []
    for found in filter(None, order.new()):
        waiting.append(found)
        if len(waiting) > 2:
            done.append(waiting.pop(0))
            order.finish(done[-1])
        if most is not None and len(done) >= most:
            return done
    for found in waiting[: None if most is None else most - len(done)]:
        done.append(found)
        order.finish(found)
    return done


def stored(order, done):
    state = order.state() | ({"key": done[-1].key} if done else {})
    return json.loads(json.dumps(state))


# Each arrival: a name, and how much earlier than the newest before it its time is (within the lag), or later.
ARRIVALS = st.lists(st.tuples(st.integers(0, 30), st.integers(-LAG, 3)), max_size=12)
ROUNDS = st.lists(st.tuples(ARRIVALS, st.none() | st.integers(0, 5)), min_size=1, max_size=8)


@given(ROUNDS, st.booleans())
@settings(max_examples=200, deadline=None)
def test_by_time_all_that_come_within_the_lag_are_read_once(rounds, in_order):
    """New and replaced ones, in any order of names, some in the same second; each round may end early and goes on anew."""
    bucket = Objects(in_order=in_order)
    state, newest, version, told = {}, 1000, 0, []
    put, done = Counter(), Counter()
    for arrivals, most in [*rounds, ([], None)]:
        for name, step in arrivals:
            version += 1
            # The newest one *read* bounds what may still come.
            read_up_to = state.get("newest") or 0
            second = max(newest + step, read_up_to // SECOND - LAG if read_up_to else 0)
            newest = max(newest, second)
            old = bucket.found.get(str(name))
            if old is not None and not done[old.tag]:
                del put[old.tag]  # replaced before it was read: nobody can have it
            bucket.put(str(name), second, f"v{version}")
            put[f"v{version}"] += 1
        order = ByTime(Selection(bucket, "**"), state, LAG, told.append)
        found = read(order, most=most)
        done.update(each.tag for each in found)
        state = stored(order, found) if found else state
    assert done == put
    assert told == []


@given(ROUNDS, st.booleans())
@settings(max_examples=100, deadline=None)
def test_by_name_all_that_sort_behind_are_read_once(rounds, in_order):
    bucket = Objects(in_order=in_order)
    state, last, done, put = {}, 0, [], []
    for arrivals, most in [*rounds, ([], None)]:
        for step, _ in arrivals:
            last += step + 1
            put.append(f"{last:05}")
            bucket.put(put[-1], 1000, "t")
        order = ByName(Selection(bucket, "**"), state, pytest.fail)
        found = read(order, most=most)
        done += [each.key for each in found]
        state = state | stored(order, found)
    assert done == put


@given(
    st.lists(st.integers(0, 400), max_size=60, unique=True),
    st.lists(st.integers(0, 300), max_size=8, unique=True),
)
@settings(max_examples=100, deadline=None)
def test_by_time_what_comes_too_late_is_counted(early, late):
    bucket = Objects()
    for second in early:
        bucket.put(f"e{second}", second, "t")
    bucket.put("newest", 1000, "t")
    told = []
    order = ByTime(Selection(bucket, "**"), {}, LAG, told.append)
    done = read(order)
    assert [found.modified for found in done] == [*sorted(second * SECOND for second in early), 1000 * SECOND]
    for second in late:
        bucket.put(f"l{second}", second, "t")
    again = ByTime(Selection(bucket, "**"), stored(order, done), LAG, told.append)
    assert read(again) == read(again) == []
    assert [line.split()[0] for line in told] == ([str(len(late))] if late else [])


def test_what_is_remembered_is_what_lies_in_the_window():
    bucket = Objects()
    for number in range(1000):
        bucket.put(f"{number:04}", number // 2, "t")
    order = ByTime(Selection(bucket, "**"), {}, LAG, pytest.fail)
    sizes = []
    for found in filter(None, order.new()):
        order.finish(found)
        sizes.append(len(json.dumps(order.state())))
    assert max(sizes) < 2 * (LAG + 2) * 60


def test_positions_do_not_change_behind_ones_back():
    order = ByTime(SimpleNamespace(), {}, LAG, pytest.fail)
    states = []
    for number in range(50):
        order.finish(Found(str(number), 1, number // 9 * SECOND, "t"))
        states.append((order.state(), json.dumps(order.state())))
    assert all(json.dumps(state) == text for state, text in states)
