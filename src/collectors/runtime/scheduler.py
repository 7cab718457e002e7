"""When a source reads again after `read` has returned: after an interval, at cron's times, or never."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from collectors.collection.base import Source
from collectors.errors import ConfigurationError
from collectors.runtime.env import Env

__all__ = ["Schedule", "check_schedule", "is_endless"]


def check_schedule(source: Source[Any]) -> None:
    """Raise ConfigurationError when the source's schedule makes no sense."""
    if source.config.cron is None:
        return
    if source.config.every is not None:
        raise ConfigurationError(
            f"source '{source.get_source_id()}': give either `every` or `cron`, not both"
        )
    from cronsim import CronSim, CronSimError

    try:
        CronSim(source.config.cron, datetime(2026, 1, 1).astimezone())
    except CronSimError as error:
        raise ConfigurationError(
            f"source '{source.get_source_id()}': cron '{source.config.cron}': {error}; "
            "expected five fields: minute hour day month weekday"
        ) from error


def is_endless(source: Source[Any]) -> bool:
    """Return whether the source goes on until a stop is asked for, by its kind or its schedule."""
    return source.endless or source.config.cron is not None or source.poll_interval() is not None


class Schedule:
    """The readings of one source: for the one that reads it, who says when one begins and asks when one has ended.

    With an interval they are due at fixed times from the first one on, however long each takes. What was due before the
    one under way had ended is left out and told to `count_missed`: there is nothing to be read of a time that is over.
    """

    def __init__(self, source: Source[Any], env: Env, count_missed: Callable[[int], None]) -> None:
        self._source = source
        self._env = env
        self._count_missed = count_missed
        self._due: float | None = None

    def begin(self, *, anew: bool) -> None:
        """Note that a reading begins; with `anew`, and for the first one, the times are counted from it on."""
        if anew or self._due is None:
            self._due = self._env.monotonic()

    def seconds_to_next(self) -> float | None:
        """Return how long to wait before the next reading; None: there is none, the source has ended.

        Cron's times are local time; cronsim fires once where clocks go back and once where they go forward, given a
        zone that knows when they do.
        """
        jitter = float(self._source.config.jitter * self._env.random())
        if self._source.config.cron is not None:
            return _seconds_to(self._source.config.cron, self._env) + jitter
        interval = self._source.poll_interval()
        if interval is None:
            return None
        now = self._env.monotonic()
        due = now if self._due is None else self._due
        missed, since = divmod(now - due, interval) if interval > 0 else (0.0, 0.0)
        if missed:
            self._count_missed(int(missed))
        self._due = now + interval - since
        return interval - since + jitter


def _seconds_to(cron: str, env: Env) -> float:
    from cronsim import CronSim

    now = env.now().astimezone(_local_zone())
    return max(0.0, float(next(CronSim(cron, now)).timestamp() - now.timestamp()))


def _local_zone() -> tzinfo | None:
    """Return this machine's zone with its changes of clocks; `astimezone()` alone gives today's offset for every day."""
    name = os.environ.get("TZ", "").lstrip(":")
    try:
        if name:
            return ZoneInfo(name)
        with Path("/etc/localtime").open("rb") as file:
            return ZoneInfo.from_file(file, "localtime")
    except (OSError, ValueError):
        return None
