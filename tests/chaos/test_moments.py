"""Moments: which calls are seen, and that a process really dies at one."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from collectors.chaos import moments
from collectors.chaos.lives import Kill
from collectors.chaos.moments import Moment, Watch


def store(value):
    """A client's function, as far as the tests make `json` one."""
    return json.dumps(value)


def seen(work):
    watch = Watch()
    watch.begin()
    try:
        work()
    finally:
        watch.end()
    return {place.partition(" (")[0] for place in watch.passed}, watch.passed.total()


def test_files_are_seen(tmp_path):
    def work():
        (tmp_path / "a").mkdir()
        with (tmp_path / "a" / "b").open("w") as file:
            file.write("x")
            os.fsync(file.fileno())
        (tmp_path / "a" / "b").exists()

    found, _ = seen(work)
    assert {
        "before fsync in work",
        "behind fsync in work",
        "before write in work",
        "behind mkdir in mkdir",
    } <= found
    assert not any("stat" in place for place in found)


def test_sqlite_is_seen(tmp_path):
    def work():
        database = sqlite3.connect(tmp_path / "x.db")
        database.execute("create table t (x)")
        database.execute("select 1").fetchall()
        database.close()

    found, _ = seen(work)
    assert {"before execute in work", "behind execute in work", "before connect in work"} <= found
    assert not any("fetchall" in place for place in found)


def test_what_stays_inside_is_not_seen():
    def work():
        list(range(10))
        json.dumps({"a": 1})
        io.BytesIO().write(b"x")

    assert seen(work)[1] == 0


def test_other_threads_are_seen(tmp_path):
    def work():
        thread = threading.Thread(target=(tmp_path / "a").mkdir)
        thread.start()
        thread.join()

    assert "before mkdir in mkdir" in seen(work)[0]


def test_functions_stand_for_a_client_that_the_interpreter_does_not_report(monkeypatch):
    assert seen(lambda: store(1))[1] == 0
    monkeypatch.setattr(moments, "_UNSEEN", {"json"})
    found, _ = seen(lambda: store(1))
    assert {"before store in <lambda>", "behind store in <lambda>"} <= found


SCRIPT = """
import os, sys
from collectors.chaos.moments import Moment, Watch
def work():
    for n in range(3):
        os.mkdir(f"{n}")
Watch(Moment(sys.argv[1], int(sys.argv[2]))).begin()
work()
"""


@pytest.mark.parametrize(
    ("when", "count", "made"), [("before", 1, 0), ("behind", 1, 1), ("before", 3, 2), ("behind", 3, 3)]
)
def test_the_process_dies_there(tmp_path, when, count, made):
    place = f"{when} mkdir in work (__main__:6)"
    done = subprocess.run([sys.executable, "-c", SCRIPT, place, str(count)], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == made


def test_a_moment_that_never_comes_kills_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "before x in y (z:1)", "1"], cwd=tmp_path, check=False
    )
    assert done.returncode == 0


@pytest.mark.parametrize(
    "kill",
    [
        Kill(Moment("before a in b (c:1)", 1)),
        Kill(Moment("behind a in <lambda> (c.d:12)", 7)),
        Kill(after=0.0125),
    ],
)
def test_kills_are_written_and_read(kill):
    assert Kill.parse(str(kill)) == kill


@pytest.mark.parametrize("text", ["", "noon", "after ms", "before"])
def test_what_is_no_kill(text):
    with pytest.raises(ValueError, match="expected a crash point"):
        Kill.parse(text)
