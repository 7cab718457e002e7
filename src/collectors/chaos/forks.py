"""Work done in forked children, so that this process stays clean.

Everything was imported by the parent, so a child costs little more than its work. The parent runs no threads and no
event loop, which no child could use; whatever needs them is done in a child.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from collectors.errors import FatalError

__all__ = ["Child", "Tell", "fork", "in_child", "last_line"]

Tell = Callable[[dict[str, Any]], None]
"""How a child tells its parent something, at once; values are those of JSON."""


class Child(Struct, frozen=True):
    """What a child told, its exit code, and whether it had ended by itself within its time."""

    told: dict[str, Any]
    code: int
    in_time: bool


def fork(
    work: Callable[[Tell], Coroutine[Any, Any, None]], log: Path, limit: float, *, stdin: bool = False
) -> Child:
    """Do the work in a child, which is killed after `limit` seconds. What it prints, and its traceback, is in the log.

    It has no standard input, unless it is to have ours.
    """
    gc.freeze()  # a collection in the child would copy every page
    reading, writing = os.pipe()
    # What a handler raises while Python forks would be dropped.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _be_born(work, log, writing, stdin=stdin)
    os.close(writing)
    gc.unfreeze()
    in_time = False
    parts: list[bytes] = []
    end = time.monotonic() + limit
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        while select.select([reading], [], [], max(0.0, end - time.monotonic()))[0]:
            part = os.read(reading, 2**16)
            if not part:
                in_time = True
                break
            parts.append(part)
    finally:
        if not in_time:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        os.close(reading)
        _, status = os.waitpid(child, 0)
    told: dict[str, Any] = {}
    for line in b"".join(parts).splitlines(keepends=True):
        if line.endswith(b"\n"):
            told |= json.loads(line)
    return Child(told, os.waitstatus_to_exitcode(status), in_time)


def in_child(
    work: Callable[[], Awaitable[dict[str, Any]]], log: Path, *, limit: float = 300.0, stdin: bool = False
) -> dict[str, Any]:
    """Return what the work returns, done in a child. Raises FatalError when it fails or is not done in time."""

    async def run(tell: Tell) -> None:
        tell(await work())

    child = fork(run, log, limit, stdin=stdin)
    if child.code != 0:
        raise FatalError(last_line(log) if child.in_time else f"not done after {limit:g} s")
    return child.told


def last_line(log: Path) -> str:
    """Return the last line of a log: the error of a child that failed."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else ""


def _be_born(
    work: Callable[[Tell], Coroutine[Any, Any, None]], log: Path, writing: int, *, stdin: bool
) -> None:
    """Do the work and leave, without what the parent does at its end."""
    code = 1
    try:
        os.setpgid(0, 0)  # Ctrl-C is for the parent alone
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if not stdin:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        asyncio.run(work(lambda told: _write_line(writing, told)))
        code = 0
    except BaseException as error:  # noqa: BLE001  # told to the parent, by way of the log
        trace = traceback.format_exc()
        os.write(2, f"{trace}\n{type(error).__name__}: {error}\n".encode(errors="replace"))
    finally:
        sys.stdout.flush()
        os._exit(code)


def _write_line(file: int, told: dict[str, Any]) -> None:
    line = json.dumps(told, default=str).encode() + b"\n"
    while line:
        line = line[os.write(file, line) :]
