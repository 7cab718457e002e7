"""Hours, in small: a store that is away while the spool grows, a start with a full spool, memory that stays flat."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).parent


@pytest.fixture
def start(tmp_path):
    """Start a pipeline of one source in a process that does not outlive the test."""
    started = []

    def run(source: str) -> subprocess.Popen:
        pipeline = tmp_path / "p.yaml"
        pipeline.write_text(
            f"""name: long
memory: 64 MiB
spool: 20 GiB
sources:
  - {source}
storage:
  - {{type: "_stores:Away", id: store, flag: "{tmp_path / "away"}", note: "{tmp_path / "note"}"}}
"""
        )
        command = [sys.executable, "-W", "ignore", "-m", "collectors", "run", str(pipeline), "--quiet"]
        started.append(subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(HERE)}))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def spool_size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in (folder / ".collectors/long/spool").rglob("*.spool"))
    except OSError:
        return 0  # a segment was just trimmed


def stored(folder: Path) -> int:
    """Return how many rows are stored, once they are seen to be all numbers from 0 on, each once."""
    following = 0
    note = folder / "note"
    for line in note.read_text().splitlines() if note.exists() else []:
        first, last, count = map(int, line.split())
        assert (first, last) == (following, following + count - 1)
        following = last + 1
    return following


def commits(folder: Path) -> int:
    """Return how many commits the store noted; it knows no epochs, so one that a kill cut off is there twice."""
    note = folder / "note"
    return note.read_text().count("\n") if note.exists() else 0


def until(condition, seconds: float) -> float:
    """Return how long it took until the condition held."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it took too long"
        time.sleep(0.02)
    return time.monotonic() - started


@pytest.mark.timeout(4000)
def test_a_store_that_is_away(tmp_path, start, full, figure):
    seconds, rows, width = (1800, 2000, 1380) if full else (40, 1000, 200)
    (tmp_path / "away").touch()
    stop = tmp_path / "stop"
    process = start(
        f'{{type: "_stores:Ticks", id: in, rows: {rows}, seconds: 0.9, width: {width}, stop: "{stop}"}}',
    )
    memory = psutil.Process(process.pid)
    started, peak = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        time.sleep(0.5)
        assert process.poll() is None
        peak = max(peak, memory.memory_info().rss)
    size, taken = spool_size(tmp_path), time.monotonic() - started
    assert stored(tmp_path) == 0
    (tmp_path / "away").unlink()
    stop.touch()
    drained = until(lambda: process.poll() is not None, 600)
    assert process.returncode == 0
    count = stored(tmp_path)
    figure(
        "backend away, then drained",
        away_seconds=round(taken),
        spool_mib=round(size / 2**20, 1),
        rows=count,
        lost=0,
        duplicated=0,
        drained_seconds=round(drained, 1),
        peak_mib=round(peak / 2**20),
    )
    assert count % rows == 0
    assert count >= rows * taken / 2
    assert peak < (64 + 150) * 2**20
    assert spool_size(tmp_path) < 1000


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_the_first_commit_after_a_kill_with_a_full_spool(tmp_path, start, figure):
    """A gigabyte waits in the spool; the next process stores the first of it within two seconds of its start."""
    (tmp_path / "away").touch()
    source = '{type: "_stores:Ticks", id: in, rows: 8000, seconds: 0.0, width: 110}'
    process = start(source)
    until(lambda: spool_size(tmp_path) > 2**30, 300)
    process.send_signal(signal.SIGKILL)
    process.wait()
    size = spool_size(tmp_path)
    (tmp_path / "away").unlink()
    took = []
    for _ in range(3):  # others use this machine, too: the best of three
        before = commits(tmp_path)
        process = start('{type: "_stores:Ticks", id: in, rows: 1, count: 0}')
        took.append(until(lambda before=before: commits(tmp_path) > before, 60))
        process.send_signal(signal.SIGKILL)
        process.wait()
    figure("first commit after kill -9", spool_mib=round(size / 2**20), seconds=round(min(took), 2))
    assert min(took) < 2


@pytest.mark.timeout(10_000)
def test_soak(tmp_path, start, full, figure):
    """Memory and open files stay flat while data come in, are stored, and are refused for a second now and then.

    In hours a slope is seen; in the quick form it would be that of the saw's teeth, so the peaks of its halves are
    compared: with twenty bytes kept of each row they are 20 MiB apart.
    """
    seconds = 7200 if full else 60
    stop = tmp_path / "stop"
    process = start(f'{{type: "_stores:Ticks", id: in, rows: 2000, seconds: 0.05, stop: "{stop}"}}')
    memory = psutil.Process(process.pid)
    samples, files = [], []
    started = time.monotonic()
    while (now := time.monotonic() - started) < seconds:
        away = now % 20 > 19
        (tmp_path / "away").touch() if away else (tmp_path / "away").unlink(missing_ok=True)
        time.sleep(0.5)
        assert process.poll() is None
        if now > seconds / 5:
            samples.append((now / 60, memory.memory_info().rss / 2**20))
            files.append(memory.num_fds())
    (tmp_path / "away").unlink(missing_ok=True)
    stop.touch()
    until(lambda: process.poll() is not None, 60)
    assert process.returncode == 0
    slope = slope_of(samples)
    figure(
        "soak",
        minutes=round(seconds / 60),
        rows=stored(tmp_path),
        rss_mib_per_minute=round(slope, 4),
        rss_mib=round(samples[-1][1]),
        open_files=max(files),
    )
    if full:
        assert slope < 1 / 60
    half = len(samples) // 2
    assert max(mib for _, mib in samples[half:]) - max(mib for _, mib in samples[:half]) < 10
    assert max(files) - min(files) < 10


def slope_of(samples: list[tuple[float, float]]) -> float:
    """Return the slope of the straight line through the samples with the least squared distances."""
    times, values = zip(*samples, strict=True)
    mean_time, mean = sum(times) / len(times), sum(values) / len(values)
    return sum((t - mean_time) * (v - mean) for t, v in samples) / sum((t - mean_time) ** 2 for t in times)
