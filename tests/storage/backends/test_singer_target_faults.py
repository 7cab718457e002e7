"""Kill -9 of pipelines into Singer targets, and of the targets: what was acknowledged is there, and nothing is lost."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

TARGET = Path(__file__).with_name("_target.py")
LIVES = Path(__file__).parents[2] / "e2e" / "_lives.py"
ROWS = 6000
PATIENCE = 60.0
KINDS = {
    "acknowledges at the end": {"ack": "end"},
    "stores in batches": {"ack": "end", "batch": 100},
    "acknowledges each": {"ack": "each"},
    "puts its state together": {"ack": "pieced", "batch": 100},
}
slow = pytest.mark.slow


def quickly(*names: str) -> list[Any]:
    """Return all kinds; those that are not named are for the full tests."""
    return [kind if kind in names else pytest.param(kind, marks=slow) for kind in KINDS]


def pipeline(folder: Path, storage: dict[str, Any], rows: int = ROWS) -> Path:
    (folder / "in.ndjson").write_text("".join(f'{{"n": {n}, "text": "{n * 7}"}}\n' for n in range(rows)))
    source = {"type": "file", "id": "numbers", "path": "in.ndjson", "chunk_size": "2 KiB"}
    given = {"type": "singer", "max_age": "200ms", "grace": "100ms", **storage}
    (folder / "p.yaml").write_text(json.dumps({"name": "p", "sources": [source], "storage": [given]}))
    return folder / "p.yaml"


def ours(folder: Path, **settings: Any) -> dict[str, Any]:
    return {
        "command": [sys.executable, "-S", str(TARGET)],
        "target_config": {name: str(folder / name) for name in ("out", "log", "pids")}
        | {"wait": True}
        | settings,
    }


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "collectors", "run", "p.yaml", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(folder)},
    )


def finish(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["balanced"]


def stored(folder: Path) -> Counter[int]:
    path = folder / "out"
    return (
        Counter(json.loads(line)["n"] for line in path.read_text().splitlines())
        if path.exists()
        else Counter()
    )


def acknowledged(folder: Path) -> int:
    """Return how many rows the state file says are stored."""
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(folder / ".collectors" / "p" / "state.db", timeout=5)) as database,
    ):
        return database.execute("select sum(stored) from _collectors_ledger").fetchone()[0] or 0
    return 0


def targets(folder: Path) -> list[psutil.Process]:
    """Return the targets of this folder that run."""
    found = []
    for pid in (folder / "pids").read_text().split() if (folder / "pids").exists() else []:
        with suppress(psutil.Error):
            process = psutil.Process(int(pid))
            if process.status() != psutil.STATUS_ZOMBIE and str(TARGET) in process.cmdline():
                found.append(process)
    return found


def wait_for(condition: Any, process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it does not get there"
        time.sleep(0.01)


def kill_targets(folder: Path) -> None:
    for process in targets(folder):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def kill_with_all_it_started(process: subprocess.Popen[str]) -> None:
    """Kill a run with its children: also with a target so new that it has not written its process id yet."""
    os.kill(process.pid, signal.SIGSTOP)
    children = psutil.Process(process.pid).children(recursive=True)
    for child in children:
        child.kill()
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(lives, children)))


def lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize("kind", quickly("stores in batches"))
def test_killed_with_its_target(tmp_path: Path, kind: str) -> None:
    """What counts as stored is there; what does not is given again, from the first row of it on."""
    pipeline(tmp_path, ours(tmp_path, **KINDS[kind]) | {"max_bytes": "40 KiB"})  # of which no target gets all
    done = 0
    for _ in range(2):
        process = start(tmp_path)
        wait_for(lambda least=done: acknowledged(tmp_path) > least, process)
        kill_with_all_it_started(process)
        done = acknowledged(tmp_path)
        assert set(range(done)) <= set(stored(tmp_path))
        (tmp_path / "log").unlink()
    finish(start(tmp_path))
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    given = [each["record"]["n"] for each in records if each["type"] == "RECORD"]
    assert given == list(range(done, ROWS))
    assert set(stored(tmp_path)) == set(range(ROWS))
    assert acknowledged(tmp_path) == ROWS


@pytest.mark.parametrize("kind", quickly("puts its state together"))
def test_its_target_is_killed(tmp_path: Path, kind: str) -> None:
    """The run goes on with another one, and gives it what was not acknowledged."""
    pipeline(tmp_path, ours(tmp_path, **KINDS[kind]))
    process = start(tmp_path)
    log = tmp_path / "log"
    for least in (20_000, 100_000, 250_000):
        wait_for(
            lambda least=least: log.exists() and log.stat().st_size > least and targets(tmp_path), process
        )
        kill_targets(tmp_path)
    finish(process)
    assert set(stored(tmp_path)) == set(range(ROWS))
    assert acknowledged(tmp_path) == ROWS


def test_killed_alone(tmp_path: Path) -> None:
    """Its target stores what it had and ends; the files with its settings are gone."""
    pipeline(tmp_path, ours(tmp_path, **KINDS["acknowledges at the end"]))
    process = start(tmp_path)
    wait_for(lambda: len(targets(tmp_path)) == 1, process)
    process.kill()
    process.communicate()
    wait_for(lambda: not targets(tmp_path))
    finish(start(tmp_path))
    assert set(stored(tmp_path)) == set(range(ROWS))
    assert list(tmp_path.glob("collectors-target-*")) == []


def test_killed_at_one_crash_point_after_another(tmp_path: Path) -> None:
    """Before and behind the calls with which the state file commits."""
    path = pipeline(tmp_path, ours(tmp_path, ack="each", wait=False), 300)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(LIVES), str(path), "20", "23", "8"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kills"] >= 4
    wait_for(lambda: not targets(tmp_path))
    assert set(stored(tmp_path)) == set(range(300))


def test_a_stop_leaves_nothing_behind(tmp_path: Path) -> None:
    """SIGTERM: the target stores what it was given, and is not given it again."""
    pipeline(tmp_path, ours(tmp_path, **KINDS["acknowledges at the end"]) | {"max_age": "10m"})
    process = start(tmp_path)
    wait_for(lambda: (tmp_path / "log").exists() and (tmp_path / "log").stat().st_size > 20_000, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert targets(tmp_path) == []
    assert sorted(stored(tmp_path)) == list(range(acknowledged(tmp_path)))
    finish(start(tmp_path))
    assert stored(tmp_path) == Counter(range(ROWS))


def real(name: str) -> str:
    """Return where a target of the package index is; it lies beside Python when it came with the test group."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"there is no {name}; install it: pip install --group test")
    return found


