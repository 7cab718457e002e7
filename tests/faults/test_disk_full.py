"""A real disk that is full: the pipeline waits and says so, and goes on by itself as soon as there is room again."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest
from _stack import STACKS, Stack

MIB = 2**20


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts a disk of so many bytes on a folder."""
    mounted = []

    def mount(folder, size):
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("needs root, to mount a small tmpfs; test_errors.py fills a disk without")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(
                f"needs the right to mount a tmpfs; test_errors.py fills a disk without: {done.stderr}"
            )
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", STACKS)
def test_a_full_disk_is_waited_for(lives, tmp_path, small_disk, name, full, figure):
    folder = tmp_path / "stack"
    small_disk(folder / "data", (64 if full else 16) * MIB)
    stack = Stack(folder, STACKS[name], rows=100_000 if full else 20_000).make()
    filler, notices = stack.data / "filler", tmp_path / "notices"
    free = os.statvfs(stack.data).f_bavail * os.statvfs(stack.data).f_frsize
    filler.write_bytes(bytes(free - 512 * 1024))
    pid = lives.start(stack, notices=str(notices), patience=1e9)
    wait_for(
        lambda: (
            notices.exists() and ("disk is full" in notices.read_text() or "No space" in notices.read_text())
        )
    )
    filler.unlink()
    began = time.monotonic()
    ended = lives.wait(pid)
    assert (ended.get("exit"), ended["balanced"]) == (0, True), ended
    assert not stack.differences(), stack.differences()
    figure(
        "disk full",
        stack=name,
        disk_mib=64 if full else 16,
        rows=stack.rows,
        seconds_to_drain=round(time.monotonic() - began, 2),
        lost=0,
        duplicated=0,
    )
