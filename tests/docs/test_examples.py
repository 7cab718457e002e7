"""Each pipeline in examples/ runs, balances, and sets aside exactly what its comments say.

Those that listen are sent something until they end.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from _example_servers import SERVERS

EXAMPLES = Path(__file__).parents[2] / "examples"
SET_ASIDE = {"readings": 2, "access-log": 1, "disk-usage": 1, "webhook": 2, "redis": 1, "kafka": 2, "mqtt": 1}
STDIN = {"stdin": "data/readings.ndjson"}
FOR = {
    "rest": "5s",
    "mqtt": "5s",
    "four-at-once": "12s",
    "singer": "30s",
    "sse": "5s",
    "websocket": "5s",
    "orders-to-singer": "30s",
    "orders-to-api": "30s",
}
"""How long those are given that need longer to begin; some end by themselves, but start programs."""


def push_readings(folder, stop):
    """Push the readings, again until they are kept, and then again: they have a key."""
    while not stop.wait(0.1):
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", 18080, timeout=5)
            with contextlib.closing(connection):
                body = (folder / "data" / "readings.ndjson").read_bytes()
                connection.request("POST", "/events", body, {"Idempotency-Key": "batch-1"})
                connection.getresponse().read()


def send_syslog(folder, stop):
    """Send messages nobody may be there to hear."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while not stop.wait(0.05):
            with contextlib.suppress(OSError):
                sender.sendto(b"<35>Nov 23 08:00:00 here login: nobody knows this", ("127.0.0.1", 15514))


SENDERS = {"webhook": push_readings, "syslog": send_syslog}


@contextlib.contextmanager
def sender(name, folder):
    """Have somebody send to an example that listens."""
    if name not in SENDERS:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=SENDERS[name], args=(folder, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples") / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("out", ".collectors"))
    for script in ("make_lake.py", "make_shop.py"):
        subprocess.run([sys.executable, script], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.yaml")))
def test_example(folder, name, request):
    server = SERVERS[name](folder, request) if name in SERVERS else contextlib.nullcontext({})
    with server as variables, sender(name, folder):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "collectors",
                "run",
                f"{name}.yaml",
                "--for",
                FOR.get(name, "5s" if name in SENDERS else "2s"),
                "--json",
            ],
            cwd=folder,
            input=(folder / STDIN[name]).read_text() if name in STDIN else "",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | variables,
        )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["balanced"]
    assert all(flow["read"] for flow in report["flows"])
    edges = [edge for flow in report["flows"] for edge in flow["storage"]]
    assert all(edge["stored"] for edge in edges)
    if name not in STDIN:
        assert {edge["set_aside"] for edge in edges} == {SET_ASIDE.get(name, 0)}
