"""A request that names itself is stored once: sent again, after a crash, with its index lost; and never lost by it."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from _push_client import Client, free_port
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.collection.sources._webhook_keys import Keys, name_key

KEY = name_key("header", b"k", b"body")


def test_a_key_names_kind_value_and_body():
    assert name_key("header", b"k", b"other")[0] == KEY[0]
    assert name_key("header", b"k", b"other")[1] != KEY[1]
    assert name_key("signature", b"k", b"body")[0] != KEY[0]


def saved(path, keys, now, window=100.0, limit=1000):
    async def main():
        index = Keys(window, limit)
        index.open(path)
        index.add(keys, now)
        await index.save(now)
        index.close()

    asyncio.run(main())


def found(path, key, now, window=100.0, limit=1000):
    index = Keys(window, limit)
    index.open(path)
    with closing(index):
        return index.find(key[0], now)


def test_a_key_is_known_within_its_window_and_no_longer(tmp_path):
    path = tmp_path / "keys.db"
    saved(path, [KEY], 1000.0)
    assert found(path, KEY, 1099.0) == KEY[1]
    assert found(path, KEY, 1100.0) is None
    saved(path, [name_key("header", b"other", b"")], 1200.0)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM keys").fetchone() == (1,)


def test_the_oldest_keys_make_room(tmp_path):
    path = tmp_path / "keys.db"
    keys = [name_key("header", b"%d" % n, b"") for n in range(250)]
    for n in range(0, 250, 10):
        saved(path, keys[n : n + 10], 1000.0 + n, window=1e6, limit=100)
    known = [found(path, key, 2000.0, window=1e6, limit=100) is not None for key in keys]
    assert 90 <= sum(known) <= 100
    assert known == sorted(known)


def test_without_a_file_keys_are_known_too():
    index = Keys(100.0, 3)
    index.add([name_key("header", b"%d" % n, b"") for n in range(5)], 1000.0)
    assert [index.find(name_key("header", b"%d" % n, b"")[0], 1001.0) is None for n in range(5)] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_what_the_spool_knows_is_taken_in_with_its_time(tmp_path):
    index = Keys(100.0, 1000)
    index.open(tmp_path / "keys.db")
    with closing(index):
        index.learn([([KEY], 1000.0)])
        assert index.find(KEY[0], 1099.0) == KEY[1]
        assert index.find(KEY[0], 1101.0) is None
        newer = (KEY[0], 7)
        index.learn([([newer], 1050.0)])
        index.learn([([KEY], 1000.0)])
        assert index.find(KEY[0], 1099.0) == 7


@pytest.mark.parametrize("damage", [b"", b"not a database at all, but long enough to look like one" * 100])
def test_a_damaged_index_is_begun_anew(tmp_path, damage):
    path = tmp_path / "keys.db"
    saved(path, [KEY], 1000.0)
    path.write_bytes(damage)
    assert found(path, KEY, 1001.0) is None
    saved(path, [KEY], 1000.0)
    assert found(path, KEY, 1001.0) == KEY[1]


def test_the_index_is_for_its_owner_alone(tmp_path):
    saved(tmp_path / "keys.db", [KEY], 1000.0)
    assert (tmp_path / "keys.db").stat().st_mode & 0o777 == 0o600


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 5), st.integers(0, 3)),
            st.tuples(st.just("wait"), st.integers(1, 60), st.just(0)),
            st.tuples(st.just("save"), st.just(0), st.just(0)),
            st.tuples(st.just("reopen"), st.just(0), st.just(0)),
        ),
        max_size=25,
    )
)
def test_it_knows_what_a_dict_with_times_knows(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("keys") / "keys.db"

    async def main():
        index, model, now = Keys(100.0, 1000), {}, 1000.0
        index.open(path)
        for step, number, body in steps:
            if step == "add":
                index.add([(b"%d" % number, body)], now)
                model[b"%d" % number] = (body, now)
            elif step == "wait":
                now += number
            else:
                await index.save(now)
                if step == "reopen":
                    index.close()
                    index.open(path)
            for n in range(6):
                checksum, at = model.get(b"%d" % n, (None, 0.0))
                assert index.find(b"%d" % n, now) == (checksum if at > now - 100 else None)
        index.close()

    asyncio.run(main())


PIPELINE = """
name: push
sources:
  - {{type: webhook, id: events, listen: "127.0.0.1:{port}"}}
