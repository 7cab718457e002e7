"""A storage that is added to a source later begins where the others are, whatever happens meanwhile, and says so."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.errors import FatalError
from collectors.runtime.engine import Engine
from collectors.storage.sqlite_store import DeliveryTables, open_database
from collectors.testing._sim_sources import Lines
from collectors.testing._sim_stores import Store, make_backend
from collectors.testing.clock import ManualEnv

KINDS = ["transactional", "lettered", "buffering", "plain"]
NEW = "is new and begins where the others of source 'numbers' are; what they have from before is not in it"


class Once(Source[SourceConfig]):
    """Chunks of seven from where it begins: a later reading cuts elsewhere. Gives no chunk a second time."""

    data_format = f"{Lines.__module__}:Lines"

    def __init__(self, count):
        super().__init__(SourceConfig(id="numbers"))
        self.count = count

    async def read(self, since):
        first = since["n"] if since else 0
        while first < self.count:
            last = min(first + 7, self.count)
            yield self.between(first, last)
            first = last

    def between(self, first, last):
        return self.chunk(b"".join(b"numbers %d\n" % n for n in range(first, last)), {"n": last})


class Numbers(Once):
    def replay(self, since, until):
        return self.between(since["n"] if since else 0, until["n"])


def run(folder, count, *backends, source=Numbers, **pipelines):
    made = [make_backend(each) if isinstance(each, Store) else each for each in backends]
    config = from_mapping(
        {"sources": [source(count)], "storage": made, "state": str(folder)}
        | ({"pipelines": {name: {"to": ids} for name, ids in pipelines.items()}} if pipelines else {}),
        name="test",
    )
    (flow,) = asyncio.run(Engine(config, env=ManualEnv(hurry=True), patience=60.0).run()).flows
    return flow


def store(name, kind="lettered"):
    return Store(name, kind, 0, 5)


def dying(backend, method):
    def die(*_):
        raise FatalError("the process dies here")

    setattr(backend, method, die)
    return backend


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, 1])
def test_it_begins_there_when_nothing_has_come_since(tmp_path, kind, place):
    old, new = store("old"), store("new", kind)
    both = [new, old] if place == 0 else [old, new]
    run(tmp_path, 10, old)
    assert run(tmp_path, 10, *both).notices == [f"storage new {NEW}"]
    for count in (10, 15, 30):
        flow = run(tmp_path, count, *both)
        assert flow.error is None
        assert flow.balanced
        assert flow.notices == []
    assert old.numbers("numbers") == list(range(30))
    assert new.numbers("numbers") == list(range(10, 30))


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_there_when_more_has_come_since(tmp_path, kind):
    old, new = store("old"), store("new", kind)
    run(tmp_path, 10, old)
    assert run(tmp_path, 15, old, new).notices == [f"storage new {NEW}"]
    assert new.numbers("numbers") == list(range(10, 15))
    assert run(tmp_path, 30, old, new).notices == []
    assert old.numbers("numbers") == list(range(30))
    assert new.numbers("numbers") == list(range(10, 30))


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize("method", ["claim", "commit", "stored"])
def test_it_begins_there_when_the_process_dies_on_the_way(tmp_path, kind, method):
    old, new = store("old"), store("new", kind)
    run(tmp_path, 10, old)
    for _ in range(3):
        assert "dies here" in str(run(tmp_path, 10, old, dying(make_backend(new), method)).error)
    flow = run(tmp_path, 15, old, new)
    assert flow.error is None
    assert flow.notices == [f"storage new {NEW}"]
    assert old.numbers("numbers") == list(range(15))
    assert new.numbers("numbers") == list(range(10, 15))


def test_one_without_a_chunk_that_is_not_new_gets_all(tmp_path):
    """Both are there from the first start on, which ends before the second one has got anything."""
    first, second = store("first"), store("second")
    run(tmp_path, 10, dying(make_backend(first), "claim"), second)
    run(tmp_path, 10, first, dying(make_backend(second), "commit"))
    assert second.rows == []
    flow = run(tmp_path, 15, first, second)
    assert flow.error is None
    assert flow.notices == []
    assert first.numbers("numbers") == second.numbers("numbers") == list(range(15))


def test_no_beginning_is_made_up_behind_what_another_machine_has_stored_since(tmp_path):
    """One machine dies while it adds a storage, another goes on: whether that one had the new storage nobody knows."""
    old, new = store("old"), store("new")
    run(tmp_path / "a", 10, old)
    run(tmp_path / "a", 10, old, dying(make_backend(new), "commit"))
    run(tmp_path / "b", 15, old)
    flow = run(tmp_path / "a", 20, old, new)
    assert "is behind the others" in str(flow.error)
    assert flow.notices == []
    elsewhere = store("new")
    assert run(tmp_path / "a", 20, old, elsewhere).error is None
    assert elsewhere.numbers("numbers") == list(range(15, 20))


def test_a_storage_that_was_begun_by_another_process_meanwhile_is_left_to_it(tmp_path):
    old, new = store("old"), store("new")
    run(tmp_path, 10, old)
    late = make_backend(new)
    claim = late.claim

    def after_another(flow):
        new.positions[flow] = replace(claim(flow), seq=3, position={"n": 10})
        return claim(flow)

    late.claim = after_another
    flow = run(tmp_path, 15, old, late)
    assert NEW not in str(flow.notices)
    assert new.numbers("numbers") in ([], list(range(10, 15)))


def test_letters_of_a_storage_stay_when_it_gets_a_new_place(tmp_path):
    """A storage without room for letters has them in the state file; they are of records that are nowhere else."""
    old = store("old", "transactional")
    before, after = (Store("moved", "transactional", 3, 5) for _ in range(2))
    run(tmp_path, 10, old, before)
    assert letters(tmp_path) == [0, 3, 6, 9]
    run(tmp_path, 10, old, after)
    run(tmp_path, 16, old, after)
    assert after.numbers("numbers") == [10, 11, 13, 14]
    assert letters(tmp_path) == [0, 3, 6, 9, 12, 15]


def letters(folder):
    database = open_database(folder / "state.db", read_only=True)
    try:
        return [json.loads(letter.raw)["n"] for letter in DeliveryTables(database).dead_letters("test")]
    finally:
        database.close()


def test_the_only_storage_gets_all_at_a_new_place(tmp_path):
    first, second = store("one"), store("one")
    run(tmp_path, 10, first)
    assert run(tmp_path, 15, second).notices == []
    assert second.numbers("numbers") == list(range(15))


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_one_that_lacks_what_cannot_be_read_again_goes_on_where_the_others_are(tmp_path, kind):
    first, late = store("first"), store("late", kind)
    run(tmp_path, 10, first, late, source=Once)
    while first.numbers("numbers") != list(
        range(15)
    ):  # the one that dies may end the flow before the first one commits
        run(tmp_path, 15, first, dying(make_backend(late), "commit"), source=Once)
    notices = run(tmp_path, 15, first, late, source=Once).notices
    assert notices == [
        "storage late goes on where the others of source 'numbers' are; the records between are not in it"
    ]
    assert run(tmp_path, 15, first, late, source=Once).notices == []
    assert run(tmp_path, 20, first, late, source=Once).balanced
    assert first.numbers("numbers") == list(range(20))
    assert late.numbers("numbers") == [*range(10), *range(15, 20)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_route_added_beside_another_starts_nothing_anew(tmp_path, kind):
    old, new = store("old", kind), store("new", kind)
    run(tmp_path, 10, old, one=["old"])
    flow = run(tmp_path, 15, old, new, one=["old"], two=["new"])
    assert flow.notices == [f"storage new {NEW}"]
    assert run(tmp_path, 20, old, one=["old"]).error is None
    assert old.numbers("numbers") == list(range(20))
    assert new.numbers("numbers") == list(range(10, 15))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline_that_gets_routes_goes_on_with_its_main_one(tmp_path, kind):
    old, new = store("old", kind), store("new", kind)
    run(tmp_path, 10, old)
    for _ in range(2):
        error = run(tmp_path, 15, old, new, one=["old"], two=["new"]).error
        assert isinstance(error, FatalError)
        assert str(error).startswith(
            "storage 'old' has rows of this source from when the pipeline had no routes, and would get them again by "
            "the route 'one'; call the route that goes on from there 'main'"
        )
    assert run(tmp_path, 15, old, new, main=["old"], two=["new"]).notices == [f"storage new {NEW}"]
    assert run(tmp_path, 20, old).error is None
    assert old.numbers("numbers") == list(range(20))
    assert new.numbers("numbers") == list(range(10, 15))
