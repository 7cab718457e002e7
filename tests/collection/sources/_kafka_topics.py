"""Topics for the tests of the kafka source: made with names of their own, and filled; and what reads them."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from contextlib import aclosing, asynccontextmanager

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from collectors import registry

_numbers = itertools.count(1)


class _NoLog:
    @staticmethod
    def log(*_):
        """Servers go away in these tests; nobody needs to read it."""


class Topics:
    """Makes topics and sends to them."""

    def __init__(self, address):
        self.address = address
        self.options = {"bootstrap.servers": address, "logger": _NoLog}
        self.admin = AdminClient(self.options)
        self.producer = self._producer()

    def _producer(self):
        return Producer(self.options | {"linger.ms": 2, "acks": "all"})

    def make(self, partitions=1, name=None):
        topic = name or f"topic-{next(_numbers)}"
        for made in self.admin.create_topics([NewTopic(topic, partitions, 1)]).values():
            made.result(10)
        return topic

    def send(self, topic, values, *, partition=0, **about):
        """Send the payloads, and wait until they are there."""
        for value in values:
            self.producer.produce(topic, value, partition=partition, **about)
        assert self.producer.flush(20) == 0

    def delete_before(self, topic, partition, offset):
        """Delete what is before the offset, as retention does."""
        for done in self.admin.delete_records([TopicPartition(topic, partition, offset)]).values():
            done.result(10)

    def delete(self, topic):
        for done in self.admin.delete_topics([topic]).values():
            done.result(10)

    def grow(self, topic, partitions):
        for done in self.admin.create_partitions([NewPartitions(topic, partitions)]).values():
            done.result(10)
        self.producer = self._producer()  # the old one would learn of them in minutes

    def settings(self, topic, **more):
        return {"brokers": [self.address], "topics": [topic], "follow": False} | more

    def committed(self, topic, partitions, group):
        """Return the offsets that a group has committed, None where it has none."""
        consumer = Consumer(self.options | {"group.id": group})
        try:
            asked = [TopicPartition(topic, number) for number in range(partitions)]
            found = consumer.committed(asked, timeout=10)
            return [each.offset if each.offset >= 0 else None for each in found]
        finally:
            consumer.close()


def lines(values):
    return [b'{"id": %d}' % value for value in values]


def records(chunks):
    return [
        json.loads(line)
        for chunk in chunks
        if chunk.data_format == "ndjson"
        for line in chunk.raw_data.split(b"\n")[:-1]
    ]


def ids(chunks):
    return [record["id"] for record in records(chunks)]


@asynccontextmanager
async def connected(settings):
    """Enter a source that is connected; what it tells and counts is in its lists `told` and `lost`."""
    source = registry.create("source", "kafka", settings)
    source.told, source.lost = [], []
    source.tell, source.count_lost = source.told.append, source.lost.append
    await source.connect()
    try:
        yield source
    finally:
        await source.disconnect()


@asynccontextmanager
async def following(settings, since=None):
    """Enter a source that is connected and its chunks, behind the first, which has the position where it begins."""
    async with connected(settings | {"follow": True}) as source, aclosing(source.stream(since)) as stream:
        if since is None:
            await anext(stream)
        yield source, stream


def read(settings, since=None):
    """Return all chunks up to the end."""

    async def run():
        async with connected(settings) as source:
            return [chunk async for chunk in source.stream(since)]

    return asyncio.run(run())


async def until(condition, seconds=30.0):
    """Wait until the condition holds, in real time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        await asyncio.sleep(0.02)
