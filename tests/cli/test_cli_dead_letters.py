"""dead-letters replay and discard, runs, and the error budget, as a user calls them, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

PIPELINE = """
name: readings
sources:
  - {type: file, id: readings, path: in.ndjson}
processors:
  - {type: cast, columns: {v: int}}
storage:
  - {type: sqlite, path: out.db}
"""
FIXED = PIPELINE.replace(
    "processors:\n", "processors:\n  - {type: set, columns: {v: \"replace(v, 'x', '')\"}}\n"
)
LINES = ['{"id": 1, "v": "10"}', '{"id": 2, "v": "x20"}', '{"id": 3', '{"id": 4, "v": "40"}']


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collectors", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in.ndjson").write_text("\n".join(LINES) + "\n")
    (tmp_path / "p.yaml").write_text(PIPELINE)
    assert call(tmp_path, "run", "p.yaml").returncode == 0
    return tmp_path


def listed(folder):
    done = call(folder, "dead-letters", "list", "p.yaml", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_replay_after_the_fix(folder):
    (folder / "p.yaml").write_text(FIXED)
    done = call(folder, "dead-letters", "replay", "p.yaml", "--step", "cast", "--yes")
    assert done.returncode == 0, done.stderr
    assert "read 1 = stored 1 + filtered 0 + set aside 0" in done.stderr
    with sqlite3.connect(folder / "out.db") as database:
        assert database.execute("select id, v from readings order by id").fetchall() == [
            (1, 10),
            (2, 20),
            (4, 40),
        ]
    assert [letter["step"] for letter in listed(folder)] == ["decode"]
    text = call(folder, "dead-letters", "list", "p.yaml").stdout
    assert "2 in all = 1 here + 1 replayed + 0 discarded" in text


def test_a_column_that_comes_with_a_replay_is_told(folder):
    strict = PIPELINE.replace("path: out.db", "path: out.db, schema: set-aside")
    (folder / "p.yaml").write_text(strict)
    with (folder / "in.ndjson").open("a") as file:
        file.write('{"id": 5, "v": "50", "note": "x"}\n')
    assert "such rows are set aside" in call(folder, "run", "p.yaml").stderr
    (folder / "p.yaml").write_text(PIPELINE)
    done = call(folder, "dead-letters", "replay", "p.yaml", "--step", "store sqlite", "--yes")
    assert done.returncode == 0, done.stderr
    assert "new column 'note' of type TEXT" in done.stderr


def test_what_is_refused_again_is_linked_to_the_first_letter(folder):
    first = {letter["step"]: letter["id"] for letter in listed(folder)}
    assert call(folder, "dead-letters", "replay", "p.yaml", "--all", "--yes", "--json").returncode == 0
    again = {letter["step"]: letter for letter in listed(folder)}
    assert {step: letter["first_id"] for step, letter in again.items()} == first
    assert {letter["tries"] for letter in again.values()} == {2}
    assert again["decode"]["position"]["offset"] == len("\n".join(LINES[:2])) + 1


def test_discard_is_remembered(folder):
    done = call(folder, "dead-letters", "discard", "p.yaml", "--reason", "JSON", "--why", "test", "--yes")
    assert (done.returncode, done.stdout) == (0, "1 discarded\n")
    assert [letter["step"] for letter in listed(folder)] == ["cast"]
    told = call(folder, "dead-letters", "list", "p.yaml").stdout
    assert "0 replayed + 1 discarded" in told
    assert re.search(r"^1 discarded at \d{4}-\d\d-\d\dT\d\d:\d\dZ: test$", told, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay", "p.yaml"], "say which"),
        (["replay", "p.yaml", "--all"], "say --yes"),
        (["replay", "p.yaml", "nonsense", "--yes"], "no dead letter 'nonsense'"),
        (["discard", "p.yaml", "--all", "--since", "soon", "--why", "x", "--yes"], "expected 2h"),
        (["discard", "p.yaml", "--all", "--why", " ", "--yes"], "--why ' ': expected a reason"),
    ],
)
def test_what_is_not_clear_changes_nothing(folder, arguments, message):
    done = call(folder, "dead-letters", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(listed(folder)) == 2


def test_a_letter_that_had_passed_no_step_goes_to_the_first_one(folder):
    text = PIPELINE.replace("{type: cast, columns: {v: int}}", "{type: select, columns: [id]}")
    (folder / "p.yaml").write_text(text)
    done = call(folder, "dead-letters", "replay", "p.yaml", "--step", "cast", "--yes")
    assert done.returncode == 0, done.stderr
    assert [letter["step"] for letter in listed(folder)] == ["decode"]


def test_the_error_budget_has_an_exit_code_of_its_own(tmp_path):
    (tmp_path / "in.ndjson").write_text("\n".join(LINES) + "\n")
    (tmp_path / "p.yaml").write_text(PIPELINE + "stop_above: 10%\n")
    done = call(tmp_path, "run", "p.yaml")
    assert done.returncode == 3
    assert "2 of 4 records were set aside, 50 %; `stop_above` allows 10 %" in done.stderr
    wrong = call(tmp_path, "run", "p.yaml")
    assert wrong.returncode == 0, wrong.stderr
    (tmp_path / "p.yaml").write_text(PIPELINE + "stop_above: 1\n")
    done = call(tmp_path, "run", "p.yaml")
    assert done.returncode == 2
    assert "expected a share such as 1%" in done.stderr


def test_a_run_that_was_killed_is_crashed_and_has_the_counts_of_its_store(tmp_path):
    (tmp_path / "in.ndjson").write_text('{"v": "1"}\n' * 500)
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("path: in.ndjson", "path: in.ndjson, follow: true"))
    process = subprocess.Popen([sys.executable, "-m", "collectors", "run", "p.yaml", "--quiet"], cwd=tmp_path)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not _stored(tmp_path / "out.db"):
            os.sched_yield()
        live = call(tmp_path, "runs", "show", "p.yaml", "--json")
        assert json.loads(live.stdout)["status"] == "running"
        refused = call(tmp_path, "dead-letters", "discard", "p.yaml", "--all", "--why", "x", "--yes")
        assert refused.returncode == 0  # there is none, so nothing is done
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert json.loads(call(tmp_path, "runs", "show", "p.yaml", "--json").stdout)["status"] == "crashed"
    assert call(tmp_path, "run", "p.yaml", "--for", "0s").returncode == 0
    lines = call(tmp_path, "runs", "list", "p.yaml", "--json").stdout.splitlines()
    crashed, stopped = (json.loads(line) for line in lines)
    assert (crashed["status"], stopped["status"]) == ("crashed", "stopped")
    assert crashed["flows"][0]["storage"][0]["stored"] == 500
    table = call(tmp_path, "runs", "list", "p.yaml").stdout
    assert "crashed" in table


def _stored(path):
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return database.execute("select count(*) from readings").fetchone()[0] == 500
        finally:
            database.close()
    except sqlite3.Error:
        return False
