"""Kill -9 of a pipeline that reads a Singer tap, and of the tap: what the tap has is stored, and only what is promised twice."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

TAP = Path(__file__).with_name("_tap.py")
LIVES = Path(__file__).parents[2] / "e2e" / "_lives.py"
ROWS = 1500
KINDS = {
    "goes on at its STATE": {"state_every": 50},
    "begins with the row of its bookmark": {"state_every": 50, "exact": False},
    "writes no STATE": {},
    "begins anew": {"state_every": 50, "once": True},
}
PATIENCE = 60.0


def pipeline(folder, config, rows=ROWS, storage="type: sqlite, path: out.db, table: numbers"):
    (folder / "table").write_text(
        "".join(json.dumps({"id": n, "pad": "x" * (n % 40)}) + "\n" for n in range(rows))
    )
    config = {"table": str(folder / "table"), "token": "hush-hush", **config}
    (folder / "p.yaml").write_text(
        f"""
name: numbers
sources:
  - type: singer
    command: [{sys.executable}, -S, {TAP}]
    tap_config: {json.dumps(config)}
    streams: [numbers]
    chunk_size: 1 KiB
    cwd: .
storage:
  - {{{storage}}}
"""
    )
    return folder / "p.yaml"


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "collectors", "run", "p.yaml", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(folder)},
    )


def stored(folder):
    if not (folder / "out.db").exists():
        return Counter()
    with (
        closing(sqlite3.connect(folder / "out.db", timeout=5)) as database,
        suppress(sqlite3.OperationalError),
    ):
        return Counter(n for (n,) in database.execute("select id from numbers").fetchall())
    return Counter()


def wait_for(process, condition):
    """Wait until the condition holds; a process that has ended before is an error."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it does not get there"
        time.sleep(0.01)


def taps(folder):
    """Return the taps that run in this folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if (
                process.cwd() == str(folder)
                and str(TAP) in process.cmdline()
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
    return found


def finish(process):
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    report = json.loads(out.splitlines()[-1])
    assert report["balanced"]
    assert "hush" not in out + err
    return report


@pytest.mark.parametrize("kind", KINDS)
def test_killed_while_the_tap_runs(tmp_path, kind):
    """Each row once, in order of the tap; the taps of the dead end, and their files are gone."""
    pipeline(tmp_path, KINDS[kind] | {"wait": True})
    for least in (1, 700):
        process = start(tmp_path)
        wait_for(process, lambda least=least: stored(tmp_path).total() >= least and taps(tmp_path))
        process.kill()
        process.communicate()
        assert stored(tmp_path).total() < ROWS
        deadline = time.monotonic() + PATIENCE
        while taps(tmp_path):
            assert time.monotonic() < deadline, "the tap of a dead process runs on"
            time.sleep(0.01)
    finish(start(tmp_path))
    assert stored(tmp_path) == Counter(range(ROWS))
    assert list(tmp_path.glob("collectors-tap-*")) == []


@pytest.mark.parametrize("kind", list(KINDS)[:2])
def test_the_tap_is_killed(tmp_path, kind):
    """The run goes on with a new tap."""
    pipeline(tmp_path, KINDS[kind] | {"wait": True})
    process = start(tmp_path)
    for least in (1, 700):
        wait_for(process, lambda least=least: stored(tmp_path).total() >= least and taps(tmp_path))
        for tap in taps(tmp_path):
            with suppress(psutil.NoSuchProcess):
                tap.kill()
    finish(process)
    assert stored(tmp_path) == Counter(range(ROWS))


def lives(path, first, step, most):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(LIVES), str(path), str(first), str(step), str(most)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["kills"]


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_one_crash_point_after_another(tmp_path, kind):
    """Before and behind the calls with which the storage commits."""
    config = {**KINDS[kind]} | ({"state_every": 7} if "state_every" in KINDS[kind] else {})
    assert lives(pipeline(tmp_path, config, 120), 3, 9, 12) > 6
    assert stored(tmp_path) == Counter(range(120))


def test_rows_that_the_tap_does_not_give_again_are_not_lost(tmp_path):
    """The table changes in front of what was stored while nobody ran: what the tap has now is all there."""
    pipeline(tmp_path, {"wait": True, "state_every": 10**6})
    process = start(tmp_path)
    wait_for(process, lambda: stored(tmp_path).total() > 0 or process.poll() is not None)
    process.kill()
    process.communicate()
    rows = (tmp_path / "table").read_text().splitlines(keepends=True)
    (tmp_path / "table").write_text("".join([json.dumps({"id": -1}) + "\n", *rows]))
    report = finish(start(tmp_path))
    assert set(stored(tmp_path)) == {-1, *range(ROWS)}
    assert "does not repeat" in str(report["flows"][0]["notices"])
