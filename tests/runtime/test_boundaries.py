"""Two machines with a state folder each feed the same two stores: what one has noted of chunks is not the other's."""

from __future__ import annotations

import asyncio
from threading import Event

import pytest
from msgspec.structs import replace

from collectors.collection.base import Source, SourceConfig
from collectors.config.load import from_mapping
from collectors.errors import FatalError, FencedError, TransientError
from collectors.runtime import grouping
from collectors.runtime.engine import Engine
from collectors.runtime.preparing import Preparer
from collectors.testing._sim_sources import Lines
from collectors.testing._sim_stores import Store, make_backend
from collectors.testing.clock import ManualEnv


class Numbers(Source[SourceConfig]):
    data_format = f"{Lines.__module__}:Lines"

    def __init__(self, per_chunk):
        super().__init__(SourceConfig(id="numbers"))
        self.per_chunk = per_chunk

    async def read(self, since):
        first = since["n"] if since else 0
        while first < 10:
            last = min(first + self.per_chunk, 10)
            yield self.replay({"n": first}, {"n": last})
            first = last

    def replay(self, since, until):
        first = since["n"] if since else 0
        return self.chunk(b"".join(b"numbers %d\n" % n for n in range(first, until["n"])), until)


def run(folder, stores, per_chunk, away=()):
    backends = [make_backend(store) for store in stores]

    def refuse(delivery):
        raise TransientError("away")

    for backend in backends:
        if backend.get_backend_id() in away:
            backend.commit = refuse
    return start(folder, backends, per_chunk)


class AwayAtFirst(Numbers):
    """Cannot give a chunk once more the first times that it is asked."""

    tries = 0

    def read(self, since):
        self.tries = 3
        return super().read(since)

    def replay(self, since, until):
        self.tries += 1
        if self.tries < 3:
            raise TransientError("the source is away")
        return super().replay(since, until)


def start(folder, backends, per_chunk, kind=Numbers):
    config = from_mapping(
        {"sources": [kind(per_chunk)], "storage": backends, "state": str(folder)}, name="test"
    )
    return asyncio.run(Engine(config, env=ManualEnv(hurry=True), patience=60.0).run()).flows[0]


def test_a_source_that_is_away_is_asked_again_for_what_one_storage_lacks(tmp_path):
    stores = [Store("one", "lettered", 0, 1), Store("two", "lettered", 0, 1)]
    run(tmp_path, stores, 3, away=("two",))
    assert stores[1].rows == []
    flow = start(tmp_path, [make_backend(store) for store in stores], 3, AwayAtFirst)
    assert flow.error is None
    assert [store.numbers("numbers") for store in stores] == [list(range(10))] * 2


def test_chunks_that_another_machine_cut_are_not_taken_for_ours(tmp_path):
    stores = [Store("one", "lettered", 0, 1), Store("two", "lettered", 0, 1)]
    run(tmp_path / "a", stores, 3, away=("one", "two"))
    run(tmp_path / "b", stores, 5, away=("two",))
    assert stores[0].numbers("numbers")[:5] == [0, 1, 2, 3, 4]
    assert stores[1].rows == []
    flow = run(tmp_path / "a", stores, 3)
    for store in stores:
        numbers = store.numbers("numbers")
        assert numbers == list(range(len(numbers)))
    assert flow.error is None or isinstance(flow.error, FatalError)


def test_chunks_behind_those_that_another_machine_cut_are_not_taken_for_what_follows(tmp_path):
    stores = [Store("one", "lettered", 0, 1), Store("two", "lettered", 0, 1)]
    backends = [make_backend(store) for store in stores]
    first_has_all = Event()
    commit_first = backends[0].commit

    def first(delivery):
        seq = commit_first(delivery)
        if stores[0].numbers("numbers") == list(range(10)):
            first_has_all.set()
        return seq

    def away(delivery):
        assert first_has_all.wait(30)
        raise TransientError("away")

    backends[0].commit, backends[1].commit = first, away
    start(tmp_path / "a", backends, 2)
    backends = [make_backend(store) for store in stores]
    commit = backends[1].commit

    def twice(delivery):
        if delivery.key.seq > 2:
            raise TransientError("away")
        return commit(delivery)

    backends[1].commit = twice
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "GROUP_ROWS", 1)  # a commit for each chunk
        patch.setattr(Preparer, "joining", lambda *_: lambda _: False)
        start(tmp_path / "b", backends, 4)
    assert stores[1].numbers("numbers") == list(range(8))
    run(tmp_path / "a", stores, 2)
    for store in stores:
        numbers = store.numbers("numbers")
        assert numbers == list(range(len(numbers)))


def test_a_process_that_loses_a_store_while_it_claims_the_next_stores_nothing(tmp_path):
    stores = [Store("one", "lettered", 0, 1), Store("two", "lettered", 0, 1)]
    backends = [make_backend(store) for store in stores]
    claim = backends[1].claim

    def slowly(flow):
        make_backend(stores[0]).claim(flow)
        return claim(flow)

    backends[1].claim = slowly
    flow = start(tmp_path, backends, 3)
    assert isinstance(flow.error, FencedError)
    assert not stores[0].rows
    assert not stores[1].rows


def test_stores_with_different_chunks_under_one_number_are_not_mixed(tmp_path):
    stores = [Store("one", "lettered", 0, 1), Store("two", "lettered", 0, 1)]
    run(tmp_path / "a", stores[:1], 3)
    run(tmp_path / "b", stores[1:], 2)
    for store in stores:
        at = store.positions["test/numbers"]
        store.positions["test/numbers"] = replace(at, seq=2)
    stores[0].positions["test/numbers"] = replace(stores[0].positions["test/numbers"], position={"n": 6})
    stored = [store.rows.copy() for store in stores]
    flow = run(tmp_path / "a", stores, 3)
    assert "different records as chunk 2" in str(flow.error)
    assert [store.rows for store in stores] == stored


def test_chunks_of_an_earlier_run_here_are_cut_as_they_were(tmp_path):
    stores = [Store("one", "lettered", 0, 1), Store("two", "lettered", 0, 1)]
    run(tmp_path, stores, 3, away=("two",))
    flow = run(tmp_path, stores, 4)
    assert flow.error is None
    assert [store.numbers("numbers") for store in stores] == [list(range(10))] * 2
