"""MQTT under kills, restarts of the broker and cut connections: QoS 2 is stored once, QoS 1 at least once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from _mqtt_rig import V5, broker, publisher
from mqttium import MQTTError, NotConnectedError
from mqttium.api import AsyncClient, Properties, ReconnectPolicy

from collectors.testing.proxy import Proxy

HERE = Path(__file__).parent
PIPELINE = """
name: sensors
sources:
  - type: mqtt
    id: sensors
    url: mqtt://127.0.0.1:{port}
    topics: ["sensors/{{device}}/#"]
    client_id: sensors
    version: "{version}"
    qos: {qos}
    receive_maximum: {window}
storage:
  - {{type: sqlite, path: out.db, table: readings}}
"""


def make(folder, port, *, qos, version, window=20):
    (folder / "p.yaml").write_text(PIPELINE.format(port=port, qos=qos, version=version, window=window))
    return folder / "p.yaml"


def stored(folder):
    with closing(sqlite3.connect(folder / "out.db")) as database:
        return Counter(each for (each,) in database.execute("select id from readings"))


def count(folder):
    try:
        with closing(sqlite3.connect(folder / "out.db")) as database:
            return database.execute("select count(distinct id) from readings").fetchone()[0]
    except sqlite3.OperationalError:  # there is no file or no table yet
        return 0


class Life:
    """The pipeline in a process of its own."""

    def __init__(self, folder):
        command = [sys.executable, "-m", "collectors", "run", "p.yaml", "-q"]
        self.process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE)

    def end(self, how):
        self.process.send_signal(how)
        with self.process.stderr:
            problems = self.process.stderr.read().decode()
        code = self.process.wait(60)
        assert code == (-signal.SIGKILL if how == signal.SIGKILL else 0), problems


class Load(threading.Thread):
    """Publishes ids one after the other, each until the broker has it, over restarts of the broker, until it is ended."""

    def __init__(self, port, qos):
        super().__init__()
        self.port, self.qos = port, qos
        self.confirmed = 0
        self.error = None
        self.stopping = threading.Event()
        self.start()

    def run(self):
        try:
            asyncio.run(self._run())
        except Exception as error:
            self.error = error

    async def _run(self):
        client = AsyncClient(
            f"load{self.qos}",
            **V5,
            clean_start=False,
            connect_properties=Properties({"session_expiry_interval": 1000}),
            reconnect=ReconnectPolicy(initial_delay=0.02, max_delay=0.1),
        )
        await client.connect("127.0.0.1", self.port)
        while not self.stopping.is_set():
            # One in ten looks like the one before it: what is told apart is told apart by more than its content.
            payload = b'{"id": %d, "v": %d}' % (self.confirmed, self.confirmed // 10)
            try:
                receipt = await client.publish(f"sensors/d{self.confirmed % 3}/t", payload, qos=self.qos)
            except NotConnectedError:  # it was not taken; the client has given up while the broker was away
                with contextlib.suppress(OSError, MQTTError):
                    await client.connect("127.0.0.1", self.port)
                continue
            await receipt.wait()
            self.confirmed += 1
            await asyncio.sleep(0.001)
        await client.disconnect()

    def wait_for(self, more):
        goal = self.confirmed + more
        for _ in range(6000):
            if self.confirmed >= goal:
                return
            assert self.error is None, self.error
            threading.Event().wait(0.005)
        raise AssertionError("nothing is published any more")

    def end(self):
        self.stopping.set()
        self.join(30)
        assert self.error is None, self.error
        return self.confirmed


def wait_until_stored(folder, goal):
    for _ in range(1000):
        if count(folder) >= goal:
            return
        threading.Event().wait(0.03)
    raise AssertionError(f"only {count(folder)} of {goal} are stored")


def first_session(folder):
    """Run the pipeline until its session is there: what is published before that is nobody's."""
    life = Life(folder)
    path = folder / ".collectors" / "sensors" / "spool" / "sensors" / "session.json"
    for _ in range(3000):
        if path.exists() and '"topics": {"' in path.read_text():
            return life
        assert life.process.poll() is None, life.process.stderr.read()
        threading.Event().wait(0.01)
    raise AssertionError("nothing is subscribed to")


def check(folder, sent, qos, figure, **about):
    rows = stored(folder)
    doubled = rows.total() - len(rows)
    figure("mqtt", qos=qos, sent=sent, lost=sent - len(rows), doubled=doubled, **about)
    assert rows.keys() == {*range(sent)}
    if qos == 2:
        assert doubled == 0


