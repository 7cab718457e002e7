"""chaos as a user calls it: what it leaves alone, what it replaces, what it counts, what it cannot tell."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from collectors import registry

pytestmark = pytest.mark.timeout(200)

FUNCTIONS = """
import os, random, time

def endless(since):
    n = since["n"] if since else 0
    while True:
        n += 1
        yield {"id": n}, {"n": n}

def finite(since):
    for n in range(since["n"] + 1 if since else 0, 60):
        yield {"id": n}, {"n": n}

def sensor():
    yield [{"id": n} for n in range(30)]

def stamp(record):
    return {**record, "stamp": time.monotonic_ns(), "luck": random.random()}

def sometimes(record):
    return record if random.random() < 0.5 else None
"""
FILE = "{type: file, id: readings, path: in.ndjson}"
SQLITE = "{type: sqlite, path: out.db}"


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "in.ndjson").write_text("".join(f'{{"id": {n}}}\n' for n in range(100)) + "{broken\n")
    (home / "functions.py").write_text(FUNCTIONS)
    (tmp_path / "tmp").mkdir()
    return home


def write(folder, source=FILE, storage=SQLITE, processors="[]"):
    text = f"name: p\nsources: [{source}]\nprocessors: {processors}\nstorage: [{storage}]\n"
    (folder / "p.yaml").write_text(text)


def call(folder, verb, *options, stdin=""):
    return subprocess.run(
        [sys.executable, "-m", "collectors", verb, "p.yaml", *options],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env={
            **os.environ,
            "TMPDIR": str(folder.parent / "tmp"),
            "COLUMNS": "200",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )


def chaos(folder, *options, kills=6, code=0, stdin=""):
    done = call(folder, "chaos", "--kills", str(kills), "--seed", "4", "--json", *options, stdin=stdin)
    assert done.returncode == code, done.stderr + done.stdout
    assert list((folder.parent / "tmp").iterdir()) == [], "the scratch folder is gone"
    return json.loads(done.stdout) if done.stdout else done.stderr


def everything_in(folder):
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("stored_before", [True, False])
def test_nothing_of_the_user_is_touched(folder, stored_before):
    write(folder, storage=f"{SQLITE}, {{type: parquet, path: lake}}")
    if stored_before:
        assert call(folder, "run").returncode == 0
    before = everything_in(folder)
    assert ("out.db" in before) == stored_before
    told = chaos(folder)
    assert told["held"]
    assert told["storage"]["sqlite"]["expected"] == told["storage"]["parquet"]["expected"] == 100
    assert told["storage"]["dead letters"]["expected"] == 1
    assert everything_in(folder) == before


def test_only_kills_that_came_about_are_counted(folder):
    write(folder)
    told = chaos(folder, kills=8)
    assert told["kills"] >= 8
    assert told["kills"] == sum(told["kills_by_place"].values()) + told["kills_at_random_times"]
    assert told["kills"] == told["restarts"]
    assert all(place.startswith(("before ", "behind ")) for place in told["kills_by_place"])
    assert told["places"] > 40
    assert told["recovery_seconds"]["p50"] <= told["recovery_seconds"]["max"]


def test_kills_can_be_chosen(folder):
    write(folder)
    line = next(iter(chaos(folder)["kills_by_place"]))
    told = chaos(folder, "--at", line, "--at", "after 1 ms", kills=4)
    assert told["kills_by_place"] == {line: 2}
    assert told["kills_at_random_times"] == 2


def test_a_kill_whose_moment_never_comes_is_not_counted(folder):
    write(folder)
    told = chaos(folder, "--at", "before nothing in nowhere (x:1)")
    assert told["kills"] == told["stories"] == 0
    assert told["kills_that_did_not_come_about"] > 0


@pytest.mark.parametrize("storage", ["parquet", "duckdb"])
def test_other_stores(folder, storage):
    if storage not in registry.names("backend") or (
        storage == "duckdb" and not importlib.util.find_spec(storage)
    ):
        pytest.skip(f"needs {storage}: pip install 'collectors-io[{storage}]'")
    write(folder, storage=f"{{type: {storage}, path: store}}")
    told = chaos(folder)
    assert told["held"]
    assert told["storage"][storage]["expected"] == 100


@pytest.mark.parametrize("storage", ["sqlite", "duckdb"])
def test_rows_that_replace_others(folder, storage):
    lines = [f'{{"id": {n % 17}, "n": {n}}}\n' for n in range(100)]
    (folder / "in.ndjson").write_text("".join(lines))
    write(
        folder,
        source="{type: file, id: readings, path: in.ndjson, chunk_size: 100}",
        storage=f"{{type: {storage}, path: out.db, write: upsert, key: id}}",
    )
    told = chaos(folder)
    assert told["held"]
    assert told["kills"] == 6
    assert told["storage"][storage]["expected"] == 17


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_it_is_stopped(folder, how):
    write(folder)
    scratch = folder.parent / "tmp"
    process = subprocess.Popen(
        [sys.executable, "-m", "collectors", "chaos", "p.yaml", "--kills", "100000"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    while not list(scratch.glob("*/story-*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(how)
    assert process.wait(timeout=60) == (130 if how == signal.SIGINT else 143)
    assert list(scratch.iterdir()) == []


def test_duplicates_where_they_are_expected(folder):
    write(folder, storage="{type: stdout}")
    told = chaos(folder, kills=40)
    assert told["storage"]["stdout"]["promise"] == "at least once"
    assert told["storage"]["stdout"]["lost"] == 0
    assert told["storage"]["stdout"]["duplicated"] > 0
    assert told["held"]


def test_columns_that_change_from_run_to_run_are_left_out(folder):
    write(folder, processors='[{type: python, function: "functions:stamp"}]')
    told = chaos(folder)
    assert told["held"]
    assert any(note.endswith("differ from run to run: luck, stamp") for note in told["notes"])


def test_rows_that_change_from_run_to_run_say_nothing(folder):
    write(folder, processors='[{type: python, function: "functions:sometimes"}]')
    assert "two undisturbed runs store different rows" in chaos(folder, code=2)


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ('{type: python, id: s, function: "functions:finite"}', "read where it is"),
        ('{type: python, id: s, function: "functions:endless"}', "recorded from it once"),
        ('{type: python, id: s, function: "functions:sensor"}', "handed over once, through the spool"),
        ("{type: exec, id: s, command: [cat, in.ndjson]}", "handed over once, through the spool"),
    ],
)
def test_sources_that_cannot_be_copied(folder, source, note):
    write(folder, source)
    told = chaos(folder, "--size", "4 KiB")
    assert told["held"]
    assert any(note in line for line in told["notes"])
    assert told["records"] >= 60


def test_records_for_a_source_that_is_not_to_be_read(folder):
    write(folder, "{type: stdin, id: s}", processors='[{type: filter, where: "value >= 0"}]')
    assert "--sample SOURCE=FILE" in chaos(folder, code=2)
    write(folder, "{type: stdin, id: s}", processors='[{type: filter, where: "id >= 0"}]')
    assert chaos(folder)["records"] == 480
    assert chaos(folder, "--sample", f"s={folder / 'in.ndjson'}")["records"] == 101
    assert chaos(folder, stdin='{"id": 1}\n')["records"] == 24


@pytest.mark.parametrize(
    ("storage", "options", "message"),
    [
        ("{type: memory}", [], "nothing in memory outlives a kill; there is no storage that chaos can test"),
        (SQLITE, ["--size", "much"], "--size 'much'"),
        (SQLITE, ["--for", "long"], "--for 'long'"),
        (SQLITE, ["--at", "noon"], "--at 'noon': expected a crash point"),
        (SQLITE, ["--sample", "x"], "--sample 'x': expected SOURCE=FILE"),
        (SQLITE, ["--sample", "x=y"], "no source 'x'; there are: readings"),
        (SQLITE, ["--sample", "readings=gone"], "cannot read gone"),
    ],
)
def test_what_cannot_be_tested(folder, storage, options, message):
    write(folder, storage=storage)
    assert message in chaos(folder, *options, code=2)


def test_a_pipeline_that_fails_by_itself(folder):
    write(folder, processors='[{type: filter, where: "nothing = 1"}]')
    assert "failed without any kill: source 'readings'" in chaos(folder, code=2)
    (folder / "in.ndjson").write_text("")
    assert "has no records" in chaos(folder, code=2)


def test_it_stops_in_time(folder):
    write(folder)
    told = chaos(folder, "--for", "0.5s", kills=100_000)
    assert 0 < told["kills"] < 1000


def test_for_people(folder):
    write(folder)
    done = call(folder, "chaos", "--kills", "5", "--seed", "9")
    assert done.returncode == 0, done.stderr
    assert "every promise was kept · seed 9" in done.stdout
    assert "exactly once" in done.stdout
    assert "source readings: a copy of a file" in done.stdout
