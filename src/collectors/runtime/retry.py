"""What to do about an error: again (when), aside, or stop. Nothing else in the package decides that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from collectors.errors import DataError, TransientError
from collectors.runtime.env import Env

__all__ = ["Backoff", "Patience", "decide"]

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 60.0

Patience = Callable[[], float | None]
"""Says how long, in seconds, failures in a row are put up with from now on; None: for ever."""


def decide(error: BaseException) -> Literal["again", "aside", "stop"]:
    """Return what to do next. An exception that is none of ours means stop."""
    if isinstance(error, DataError):
        return "aside"
    if isinstance(error, TransientError):
        return "again"
    return "stop"


class Backoff:
    """How long to wait before the next try: up to 0.5 s, doubling to 60 s, each time a random part of it.

    "Full jitter": Marc Brooker, Exponential Backoff and Jitter, AWS Architecture Blog, 2015.
    `patience` is asked at each failure; its time begins with the first one at which it does not say for ever.
    """

    def __init__(self, env: Env, patience: Patience) -> None:
        self._env = env
        self._patience = patience
        self.failures = 0
        self._since: float | None = None

    def succeeded(self) -> None:
        """Begin anew at the next failure."""
        self.failures = 0

    def failed(self, error: BaseException) -> float | None:
        """Return the seconds to wait after this failure, or None when patience is at its end."""
        patience, now = self._patience(), self._env.monotonic()
        if self.failures == 0 or patience is None:
            self._since = None
        self.failures += 1
        if patience is not None:
            self._since = now if self._since is None else self._since
            if now - self._since >= patience:
                return None
        asked = getattr(error, "retry_after", None)
        if asked is not None:
            return float(asked)
        ceiling = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(self.failures - 1, 20))
        return float(ceiling * self._env.random())