def under(folder, load, disturb, times):
    """Let something happen again and again under load; then wait until all is stored, and end."""
    life = first_session(folder)
    try:
        for number in range(times):
            more = random.Random(number).randrange(5, 60)
            load.wait_for(more)
            wait_until_stored(folder, count(folder) + more)
            life = disturb(number, life)
        load.wait_for(20)
    finally:
        sent = load.end()
    wait_until_stored(folder, sent)
    life.end(signal.SIGTERM)
    return sent


CASES = [("mosquitto", "5", 2), ("mosquitto", "3.1.1", 1)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "version", "qos"), CASES)
def test_kill_9_under_load(tmp_path, kind, version, qos, full, figure):
    def kill(number, life):
        life.end(signal.SIGTERM if number % 4 == 3 else signal.SIGKILL)
        return Life(tmp_path)

    lives = 40 if full else 4
    with broker(kind) as server:
        make(tmp_path, server.port, qos=qos, version=version)
        sent = under(tmp_path, Later(server.port, qos), kill, lives)
    check(tmp_path, sent, qos, figure, lives=lives)


def begun_anew(log):
    """Return how many messages the broker published again that it had sent PUBREL for, by its own account."""
    released, anew = set(), 0
    for line in log.splitlines():
        if match := re.search(r"Sending PUBREL to sensors \(m(\d+)\)", line):
            released.add(match[1])
        elif match := re.search(r"Received PUBCOMP from sensors \(Mid: (\d+)", line):
            released.discard(match[1])
        elif match := re.search(r"Sending PUBLISH to sensors \(d1, q2, r\d, m(\d+),", line):
            anew += match[1] in released
            released.discard(match[1])
    return anew


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("version", "qos"), [("5", 2), ("3.1.1", 1)])
def test_restarts_of_the_broker_under_load(tmp_path, version, qos, full, figure):
    """It is asked to end, so what it keeps on disk is whole: after a kill, Mosquitto itself lacks messages.

    Restarted, Mosquitto 2.0.11 begins some exchanges of QoS 2 anew that had got to PUBREL; only those may be doubled.
    """

    def restart(number, life):
        server.stop()
        server.start()
        return life

    times = 30 if full else 3
    with broker("mosquitto", ("allow_anonymous true", "log_type all")) as server:
        make(tmp_path, server.port, qos=qos, version=version)
        sent = under(tmp_path, Later(server.port, qos), restart, times)
        anew = begun_anew(server.log())
    rows = stored(tmp_path)
    doubled = rows.total() - len(rows)
    figure("mqtt", qos=qos, sent=sent, lost=sent - len(rows), doubled=doubled, anew=anew, restarts=times)
    assert rows.keys() == {*range(sent)}
    if qos == 2:
        assert doubled <= anew


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "version", "qos"), CASES)
def test_cut_connections_under_load(tmp_path, kind, version, qos, full, figure):
    def cut(number, life):
        proxy.drops()
        return life

    times = 100 if full else 8
    with broker(kind) as server, Proxy("127.0.0.1", server.port) as proxy:
        make(tmp_path, proxy.port, qos=qos, version=version)
        sent = under(tmp_path, Later(server.port, qos), cut, times)
        assert proxy.connections > times // 2
    check(tmp_path, sent, qos, figure, cuts=times)


class Later:
    """A load that begins when it is first waited for."""

    def __init__(self, *about):
        self.about = about
        self.load = None

    def __getattr__(self, name):
        self.load = self.load or Load(*self.about)
        return getattr(self.load, name)


COUNT = 120


async def fill(port, qos, version):
    """Make the session of the pipeline and publish into it."""
    more = (
        {**V5, "connect_properties": Properties({"session_expiry_interval": 1000})} if version == "5" else {}
    )
    async with publisher(port, "sensors", clean_start=False, **more) as client:
        await client.subscribe("sensors/+/#", qos=qos)
    async with publisher(port) as client:
        for number in range(COUNT):
            await (await client.publish("sensors/a/b", b'{"id": %d}' % number, qos=qos)).wait()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "first", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("kind", "version", "qos"), [("mosquitto", "5", 2), ("mosquitto", "5", 1), ("iotcore", "3.1.1", 1)]
)
def test_kill_9_at_every_call(tmp_path, kind, version, qos, first, full, figure):
    """Before and behind each packet that is sent, each write of the spool, each fsync and rename, one after the other."""
    with broker(kind) as server:
        pipeline = make(tmp_path, server.port, qos=qos, version=version, window=4)
        asyncio.run(fill(server.port, qos, version))
        most = 80 if full else 14
        done = subprocess.run(
            [
                sys.executable,
                "-W",
                "ignore",
                HERE / "_mqtt_lives.py",
                pipeline,
                *map(str, (COUNT, first, 3, most)),
            ],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            env=os.environ,
        )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10
    check(tmp_path, COUNT, qos, figure, kills=int(done.stdout))
