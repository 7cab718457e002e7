"""run, check, query and dead-letters as a user calls them, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINE = """
name: readings
sources:
  - {type: file, id: readings, path: in.ndjson}
processors:
  - {type: filter, where: "temperature > 10"}
storage:
  - {type: sqlite, path: out.db}
"""


def call(folder: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "collectors", *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def folder(tmp_path):
    lines = [json.dumps({"id": n, "temperature": n}) for n in range(30)]
    (tmp_path / "in.ndjson").write_text("\n".join([*lines, "{broken"]) + "\n")
    (tmp_path / "p.yaml").write_text(PIPELINE)
    return tmp_path


def rows(folder: Path, table: str = "readings") -> list[tuple]:
    database = sqlite3.connect(folder / "out.db")
    try:
        return database.execute(f'select id from "{table}" order by id').fetchall()
    finally:
        database.close()


def test_run_query_and_dead_letters(folder):
    done = call(folder, "run", "p.yaml")
    assert done.returncode == 0, done.stderr
    assert "read 31 = stored 19 + filtered 11 + set aside 1" in done.stderr
    assert "balanced" in done.stderr
    assert "collectors dead-letters list p.yaml" in done.stderr
    assert [row[0] for row in rows(folder)] == list(range(11, 30))

    found = call(folder, "query", "p.yaml", "--where", "id>=27", "--sort", "-id", "--json")
    assert [json.loads(line)["id"] for line in found.stdout.splitlines()] == [29, 28, 27]

    letters = call(folder, "dead-letters", "list", "p.yaml", "--json")
    letter = json.loads(letters.stdout)
    assert letter["raw"].strip() == "{broken"
    assert letter["position"]["path"].endswith("in.ndjson")
    shown = call(folder, "dead-letters", "show", "p.yaml", letter["id"], "--raw")
    assert shown.stdout.strip() == "{broken"
    counted = call(folder, "dead-letters", "list", "p.yaml", "--reasons")
    assert "decode" in counted.stdout


def test_running_again_reads_nothing_twice(folder):
    call(folder, "run", "p.yaml", "-q")
    done = call(folder, "run", "p.yaml", "--json")
    report = json.loads(done.stdout)
    assert report["balanced"]
    assert report["flows"][0]["read"] == 0
    assert len(rows(folder)) == 19


def test_check_writes_nothing(folder):
    before = sorted(path.name for path in folder.rglob("*"))
    done = call(folder, "check", "p.yaml")
    assert done.returncode == 0, done.stderr
    assert "31 records read, 1 of them would be set aside" in done.stdout
    assert "+ temperature INTEGER" in done.stdout
    assert "nothing was written" in done.stdout
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_check_shows_the_difference_to_what_is_there(folder):
    call(folder, "run", "p.yaml", "-q")
    (folder / "in.ndjson").write_text('{"id": 1, "temperature": 20, "humidity": 5.5}\n')
    done = call(folder, "check", "p.yaml")
    assert "= temperature INTEGER" in done.stdout
    assert "+ humidity REAL (new)" in done.stdout


def test_check_does_not_call_ready_what_a_run_cannot_store(folder):
    database = sqlite3.connect(folder / "out.db")
    database.execute("create table readings (id integer, temperature blob)")
    database.close()
    done = call(folder, "check", "p.yaml")
    assert done.returncode == 1
    assert "! temperature: table has BLOB, rows bring INTEGER" in done.stdout
    assert done.stdout.endswith("not ready; nothing was written\n")
    assert call(folder, "run", "p.yaml", "-q").returncode == 1


def test_a_folder_for_state_that_cannot_be_made(folder):
    (folder / "f.yaml").write_text(PIPELINE + "state: in.ndjson/state\n")
    done = call(folder, "run", "f.yaml")
    assert done.returncode == 1
    assert "cannot lock" in done.stderr
    assert "in.ndjson is a file, not a folder; set `state:` in the pipeline to a folder" in done.stderr


def test_a_setting_that_does_not_fit_the_data_is_said_once_with_its_place(folder):
    """The columns are known with the first record only; the code is that of a bad configuration all the same."""
    (folder / "f.yaml").write_text(PIPELINE.replace("temperature > 10", "temprature > 10"))
    ran, checked = call(folder, "run", "f.yaml"), call(folder, "check", "f.yaml")
    assert (ran.returncode, checked.returncode) == (2, 2)
    message = "f.yaml:6  step 'filter': where: no column 'temprature' (line 1, column 1): did you mean"
    assert ran.stderr.count(message) == 1
    assert "readings failed, as said above" in ran.stderr
    assert message in checked.stdout


def test_stdin_to_stdout(folder):
    (folder / "s.yaml").write_text(
        "name: s\nsources: [{type: stdin, format: ndjson}]\n"
        "processors: [{type: filter, where: 'n > 1'}]\nstorage: [{type: stdout}]\n"
    )
    done = call(folder, "run", "s.yaml", "-q", stdin=b'{"n":1}\n{"n":2}\n{"n":3}')
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["n"] for line in done.stdout.splitlines()] == [2, 3]


def test_sigterm_drains_and_exits_with_zero(folder):
    (folder / "f.yaml").write_text(PIPELINE.replace("path: in.ndjson", "path: in.ndjson, follow: true"))
    child = subprocess.Popen(
        [sys.executable, "-m", "collectors", "run", "f.yaml", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        waited = 0
        while not (folder / "out.db-wal").exists() and waited < 10_000:
            subprocess.run([sys.executable, "-S", "-c", ""], check=True)  # a moment that is not a sleep
            waited += 1
        second = call(folder, "run", "f.yaml")
        assert second.returncode == 2
        assert f"running already (process {child.pid}" in second.stderr
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 0
    report = json.loads(out)
    assert report["balanced"]
    assert report["flows"][0]["status"] == "stopped"


def test_for_stops_by_itself(folder):
    (folder / "f.yaml").write_text(PIPELINE.replace("path: in.ndjson", "path: in.ndjson, follow: true"))
    done = call(folder, "run", "f.yaml", "--for", "300ms")
    assert done.returncode == 0, done.stderr
    assert len(rows(folder)) == 19
