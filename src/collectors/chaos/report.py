"""What a trial found, for people and for programs."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from msgspec import Struct, field

from collectors.chaos.oracle import LETTERS, Difference

__all__ = ["Broken", "Promise", "Report"]

SHOWN_ROWS = 5


class Promise(Struct, frozen=True):
    """What may happen at one storage."""

    level: str
    may_lose: bool
    may_double: bool


class Broken(Struct, frozen=True):
    """A story in which a promise was broken: where its lives were killed, what went wrong, what differs.

    Story 0 is that of the undisturbed runs.
    """

    story: int
    kills: list[str]
    problem: str
    differences: dict[str, Difference]

    @property
    def title(self) -> str:
        """Say which story it is."""
        killed = f", killed {'; then '.join(self.kills)}" if self.kills else ""
        return f"story {self.story}{killed}" if self.story else "without any kill"

    def lines(self) -> list[str]:
        """Return what differs, with some of the rows."""
        lines = [self.problem] if self.problem else []
        for name, each in self.differences.items():
            for word, rows in (("lost", each.lost), ("doubled", each.doubled), ("unexplained", each.unknown)):
                if rows:
                    lines.append(f"{name}: {rows.total():,} {word}")
                    lines += [
                        f"  {row.decode(errors='replace')}" + (f"  ({count} times)" if count > 1 else "")
                        for row, count in rows.most_common(SHOWN_ROWS)
                    ]
        return lines


class Report(Struct):
    """The figures of a trial so far. `lost` and so on are sums over all stories, by storage."""

    pipeline: str
    seed: int
    wanted: int
    notes: list[str]
    promises: dict[str, Promise]
    records: int = 0
    places: int = 0
    moments: int = 0
    kills: int = 0
    missed: int = 0
    misses_in_a_row: int = 0
    stories: int = 0
    expected: dict[str, int] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    doubled: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)
    by_place: Counter[str] = field(default_factory=Counter)
    at_random: int = 0
    recoveries: list[float] = field(default_factory=list)
    restarts: int = 0
    unanswered: int = 0

    @property
    def held(self) -> bool:
        """Whether everything was kept that was promised."""
        return not self.broken

    @property
    def recovery(self) -> tuple[float, float] | None:
        """Median and maximum of the seconds from a restart to its first commit."""
        return (statistics.median(self.recoveries), max(self.recoveries)) if self.recoveries else None

    @property
    def set_aside(self) -> int:
        """How many dead letters an undisturbed run makes."""
        return self.expected.get(LETTERS, 0)

    def add_kill(self, place: str | None) -> None:
        """Count a kill that came about."""
        self.kills += 1
        self.misses_in_a_row = 0
        if place is None:
            self.at_random += 1
        else:
            self.by_place[place] += 1

    def add_miss(self) -> None:
        """Count a kill that did not come about: its life ended before its moment came."""
        self.missed += 1
        self.misses_in_a_row += 1

    def recovered(self, seconds: float | None) -> None:
        """Count a restart; `seconds` to its first commit, None when it had nothing to store any more."""
        self.restarts += 1
        if seconds is not None:
            self.recoveries.append(seconds)

    def add(self, differences: dict[str, Difference]) -> None:
        """Add what one story found."""
        for name, each in differences.items():
            self.expected[name] = each.expected
            self.lost[name] += each.lost.total()
            self.doubled[name] += each.doubled.total()
            self.unknown[name] += each.unknown.total()

    def as_dict(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return {
            "pipeline": self.pipeline,
            "seed": self.seed,
            "held": self.held,
            "notes": self.notes,
            "records": self.records,
            "kills": self.kills,
            "kills_wanted": self.wanted,
            "kills_at_random_times": self.at_random,
            "kills_that_did_not_come_about": self.missed,
            "kills_by_place": dict(sorted(self.by_place.items())),
            "places": self.places,
            "moments": self.moments,
            "restarts": self.restarts,
            "commits_without_answer": self.unanswered,
            "stories": self.stories,
            "storage": {
                name: {
                    "promise": promise.level,
                    "expected": self.expected.get(name, 0),
                    "lost": self.lost[name],
                    "duplicated": self.doubled[name],
                    "unexplained": self.unknown[name],
                    "may_lose": promise.may_lose,
                    "may_double": promise.may_double,
                }
                for name, promise in self.promises.items()
            },
            "recovery_seconds": dict(zip(("p50", "max"), self.recovery, strict=True))
            if self.recovery
            else None,
            "broken": [
                {"story": each.story, "kills": each.kills, "what": each.lines()} for each in self.broken
            ],
        }
