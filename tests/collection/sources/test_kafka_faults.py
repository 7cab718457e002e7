"""Kafka into SQLite while processes are killed, the server goes away, and partitions move between processes.

The oracle is the log itself, read by a bare consumer at the end: each record of it must be stored once. The server is an
imitation (`noida-db`) and differs from Kafka: it loses what it has acknowledged just before its end, so nothing is sent at
that moment; and in groups it refuses commits while partitions move, and never goes on when a member was killed (a bare
consumer waits for ever too). So groups are tested with the mock cluster of librdkafka.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import yaml
from _kafka_topics import Topics, following, ids, lines
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from collectors.collection.sources import _kafka_feed
from collectors.testing.kafka_server import KafkaServer

LIVES = Path(__file__).parents[2] / "e2e" / "_lives.py"
POISON = 7
QUICK = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 200}


@pytest.fixture(scope="module")
def topics(kafka_server):
    return Topics(kafka_server.address)


class Sender:
    """Sends records, some of which are none, to all partitions, from a thread, until it is told to stop."""

    def __init__(self, topics, topic, partitions):
        self._topics, self._topic, self._partitions = topics, topic, partitions
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._stop.set()
        self._thread.join()

    def _run(self):
        number = 0
        while not self._stop.wait(0.01):
            with self._lock:
                for _ in range(20):
                    number += 1
                    value = b"broken" if number % 100 == POISON else b'{"id": %d}' % number
                    self._topics.producer.produce(self._topic, value, partition=number % self._partitions)
                self._topics.producer.poll(0)
        self._topics.producer.flush(30)

    @contextmanager
    def held(self):
        """Send nothing meanwhile, and have everything arrive before."""
        with self._lock:
            assert self._topics.producer.flush(30) == 0
            yield


def in_log(topics, topic, partitions):
    """Return (partition, offset) of every record, and of every one that is none."""
    consumer = Consumer(topics.options | {"group.id": "oracle", "enable.partition.eof": True})
    good, bad, ends = Counter(), Counter(), 0
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    deadline = time.monotonic() + 30
    while ends < partitions:
        assert time.monotonic() < deadline
        for message in consumer.consume(1000, 0.2):
            if message.error() is not None:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                ends += 1
            else:
                (bad if message.value() == b"broken" else good)[message.partition(), message.offset()] += 1
    consumer.close()
    return good, bad


def stored(folder):
    """Return (partition, offset) of every row, in their order, and of every dead letter."""
    with closing(sqlite3.connect(folder / "out.db")) as database:
        rows = database.execute("select kafka_partition, kafka_offset from records order by rowid").fetchall()
        letters = database.execute("select position from _collectors_dead_letters").fetchall()
    places = [json.loads(position)["path"].rpartition("[")[2].split("]@") for (position,) in letters]
    return rows, Counter((int(partition), int(offset)) for partition, offset in places)


def count(folder):
    try:
        with closing(sqlite3.connect(f"file:{folder}/out.db?mode=ro", uri=True)) as database:
            return database.execute("select count(*) from records").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def write(folder, settings, name="p", **more):
    folder.mkdir(exist_ok=True)
    source = {"type": "kafka", "id": "k", **settings, **more}
    pipeline = {
        "name": name,
        "sources": [source],
        "storage": [{"type": "sqlite", "path": "out.db", "table": "records"}],
    }
    (folder / "p.yaml").write_text(yaml.safe_dump(pipeline))
    return folder / "p.yaml"


@contextmanager
def running(folder):
    """Run the pipeline; killed at the end, if it still runs."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "collectors", "run", "p.yaml"], cwd=folder, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition, seconds=40):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.02)


def wait_for_more(folder, rows):
    """Wait until so many more are stored."""
    wanted = count(folder) + rows
    wait_for(lambda: count(folder) > wanted)


