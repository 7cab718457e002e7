"""Kafka as a storage while processes are killed, the server hangs or is restarted, and connections are cut.

The oracle is the log itself, read by a bare consumer of committed transactions. The server is an imitation (`noida-db`)
and, unlike Kafka, loses what it has acknowledged just before its end: nothing is sent at that moment.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from _kafka_topics import Topics

from collectors.testing.deliveries import delivery
from collectors.testing.kafka_server import KafkaServer

from ._brokers import FLOW, connected, deliver, takes_over, tried
from ._kafka_log import Following, numbers
from ._sink_pipeline import SinkPipeline, lives, wait_for

POSITIONS = {"positions": "positions"}


@pytest.fixture(scope="module")
def topics(kafka_server: Any) -> Topics:
    return Topics(kafka_server.address)


def storage(topics: Topics, topic: str, **more: Any) -> dict[str, Any]:
    quick = {
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 200,
        "retry.backoff.ms": 20,
        "socket.timeout.ms": 3000,
    }
    found = {"type": "kafka", "brokers": [topics.address], "topic": topic, "timeout": "10s", "options": quick}
    return found | more


def once(rows: int) -> list[int]:
    return list(range(rows))


@pytest.mark.parametrize(
    ("first", "exactly"),
    [(1, True), (1, False), *(pytest.param(n, True, marks=pytest.mark.slow) for n in (2, 3))],
)
def test_killed_at_crash_points(tmp_path: Path, topics: Topics, first: int, exactly: bool) -> None:
    """With positions every row is there once; without them none is lost, and those of commits that died come again."""
    topic = topics.make(2)
    more = {"positions": f"{topic}-positions"} if exactly else {}
    pipeline = SinkPipeline(tmp_path, storage(topics, topic, **more))
    pipeline.append(400)
    assert lives(pipeline.pipeline, first, 3, 12 if first == 1 else 40) > 3
    found = numbers(topics.options, topic)
    if exactly:
        assert found == once(400)
    else:
        assert set(found) == set(range(400))


def test_killed_at_any_time_under_load(tmp_path: Path, topics: Topics, full: bool) -> None:
    chance = random.Random(os.environ.get("SEED", "kafka"))
    topic = topics.make(3)
    pipeline = SinkPipeline(tmp_path, storage(topics, topic, **POSITIONS), follow=True)
    with pipeline, Following(topics.options, topic) as log:
        for _ in range(20 if full else 3):
            before = log.count()
            pipeline.append(2000)
            wait_for(lambda: log.count() > before)  # noqa: B023
            threading.Event().wait(chance.random() / 10)
            pipeline.kill()
            pipeline.start()
            pipeline.append(100)  # so that the last process is known to run
        wait_for(lambda: len(numbers(topics.options, topic)) >= pipeline.rows)  # a new reader sees all of it
        assert pipeline.ends() == 0, pipeline.log()
    assert numbers(topics.options, topic) == once(pipeline.rows)


@pytest.mark.parametrize("exactly", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_server_hangs_and_is_restarted(tmp_path: Path, exactly: bool, full: bool) -> None:
    with KafkaServer() as server:
        topics = Topics(server.address)
        topic = topics.make(2)
        more = POSITIONS if exactly else {}
        pipeline = SinkPipeline(tmp_path, storage(topics, topic, **more), follow=True)
        with pipeline, Following(topics.options, topic) as log:
            pipeline.append(2000)
            wait_for(lambda: log.count() > 0)
            pipeline.append(2000)
            if full:
                server.pause()
                threading.Event().wait(4)
                server.resume()
            wait_for(lambda: log.count() >= pipeline.rows)
            for _ in range(2 if full else 1):
                server.stop()
                pipeline.append(1000)
                threading.Event().wait(1)
                server.start()
                wait_for(lambda: log.count() >= pipeline.rows)
            assert pipeline.ends() == 0, pipeline.log()
        found = numbers(topics.options, topic)
        if exactly:
            assert found == once(pipeline.rows)
        else:
            assert set(found) == set(range(pipeline.rows))


def cut(port: int) -> int:
    """Cut all connections of this process to a port; return how many there were."""
    cuts = 0
    for each in psutil.Process().net_connections("tcp"):
        if each.raddr and each.raddr[1] == port and each.status == "ESTABLISHED":
            with suppress(OSError), socket.socket(fileno=os.dup(each.fd)) as copy:
                copy.shutdown(socket.SHUT_RDWR)
                cuts += 1
    return cuts


@pytest.mark.parametrize("exactly", [True, False])
def test_connections_are_cut(topics: Topics, kafka_server: Any, exactly: bool) -> None:
    """An idempotent producer sends again by itself, so that even without positions each row is there once."""
    chance, last = random.Random(os.environ.get("SEED", "cut")), 30 if exactly else 12
    topic = topics.make(2)
    more = {"positions": f"{topic}-p"} if exactly else {}
    settings = storage(topics, topic, **more)
    del settings["type"]

    async def store(backend: Any, what: Any) -> None:
        if exactly:
            await deliver(backend, what)
        else:
            await tried(lambda: backend.call(backend.write, what.table, what.key))

    async def main() -> None:
        async with connected("kafka", settings) as backend:
            if exactly:
                await backend.call(backend.claim, FLOW)
            cuts = 0
            for seq in range(1, last + 1):
                storing = asyncio.ensure_future(store(backend, delivery(seq, seq, letters=0)))
                for _ in range(seq % 3):
                    await asyncio.wait([storing], timeout=chance.random() / 100)
                    cuts += cut(kafka_server.port)
                await storing
            assert cuts > 5

    asyncio.run(main())
    assert numbers(topics.options, topic) == once(3 * last)


def test_two_processes_with_one_flow_store_each_row_once(tmp_path: Path, topics: Topics) -> None:
    """As on two machines; who comes later takes the flow over, and the other one ends with code 75."""
    topic = topics.make(2)
    place = storage(topics, topic, positions=f"{topic}-p")
    with Following(topics.options, topic) as log:
        rows = takes_over(tmp_path, place, log.count)
    assert Counter(numbers(topics.options, topic)) == Counter(range(rows))
