"""How the managers tell what happens: events to an emitter, errors to a handler."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from collectors.enums import EventType
from collectors.errors import to_info
from collectors.interfaces.crosscutting import IErrorHandler, IEventEmitter
from collectors.models import SystemEvent

__all__ = ["Reporter"]

logger = logging.getLogger("collectors.reporting")


class Reporter:
    """Reports for one layer; emitter or handler may be None.

    What they raise is logged and goes no further: it must not break what it is told about.
    """

    def __init__(
        self,
        layer: str,
        events: IEventEmitter | None,
        errors: IErrorHandler | None,
        now: Callable[[], datetime],
    ) -> None:
        self._layer = layer
        self._events = events
        self._errors = errors
        self._now = now

    async def event(self, event_type: EventType, source: str, data: dict[str, Any]) -> None:
        """Emit an event of the component `source`."""
        if self._events is None:
            return
        try:
            await self._events.emit(SystemEvent(event_type, self._now(), source, data))
        except Exception:  # what has happened has happened: a caller who saw this raise would do it twice
            logger.exception("cannot report %s of '%s'", event_type.value, source)

    async def error(self, error: Exception, operation: str, source: str, data: dict[str, Any]) -> None:
        """Emit ERROR_OCCURRED and hand the error over as `ErrorInfo`, with `source` in its details."""
        info = to_info(error, layer=self._layer, operation=operation, source=source)
        await self.event(
            EventType.ERROR_OCCURRED, source, {**data, "operation": operation, "message": info.message}
        )
        if self._errors is None:
            return
        try:
            await self._errors.handle_error(info)
        except Exception:  # a pager out of reach must not hide the error that it was to report
            logger.exception("no handler for: %s", info.message)
