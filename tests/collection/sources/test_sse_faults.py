"""Event streams under faults: kill -9, restarts of the server and cut connections cost nothing and double nothing.

The server gives each event an id and sends all behind the last one again; what it has sent is the oracle.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from _broker_pipeline import Pipeline, lives, stored
from _streams import Feed, FeedServer, Load

from collectors.testing.proxy import Proxy

PIPELINE = """
name: numbers
sources:
  - {type: sse, id: numbers, url: "http://127.0.0.1:PORT/sse", allow_private: true, retry: 0.1, chunk_size: SIZE}
storage:
  - {type: sqlite, path: out.db, table: numbers}
"""


def make(folder, port, size="64 KiB"):
    path = folder / "p.yaml"
    path.write_text(PIPELINE.replace("PORT", str(port)).replace("SIZE", size))
    return path


@pytest.mark.parametrize("first", [40, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_crash_points(tmp_path, first, full, figure):
    """Before and behind each write of the spool, each fsync, each statement of the storage, one after the other."""
    feed = Feed(300, size=5)
    with FeedServer(feed) as server:
        kills = lives(make(tmp_path, server.port, "200"), 300, first=first, step=13, most=40 if full else 10)
    assert kills > 3
    assert stored(tmp_path) == Counter(range(1, 301))
    assert first == 1 or len({*feed.asked}) > 2, "lives went on behind what others had"
    figure("sse", kills=kills, sent=300, lost=0, doubled=0)


def under_load(folder, port, disturb, feed, times):
    """Let something happen again and again; then wait until all is stored, and end."""
    chance = random.Random(os.environ.get("SEED", "sse"))
    with Pipeline(make(folder, port)) as pipeline:
        with Load(feed):
            for _ in range(times):
                pipeline.reaches(feed.count + chance.randint(1, 80))
                disturb(pipeline)
            pipeline.reaches(feed.count + 30)
        pipeline.reaches(feed.count)
        pipeline.ends()
    assert stored(folder) == Counter(range(1, feed.count + 1))


def test_the_pipeline_is_killed_under_load(tmp_path, full):
    feed = Feed()
    with FeedServer(feed) as server:
        under_load(tmp_path, server.port, Pipeline.dies_and_lives, feed, 30 if full else 3)
    assert len(feed.asked) > 3


def test_the_server_is_restarted_under_load(tmp_path, full):
    feed = Feed()
    with FeedServer(feed) as server:
        under_load(tmp_path, server.port, lambda _: server.restart(), feed, 30 if full else 4)
    assert len(feed.asked) > 4


def test_connections_are_cut_under_load(tmp_path, full):
    """By RST in the middle of what is on its way, refused, and with requests that never arrive."""
    feed = Feed()
    with FeedServer(feed) as server, Proxy("127.0.0.1", server.port) as proxy:

        def cut(_):
            faults = (proxy.drops, proxy.refuses, proxy.resets, proxy.drops)
            faults[len(feed.asked) % 4]()
            proxy.passes()

        under_load(tmp_path, proxy.port, cut, feed, 60 if full else 6)
    assert len(feed.asked) > 6