def finish(folder, settings, **more):
    """Run once to the end."""
    write(folder, settings, follow=False, **more)
    done = subprocess.run(
        [sys.executable, "-m", "collectors", "run", "p.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def check(folder, topics, topic, partitions):
    """See that the store has the log, each record once and in the order of its partition, and each letter once."""
    good, bad = in_log(topics, topic, partitions)
    rows, letters = stored(folder)
    assert Counter(rows) == good
    assert letters == bad
    for partition in range(partitions):
        offsets = [offset for number, offset in rows if number == partition]
        assert offsets == sorted(offsets)


@pytest.mark.parametrize(
    "first", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_killed_at_crash_points(tmp_path, topics, first):
    """A life ends before or behind every third call that stores something; the next one goes on."""
    topic = topics.make(3)
    for partition in range(3):
        values = [b"broken" if n % 100 == POISON else b'{"id": %d}' % n for n in range(300)]
        topics.send(topic, values, partition=partition)
    pipeline = write(tmp_path, topics.settings(topic, chunk_size=2000))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(LIVES), str(pipeline), str(first), "3", "25"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kills"] > 10
    check(tmp_path, topics, topic, 3)


@pytest.mark.slow
def test_killed_while_records_come(tmp_path, topics):
    topic = topics.make(3)
    settings = topics.settings(topic, chunk_size=2000)
    write(tmp_path, settings, follow=True, group_id="lag")
    with Sender(topics, topic, 3):
        for life in range(5):
            with running(tmp_path) as process:
                wait_for_more(tmp_path, life * 300)
                process.send_signal(signal.SIGKILL)
    finish(tmp_path, settings, group_id="lag")
    check(tmp_path, topics, topic, 3)
    committed = topics.committed(topic, 3, "lag")
    good, bad = in_log(topics, topic, 3)
    assert committed == [
        max(offset for number, offset in good + bad if number == partition) + 1 for partition in range(3)
    ]


def test_server_is_restarted_and_hangs_under_load(tmp_path):
    with KafkaServer() as server:
        topics = Topics(server.address)
        topic = topics.make(2)
        settings = topics.settings(
            topic, options={"reconnect.backoff.max.ms": 500, "socket.timeout.ms": 3000}
        )
        write(tmp_path, settings, follow=True)
        with running(tmp_path) as process, Sender(topics, topic, 2) as sender:
            for number in range(3):
                wait_for_more(tmp_path, 500)
                if number == 1:
                    server.pause()
                    threading.Event().wait(4)
                    server.resume()
                else:  # what it acknowledges in the moment of its end it loses, unlike Kafka
                    with sender.held():
                        server.stop()
                        server.start()
            wait_for_more(tmp_path, 500)
            sender.stop()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, (tmp_path / "log").read_text()
        finish(tmp_path, settings)
        check(tmp_path, topics, topic, 2)


def test_stops_while_the_server_hangs():
    """With something to commit to the group, which it cannot."""

    async def scenario(server):
        topics = Topics(server.address)
        topic = topics.make()
        topics.send(topic, lines(range(10)))
        async with following(topics.settings(topic, group_id="g")) as (source, stream):
            chunk = await asyncio.wait_for(anext(stream), 20)
            await source.commit(chunk.position)
            server.pause()
            return time.monotonic()

    with KafkaServer() as server:
        try:
            began = asyncio.run(scenario(server))
            assert time.monotonic() - began < 10
        finally:
            server.resume()


def test_a_server_that_lost_records_is_not_read_on_in_silence(tmp_path):
    """The log ends before the position: what was there was stored, and what comes may be something else."""
    with KafkaServer() as server:
        topics = Topics(server.address)
        topic = topics.make(1)
        topics.send(topic, lines(range(50)))
        settings = topics.settings(topic)
        finish(tmp_path, settings)
        topics.delete(topic)
        topics.make(1, name=topic)
        topics.send(topic, lines(range(20)))
        write(tmp_path, settings)
        done = subprocess.run(
            [sys.executable, "-m", "collectors", "run", "p.yaml"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert "offset 50 is the next one, but the brokers have 0 to 20" in done.stdout + done.stderr
        assert count(tmp_path) == 50


@pytest.mark.slow
def test_two_processes_share_a_topic_and_one_is_killed(tmp_path, mock_topics):
    """Partitions move to a second process, back when it is killed, and once more: nothing is lost, and no process has one twice."""
    topics, topic = mock_topics, "shared"
    topics.producer.list_topics(topic, timeout=10)
    shared = topics.settings(topic, follow=True, share=True, group_id=topic, options=QUICK, chunk_size=2000)
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, shared, name="one")
    write(two, shared, name="two")
    with running(one) as first, Sender(topics, topic, 4) as sender:
        wait_for_more(one, 300)
        with running(two):
            wait_for_more(two, 300)
        with running(two) as second:
            wait_for_more(two, 300)
            sender.stop()
            good, bad = in_log(topics, topic, 4)
            wait_for(lambda: {*stored(one)[0], *stored(two)[0]} == set(good))
            wait_for(lambda: {*stored(one)[1], *stored(two)[1]} == set(bad))
            for process in (first, second):
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
    for folder in (one, two):
        rows, letters = stored(folder)
        assert set(Counter(rows).values()) | set(letters.values()) == {1}


@pytest.fixture
def mock_topics():
    """Topics of librdkafka's own mock of a cluster: each has four partitions, and is there when it is asked for."""
    host = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none:1", "log_level": 0})
    (broker,) = host.list_topics(timeout=10).brokers.values()
    topics = Topics(f"{broker.host}:{broker.port}")
    topics.host = host
    return topics


class Member:
    """A source that shares a topic; what it reads counts as stored when the test says so."""

    def __init__(self, topics, topic, name):
        self.settings = topics.settings(topic, id=name, share=True, group_id="g", options=QUICK)
        self.ids, self.position, self.source = [], {}, None
        self.stores = True
        self._task = None

    async def _run(self):
        async with following(self.settings, {}) as (self.source, stream):
            async for chunk in stream:
                self.ids += ids([chunk])
                self.position = chunk.position
                if self.stores:
                    await self.source.commit(chunk.position)

    async def __aenter__(self):
        self._task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.wait([self._task])


async def soon(condition, seconds=40):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        await asyncio.sleep(0.02)


@pytest.mark.slow
def test_partitions_are_handed_over_when_they_are_stored(mock_topics, monkeypatch):
    """Not before; then nothing comes twice. What a late answer says of partitions that have gone is not committed."""
    topics, topic, moving, refused = mock_topics, "shared", [], []
    hand_over = _kafka_feed.Feed._hand_over

    def noted(feed, places):
        moving.append(places)
        stored = {place: feed._positions[place] for place in places}
        hand_over(feed, places)
        refused.extend(place for place in places if feed._committed.get(place) != stored[place])

    monkeypatch.setattr(_kafka_feed.Feed, "_hand_over", noted)
    topics.producer.list_topics(topic, timeout=10)

    def send(first):
        for partition in range(4):
            topics.send(
                topic, lines(range(first + partition * 5, first + partition * 5 + 5)), partition=partition
            )

    async def scenario():
        send(0)
        async with Member(topics, topic, "one") as one:
            one.stores = False
            await soon(lambda: len(one.ids) == 20)
            first_position = one.position
            async with Member(topics, topic, "two") as two:
                await soon(lambda: moving)
                assert two.ids == []
                await one.source.commit(one.position)
                one.stores = True
                await soon(lambda: two.position != {})
                if refused:
                    pytest.skip("the mock, unlike Kafka, took no commit while another member joined")
                send(100)
                await soon(lambda: len(one.ids + two.ids) >= 40)
                assert len(two.position[topic]) == 2
                await one.source.commit(first_position)
                send(200)
                await soon(lambda: len(one.ids + two.ids) >= 60)
                assert sorted(one.ids + two.ids) == [*range(20), *range(100, 120), *range(200, 220)]
                while await asyncio.to_thread(topics.committed, topic, 4, "g") != [15] * 4:
                    await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(scenario(), 100))
