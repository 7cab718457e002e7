"""When a source reads again after `read` has returned: after an interval, at cron's times, or never."""

from __future__ import annotations

import os
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from collectors.collection.base import Source
from collectors.errors import ConfigurationError
from collectors.runtime.env import Env

__all__ = ["check_schedule", "is_endless", "seconds_to_next"]


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


def seconds_to_next(source: Source[Any], env: Env) -> float | None:
    """Return how long to wait before the next reading; None: there is none, the source has ended.

    Cron's times are local time; cronsim fires once where clocks go back and once where they go forward, given a zone
    that knows when they do.
    """
    jitter = float(source.config.jitter * env.random())
    if source.config.cron is not None:
        from cronsim import CronSim

        now = env.now().astimezone(_local_zone())
        following = next(CronSim(source.config.cron, now))
        return max(0.0, float(following.timestamp() - now.timestamp())) + jitter
    interval = source.poll_interval()
    return None if interval is None else interval + float(jitter)


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
