"""Kills a process at every moment at which a backend touches the world, and looks what is left.

A moment is a call from the backend's thread into the operating system, a file, SQLite or DuckDB, other than to read, or
to wait for a server that it has just told something. For each one a process is forked that stores a few deliveries and
is killed by SIGKILL just before that call; a second one then takes the flow over, stores what is missing in one delivery
(the runtime may group chunks in another way after a crash), and compares. Runs in a process of its own, which forks
before any thread exists.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from collectors import registry
from collectors.storage.base import KeepsDeadLetters
from collectors.testing.deliveries import delivery, everything

__all__ = ["find_crash_losses"]

FLOW = "contract/source"
CHUNKS = 3
_MOST_LOSSES = 5
_READING = {
    "stat",
    "lstat",
    "fstat",
    "access",
    "scandir",
    "listdir",
    "readlink",
    "fspath",
    "getpid",
    "read",
    "fetchone",
    "fetchall",
}
_OUTSIDE = (sqlite3.Connection, sqlite3.Cursor, io.IOBase, socket.socket, type(select.poll()))
_UNSEEN = {
    *(
        ("collectors.storage.backends._duckdb_file", f"Connection.{name}")
        for name in ("execute", "insert", "close")
    ),
    *(
        ("collectors.storage.backends._object_store_client", f"Objects.{name}")
        for name in ("put_new", "put", "upload", "delete")
    ),
}
"""Functions of ours that call outside in a way that Python's profiler is not told of."""


def find_crash_losses(component: str, settings: dict[str, Any], folder: Path) -> tuple[int, list[str]]:
    """Return how many moments there were, and a line for each after which rows, letters or the position were wrong.

    The text `{folder}` in the settings is replaced by a new folder for every moment, `{moment}` by its number.
    """
    order = json.dumps({"component": component, "settings": settings, "folder": str(folder)})
    done = subprocess.run(
        [sys.executable, "-c", "from collectors.testing.crashes import _main; _main()"],
        input=order,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the processes to be killed could not be run: {done.stderr}")
    answer = json.loads(done.stdout)
    return answer["moments"], answer["losses"]


def _main() -> None:
    order = json.load(sys.stdin)
    component = order["component"]
    registry.find("backend", component)  # before the first fork, so that no child has to import it
    gc.disable()
    gc.freeze()  # a collection in a child would copy every page
    losses: list[str] = []
    for moment in count(1):
        home = Path(order["folder"]) / f"moment-{moment}"
        home.mkdir()
        text = json.dumps(order["settings"]).replace("{folder}", str(home)).replace("{moment}", str(moment))
        settings = json.loads(text)
        ended = _in_child(lambda: _store(component, settings, home, moment), home)  # noqa: B023  # ends before the next
        if ended in {0, -signal.SIGKILL}:
            ended_again = _in_child(lambda: _take_over(component, settings), home)  # noqa: B023
        if ended not in {0, -signal.SIGKILL} or ended_again != 0:
            problem = (home / "problem").read_text(encoding="utf-8")
            losses.append(f"moment {moment}, before {_last_call(home)}: {problem}")
        if ended == 0 or len(losses) >= _MOST_LOSSES:
            json.dump({"moments": moment, "losses": losses}, sys.stdout)
            return


def _in_child(work: Callable[[], None], home: Path) -> int:
    """Return the exit code of a forked process that does the work; what went wrong there is in the file `problem`."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001  # told to the parent
            (home / "problem").write_text(traceback.format_exc(), encoding="utf-8")
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _store(component: str, settings: dict[str, Any], home: Path, moment: int) -> None:
    threading.setprofile(_Killer(home / "moment", moment))
    asyncio.run(_deliver(registry.create("backend", component, settings), at_once=False))


async def _deliver(backend: Any, *, at_once: bool) -> None:
    """Take the flow over and store what is missing of it, chunk by chunk or in one delivery."""
    await backend.connect()
    checkpoint = await backend.call(backend.claim, FLOW)
    missing = range(checkpoint.seq + 1, CHUNKS + 1)
    for first, last in [(missing[0], CHUNKS)] if at_once and missing else [(seq, seq) for seq in missing]:
        await backend.call(backend.commit, delivery(first, last, checkpoint.epoch, flow=FLOW))
    await backend.call(backend.flush)
    await backend.disconnect()


def _take_over(component: str, settings: dict[str, Any]) -> None:
    async def main() -> None:
        backend: Any = registry.create("backend", component, settings)
        keeps_letters = isinstance(backend, KeepsDeadLetters)
        await _deliver(backend, at_once=True)
        await backend.connect()
        rows = sorted(row["n"] for row in await backend.query(everything()))
        expected = delivery(1, CHUNKS).table.column("n").to_pylist()
        if rows != expected:
            raise AssertionError(f"rows {rows}, expected {expected}")
        checkpoint = await backend.call(backend.stored, FLOW)
        if (checkpoint.seq, checkpoint.position) != (CHUNKS, delivery(1, CHUNKS).position):
            raise AssertionError(f"{checkpoint}")
        if keeps_letters:
            letters = await backend.call(lambda: [letter.seq for letter in backend.dead_letters("contract")])
            if letters != list(range(1, CHUNKS + 1)):
                raise AssertionError(f"letters of the chunks {letters}")
        await backend.disconnect()

    asyncio.run(main())


class _Killer:
    """A profile function that kills the process before the call with this number."""

    def __init__(self, note: Path, moment: int) -> None:
        self._note = os.open(note, os.O_CREAT | os.O_WRONLY)
        self._left = moment

    def __call__(self, frame: FrameType, event: str, function: Any) -> None:
        if not threading.current_thread().name.startswith("backend-"):
            return
        if event == "c_call":
            owner, name = getattr(function, "__self__", None), function.__qualname__
            outside = getattr(owner, "__name__", "") == "posix" or isinstance(owner, _OUTSIDE)
            if not outside or function.__name__ in _READING:
                return
        else:
            name = frame.f_code.co_qualname
            if event != "call" or (frame.f_globals.get("__name__"), name) not in _UNSEEN:
                return
        self._left -= 1
        if self._left == 0:
            place = f"{name} in {frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
            os.write(self._note, place.encode())
            os.kill(os.getpid(), signal.SIGKILL)


def _last_call(home: Path) -> str:
    return (home / "moment").read_text(encoding="utf-8") or "the end"
