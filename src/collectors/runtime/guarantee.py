"""What `guarantee` says: how safely each source's records reach each storage, computed from the components.

Nothing is opened. What counts is what a component can do (read again, keep the position in its commit, answer its
senders), never what it is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

from msgspec import Struct

from collectors import registry
from collectors.collection.base import Answers, Source
from collectors.config.model import PipelineConfig, Route
from collectors.errors import ConfigurationError
from collectors.runtime.assembly import make_sources
from collectors.runtime.scheduler import is_endless
from collectors.storage.base import (
    AcknowledgesLater,
    Backend,
    KeepsDeadLetters,
    KeepsPosition,
    SendsAgain,
)

__all__ = ["Guarantee", "Level", "guarantees"]


class Level(Enum):
    """How often a record is stored, whatever happens on its way."""

    EXACTLY_ONCE = "exactly once"
    FROM_HAND_OVER = "exactly once from hand-over"
    FROM_SPOOL = "exactly once from the spool on"
    AT_LEAST_ONCE = "at least once"
    AT_MOST_ONCE = "at most once"


class Guarantee(Struct, frozen=True):
    """One edge: what is promised, with the restriction in `but`; why; what faults do to it; what would be better.

    `may_lose`: a crash can cost records that the source had; `may_double`: it can store some twice.
    """

    source: str
    backend: str
    route: str
    where: str
    level: Level
    but: str | None
    may_lose: bool
    may_double: bool
    why: tuple[str, ...]
    letters: str
    power_cut: str
    disk_full: str
    second_process: str
    better: str | None

    @property
    def promise(self) -> str:
        """The level in words, with its restriction."""
        return self.level.value + (f" ({self.but})" if self.but else "")

    def meets(self, required: Level) -> bool:
        """Return whether this edge is at least as safe: it loses and doubles only where the required level may."""
        order = list(Level)
        if required is Level.AT_LEAST_ONCE:
            return not self.may_lose
        return order.index(self.level) <= order.index(required)

    def as_dict(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "source": self.source,
            "storage": self.backend,
            "route": self.route,
            "where": self.where,
            "level": self.level.value,
            "but": self.but,
            "may_lose": self.may_lose,
            "may_double": self.may_double,
            "why": list(self.why),
            "dead_letters": self.letters,
            "power_cut": self.power_cut,
            "disk_full": self.disk_full,
            "second_process": self.second_process,
            "better": self.better,
        }


def guarantees(config: PipelineConfig) -> list[Guarantee]:
    """Return one guarantee for each way from a source to a backend, in the order of the file."""
    sources = make_sources(config)
    backends = {name: component.make() for name, component in config.backends.items()}
    found = []
    for name, source in sources.items():
        routes = [route for route in config.routes if name in route.sources]
        ends = sum(len(route.backends) for route in routes)
        for route in routes:
            letters = _letters(config, [backends[each] for each in route.backends])
            found += [
                _Edge(config, source, backends[each], route, ends).judge(letters) for each in route.backends
            ]
    return found


class _Edge(Struct, frozen=True):
    config: PipelineConfig
    source: Source[Any]
    backend: Backend[Any]
    route: Route
    ends: int

    @property
    def commits(self) -> bool:
        """Whether the backend keeps the position beside the rows."""
        return isinstance(self.backend, KeepsPosition)

    @property
    def spooled(self) -> bool:
        """Whether records go through the spool."""
        return self.source.needs_spool()

    @property
    def leaks(self) -> bool:
        """Whether something can be lost in front of the spool, since nobody sends it again."""
        nobody_sends_again = not isinstance(self.source, Answers) and bool(self.source.lost_before_spool)
        return self.spooled and nobody_sends_again and not self.replaces

    @property
    def replaces(self) -> bool:
        """Whether each whole reading takes the place of the one before, and one that breaks off is dropped."""
        return bool(self.backend.config.replaces_readings())

    @property
    def falls_behind(self) -> bool:
        """Whether, after a crash, what one backend has and another has not cannot be read once more."""
        return self.ends > 1 and not self.spooled and not hasattr(self.source, "replay")

    @property
    def _doubled(self) -> str:
        if isinstance(self.backend, SendsAgain):
            return "a crash between rows and position sends the rows of one commit again, with the same keys"
        if isinstance(self.backend, AcknowledgesLater):
            return "a crash stores again what the storage had taken and not acknowledged yet"
        return "a crash between rows and position stores the rows of one commit twice"

    def judge(self, letters: str) -> Guarantee:
        """Return the guarantee; `letters` says where those of the route are kept."""
        level, but = self._level()
        return Guarantee(
            source=self.source.get_source_id(),
            backend=self.backend.get_backend_id(),
            route=self.route.name,
            where=self.backend.describe(),
            level=level,
            but=but,
            may_lose=self.leaks or level is Level.AT_MOST_ONCE,
            may_double=level is Level.AT_LEAST_ONCE,
            why=tuple(self._reasons()),
            letters=letters,
            power_cut=self._power_cut(level),
            disk_full=self._disk_full(),
            second_process=self._second_process(),
            better=self._better(),
        )

    def _level(self) -> tuple[Level, str | None]:
        if not self.backend.durable:
            return Level.AT_MOST_ONCE, "exactly once while the process lives; nothing outlives it"
        if self.falls_behind:
            return Level.AT_MOST_ONCE, "a storage that is behind after a crash goes on where the others are"
        if not self.commits:
            but = self._doubled
            lost = f"; before the spool: {self.source.lost_before_spool}" if self.leaks else ""
            repeats = f"; {self.source.may_repeat}" if self.source.may_repeat else ""
            return Level.AT_LEAST_ONCE, but + lost + repeats
        doubled = [each.may_repeat for each in (self.source, self.backend) if each.may_repeat]
        if doubled:
            return Level.AT_LEAST_ONCE, "; ".join(doubled)
        if not self.spooled or self.replaces:
            return Level.EXACTLY_ONCE, None
        if isinstance(self.source, Answers):
            return Level.FROM_HAND_OVER, (
                "senders are answered when their records are in the spool; what one sends again without a key is stored again"
            )
        if not self.leaks:
            return Level.FROM_HAND_OVER, self.source.doubled_before_spool or None
        return Level.FROM_SPOOL, self.source.lost_before_spool

    def _reasons(self) -> Iterator[str]:
        if self.replaces:
            yield "each reading is of everything, and takes the place of the one before when it is whole"
        elif not self.spooled:
            again = ", and may give records again" if self.source.may_repeat else ""
            yield f"the source can be read again from a position{again}"
        elif isinstance(self.source, Answers):
            yield "the source cannot be read again: records go to the spool on disk, then the sender is answered"
        elif not self.leaks:
            yield "the source cannot be read again: records go to the spool on disk, then they are acknowledged"
        else:
            yield "the source cannot be read again: records go to the spool on disk first, and nobody is asked to wait"
        if not self.backend.durable:
            yield "the storage is in the memory of the process"
        elif self.backend.may_repeat:
            yield "the storage keeps the position, and knows rows again that it was given just before"
        elif self.commits:
            yield "the storage keeps rows and position in one commit, and refuses another owner's"
        else:
            when = (
                " once the storage has acknowledged them"
                if isinstance(self.backend, AcknowledgesLater)
                else ""
            )
            yield f"the storage keeps no position: it is written to the state file behind the rows{when}"
        if self.falls_behind:
            yield "the source cannot make the same chunks again for one of several storages"

    def _power_cut(self, level: Level) -> str:
        if not self.backend.durable:
            return "all rows are gone"
        if level is Level.AT_LEAST_ONCE and (self.backend.may_repeat or not self.commits):
            return "rows of the last commits may come twice; how much reached the disk is up to the storage"
        before = f"; before the spool: {self.source.lost_before_spool}" if self.leaks else ""
        return f"as a crash: what was committed stays, the rest is read again{before}"

    def _disk_full(self) -> str:
        if not self.spooled:
            patience = (
                "" if is_endless(self.source) else ", for a minute; then it exits with 1 and can go on later"
            )
            return f"reading waits, and goes on by itself{patience}"
        if isinstance(self.source, Answers):
            return "senders are turned away until there is room; nothing that was answered is dropped"
        if not self.leaks and not self.replaces:
            return (
                "reading pauses until there is room; nothing is acknowledged meanwhile, so nothing is dropped"
            )
        if self.replaces:
            return "reading pauses until there is room, or begins again; the table stays as it was until then"
        return "reading pauses until there is room; what the sender cannot hold back meanwhile is lost"

    def _second_process(self) -> str:
        here = f"refused while the first one has {self.config.state}/lock"
        if self.commits and self.backend.durable:
            return f"{here}; elsewhere: it takes over, and the first one is fenced (exit code 75)"
        return f"{here}; elsewhere: both store, nothing notices"

    def _better(self) -> str | None:
        advice = []
        if not self.commits or not self.backend.durable or self.backend.may_repeat:
            advice.append(f"a storage that commits rows and position together: {', '.join(_committing())}")
        if self.falls_behind:
            advice.append("one storage a pipeline, or a source that can replay its chunks")
        if self.source.may_repeat:
            advice.append("queries that take one row of each key")
        if self.leaks:
            advice.append(
                "a source that can be read again (a file that is followed), or one that answers its senders"
            )
        return "; ".join(advice) or None


def _letters(config: PipelineConfig, backends: list[Backend[Any]]) -> str:
    """Say where the letters of a route are kept: in the first backend with room for them, else in the state file."""
    for backend in backends:
        if isinstance(backend, KeepsPosition) and isinstance(backend, KeepsDeadLetters):
            return f"{backend.get_backend_id()}, in the commit of the rows"
    when = "before" if any(isinstance(backend, KeepsPosition) for backend in backends) else "behind"
    return f"{config.state}/state.db, {when} the rows"


def _committing() -> list[str]:
    """Return the types of storage that make an edge exactly once; those whose library is missing are left out."""
    found = []
    for name in registry.names("backend"):
        try:
            cls = registry.find("backend", name)
        except ConfigurationError:
            continue
        if (
            cls.durable
            and not cls.may_repeat
            and all(hasattr(cls, method) for method in ("claim", "commit", "stored"))
        ):
            found.append(name)
    return found
