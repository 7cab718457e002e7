"""The moments at which a process touches the world: before and behind each call into the operating system or a store.

A moment is named by its call and the line it stands on, and counted; so the same one can be found again in another
life of the same pipeline. Calls that only read are left out: dying before one is the same as dying behind the last
one that wrote.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from types import BuiltinFunctionType, FrameType, ModuleType
from typing import Any

from msgspec import Struct

__all__ = ["Moment", "Watch"]

_READING = """
stat lstat fstat statvfs access scandir listdir readlink fspath getpid getcwd urandom cpu_count getuid uname getenv strerror
read readinto readline readlines pread tell seek fileno isatty readable writable seekable
fetchone fetchall fetchmany create_function interrupt set_blocking __enter__ _path_normpath
""".split()  # noqa: SIM905  # a list of words is easier to read
_WORLD = """
posix _io _sqlite3 sqlite3 _socket fcntl
""".split()  # noqa: SIM905
"""Modules of Python whose functions and objects reach out of the process."""
_UNSEEN = {"duckdb", "psycopg"}
"""Clients whose functions the interpreter does not report; the functions of modules that import one stand for them."""
_INNER = """
asyncio concurrent selectors threading logging importlib zipimport
collectors.chaos.forks collectors.chaos.lives collectors.chaos.recordings
""".split()  # noqa: SIM905
"""Modules whose calls move nothing but the process itself."""


class Moment(Struct, frozen=True, order=True):
    """The `count`-th time, from 1, that a life passes a place."""

    place: str
    count: int

    def __str__(self) -> str:
        return self.place + (f", time {self.count}" if self.count > 1 else "")


class Watch:
    """A profile function for all threads that counts the moments of this process, and ends it at one of them."""

    def __init__(self, kill_at: Moment | None = None, dying: Callable[[], None] = lambda: None) -> None:
        self.passed: Counter[str] = Counter()
        self._kill_at = kill_at
        self._dying = dying
        self._lock = threading.Lock()
        self._kinds: dict[type, bool] = {}
        self._modules: dict[str, bool] = {}

    def begin(self) -> None:
        """Watch this thread and those that are started from now on."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def end(self) -> None:
        """Stop watching."""
        sys.setprofile(None)
        threading.setprofile(None)

    def _profile(self, frame: FrameType, event: str, function: Any) -> None:
        """Take note of a call or a return; `function` is the one that is called when it is none of Python's."""
        if event.startswith("c_"):
            caller, name = frame, getattr(function, "__name__", "")
            if name in _READING or not self._reaches_out(function):
                return
        else:
            name = frame.f_code.co_name
            if frame.f_back is None or name.startswith(("_", "<")) or not self._uses_unseen(frame.f_globals):
                return
            caller = frame.f_back
        module = str(caller.f_globals.get("__name__", ""))
        if not module.startswith(tuple(_INNER)):
            when = "before" if event in {"c_call", "call"} else "behind"
            self._pass(f"{when} {name} in {caller.f_code.co_name} ({module}:{caller.f_lineno})")

    def _uses_unseen(self, names: dict[str, Any]) -> bool:
        module = str(names.get("__name__", ""))
        if module not in self._modules:
            imported = {value.__name__ for value in list(names.values()) if isinstance(value, ModuleType)}
            self._modules[module] = not _UNSEEN.isdisjoint(imported)
        return self._modules[module]

    def _reaches_out(self, function: Any) -> bool:
        owner = getattr(function, "__self__", None)
        if isinstance(owner, ModuleType):
            return owner.__name__ in _WORLD
        if owner is None:
            return isinstance(function, BuiltinFunctionType) and str(function.__module__) in _WORLD
        kind = type(owner)
        if kind not in self._kinds:
            in_memory = isinstance(owner, (io.BytesIO, io.StringIO))
            roots = {base.__module__.partition(".")[0] for base in kind.__mro__}
            self._kinds[kind] = not in_memory and not roots.isdisjoint(_WORLD)
        return self._kinds[kind]

    def _pass(self, place: str) -> None:
        with self._lock:
            self.passed[place] += 1
            if self._kill_at is None or (place, self.passed[place]) != (
                self._kill_at.place,
                self._kill_at.count,
            ):
                return
            self._dying()
            os.kill(os.getpid(), signal.SIGKILL)
