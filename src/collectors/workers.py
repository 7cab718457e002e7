"""Threads for calls that block: the event loop hands them over, and is woken once for all that have ended meanwhile.

What `loop.run_in_executor` does, at a fraction of the cost where many small calls are under way at a time: a call is one
entry in a queue, and results that come while the loop is busy wake it once.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary, WeakSet, ref

__all__ = ["Workers", "in_thread", "resting"]

Result = TypeVar("Result")
Job = tuple["_Landing", "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]

AT_ONCE = 2
PATIENCE_SECONDS = 0.005
BLOCKED_SECONDS = 0.05
IDLE_SECONDS = 30.0


class Workers:
    """Worker threads; at most so many, or as many as are needed for calls that block for as long as they like.

    Without a limit there are `at_once` at first; further ones start when calls have waited for some milliseconds, and end
    when there was nothing to do for half a minute. Calls under way, but for those without a limit, are waited for at
    the end of the process.
    """

    def __init__(self, name: str, most: int | None = 1, at_once: int = AT_ONCE) -> None:
        self.name = name
        self.most = most
        self.at_once = at_once if most is None else most
        self.closed = False
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self.idle: set[threading.Thread] = set()
        self._made = self._count = 0
        self._moved = 0.0
        self._landing: _Landing | None = None
        _open.add(self)

    def call(self, function: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:
        """Run the function in one of the threads; one that is cancelled before it began is left out.

        A loop that has `run_in_workers`, as a simulation's has, is asked instead. Raises RuntimeError when closed.
        """
        if self.closed:
            raise RuntimeError(f"the workers {self.name} are closed")
        loop = asyncio.get_running_loop()
        own = getattr(loop, "run_in_workers", None)
        if own is not None:
            return cast("asyncio.Future[Result]", own(self, function, *args))
        landing = self._landing
        if landing is None or landing.of() is not loop:
            landing = self._landing = _landing_of(loop)
        future: asyncio.Future[Result] = loop.create_future()
        self._jobs.put((landing, future, function, args))
        # One that is idle may have been given a call and not have woken yet.
        if self._jobs.qsize() > len(self.idle):
            if len(self._threads) < self.at_once:
                self._start()
            elif self.most is None and self not in landing.looking:
                self._moved = loop.time()
                self._look_again(landing)
        return future

    def close(self, *, wait: bool = True) -> None:
        """End the threads behind the calls that are there already; with `wait`, return when they have."""
        self.closed = True
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._jobs.put(None)
        for thread in threads if wait else ():
            thread.join()

    def forget_threads(self) -> None:
        """Begin anew: they, and whatever they were about to do, are another process's."""
        self._jobs, self._lock, self._landing = SimpleQueue(), threading.Lock(), None
        self._threads, self.idle = set(), set()

    def _start(self, count: int = 1) -> None:
        for _ in range(count):
            with self._lock:
                self._made += 1
                thread = threading.Thread(target=self._work, name=f"{self.name}_{self._made}", daemon=True)
                self._threads.add(thread)
            thread.start()

    def _look_again(self, landing: _Landing) -> None:
        """See in a moment whether calls still wait because those under way block: then threads are missing.

        They do when none has ended for long, or when the process had little to do meanwhile. Where it had much, further
        threads would only take turns from the event loop.
        """
        landing.looking.add(self)
        loop, before = asyncio.get_running_loop(), self._count
        since, busy = loop.time(), time.process_time()

        def look() -> None:
            landing.looking.discard(self)
            waiting = self._jobs.qsize()
            if not waiting or self.closed:
                return
            missing, now = waiting - len(self.idle), loop.time()
            if self._count != before:
                self._moved = now
            if missing > 0 and now - self._moved > BLOCKED_SECONDS:
                self._start(min(missing, len(self._threads)))
            elif missing > 0 and time.process_time() - busy < (now - since) / 2:
                self._start()
            self._look_again(landing)

        loop.call_later(PATIENCE_SECONDS, look)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            landing, future, function, args = job
            if not future.done():
                result, error = _outcome(function, args)
                self._count += 1
                landing.bring(future, result, error)
            del job, landing, future, function, args
            result = error = None  # a thread that waits keeps nothing in memory
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _next(self) -> Job | None:
        try:
            return self._jobs.get_nowait()
        except Empty:
            pass
        thread = threading.current_thread()
        with self._lock:
            self.idle.add(thread)
        found: list[Job | None] = []
        with suppress(Empty):
            found.append(self._jobs.get(timeout=IDLE_SECONDS if self.most is None else None))
        with self._lock:
            self.idle.discard(thread)
        with suppress(Empty):  # it may have come just now, for a thread that still counted as idle
            return found[0] if found else self._jobs.get_nowait()
        return None


class _Landing:
    """Where the results come back that one event loop waits for, from all its workers; `looking` are who looks again."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.of = ref(loop)  # which is the key of what this is kept in
        self.looking: set[Workers] = set()
        self._ended: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._woken = False

    def bring(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """Hand a result over, from any thread."""
        self._ended.append((future, result, error))
        if not self._woken:
            self._woken = True
            try:
                future.get_loop().call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the event loop is closed: nobody waits any more
                self.forget()

    def forget(self) -> None:
        """Let go of what came too late: it would keep the loop in memory."""
        self._ended.clear()

    def _deliver(self) -> None:
        self._woken = False  # before looking: what comes from now on wakes anew
        while self._ended:
            future, result, error = self._ended.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _landing_of(loop: asyncio.AbstractEventLoop) -> _Landing:
    landing = _landings.get(loop)
    if landing is None:
        for over in [each for each in list(_landings) if each.is_closed()]:
            if (late := _landings.pop(over, None)) is not None:
                late.forget()
        landing = _landings[loop] = _Landing(loop)
    return landing


def _outcome(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    try:
        return function(*args), None
    except StopIteration as error:  # a future cannot have it
        stopped = RuntimeError(f"{function!r} raised StopIteration")
        stopped.__cause__ = error
        return None, stopped
    except BaseException as error:  # noqa: BLE001  # the caller's, whatever it is
        return None, error


def resting() -> set[threading.Thread]:
    """Return the threads without a limit that have nothing to do and will end by themselves."""
    return {thread for workers in list(_open) if workers.most is None for thread in list(workers.idle)}


_open: WeakSet[Workers] = WeakSet()
_landings: WeakKeyDictionary[asyncio.AbstractEventLoop, _Landing] = WeakKeyDictionary()
_sources = Workers("source", most=None, at_once=min(32, (os.cpu_count() or 1) + 4))


def in_thread(function: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:
    """Run what blocks, for as long as it likes, in a thread, as `asyncio.to_thread` does; for whoever reads a source."""
    return _sources.call(copy_context().run, function, *args)


def _begin_anew() -> None:
    """In a forked child there are none of the threads."""
    _landings.clear()
    for workers in list(_open):
        workers.forget_threads()


os.register_at_fork(after_in_child=_begin_anew)


@atexit.register
def _close_all() -> None:
    for workers in list(_open):
        if workers.most is not None and not workers.closed:
            workers.close()
