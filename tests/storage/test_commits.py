"""Commits of many flows: what waits goes together, one that is to blame costs the others nothing, order and errors stay."""

from __future__ import annotations

import asyncio
import threading

import pytest

from collectors.errors import DataError, FatalError, FencedError, TransientError
from collectors.storage import commits
from collectors.storage.base import Backend, BackendConfig
from collectors.testing.deliveries import delivery


class Store(Backend[BackendConfig]):
    """Notes what is committed with what; flows in `bad` raise, `away` is raised as often as it is long."""

    def __init__(self, **bad):
        super().__init__()
        self.bad, self.away, self.groups = bad, [], []
        self.go = threading.Event()
        self.go.set()

    def write(self, table, key):
        raise NotImplementedError

    def commit(self, delivery):
        return self.commit_together([delivery])[0]

    def commit_together(self, deliveries):
        self.go.wait(10)
        flows = [each.key.flow for each in deliveries]
        if self.away:
            raise self.away.pop()
        for flow in flows:
            if flow in self.bad:
                raise self.bad[flow]
        self.groups.append(flows)
        return [each.key.seq for each in deliveries]


def run(store, flows, *, before=lambda tasks: None):
    """Hand in a first delivery, and while it is under way one of each flow; return their outcomes."""

    async def main():
        await store.connect()
        store.go.clear()
        first = asyncio.ensure_future(store.commits.commit(delivery(1, 1, flow="first")))
        await asyncio.sleep(0)
        tasks = [asyncio.ensure_future(store.commits.commit(delivery(1, 1, flow=flow))) for flow in flows]
        await asyncio.sleep(0)
        before(tasks)
        store.go.set()
        outcomes = await asyncio.gather(first, *tasks, return_exceptions=True)
        await store.disconnect()
        return outcomes[1:]

    return asyncio.run(main())


def test_what_waits_goes_together():
    store = Store()
    assert run(store, "abc") == [1, 1, 1]
    assert store.groups == [["first"], ["a", "b", "c"]]


@pytest.mark.parametrize(
    "error", [DataError("bad", rows={0: "bad"}), FencedError("fenced"), FatalError("no")]
)
def test_one_that_is_to_blame_costs_the_others_nothing(error):
    store = Store(b=error)
    assert run(store, "abc") == [1, error, 1]
    assert store.groups == [["first"], ["a"], ["c"]]


def test_a_store_that_is_away_is_away_for_all_of_them():
    """Each flow asks what is stored before it tries again."""
    store, error = Store(), TransientError("away")
    assert run(store, "abc", before=lambda _: store.away.extend([error, error])) == [error] * 3
    assert store.groups == []


def test_a_flow_that_has_ended_meanwhile_is_left_out():
    store = Store()
    outcomes = run(store, "abc", before=lambda tasks: tasks[1].cancel())
    assert [outcomes[0], outcomes[2]] == [1, 1]
    assert store.groups == [["first"], ["a", "c"]]


def test_a_transaction_holds_no_more_than_so_many_rows(monkeypatch):
    monkeypatch.setattr(commits, "TOGETHER_ROWS", 6)
    store = Store()
    assert run(store, "abcd") == [1, 1, 1, 1]
    assert store.groups == [["first"], ["a", "b"], ["c", "d"]]


def test_without_a_connection_everybody_is_told():
    async def main():
        store = Store()
        with pytest.raises(TransientError, match="not connected"):
            await store.commits.commit(delivery(1, 1))

    asyncio.run(main())
