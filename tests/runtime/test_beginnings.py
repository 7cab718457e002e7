"""A storage that is added to a source later begins where the others are, whatever happens meanwhile, and says so."""

from __future__ import annotations

import asyncio
import json

import pytest
from msgspec.structs import replace

from collectors.chunks import Checkpoint
from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.config.model import Route
from collectors.errors import ConfigurationError, FatalError
from collectors.runtime.engine import Engine
from collectors.storage.sqlite_store import DeliveryTables, open_database
from collectors.testing._sim_sources import Lines
from collectors.testing._sim_stores import Store, _Transactional, make_backend
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


def refused(folder, count, *backends, now, before, **pipelines):
    """See that the run is refused, time and again, and stores nothing, since the storage knows the route by a name."""
    rows = [len(each.rows) for each in backends]
    for _ in range(2):
        error = run(folder, count, *backends, **pipelines).error
        assert isinstance(error, ConfigurationError)
        assert str(error) == (
            f"storage 'old' has rows of source 'numbers' by the route '{before}', and none by the route '{now}', by which "
            f"it would get them again or miss some; under `pipelines`, call the route that goes on there '{before}'; or, "
            "to begin anew, choose another table or folder, or give the source another id"
        )
    assert [len(each.rows) for each in backends] == rows


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline_that_gets_routes_goes_on_with_its_main_one(tmp_path, kind):
    old, new = store("old", kind), store("new", kind)
    run(tmp_path, 10, old)
    refused(tmp_path, 15, old, new, now="one", before="main", one=["old"], two=["new"])
    assert run(tmp_path, 15, old, new, main=["old"], two=["new"]).notices == [f"storage new {NEW}"]
    assert run(tmp_path, 20, old).error is None
    assert old.numbers("numbers") == list(range(20))
    assert new.numbers("numbers") == list(range(10, 15))


@pytest.mark.parametrize("kind", KINDS)
def test_a_route_keeps_its_name(tmp_path, kind):
    old = store("old", kind)
    run(tmp_path, 10, old, one=["old"])
    refused(tmp_path, 15, old, now="two", before="one", two=["old"])
    refused(tmp_path, 15, old, now="main", before="one")
    assert run(tmp_path, 20, old, one=["old"]).error is None
    assert old.numbers("numbers") == list(range(20))


@pytest.mark.parametrize("kind", KINDS)
def test_a_route_keeps_its_name_beside_others(tmp_path, kind):
    """The renamed one would begin behind what the other has: it would miss what it had not got yet."""
    old, other = store("old", kind), store("other", kind)
    run(tmp_path, 10, old, other, one=["old"], other=["other"])
    refused(tmp_path, 20, old, other, now="two", before="one", two=["old"], other=["other"])
    assert run(tmp_path, 25, old, other, one=["old"], other=["other"]).error is None
    assert old.numbers("numbers") == list(range(25))
    assert other.numbers("numbers") == list(range(25))


@pytest.mark.parametrize("kind", KINDS)
def test_a_route_that_is_new_beside_those_that_stay_is_not_refused(tmp_path, kind):
    old = store("old", kind)
    run(tmp_path, 10, old, one=["old"])
    assert run(tmp_path, 15, old, one=["old"], two=["old"]).error is None
    assert sorted(old.numbers("numbers")) == sorted([*range(15), *range(10, 15)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beside", [True, False])
def test_a_main_route_goes_on_from_when_its_name_was_written_out(tmp_path, monkeypatch, kind, beside):
    """Beside others, the route `main` once had its name in that of the flow."""
    old, new = store("old", kind), store("new", kind)
    routes = {"main": ["old"], "two": ["new"]}
    with monkeypatch.context() as patch:
        patch.setattr(Route, "flow", lambda route, pipeline, source: f"{pipeline}/{source}/{route.name}")
        run(tmp_path, 10, old, new, **routes)
    for count in (15, 20):
        flow = run(tmp_path, count, old, new, **routes) if beside else run(tmp_path, count, old)
        assert flow.error is None
        assert flow.balanced
        assert flow.notices == []
    assert old.numbers("numbers") == list(range(20))
    assert new.numbers("numbers") == (list(range(20)) if beside else list(range(10)))


def test_a_storage_that_cannot_list_what_it_has_is_asked_for_what_it_may_have(tmp_path):
    class Silent(_Transactional):
        flows = None

    old = store("old")
    run(tmp_path, 10, Silent(old))
    error = run(tmp_path, 15, Silent(old), one=["old"]).error
    assert "has rows of source 'numbers' by the route 'main', and none by the route 'one'" in str(error)
    assert run(tmp_path, 20, Silent(old)).error is None
    assert old.numbers("numbers") == list(range(20))


def test_what_was_replayed_is_no_route(tmp_path):
    old = store("old")
    old.positions["test/numbers/#replay"] = old.positions["test/numbers/x#replay-x"] = Checkpoint(1, 5)
    assert run(tmp_path, 10, old, one=["old"]).error is None
    assert old.numbers("numbers") == list(range(10))
