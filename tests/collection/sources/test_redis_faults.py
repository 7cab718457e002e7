"""Redis under faults: kill -9 at crash points and at any time, the server killed under load, connections that break.

Whatever happens, what was added and confirmed is stored once: compared with what the one who adds knows.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from contextlib import closing, suppress

import pytest
import redis
from _broker_pipeline import Pipeline, lives, stored

from collectors.testing.proxy import Proxy
from collectors.testing.redis_server import RedisServer

PIPELINE = """
name: numbers
sources:
  - {type: redis, id: numbers, url: "redis://127.0.0.1:PORT", stream: numbers, chunk_size: SIZE, timeout: 1 MORE}
processors:
  - {type: cast, columns: {id: int}}
storage:
  - {type: sqlite, path: out.db, table: numbers}
"""
GROUP = ", consumer_group: g, claim_after: 0.5"
ANEW = ', consumer_group: g, claim_after: 0.5, consumer: "${LIFE}"'


def make(folder, port, more="", size="64 KiB"):
    path = folder / "p.yaml"
    path.write_text(PIPELINE.replace("PORT", str(port)).replace(" MORE", more).replace("SIZE", size))
    return path


def client(server):
    return closing(redis.Redis(port=server.port, socket_timeout=2))


def fill(server, count):
    with client(server) as connection, connection.pipeline(transaction=False) as pipe:
        for n in range(count):
            pipe.xadd("numbers", {"id": n})
        pipe.execute()


@pytest.mark.parametrize("more", [pytest.param("", marks=pytest.mark.slow), GROUP])
def test_killed_at_crash_points(tmp_path, more):
    with RedisServer() as server:
        fill(server, 300)
        assert lives(make(tmp_path, server.port, more, "300 B"), 300, first=1, step=8, most=15) > 5
        assert stored(tmp_path) == Counter(range(300))
        if more:
            with client(server) as connection:
                assert connection.xpending("numbers", "g")["pending"] == 0, "all of it is acknowledged"


class Adder(threading.Thread):
    """Adds numbers one after the other, each until it is confirmed, with an id of its own so that it is there once."""

    def __init__(self, server):
        super().__init__()
        self.server, self.count, self.stopping = server, 0, False

    def run(self):
        while not self.stopping:
            with suppress(redis.RedisError, OSError), client(self.server) as connection:
                while not self.stopping:
                    try:
                        connection.xadd("numbers", {"id": self.count}, id=f"{self.count + 1}-1")
                    except redis.ResponseError as error:
                        if "equal or smaller" not in str(error):  # it was added, and the answer was lost
                            raise
                    self.count += 1
                    time.sleep(0.005)  # others need the machine too

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.join()


@pytest.mark.parametrize("more", [pytest.param("", marks=pytest.mark.slow), GROUP])
def test_the_server_is_killed_under_load(tmp_path, more):
    with RedisServer() as server, Pipeline(make(tmp_path, server.port, more)) as pipeline:
        with Adder(server) as adder:
            for _ in range(3):
                pipeline.reaches(adder.count + 30)
                server.kill()
                server.start()
            pipeline.reaches(adder.count + 30)
        pipeline.reaches(adder.count)
        pipeline.ends()
        assert stored(tmp_path) == Counter(range(adder.count))


@pytest.mark.parametrize(
    "more", [pytest.param("", marks=pytest.mark.slow), GROUP, pytest.param(ANEW, marks=pytest.mark.slow)]
)
def test_the_pipeline_is_killed_under_load(tmp_path, more, monkeypatch):
    """Also when each life is another member of the group."""
    chance = random.Random(os.environ.get("SEED", "redis"))
    with RedisServer() as server:
        monkeypatch.setenv("LIFE", "0")
        with Pipeline(make(tmp_path, server.port, more)) as pipeline:
            with Adder(server) as adder:
                for life in range(1, 4):
                    pipeline.reaches(adder.count + chance.randint(1, 60))
                    pipeline.kill()
                    monkeypatch.setenv("LIFE", str(life))
                    pipeline.start()
            pipeline.reaches(adder.count)
            pipeline.ends()
        assert stored(tmp_path) == Counter(range(adder.count))


@pytest.mark.parametrize("more", [pytest.param("", marks=pytest.mark.slow), GROUP])
def test_connections_break_under_load(tmp_path, more):
    with RedisServer() as server, Proxy("127.0.0.1", server.port) as proxy:
        with Pipeline(make(tmp_path, proxy.port, more)) as pipeline:
            with Adder(server) as adder:
                for fault in (proxy.drops, proxy.refuses, proxy.resets, proxy.drops):
                    pipeline.reaches(adder.count + 30)
                    fault()
                    proxy.passes()
                for moment in ("before", "with", "answered"):
                    proxy.cuts(b"XACK" if more else b"XREAD", moment, {2, 5})
                    pipeline.reaches(adder.count + 50)
            pipeline.reaches(adder.count)
            pipeline.ends()
        assert stored(tmp_path) == Counter(range(adder.count))
