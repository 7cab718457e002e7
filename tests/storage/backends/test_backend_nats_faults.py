"""NATS as a storage while processes are killed, the server is killed, and connections are cut.

The oracle is the stream itself, read to its end. All of this is well within the duplicate window of two minutes.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collectors.testing.nats_server import NatsServer
from collectors.testing.proxy import Proxy

from ._brokers import takes_over
from ._nats_log import count, counted, make_stream
from ._sink_pipeline import SinkPipeline, lives, wait_for


def storage(port: int, subject: str = "ROWS.x") -> dict[str, Any]:
    servers = f"nats://127.0.0.1:{port}"
    return {"type": "nats", "servers": servers, "stream": "ROWS", "subject": subject, "timeout": "1s"}


@pytest.mark.parametrize("first", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 4))])
def test_killed_at_crash_points(tmp_path: Path, first: int) -> None:
    """Before and behind single messages, too."""
    with NatsServer() as server:
        make_stream("ROWS", server)
        pipeline = SinkPipeline(tmp_path, storage(server.port))
        pipeline.append(200)
        assert lives(pipeline.pipeline, first, 7, 15 if first == 1 else 40) > 5
        assert counted(server, "ROWS") == Counter(range(200))


def test_killed_at_any_time_under_load(tmp_path: Path, full: bool) -> None:
    chance = random.Random(os.environ.get("SEED", "nats"))
    with NatsServer() as server:
        make_stream("ROWS", server)
        pipeline = SinkPipeline(tmp_path, storage(server.port), follow=True)
        with pipeline:
            for _ in range(20 if full else 3):
                before = count(server, "ROWS")
                pipeline.append(1000)
                wait_for(lambda: count(server, "ROWS") > before)  # noqa: B023
                threading.Event().wait(chance.random() / 10)
                pipeline.kill()
                pipeline.start()
            pipeline.append(100)  # so that the last process is known to run
            wait_for(lambda: count(server, "ROWS") >= pipeline.rows)
            assert pipeline.ends() == 0, pipeline.log()
        assert counted(server, "ROWS") == Counter(range(pipeline.rows))


def test_beyond_the_duplicate_window_rows_come_again_and_none_is_lost(tmp_path: Path) -> None:
    """The window is a tenth of a second, and each life is longer than that in coming."""
    with NatsServer() as server:
        make_stream("ROWS", server, duplicate_window=0.1)
        pipeline = SinkPipeline(tmp_path, storage(server.port))
        pipeline.append(200)
        assert lives(pipeline.pipeline, 20, 30, 5) > 2
        assert set(counted(server, "ROWS")) == set(range(200))


def test_the_server_is_killed_under_load(tmp_path: Path) -> None:
    with NatsServer() as server:
        make_stream("ROWS", server)
        pipeline = SinkPipeline(tmp_path, storage(server.port), follow=True)
        with pipeline:
            for _ in range(4):
                before = count(server, "ROWS")
                pipeline.append(1000)
                wait_for(lambda: count(server, "ROWS") > before)  # noqa: B023
                server.kill()
                server.start()
            wait_for(lambda: count(server, "ROWS") >= pipeline.rows)
            assert pipeline.ends() == 0, pipeline.log()
        assert counted(server, "ROWS") == Counter(range(pipeline.rows))


def test_connections_break_under_load(tmp_path: Path) -> None:
    with NatsServer() as server, Proxy("127.0.0.1", server.port) as proxy:
        make_stream("ROWS", server)
        pipeline = SinkPipeline(tmp_path, storage(proxy.port), follow=True)
        with pipeline:
            for fault in (proxy.drops, proxy.refuses, proxy.resets, proxy.hangs, proxy.drops):
                before = count(server, "ROWS")
                pipeline.append(1000)
                wait_for(lambda: count(server, "ROWS") > before)  # noqa: B023
                fault()
                threading.Event().wait(0.2)
                proxy.passes()
            proxy.cuts(b"HPUB ROWS", "answered", range(1, 1000, 400))
            pipeline.append(1000)
            wait_for(lambda: count(server, "ROWS") >= pipeline.rows)
            assert pipeline.ends() == 0, pipeline.log()
        assert proxy.cut > 0
        assert counted(server, "ROWS") == Counter(range(pipeline.rows))


def test_two_processes_with_one_flow_store_each_row_once(tmp_path: Path) -> None:
    """As on two machines; who comes later takes the flow over, and the other one ends with code 75."""
    with NatsServer() as server:
        make_stream("ROWS", server)
        rows = takes_over(tmp_path, storage(server.port), lambda: count(server, "ROWS"))
        assert counted(server, "ROWS") == Counter(range(rows))
