"""Events for subscribers that can neither slow nor break what they are told about."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from collectors.enums import EventType
from collectors.errors import ConfigurationError, FatalError
from collectors.interfaces.crosscutting import IEventEmitter
from collectors.models import SystemEvent

__all__ = ["EventEmitter"]

logger = logging.getLogger("collectors.events")


class _Subscription(Struct):
    event_type: EventType
    handler: Callable[[SystemEvent], Any]
    queue: deque[SystemEvent]
    dropped: int = 0
    failures: int = 0
    worker: asyncio.Task[None] | None = None


class EventEmitter(IEventEmitter):
    """Each subscription has a queue of its own, of `capacity` events, and a task that empties it, in order.

    `emit` only appends to queues. A sync handler runs in a thread of its own, so that one that hangs takes none
    that others need and does not keep the program from ending. When a handler is too slow its oldest events are
    dropped and counted; when it raises, that is logged and counted and it goes on with the next event.
    The task of a subscription lives only while there is something in its queue, so nothing is left behind.
    """

    def __init__(self, capacity: int = 1000) -> None:
        self._capacity = capacity
        self._subscriptions: dict[str, _Subscription] = {}
        self._closed = False

    async def emit(self, event: SystemEvent) -> None:
        """Queue the event for each subscriber of its type. Raises ValueError for no event, RuntimeError when closed."""
        if not isinstance(event, SystemEvent) or not isinstance(event.event_type, EventType):
            raise ConfigurationError(f"expected a SystemEvent, got {type(event).__name__}")
        if self._closed:
            raise FatalError("the event emitter is closed")
        for subscription in self._subscriptions.values():
            if subscription.event_type is event.event_type:
                if len(subscription.queue) == self._capacity:
                    subscription.dropped += 1
                subscription.queue.append(event)
                if subscription.worker is None or subscription.worker.done():
                    subscription.worker = asyncio.create_task(self._work(subscription))

    async def subscribe(self, event_type: EventType, handler: Callable[[SystemEvent], Any]) -> str:
        """Call `handler`, sync or async, for each event of the type. Raises ValueError for what does not fit."""
        if not isinstance(event_type, EventType):
            raise ConfigurationError(f"expected an EventType, got {event_type!r}")
        if not callable(handler):
            raise ConfigurationError(f"expected a function that takes an event, got {type(handler).__name__}")
        subscription_id = uuid.uuid4().hex
        self._subscriptions[subscription_id] = _Subscription(
            event_type, handler, deque(maxlen=self._capacity)
        )
        return subscription_id

    async def unsubscribe(self, subscription_id: str) -> None:
        """End a subscription; what is in its queue is not delivered. Raises KeyError for an unknown id."""
        subscription = self._subscriptions.pop(subscription_id)
        subscription.queue.clear()
        await _stop(subscription)

    def dropped(self, subscription_id: str) -> int:
        """Return how many events this subscriber was too slow for. Raises KeyError for an unknown id."""
        return self._subscriptions[subscription_id].dropped

    def failures(self, subscription_id: str) -> int:
        """Return how often this subscriber raised. Raises KeyError for an unknown id."""
        return self._subscriptions[subscription_id].failures

    async def drain(self) -> None:
        """Wait until everything that was emitted is delivered; called by a handler, to the other handlers."""
        mine = asyncio.current_task()
        while workers := [
            worker
            for worker in (subscription.worker for subscription in self._subscriptions.values())
            if worker is not None and worker is not mine and not worker.done()
        ]:
            await asyncio.wait(workers)

    async def close(self) -> None:
        """End all subscriptions; `emit` raises from now on. Call `drain` first to have the rest delivered."""
        self._closed = True
        for subscription_id in list(self._subscriptions):
            await self.unsubscribe(subscription_id)

    async def _work(self, subscription: _Subscription) -> None:
        while subscription.queue:
            event = subscription.queue.popleft()
            try:
                if inspect.iscoroutinefunction(subscription.handler):
                    await subscription.handler(event)
                else:
                    result = await _in_thread(subscription.handler, event)
                    if inspect.isawaitable(result):
                        await result
            except Exception:
                subscription.failures += 1
                logger.exception("a subscriber of %s events failed", event.event_type.value)


async def _in_thread(handler: Callable[[SystemEvent], Any], event: SystemEvent) -> Any:
    """Call a handler in a thread that is not waited for at the end of the program, and return what it returns."""
    loop = asyncio.get_running_loop()
    returned: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if returned.cancelled():
            return
        if error is None:
            returned.set_result(result)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            returned.set_exception(error)
        else:  # a StopIteration cannot be the outcome of a future, and sys.exit() must not end the loop
            returned.set_exception(FatalError(repr(error)))

    def call() -> None:
        result, problem = None, None
        try:
            result = handler(event)
        except BaseException as error:  # noqa: BLE001  # it is raised again where the event is delivered
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop was closed while the handler ran
            loop.call_soon_threadsafe(settle, result, problem)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(call,), name="event handler", daemon=True).start()
    return await returned


async def _stop(subscription: _Subscription) -> None:
    worker = subscription.worker
    if worker is not None and worker is not asyncio.current_task() and not worker.done():
        worker.cancel()
        await asyncio.wait([worker])
