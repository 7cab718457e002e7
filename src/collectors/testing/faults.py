"""Finds what a component leaves behind: open files, threads, child processes, asyncio tasks."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path

import psutil
from msgspec import Struct

from collectors.workers import resting

__all__ = ["Census", "leaks"]

_OWN_THREADS = ("asyncio_", "MainThread")
"""Workers of the event loop's own pool stay; one that hangs makes `asyncio.run` hang, which a time-out shows."""


class Census(Struct, frozen=True):
    """What this process has open at one moment; to be taken inside the event loop that runs the component."""

    files: Counter[str]
    threads: frozenset[threading.Thread]
    children: frozenset[int]
    tasks: frozenset[asyncio.Task[object]]

    @classmethod
    def take(cls) -> Census:
        """Count."""
        return cls(
            Counter(_open_files()),
            frozenset(each for each in threading.enumerate() if not each.name.startswith(_OWN_THREADS))
            - resting(),
            frozenset(child.pid for child in psutil.Process().children(recursive=True)),
            frozenset(asyncio.all_tasks()),
        )

    def beyond(self, before: Census) -> list[str]:
        """Return what is there now and was not there before, as lines for people."""
        found = [f"open file {name}" for name in (self.files - before.files).elements()]
        found += [f"thread {thread.name}" for thread in self.threads - before.threads]
        found += [f"child process {_describe(pid)}" for pid in self.children - before.children]
        found += [f"task {task.get_coro()!r}" for task in self.tasks - before.tasks]
        return found


async def leaks(before: Census, patience: float = 3.0) -> list[str]:
    """Return what is left beyond `before` once nothing changes any more, or after so many seconds."""
    for _ in range(max(1, int(patience / 0.02))):
        found = Census.take().beyond(before)
        if not found:
            return []
        await asyncio.sleep(0.02)
    return found


def _open_files() -> list[str]:
    """Return what the file descriptors lead to; on systems without /proc their numbers."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return [entry.name for entry in Path("/dev/fd").iterdir()]
    found: list[str] = []
    for entry in list(folder.iterdir()):
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if not target.endswith("/fd"):
            found.append(_without_number(target))
    return found


def _without_number(target: str) -> str:
    """Return `pipe` for `pipe:[4711]`: pipes are counted, since each new one has a new number."""
    return target.partition(":[")[0]


def _describe(pid: int) -> str:
    try:
        return f"{pid} {' '.join(psutil.Process(pid).cmdline())}"
    except psutil.Error:
        return str(pid)
