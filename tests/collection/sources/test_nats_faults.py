"""NATS under faults: kill -9 at crash points and at any time, the server killed under load, connections that break.

Whatever happens, what was published and confirmed is stored once: compared with what the publisher knows.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
from collections import Counter
from contextlib import suppress

import nats.errors
import pytest
from _broker_pipeline import Pipeline, lives, stored
from _nats_world import connected
from nats.js.api import AckPolicy, RetentionPolicy

from collectors.testing.nats_server import NatsServer
from collectors.testing.proxy import Proxy

PIPELINE = """
name: numbers
sources:
  - {type: nats, id: numbers, servers: "nats://127.0.0.1:PORT", stream: NUMBERS, chunk_size: SIZE, timeout: 1 MORE}
storage:
  - {type: sqlite, path: out.db, table: numbers}
"""
DURABLE = ", durable: d"


def make(folder, port, more="", size="64 KiB"):
    path = folder / "p.yaml"
    path.write_text(PIPELINE.replace("PORT", str(port)).replace(" MORE", more).replace("SIZE", size))
    return path


def fill(server, count, *, retention=RetentionPolicy.LIMITS, durable=False):
    """Make the stream, with a consumer that waits for acknowledgements only a moment, and publish."""

    async def work():
        async with connected(server.url) as client:
            js = client.jetstream()
            await js.add_stream(name="NUMBERS", subjects=["numbers.>"], retention=retention)
            if durable:
                await js.add_consumer(
                    "NUMBERS",
                    durable_name="d",
                    ack_policy=AckPolicy.EXPLICIT,
                    ack_wait=0.3,
                    max_ack_pending=10_000,
                )
            for n in range(count):
                await js.publish("numbers.x", json.dumps({"id": n}).encode())

    asyncio.run(work())


def left_in(server):
    async def ask():
        async with connected(server.url) as client:
            js = client.jetstream()
            return (await js.stream_info("NUMBERS")).state.messages, (
                await js.consumer_info("NUMBERS", "d")
            ).num_ack_pending

    return asyncio.run(ask())


WAYS = [
    ("", False, RetentionPolicy.LIMITS),
    (DURABLE, True, RetentionPolicy.LIMITS),
    (DURABLE, True, RetentionPolicy.WORK_QUEUE),
]


@pytest.mark.parametrize(("more", "durable", "retention"), WAYS)
def test_killed_at_crash_points(tmp_path, more, durable, retention):
    with NatsServer() as server:
        fill(server, 300, retention=retention, durable=durable)
        pipeline = make(tmp_path, server.port, more, "2 KiB")
        assert lives(pipeline, 300, first=1, step=8, most=15) > 5
        assert stored(tmp_path) == Counter(range(300))
        if retention == RetentionPolicy.WORK_QUEUE:
            assert left_in(server) == (0, 0), "all of it is acknowledged"


class Publisher(threading.Thread):
    """Publishes numbers one after the other, each until it is confirmed; the server knows again what came twice."""

    def __init__(self, url):
        super().__init__()
        self.url, self.count, self.stopping = url, 0, False

    def run(self):
        asyncio.run(self.publish())

    async def publish(self):
        while not self.stopping:
            with suppress(OSError, TimeoutError, nats.errors.Error):
                async with connected(self.url, allow_reconnect=False, error_cb=_quiet) as client:
                    js = client.jetstream(timeout=1)
                    while not self.stopping:
                        await js.publish(
                            "numbers.x",
                            json.dumps({"id": self.count}).encode(),
                            headers={"Nats-Msg-Id": str(self.count)},
                        )
                        self.count += 1
                        await asyncio.sleep(0.005)  # others need the machine too

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.join()


async def _quiet(error):
    """The server is killed on purpose."""


@pytest.mark.parametrize("more", [pytest.param("", marks=pytest.mark.slow), DURABLE])
def test_the_server_is_killed_under_load(tmp_path, more):
    with NatsServer() as server:
        fill(server, 0, durable=bool(more))
        with Pipeline(make(tmp_path, server.port, more)) as pipeline:
            with Publisher(server.url) as publisher:
                for _ in range(3):
                    pipeline.reaches(publisher.count + 30)
                    server.kill()
                    server.start()
                pipeline.reaches(publisher.count + 30)
            pipeline.reaches(publisher.count)
            pipeline.ends()
        assert stored(tmp_path) == Counter(range(publisher.count))


@pytest.mark.parametrize("more", [pytest.param("", marks=pytest.mark.slow), DURABLE])
def test_the_pipeline_is_killed_under_load(tmp_path, more):
    chance = random.Random(os.environ.get("SEED", "nats"))
    with NatsServer() as server:
        fill(server, 0, durable=bool(more))
        with Pipeline(make(tmp_path, server.port, more)) as pipeline:
            with Publisher(server.url) as publisher:
                for _ in range(4):
                    pipeline.reaches(publisher.count + chance.randint(1, 60))
                    pipeline.kill()
                    pipeline.start()
            pipeline.reaches(publisher.count)
            pipeline.ends()
        assert stored(tmp_path) == Counter(range(publisher.count))


@pytest.mark.parametrize("more", [pytest.param("", marks=pytest.mark.slow), DURABLE])
def test_connections_break_under_load(tmp_path, more):
    with NatsServer() as server, Proxy("127.0.0.1", server.port) as proxy:
        fill(server, 0, durable=bool(more))
        with Pipeline(make(tmp_path, proxy.port, more)) as pipeline:
            with Publisher(server.url) as publisher:
                for fault in (proxy.drops, proxy.refuses, proxy.resets, proxy.drops):
                    pipeline.reaches(publisher.count + 30)
                    fault()
                    proxy.passes()
                proxy.cuts(b"+ACK", "before", range(1, 200, 40))
                pipeline.reaches(publisher.count + 100)
            pipeline.reaches(publisher.count)
            pipeline.ends()
        assert stored(tmp_path) == Counter(range(publisher.count))
