"""What the hops of a flow share, and the one way in which they try again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from collectors.chunks import Drift
from collectors.errors import TransientError
from collectors.runtime.env import Env
from collectors.runtime.preparing import Letters
from collectors.runtime.reading import race
from collectors.runtime.retry import Backoff, Patience
from collectors.runtime.shutdown import Shutdown
from collectors.runtime.state import State

__all__ = ["Hooks"]

Result = TypeVar("Result")


class Hooks(Struct, frozen=True):
    """What a flow's hops share: the world, the stop, the state file, how long failures are put up with.

    `linger` is how many seconds a source lets small pieces gather that come again and again.
    `notify` is told what is wrong with the storage, or None when that is over; `notify_reading` the same of the source.
    `tell_drifts` is told how the rows of a commit differ from a table, each difference once.
    """

    env: Env
    shutdown: Shutdown
    state: State
    letters: Letters
    patience: Patience
    linger: float
    notify: Callable[[str | None], None]
    notify_reading: Callable[[str | None], None]
    tell_drifts: Callable[[Sequence[Drift]], None]

    async def retrying(self, attempt: Callable[..., Awaitable[Result]], *args: Any) -> Result:
        """Attempt until it works, patience is at its end, or the time for draining is over."""
        backoff = Backoff(self.env, self.patience)
        while True:
            try:
                result = await attempt(*args)
            except TransientError as error:
                wait = backoff.failed(error)
                if wait is None or self.shutdown.expired.is_set():
                    raise
                self.notify(f"{error}; trying again in {wait:.1f} s")
                await race(self.env.sleep(wait), self.shutdown.expired)
            else:
                if backoff.failures:
                    self.notify(None)
                return result
