"""The servers that examples need: each is started before its pipeline runs, and yields the variables that it has for it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["SERVERS"]

READINGS = Path(__file__).parents[2] / "examples" / "data" / "readings.ndjson"


@contextlib.contextmanager
def postgres(folder, request):
    yield {"POSTGRES_DSN": request.getfixturevalue("postgres_server").dsn}


@contextlib.contextmanager
def rest_api(folder, request):
    """The program that the example asks, at its port."""
    with subprocess.Popen([sys.executable, "rest_api.py"], cwd=folder) as running:
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", 18090)).close()
                    break
                except OSError:
                    assert running.poll() is None, "rest_api.py has ended"
                    assert time.monotonic() < deadline, "rest_api.py does not listen"
                    time.sleep(0.02)
            yield {}
        finally:
            running.kill()


@contextlib.contextmanager
def s3(folder, request):
    """A bucket for each folder of objects beside the examples."""
    from collectors.testing.s3_server import S3Server

    with S3Server(folder) as server:
        keys = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret"}
        yield {"S3_ENDPOINT": f"http://127.0.0.1:{server.port}", **keys}


SERVERS = {
    "object-store": s3,
    "orders-to-postgres": postgres,
    "rest": rest_api,
}
