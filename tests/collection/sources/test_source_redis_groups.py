"""Consumer groups: acknowledged when it is stored, given again and recognised, taken over from dead members."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from _broker_reading import ids, read, read_on
from _redis_world import add, make, numbers, stream_of
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.collection.sources import _redis_reading
from collectors.collection.sources._redis_reading import ByGroup, Held, Wanted
from collectors.collection.sources._redis_stream import Entry, id_text, parse_id
from collectors.errors import FatalError, TransientError


def run(check):
    return asyncio.run(check())


def test_acknowledged_with_the_commit_and_not_before():
    async def check():
        async with stream_of(numbers(10)) as (client, name):
            source = make(stream=name, consumer_group="g", chunk_size=12)
            await source.connect()
            chunks = await read_on(source, until=10)
            assert ids(chunks) == [str(n) for n in range(10)]
            assert (await client.xpending(name, "g"))["pending"] == 10
            await source.commit(chunks[3].position)
            assert (await client.xpending(name, "g"))["pending"] == 6
            assert len(chunks[3].position["held"]) == 4
            await source.commit(chunks[-1].position)
            assert (await client.xpending(name, "g"))["pending"] == 0
            await add(client, name, numbers(10, 11))
            (last,) = await read_on(source, chunks[-1].position, until=1)
            assert last.position["held"] == [last.position["id"]], (
                "what is acknowledged need not be known any more"
            )
            await source.disconnect()

    run(check)


def test_what_is_stored_and_not_acknowledged_is_recognised():
    """The moment between the commit and the acknowledgement: by the same member, and by another name."""

    async def check():
        for consumer in ("one", "two"):
            async with stream_of(numbers(10)) as (client, name):
                chunks = await read(
                    make(stream=name, consumer_group="g", consumer="one", chunk_size=12), until=10
                )
                stored, since = chunks[:4], chunks[3].position
                source = make(stream=name, consumer_group="g", consumer=consumer, claim_after=0.1)
                await source.connect()
                again = await read_on(source, since, until=6)
                assert sorted(map(int, ids(stored + again))) == [*range(10)]
                await source.commit(again[-1].position)
                assert await read_on(source, again[-1].position, quiet=1.0) == []
                assert (await client.xpending(name, "g"))["pending"] == 0
                await source.disconnect()
                rest = make(stream=name, consumer_group="g", consumer=consumer)
                await add(client, name, numbers(10, 11))
                (last,) = await read(rest, again[-1].position, until=1)
                assert len(last.position["held"]) == 1, "what nobody waits for is forgotten"

    run(check)


def test_given_again_while_it_waits_for_its_commit_it_is_not_handed_on_twice():
    async def check():
        async with stream_of(numbers(5)) as (client, name):
            source = make(stream=name, consumer_group="g", claim_after=0.1)
            await source.connect()
            chunks = await read_on(source, quiet=1.0)
            assert len(ids(chunks)) == 5
            await source.disconnect()
            await source.connect()
            assert await read_on(source, chunks[-1].position, quiet=1.0) == []
            await source.commit(chunks[-1].position)
            assert (await client.xpending(name, "g"))["pending"] == 0
            await source.disconnect()

    run(check)


def test_entries_of_a_dead_member_are_taken_over():
    async def check():
        async with stream_of(numbers(5)) as (client, name):
            await client.xgroup_create(name, "g", "0")
            await client.xreadgroup("g", "dead", {name: ">"}, count=3)
            chunks = await read(make(stream=name, consumer_group="g", claim_after="1h"), quiet=0.5)
            assert ids(chunks) == ["3", "4"], "it may be alive"
            source = make(stream=name, consumer_group="g", claim_after=0.2)
            await source.connect()
            more = await read_on(source, chunks[-1].position, until=3, quiet=5)
            assert ids(more) == ["0", "1", "2"]
            await source.commit(more[-1].position)
            assert (await client.xpending(name, "g"))["pending"] == 0
            await source.disconnect()

    run(check)


def test_entries_that_were_given_and_then_trimmed_are_counted():
    async def check():
        async with stream_of(numbers(5)) as (client, name):
            chunks = await read(make(stream=name, consumer_group="g"), until=5)
            assert chunks
            await client.xtrim(name, maxlen=2, approximate=False)
            source = make(stream=name, consumer_group="g")
            assert ids(await read(source)) == ["3", "4"]
            assert source.lost == [3]
            assert "3 entries from " in source.told[0]
            assert "were removed, trimmed or deleted" in source.told[0]

    run(check)


def test_several_share_a_group():
    async def check():
        async with stream_of() as (client, name):
            sources = [
                make(stream=name, consumer_group="g", consumer=str(n), chunk_size=100) for n in range(3)
            ]
            await asyncio.gather(*(source.connect() for source in sources))
            reading = [asyncio.ensure_future(read_on(each, quiet=1.5, commit=True)) for each in sources]
            await asyncio.sleep(0)
            for n in range(0, 300, 10):
                await add(client, name, numbers(n, n + 10))
            shares = [ids(chunks) for chunks in await asyncio.gather(*reading)]
            assert sorted(int(each) for share in shares for each in share) == [*range(300)]
            await asyncio.gather(*(source.disconnect() for source in sources))
            assert (await client.xpending(name, "g"))["pending"] == 0

    run(check)


def test_reading_waits_when_too_much_waits_for_its_commit(monkeypatch):
    monkeypatch.setattr(_redis_reading, "_MOST_HELD", 20)
    monkeypatch.setattr(_redis_reading, "_FIRST_ENTRIES", 10)

    async def check():
        async with stream_of(numbers(100)) as (_, name):
            source = make(stream=name, consumer_group="g", chunk_size=60)
            await source.connect()
            first = await read_on(source, quiet=0.5)
            assert 20 <= len(ids(first)) < 60
            await source.commit(first[-1].position)
            rest = await read_on(source, first[-1].position, until=100 - len(ids(first)), commit=True)
            assert ids(first + rest) == [str(n) for n in range(100)]
            await source.disconnect()

    run(check)


def test_start_of_a_new_group():
    async def check():
        async with stream_of() as (client, name):
            added = await add(client, name, numbers(5))
            assert await read(make(stream=name, consumer_group="new", start="new")) == []
            assert ids(await read(make(stream=name, consumer_group="id", start=added[3]), until=2)) == [
                "3",
                "4",
            ]
            await add(client, name, numbers(5, 6))
            assert ids(await read(make(stream=name, consumer_group="new", start="new"), until=1)) == ["5"]
            chunks = await read(make(stream=name, chunk_size=12), until=6)
            late = make(stream=name, consumer_group="later")
            assert ids(await read(late, chunks[1].position, until=4)) == ["2", "3", "4", "5"]
            await client.xgroup_create(name, "old", "0")
            there = make(stream=name, consumer_group="old")
            assert ids(await read(there, chunks[1].position, until=4)) == ["2", "3", "4", "5"], (
                "0 and 1 are stored"
            )

    run(check)


def test_faults():
    async def check():
        async with stream_of(numbers(5)) as (client, name):
            chunks = await read(make(stream=name, consumer_group="g"), until=5)
            since = chunks[-1].position
            with pytest.raises(FatalError, match="set `consumer_group: g` again"):
                await read(make(stream=name), since)
            with pytest.raises(FatalError, match="set `consumer_group: g` again"):
                await read(make(stream=name, consumer_group="h"), since)
            source = make(stream=name, consumer_group="g")
            await source.connect()
            reading = asyncio.ensure_future(read_on(source, since, until=1))
            async with asyncio.timeout(10):
                while not (await client.info("clients"))["blocked_clients"]:
                    await asyncio.sleep(0.01)
            await client.xgroup_destroy(name, "g")
            with pytest.raises(FatalError, match="group 'g': .*NOGROUP"):
                await reading
            await source.disconnect()
            with pytest.raises(
                FatalError, match=rf"the group 'g' .* is gone.*XGROUP CREATE {name} g {since['id']}"
            ):
                await read(make(stream=name, consumer_group="g"), since)

    run(check)


class Server:
    """What a group may do: give new entries, and again what a member has not acknowledged, by history or by claim."""

    def __init__(self, chance, count):
        self.chance, self.count = chance, count
        self.acknowledged, self.stored, self.next = set(), [], 1
        self.given = set()

    async def call(self, *command):
        match command[0]:
            case "XACK":
                for each in command[3:]:
                    number = parse_id(each)[0]
                    assert number in self.stored, "acknowledged before it is stored"
                    self.acknowledged.add(number)
                if self.chance.random() < 0.2:
                    raise TransientError("the answer is lost")
                return len(command) - 3
            case "XPENDING":
                pending = self.given - self.acknowledged
                return [len(pending), f"{min(pending)}-0".encode() if pending else None, None, []]
            case "XREADGROUP" if command[-1] != ">":
                own = sorted(self.given - self.acknowledged)
                own = [each for each in own if each > parse_id(command[-1])[0]]
                return [[b"s", self.listed(own[: self.chance.randint(1, 5)])]]
            case "XREADGROUP":
                fresh = [*range(self.next, min(self.count, self.next + self.chance.randint(0, 3)) + 1)]
                self.next += len(fresh)
                self.given |= {*fresh}
                return [[b"s", self.listed(fresh)]]
            case "XAUTOCLAIM":
                again = sorted(self.given - self.acknowledged)
                return [
                    b"0-0",
                    self.listed(self.chance.sample(again, self.chance.randint(0, len(again)))),
                    [],
                ]
        raise AssertionError(command)

    def listed(self, entries):
        return [[f"{each}-0".encode(), [b"id", b"%d" % each]] for each in entries]


@given(st.integers(), st.integers(1, 30))
@settings(max_examples=300, deadline=None)
def test_whatever_the_server_gives_again_each_entry_is_stored_once(seed, count):
    """Processes die at any moment; a chunk is stored with its position, or not at all."""

    async def check():
        chance = random.Random(seed)
        server, position = Server(chance, count), None
        while {*server.stored} != {*range(1, count + 1)}:
            held = Held()
            held.begin(position, "g")
            wanted = Wanted("s", "all", 1000, lambda _: None, lambda _: None)
            reading = ByGroup(server, wanted, "g", "c", 1e9, held)
            handed = []
            for _ in range(chance.randint(1, 8)):
                reading._next_claim = chance.choice([0.0, float("inf")])
                with contextlib.suppress(TransientError):
                    fresh = await reading.take()
                    if fresh:
                        handed.append(([entry.id[0] for entry in fresh], reading.position(fresh)))
                if chance.random() < 0.1:  # the server dies: its last acknowledgements were not on its disk
                    server.acknowledged -= {*sorted(server.acknowledged)[-chance.randint(1, 5) :]}
                if handed and chance.random() < 0.5:
                    numbers_stored, position = handed.pop(0)
                    server.stored += numbers_stored
                    held.committed(position)
                    with contextlib.suppress(TransientError):
                        if chance.random() < 0.5:
                            await held.acknowledge(server, "s", "g")
        assert sorted(server.stored) == [*range(1, count + 1)]

    run(check)


def test_ids():
    assert parse_id(b"17-3") == (17, 3)
    assert parse_id("17") == (17, 0)
    assert id_text((17, 3)) == "17-3"
    assert Entry((1, 2), None).id > Entry((1, 1), None).id
