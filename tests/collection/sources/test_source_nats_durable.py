"""Durable consumers: acknowledged when it is stored, given again and recognised, shared by several processes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import aclosing

import pytest
from _broker_reading import ids, read, read_on
from _nats_world import make, publish, stream_of
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.js.api import AckPolicy, RetentionPolicy

from collectors.collection.sources import _nats_reading
from collectors.collection.sources._nats_held import Held
from collectors.collection.sources._nats_pull import Delivered
from collectors.collection.sources._nats_reading import ByConsumer
from collectors.errors import FatalError, TransientError


def run(check):
    return asyncio.run(check())


async def pending(js, name, durable="d"):
    info = await js.consumer_info(name, durable)
    return info.num_ack_pending, info.num_pending


async def until(check):
    async with asyncio.timeout(10):
        while not await check():
            await asyncio.sleep(0.02)


def test_acknowledged_with_the_commit_and_not_before():
    async def check():
        async with stream_of({"id": each} for each in range(10)) as (js, name):
            source = make(stream=name, durable="d", chunk_size=64)
            await source.connect()
            chunks = await read_on(source, until=10)
            assert ids(chunks) == [*range(10)]
            assert await pending(js, name) == (10, 0)
            await source.commit(chunks[3].position)
            assert await pending(js, name) == (6, 0)
            await source.commit(chunks[3].position)
            assert chunks[3].position["held"] == [[1, 4]]
            await source.commit(chunks[-1].position)
            assert await pending(js, name) == (0, 0)
            await publish(js, f"{name}.x", [{"id": 10}])
            (last,) = await read_on(source, chunks[-1].position, until=1)
            assert last.position["held"] == [[1, 11]]
            await source.disconnect()

    run(check)


@pytest.mark.parametrize("retention", list(RetentionPolicy))
def test_what_is_stored_and_not_acknowledged_is_recognised(retention):
    """The moment between the commit and the acknowledgement, for each kind of stream."""

    async def check():
        async with stream_of(retention=retention) as (js, name):
            await js.add_consumer(name, durable_name="d", ack_policy=AckPolicy.EXPLICIT, ack_wait=0.3)
            await publish(js, f"{name}.x", ({"id": each} for each in range(10)))
            chunks = await read(make(stream=name, durable="d", chunk_size=64), until=10)
            stored, since = chunks[:4], chunks[3].position
            source = make(stream=name, durable="d")
            await source.connect()
            again = await read_on(source, since, until=6)
            assert sorted(ids(stored + again)) == [*range(10)]
            await source.commit(again[-1].position)
            assert await pending(js, name) == (0, 0)
            await source.disconnect()
            state = (await js.stream_info(name)).state
            assert state.messages == (10 if retention == RetentionPolicy.LIMITS else 0)

    run(check)


def test_given_again_while_it_waits_for_its_commit_it_is_not_handed_on_twice():
    async def check():
        async with stream_of({"id": each} for each in range(5)) as (js, name):
            await js.add_consumer(name, durable_name="d", ack_policy=AckPolicy.EXPLICIT, ack_wait=0.2)
            source = make(stream=name, durable="d")
            await source.connect()
            chunks = await read_on(source, quiet=1.0)
            assert ids(chunks) == [*range(5)]
            assert (await js.consumer_info(name, "d")).num_redelivered > 0
            await source.commit(chunks[-1].position)
            assert await pending(js, name) == (0, 0)
            await source.disconnect()

    run(check)


def test_what_was_taken_and_not_handed_on_is_given_back_at_once():
    async def check():
        async with stream_of({"id": each} for each in range(9)) as (_, name):
            source = make(stream=name, durable="d", chunk_size="64 KiB", format="json")
            await source.connect()
            async with aclosing(source.stream(None)) as stream:
                first = await anext(stream)
            await source.commit(first.position)
            await source.disconnect()
            rest = await read(make(stream=name, durable="d"), first.position, until=8)
            assert sorted(ids(rest)) == [*range(1, 9)]

    run(check)


def test_several_share_a_consumer():
    async def check():
        async with stream_of(retention=RetentionPolicy.WORK_QUEUE) as (js, name):
            sources = [make(stream=name, durable="d", chunk_size=200) for _ in range(3)]
            await asyncio.gather(*(source.connect() for source in sources))
            reading = [asyncio.ensure_future(read_on(each, quiet=1.5, commit=True)) for each in sources]
            await publish(js, f"{name}.x", ({"id": each} for each in range(300)))
            shares = [ids(chunks) for chunks in await asyncio.gather(*reading)]
            assert sorted(each for share in shares for each in share) == [*range(300)]
            assert sum(bool(share) for share in shares) > 1
            await asyncio.gather(*(source.disconnect() for source in sources))
            assert (await js.stream_info(name)).state.messages == 0

    run(check)


def test_start_and_subject_of_a_new_consumer():
    async def check():
        async with stream_of({"id": each} for each in range(5)) as (js, name):
            source = make(stream=name, durable="d", start="new", subject=f"{name}.x")
            assert await read(source) == []
            async with asyncio.timeout(10):
                while (
                    await js.consumer_info(name, "d")
                ).num_waiting:  # the server has not seen the end of it yet
                    await asyncio.sleep(0.01)
            await publish(js, f"{name}.x", [{"id": 5}])
            await publish(js, f"{name}.y", [{"id": 6}])
            await publish(js, f"{name}.x", [{"id": 7}])
            chunks = await read(make(stream=name, durable="d", start="new"), until=2)
            assert ids(chunks) == [5, 7]
            assert chunks[-1].position["held"] == [[1, 8]], "what is between is for nobody here"

    run(check)


def test_what_another_member_was_given_is_not_taken_as_handed_on():
    """Between two that came one after the other none is for us; where others get some as well, it may be given to us later."""
    held = Held()
    held.begin(None, 0)
    held.hand_on([message(1, run=1), message(5, run=2), message(9, run=4)])
    assert held.ranges == [(1, 5), (9, 9)]
    assert message(3, run=9) in held, "it was not for this consumer"
    assert message(7, run=9) not in held
    held.hand_on([message(7, run=9, again=True), message(12, run=10)])
    assert held.ranges == [(1, 5), (7, 7), (9, 9), (12, 12)]


def message(seq, *, run, again=False):
    return Delivered(b"", "s", None, "", seq, run, again, 0)


def test_gaps_are_closed_by_what_is_acknowledged(monkeypatch):
    monkeypatch.setattr(_nats_reading, "_MOST_RANGES", 3)

    async def check():
        async with stream_of({"id": each} for each in range(20)) as (js, name):
            await js.add_consumer(name, durable_name="d", ack_policy=AckPolicy.EXPLICIT, ack_wait=60)
            other = await js.pull_subscribe_bind("d", name)
            source = make(stream=name, durable="d")
            held = Held()
            held.begin(None, 0)
            for n in range(20):
                (message,) = await other.fetch(1, timeout=5)
                await message.ack_sync()
                if n % 2:
                    held.hand_on([Delivered(b"", "s", None, "", n + 1, n + 1, True, 0)])
            assert len(held.ranges) == 10
            source._held = held
            await source.connect()
            reading = source._stream_reading(source._connection)
            reading.puller = Empty()
            with pytest.raises(AssertionError, match="looked for gaps"):
                await reading.take()
            assert held.ranges == [(1, 20)]
            await source.disconnect()

    run(check)


class Empty:
    """Has no messages, and says so: a reading would wait."""

    async def take(self):
        raise AssertionError("it has been looked for gaps before")


def test_with_a_durable_set_later_reading_goes_on_where_it_was():
    async def check():
        async with stream_of({"id": each} for each in range(5)) as (_, name):
            chunks = await read(make(stream=name, chunk_size=64), until=5)
            assert ids(await read(make(stream=name, durable="d"), chunks[2].position, until=2)) == [3, 4]

    run(check)


def test_faults():
    async def check():
        async with stream_of({"id": each} for each in range(5)) as (js, name):
            chunks = await read(make(stream=name, durable="d"), until=5)
            since = chunks[-1].position
            with pytest.raises(FatalError, match="set `durable: d` again"):
                await read(make(stream=name), since)
            with pytest.raises(FatalError, match="set `durable: d` again"):
                await read(make(stream=name, durable="e"), since)
            await js.delete_consumer(name, "d")
            with pytest.raises(FatalError, match=r"'d' of stream .* is gone.*\(5 was the last message"):
                await read(make(stream=name, durable="d"), since)
            await js.add_consumer(name, durable_name="none", ack_policy=AckPolicy.NONE)
            with pytest.raises(FatalError, match="has no acknowledgements"):
                await read(make(stream=name, durable="none"))
            await js.add_consumer(name, durable_name="push", deliver_subject="somewhere")
            with pytest.raises(FatalError, match="pushes its messages; expected a pull consumer"):
                await read(make(stream=name, durable="push"))
            await js.add_consumer(name, durable_name="x", filter_subject=f"{name}.x")
            with pytest.raises(FatalError, match=rf"is for the subjects {name}\.x, not for {name}\.y"):
                await read(make(stream=name, durable="x", subject=f"{name}.y"))

    run(check)


@pytest.mark.parametrize("retention", [RetentionPolicy.WORK_QUEUE, RetentionPolicy.INTEREST])
def test_a_stream_that_needs_acknowledgements(retention):
    async def check():
        async with stream_of(retention=retention) as (_, name):
            with pytest.raises(FatalError, match=f"has {retention.value} retention: .* set `durable`"):
                await make(stream=name).connect()

    run(check)


class Server:
    """What a JetStream server may do with a durable consumer: give what is not acknowledged, in any order, again.

    It is the connection and what asks for messages as well, for a reading.
    """

    def __init__(self, chance, count):
        self.chance, self.count = chance, count
        self.acknowledged, self.given, self.stored, self.next, self.run = set(), set(), [], 1, 0

    async def take(self):
        return [message for _ in range(self.chance.randint(1, 2)) for message in self.give()]

    def give(self):
        again = sorted(self.given - self.acknowledged)
        self.chance.shuffle(again)
        chosen = [*range(self.next, min(self.count, self.next + 3) + 1)]
        if again and self.chance.random() < 0.5:
            chosen = again[: self.chance.randint(1, len(again))]
        messages = []
        for seq in chosen:
            self.run += 1
            messages.append(Delivered(b"", "s", None, str(seq), seq, self.run, seq in self.given, 0))
            self.given.add(seq)
            self.next = max(self.next, seq + 1)
        return messages

    async def publish(self, subject, raw=b"", reply=""):
        assert int(subject) in self.stored, "acknowledged before it is stored"
        self.acknowledged.add(int(subject))

    async def request(self, subject, raw):
        if self.chance.random() < 0.3:
            raise TransientError("no answer")
        await self.publish(subject)

    @property
    def floor(self):
        return next(n for n in range(1, self.count + 2) if n not in self.acknowledged) - 1


class Takes:
    """Asks the server as long as it has something to give; a reading waits for ever then."""

    def __init__(self, server):
        self.server = server

    async def take(self):
        for _ in range(self.server.chance.randint(1, 4)):
            if messages := await self.server.take():
                return messages
        raise TransientError("nothing comes")


@given(st.integers(), st.integers(1, 30))
@settings(max_examples=300, deadline=None)
def test_whatever_the_server_gives_again_each_message_is_stored_once(seed, count):
    """Processes die at any moment; a chunk is stored with its position, or not at all."""

    async def check():
        chance = random.Random(seed)
        server, position = Server(chance, count), None
        while {*server.stored} != {*range(1, count + 1)}:
            held = Held()
            reading = ByConsumer(server, None, "d", held)
            reading.puller = Takes(server)
            held.begin(position, server.floor)
            handed = []
            for _ in range(chance.randint(1, 8)):
                with contextlib.suppress(TransientError):
                    fresh = await reading.take()
                    handed.append(([message.seq for message in fresh], reading.position(fresh)))
                if chance.random() < 0.1:  # the server dies: its last acknowledgements were not on its disk
                    lately = sorted(server.acknowledged)[-chance.randint(1, 5) :]
                    server.acknowledged -= {*lately}
                if handed and chance.random() < 0.5:
                    seqs, position = handed.pop(0)
                    server.stored += seqs
                    held.committed(position)
                    with contextlib.suppress(TransientError):
                        if chance.random() < 0.5:
                            await held.acknowledge(server)
        assert sorted(server.stored) == [*range(1, count + 1)]

    run(check)