def rows_of(folder: Path) -> Counter[int]:
    found: Counter[int] = Counter()
    for path in (folder / "real").glob("*"):
        with path.open(newline="") as file:
            if path.suffix == ".csv":
                found.update(int(row["n"]) for row in csv.DictReader(file) if row["n"])
            else:
                found.update(json.loads(line)["n"] for line in file)
    return found


@pytest.mark.parametrize("name", ["target-csv", pytest.param("target-jsonl", marks=slow)])
def test_real_targets(tmp_path: Path, name: str) -> None:
    """Killed once on the way; all rows are there in the end."""
    folder = str(tmp_path / "real")
    config = {
        "target-csv": {
            "output_path": folder,
            "file_naming_scheme": "{timestamp}.csv",
            "timestamp_format": "%H%M%S%f",
        },
        "target-jsonl": {"destination_path": folder},
    }[name]
    (tmp_path / "real").mkdir()
    pipeline(
        tmp_path,
        {"command": [real(name)], "target_config": config, "max_age": "1s", "max_bytes": "64 KiB"},
        20_000,
    )
    process = start(tmp_path)
    wait_for(lambda: acknowledged(tmp_path) > 0, process)
    process.kill()
    process.communicate()
    done = acknowledged(tmp_path)
    assert set(range(done)) <= set(rows_of(tmp_path))
    finish(start(tmp_path))
    assert set(rows_of(tmp_path)) == set(range(20_000))
    assert acknowledged(tmp_path) == 20_000
