"""WebSockets under faults: nothing comes twice, and what is lost was sent while a connection broke or nobody was there.

The oracle knows what was sent on each connection: of each, what is stored has to be its beginning, without a hole.
"""

from __future__ import annotations

import os
import random

from _broker_pipeline import Pipeline, stored
from _streams import Feed, FeedServer, Load

from collectors.testing.proxy import Proxy

PIPELINE = """
name: numbers
sources:
  - {type: websocket, id: numbers, url: "ws://127.0.0.1:PORT/ws", allow_private: true}
storage:
  - {type: sqlite, path: out.db, table: numbers}
"""


def under_load(folder, port, disturb, feed, times):
    """Let something happen again and again under load, then end; return what is lost of what was sent."""
    path = folder / "p.yaml"
    path.write_text(PIPELINE.replace("PORT", str(port)))
    chance = random.Random(os.environ.get("SEED", "websocket"))
    with Pipeline(path) as pipeline, Load(feed):
        for _ in range(times):
            pipeline.reaches(pipeline.count() + chance.randint(20, 80))
            disturb(pipeline)
        pipeline.reaches(pipeline.count() + 30)
        pipeline.ends()
    rows = stored(folder)
    assert rows.total() == len(rows), "nothing comes twice"
    sent = {number for first, last, _ in feed.connections for number in range(first, last + 1)}
    assert rows.keys() <= sent
    for first, last, orderly in feed.connections:
        of_this = sorted(number for number in rows if first <= number <= last)
        assert of_this == [*range(first, first + len(of_this))], "a hole within a connection"
        if orderly:
            assert len(of_this) == last - first + 1, "the server had closed it behind its last message"
    return len(sent) - len(rows)


def test_the_pipeline_is_killed_under_load(tmp_path, full, figure):
    feed, times = Feed(), 30 if full else 3
    with FeedServer(feed) as server:
        lost = under_load(tmp_path, server.port, Pipeline.dies_and_lives, feed, times)
    assert len(feed.connections) == times + 1
    figure("websocket", kills=times, lost=lost, doubled=0)


def test_the_server_is_restarted_under_load(tmp_path, full, figure):
    """It closes its connections, as a server does that is stopped: of those nothing is lost."""
    feed, times = Feed(), 30 if full else 4
    with FeedServer(feed) as server:
        lost = under_load(tmp_path, server.port, lambda _: server.restart(), feed, times)
    assert sum(orderly for *_, orderly in feed.connections) >= times
    figure("websocket", restarts=times, lost=lost, doubled=0)


def test_connections_are_cut_under_load(tmp_path, full, figure):
    feed, times = Feed(), 60 if full else 6
    with FeedServer(feed) as server, Proxy("127.0.0.1", server.port) as proxy:
        lost = under_load(tmp_path, proxy.port, lambda _: proxy.drops(), feed, times)
    assert len(feed.connections) > times
    figure("websocket", cuts=times, lost=lost, doubled=0)
