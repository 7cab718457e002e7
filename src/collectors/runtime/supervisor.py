"""Runs the flows side by side; what fails in one never stops another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from collectors.errors import CollectorsError
from collectors.runtime.flow import Flow
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

    async def run(self, flows: list[Flow]) -> None:
        """Return when every flow has ended; when the time for draining is over, those that have not are cancelled."""
        tasks = [asyncio.create_task(self._run(flow), name=flow.name) for flow in flows]
        expired: asyncio.Task[Any] = asyncio.create_task(self._shutdown.expired.wait())
        running = set(tasks)
        try:
            while running and not expired.done():
                await asyncio.wait({expired, *running}, return_when=asyncio.FIRST_COMPLETED)
                running = {task for task in running if not task.done()}
        finally:
            for task in (expired, *tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, flow: Flow) -> None:
        try:
            await flow.run()
        except asyncio.CancelledError:
            flow.report.status = "stopped"
            raise
        except Exception as error:  # one flow's failure must not reach the others
            flow.report.status = "failed"
            flow.report.error = error
            if not isinstance(error, CollectorsError):
                logger.error("source '%s' stopped", flow.report.source, exc_info=error)
            self._on_failure(flow, error)
        else:
            flow.report.status = "stopped" if self._shutdown.requested.is_set() else "done"
