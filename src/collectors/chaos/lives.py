"""Lives: runs of a pipeline in a child, to their end or to the moment at which they are killed."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from collectors.chaos.forks import Child, Tell, fork, last_line
from collectors.chaos.lost_answers import LostAnswers
from collectors.chaos.moments import Moment, Watch
from collectors.config.model import PipelineConfig
from collectors.crosscutting.event_emitter import EventEmitter
from collectors.enums import EventType
from collectors.models import SystemEvent
from collectors.runtime.engine import Engine
from collectors.runtime.env import Env

__all__ = ["Kill", "Life", "live"]

PATIENCE = 20.0
"""Seconds that a life puts up with a store that is away; scratch stores are not."""


class Kill(Struct, frozen=True):
    """How a life is to end: at a moment, or after so many seconds."""

    moment: Moment | None = None
    after: float | None = None

    def __str__(self) -> str:
        return str(self.moment) if self.moment is not None else f"after {(self.after or 0) * 1000:.1f} ms"

    @classmethod
    def parse(cls, text: str) -> Kill:
        """Return the kill that is written so. Raises ValueError."""
        if match := re.fullmatch(r"after ([\d.]+) ms", text):
            return cls(after=float(match[1]) / 1000)
        if match := re.fullmatch(r"((?:before|behind) .+?)(?:, time (\d+))?", text):
            return cls(Moment(match[1], int(match[2] or 1)))
        raise ValueError("expected a crash point as chaos shows them, or `after 12.5 ms`")


class Life(Struct):
    """What became of one life.

    `recovered`: seconds to its first commit; `unanswered`: commits whose answer got lost; `passed`: its moments, when
    watched.
    """

    ended: Literal["done", "killed", "failed", "stuck"]
    seconds: float
    recovered: float | None = None
    unanswered: int = 0
    report: dict[str, Any] | None = None
    problem: str = ""
    passed: dict[str, int] | None = None


class _Hasty(Env):
    """Waits for less than a second are over at once: back-off has nobody to spare here."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds if seconds >= 1 else min(seconds, 0.005))


def live(
    config: PipelineConfig,
    log: Path,
    *,
    kill: Kill | None,
    limit: float,
    watch: bool = False,
    unanswered: int | None = None,
) -> Life:
    """Run the pipeline in a child until it ends, is killed, or `limit` seconds are over.

    `unanswered`: the answer of this commit gets lost, counted from 1 at each backend.
    """
    kill = kill or Kill()
    watching = Watch(kill.moment) if watch or kill.moment else None
    began = time.monotonic()
    work = _run(config, watching, unanswered, began)
    child = fork(work, log, limit if kill.after is None else kill.after)
    life = Life("done", time.monotonic() - began, **child.told)
    life.ended = _end(child, kill, life)
    if life.ended == "failed":
        life.problem = life.problem or last_line(log) or f"exit code {child.code}"
    return life


def _run(
    config: PipelineConfig, watching: Watch | None, unanswered: int | None, began: float
) -> Callable[[Tell], Coroutine[Any, Any, None]]:
    async def run(tell: Tell) -> None:
        events = EventEmitter()

        async def first_commit(_: SystemEvent) -> None:
            await events.unsubscribe(subscription)
            tell({"recovered": time.monotonic() - began})

        subscription = await events.subscribe(EventType.STORAGE_COMPLETE, first_commit)
        answers = LostAnswers(config, unanswered)
        engine = Engine(answers.config, env=_Hasty(), events=events, patience=PATIENCE)
        if watching:
            watching.begin()
        report = await engine.run()
        if watching:
            watching.end()
            tell({"passed": dict(watching.passed)})
        problems = [f"source '{flow.source}': {flow.error}" for flow in report.failed]
        problems += [notice for flow in report.flows for notice in flow.notices]
        tell({"report": report.as_dict(), "problem": "; ".join(problems), "unanswered": answers.lost})

    return run


def _end(child: Child, kill: Kill, life: Life) -> Literal["done", "killed", "failed", "stuck"]:
    if child.code == -signal.SIGKILL and not child.in_time:
        return "stuck" if kill.after is None else "killed"
    if child.code == -signal.SIGKILL and kill.moment is not None:
        return "killed"
    if child.code != 0 or life.report is None:
        return "failed"
    return "failed" if any(flow["error"] for flow in life.report["flows"]) else "done"
