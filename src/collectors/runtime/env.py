"""The runtime's only way to the world: clocks, randomness, threads, files, signals.

Everything else under `runtime/` takes an `Env` and imports neither time nor random nor threads itself, so that a
simulation can run the same code with a clock that it moves and faults that it plans.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

from collectors.runtime._sleeping import Sleeping
from collectors.storage.files import make_folders
from collectors.workers import Workers

__all__ = ["Env"]

Result = TypeVar("Result")


class Env:
    """The real world. A test hands in a subclass that overrides what it wants to steer."""

    def __init__(self) -> None:
        self._workers: Workers | None = None
        self._sleeping: Sleeping | None = None

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back; every interval is measured with it."""
        return time.monotonic()

    def now(self) -> datetime:
        """Return the time of day in UTC; it is data, nothing is ever timed with it."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        if self._sleeping is None or self._sleeping.loop is not asyncio.get_running_loop():
            self._sleeping = Sleeping()
        await self._sleeping.sleep(seconds)

    def random(self) -> float:
        """Return a number from 0 up to 1."""
        return random.random()  # noqa: S311  # jitter, nothing secret

    def new_id(self) -> str:
        """Return a name that no other run has: it begins with the time, so that names sort by age."""
        return f"{self.now():%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"

    async def in_thread(self, function: Callable[..., Result], *args: Any) -> Result:
        """Run a function in a worker thread; there is one a core, and one for waiting."""
        if self._workers is None:
            self._workers = Workers("collectors", (os.cpu_count() or 1) + 1)
        return await self._workers.call(function, *args)

    def own_threads(self, name: str, most: int = 1) -> Workers:
        """Return worker threads for something of its own, or that must stay in one; their owner closes them."""
        return Workers(name, most)

    def peak_memory(self) -> int:
        """Return the largest resident size of this process so far, in bytes."""
        import resource

        # On Linux ru_maxrss begins with the size of the process that started this one.
        status = Path("/proc/self/status")
        if status.exists():
            return int(status.read_bytes().split(b"VmHWM:")[1].split()[0]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def memory(self) -> int:
        """Return the resident size of this process now, in bytes."""
        import psutil

        return int(psutil.Process().memory_info().rss)

    def lock(self, path: Path) -> IO[str] | str:
        """Lock a file, made with its folder where missing, until it is closed or the process dies.

        Returns the open file, or what the process that has it locked has written into it: who it is, since when. The
        folder, and all that gets into it, is for this user alone.
        """
        make_folders(path.parent.parent)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read()
            file.close()
            return owner
        file.truncate(0)
        file.write(f"process {os.getpid()}, since {self.now():%Y-%m-%d %H:%M:%S} UTC")
        file.flush()
        return file

    def on_signals(self, handler: Callable[[], None], *names: str) -> Callable[[], None]:
        """Call the handler for these signals, SIGINT and SIGTERM unless told otherwise; returns what undoes it.

        SIGHUP on a terminal is left alone: there it means that the terminal was closed.
        """
        loop = asyncio.get_running_loop()
        signals = [signal.Signals[name] for name in names or ("SIGINT", "SIGTERM")]
        if signal.SIGHUP in signals and sys.stderr is not None and sys.stderr.isatty():
            signals.remove(signal.SIGHUP)
        try:
            for number in signals:
                loop.add_signal_handler(number, handler)
        except (ValueError, RuntimeError, NotImplementedError):
            return lambda: None  # not in the main thread: whoever runs us there stops us by `Engine.stop`

        def undo() -> None:
            for number in signals:
                loop.remove_signal_handler(number)

        return undo

    def close(self) -> None:
        """Let the worker threads end."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.close()
