"""Runs the flows side by side; what fails in one never stops another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from collectors.errors import CollectorsError, TransientError
from collectors.runtime.flow import Flow
from collectors.runtime.reading import race
from collectors.runtime.shutdown import Shutdown

__all__ = ["Supervisor"]

logger = logging.getLogger(__name__)


class Supervisor:
    """Runs flows until all have ended.

    Failures that may pass are put up with inside a flow, with back-off. What reaches the supervisor ends that flow:
    it is noted in the flow's report and told to `on_failure`, and the others go on.
    """

    def __init__(self, shutdown: Shutdown, on_failure: Callable[[Flow, Exception], None]) -> None:
        self._shutdown = shutdown
        self._on_failure = on_failure
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._holds = 0
        self._changed = asyncio.Event()

    def start(self, flow: Flow) -> None:
        """Let a flow run; the one before it of the same name must have ended."""
        task = self._tasks[flow.name] = asyncio.create_task(self._run(flow), name=flow.name)
        self._running.add(task)
        task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._changed.set()

    async def ended(self, name: str) -> None:
        """Wait for the end of a flow, which it was asked for, and forget it."""
        task = self._tasks.get(name)
        if task is not None:
            await asyncio.wait({task})
            del self._tasks[name]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Do not return from `run` for now, although no flow may run: there will be others."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._changed.set()

    async def run(self, flows: list[Flow]) -> None:
        """Start flows and return when every one has ended; when the time for draining is over, those that have not are cancelled."""
        for flow in flows:
            self.start(flow)
        try:
            await race(self._all_ended(), self._shutdown.expired)
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _all_ended(self) -> None:
        while self._running or self._holds:
            self._changed.clear()
            await self._changed.wait()

    async def _run(self, flow: Flow) -> None:
        try:
            await flow.run()
        except asyncio.CancelledError:
            flow.report.status = "stopped"
            raise
        except Exception as error:  # one flow's failure must not reach the others
            # What was away at the deadline, when the last try was under way, is no failure of the run.
            if isinstance(error, TransientError) and flow.expired:
                flow.report.status = "stopped"
                return
            flow.report.status = "failed"
            flow.report.error = error
            if not isinstance(error, CollectorsError):
                logger.error("source '%s' stopped", flow.report.source, exc_info=error)
            self._on_failure(flow, error)
        else:
            flow.report.status = "stopped" if flow.stopping else "done"