storage:
  - {{type: sqlite, path: push.db, table: events}}
"""


class Life:
    """A pipeline in a process of its own, which may be told to die at a place in its code."""

    def __init__(self, folder, *, die_at=None):
        self.port = free_port()
        (folder / "push.yaml").write_text(PIPELINE.format(port=self.port))
        program = "import sys; from collectors.cli.main import main; main()"
        if die_at is not None:
            program = f"import os, signal\n{die_at}\n{program}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "run", "push.yaml", "-q"],
            cwd=folder,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )

    def request(self, body, key):
        """Return the status, None when the receiver died over it."""
        for _ in range(3000):
            try:
                with Client(self.port) as client:
                    answer = client.request(body, Idempotency_Key=key)
                    return None if answer is None else (answer.status, answer.json.get("duplicate", False))
            except ConnectionRefusedError:
                assert self.process.poll() is None, self.process.stderr.read().decode()
                threading.Event().wait(0.01)
            except ConnectionError:
                return None
        raise AssertionError("the pipeline does not listen")

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(30)
        self.process.stderr.close()


def rows(folder):
    with closing(sqlite3.connect(folder / "push.db")) as connection:
        return sorted(value for (value,) in connection.execute("SELECT id FROM events"))


DIE = "os.kill(os.getpid(), signal.SIGKILL)"
BEFORE_THE_FRAME = f"""
from collectors.runtime.spool import Spool
Spool.append = lambda self, chunks: {DIE}
"""
BEHIND_THE_FRAME = f"""
from collectors.collection.sources.webhook import WebhookSource
async def commit(self, position): {DIE}
WebhookSource.commit = commit
"""
BEHIND_THE_ANSWER = f"""
from collectors.collection.sources._webhook_keys import Keys
async def save(self, now, *, every=0.0): {DIE}
Keys.save = save
"""
IN_THE_INDEX = f"""
from collectors.collection.sources._webhook_keys import Keys
Keys._shrink = Keys._insert
def insert(self, batch, now):
    if batch:
        self._writer.execute("BEGIN IMMEDIATE")
        self._writer.executemany("INSERT INTO keys VALUES (?, ?, ?)", batch)
        {DIE}
Keys._insert = insert
"""


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("die_at", "known"),
    [
        pytest.param(BEFORE_THE_FRAME, False, id="before the frame"),
        pytest.param(BEHIND_THE_FRAME, True, id="between frame and key"),
        pytest.param(BEHIND_THE_ANSWER, True, id="before the index"),
        pytest.param(IN_THE_INDEX, True, id="within the index"),
    ],
)
def test_a_crash_between_frame_and_key_costs_nothing(tmp_path, die_at, known):
    life = Life(tmp_path, die_at=die_at)
    life.request(b'{"id": 1}', "first")
    life.end(signal.SIGKILL)
    life = Life(tmp_path)
    assert life.request(b'{"id": 1}', "first") == (200, known)
    assert life.request(b'{"id": 2}', "second") == (200, False)
    life.end()
    assert rows(tmp_path) == [1, 2]


@pytest.mark.timeout(180)
def test_keys_outlive_a_stop_a_kill_and_the_loss_of_the_index(tmp_path):
    life = Life(tmp_path)
    assert life.request(b'{"id": 1}', "first") == (200, False)
    assert life.request(b'{"id": 1}', "first") == (200, True)
    life.end()
    life = Life(tmp_path)
    assert life.request(b'{"id": 1}', "first") == (200, True)
    assert life.request(b'{"id": 2}', "second") == (200, False)
    life.end(signal.SIGKILL)
    (index,) = (tmp_path / ".collectors").rglob("keys.db")
    index.unlink()
    life = Life(tmp_path)
    assert life.request(b'{"id": 2}', "second") == (200, True), "the spool still has its chunk"
    life.end()
    assert rows(tmp_path) == [1, 2]
