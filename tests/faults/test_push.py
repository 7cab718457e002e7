"""What a sender was told is kept is stored once: over kills under load, stops under load, and storages that are away."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from _push_client import Client, free_port

from collectors.config.load import from_mapping
from collectors.errors import TransientError
from collectors.runtime.engine import Engine
from collectors.storage.base import Backend, BackendConfig

PIPELINE = """
name: push
sources:
  - {{type: webhook, id: events, listen: "127.0.0.1:{port}"}}
storage:
  - {{type: sqlite, path: push.db, table: events}}
"""
CONNECTIONS = 4
BATCH = 10


class Sender(threading.Thread):
    """Sends batch after batch, each until the answer is 200, over one connection as long as that lasts."""

    def __init__(self, port, number, *, keys):
        super().__init__()
        self.port, self.number, self.keys = port, number, keys
        self.kept = []
        self.tried = []
        self.stopping = threading.Event()
        self.start()

    def run(self):
        batch, client = 0, None
        while not self.stopping.is_set():
            ids = [(self.number * 10**6 + batch) * BATCH + n for n in range(BATCH)]
            body = b"".join(b'{"id": %d}\n' % each for each in ids)
            headers = {"Idempotency_Key": f"{self.number}-{batch}"} if self.keys else {}
            try:
                client = client or Client(self.port)
                if self.tried[-1:] != [ids]:
                    self.tried.append(ids)
                answer = client.request(body, **headers)
            except OSError:
                answer = None
            if answer is not None and answer.status == 200:
                self.kept.append(ids)
                batch += 1
                continue
            if client is not None:
                client.__exit__()
                client = None
            self.stopping.wait(0.01)
            if not self.keys and self.tried[-1:] == [ids]:
                batch += 1  # nobody knows whether it was kept: it may be there, once
        if client is not None:
            client.__exit__()

    def end(self):
        self.stopping.set()
        self.join(30)
        assert not self.is_alive()


def started(folder):
    command = [sys.executable, "-m", "collectors", "run", "push.yaml", "-q"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE)


def end(process, how):
    process.send_signal(how)
    with process.stderr:
        problems = process.stderr.read().decode()
    return process.wait(60), problems


def wait_for_more(senders, process, count):
    before = sum(len(sender.kept) for sender in senders)
    for _ in range(6000):
        if sum(len(sender.kept) for sender in senders) >= before + count:
            return
        assert process.poll() is None, process.stderr.read().decode()
        threading.Event().wait(0.01)
    raise AssertionError("nothing is kept any more")


def stored(folder):
    with closing(sqlite3.connect(folder / "push.db")) as connection:
        return [each for (each,) in connection.execute("SELECT id FROM events")]


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("keys", [True, False], ids=["keys", "no keys"])
def test_kills_and_stops_under_load(tmp_path, keys, full, figure):
    """With keys every batch is stored once, however often it was sent; without, those that were answered are."""
    port, lives = free_port(), 60 if full else 4
    chance = random.Random(1)
    (tmp_path / "push.yaml").write_text(PIPELINE.format(port=port))
    senders = [Sender(port, number, keys=keys) for number in range(CONNECTIONS)]
    try:
        for life in range(lives):
            process = started(tmp_path)
            wait_for_more(senders, process, chance.randrange(1, 60))
            how = signal.SIGTERM if life % 4 == 3 else signal.SIGKILL
            code, problems = end(process, how)
            assert code == (0 if how == signal.SIGTERM else -signal.SIGKILL), problems
        process = started(tmp_path)
        wait_for_more(senders, process, 10)
    finally:
        for sender in senders:
            sender.end()
    code, problems = end(process, signal.SIGTERM)
    assert code == 0, problems
    rows = stored(tmp_path)
    kept = {each for sender in senders for ids in sender.kept for each in ids}
    tried = {each for sender in senders for ids in sender.tried for each in ids}
    lost, doubled = kept - set(rows), len(rows) - len(set(rows))
    figure("push under kills", keys=keys, lives=lives, kept=len(kept), lost=len(lost), doubled=doubled)
    assert lost == set()
    assert doubled == 0
    assert set(rows) <= tried


class Away(Backend[BackendConfig]):
    """A storage that takes nothing until it is there."""

    durable = True

    def __init__(self):
        super().__init__(BackendConfig(id="away"))
        self.there = threading.Event()
        self.rows = []

    def write(self, table, key):
        if not self.there.is_set():
            raise TransientError("away")
        self.rows += table.column("id").to_pylist()


def test_senders_are_turned_away_when_the_spool_is_full_and_let_in_again_without_a_restart(tmp_path):
    port = free_port()
    backend = Away()
    config = from_mapping(
        {
            "name": "push",
            "spool": "256 KiB",
            "sources": [{"type": "webhook", "id": "events", "listen": f"127.0.0.1:{port}"}],
            "storage": [backend],
        },
        folder=Path(tmp_path),
    )

    def send_until(status, first):
        """Send until the answer has this status; return the ids that were kept, and how the health is then."""
        kept = []
        for n in range(first, first + 5000):
            with Client(port) as client:
                answer = client.request(b'{"id": %d, "text": "%s"}\n' % (n, b"x" * 4000))
                if answer.status == 200:
                    kept.append(n)
                if answer.status == status:
                    return kept, client.request(method="GET", path="/health").status
            threading.Event().wait(0.002)
        raise AssertionError(f"never answered with {status}")

    def health():
        with Client(port) as client:
            return client.request(method="GET", path="/health").status

    async def main():
        engine = Engine(config)
        running = asyncio.create_task(engine.run())
        async with asyncio.timeout(60):
            while True:
                try:
                    first = await asyncio.to_thread(send_until, 503, 0)
                except ConnectionRefusedError:
                    await asyncio.sleep(0)
                else:
                    break
        backend.there.set()
        while await asyncio.to_thread(health) != 204:  # without a request that would find out
            await asyncio.sleep(0.01)
        again = await asyncio.to_thread(send_until, 200, 10_000)
        engine.stop()
        return first, again, await running

    (first, ill), (again, well), report = asyncio.run(main())
    assert (ill, well) == (503, 204)
    assert len(first) > 40
    assert backend.rows == [*first, *again]
    assert report.balanced
