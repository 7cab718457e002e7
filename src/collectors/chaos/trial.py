"""A trial: undisturbed runs that say what should be stored, then stories of kills and restarts, each compared with it.

A story begins with empty stores. Its first life is killed at one chosen moment, some of its next lives too, and the
last one runs to its end. Then what is stored must be what an undisturbed run stores, as far as `guarantee` promises.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from collectors.chaos.copying import PIECES, Copy, copy_pipeline
from collectors.chaos.forks import in_child
from collectors.chaos.lives import Kill, Life, live
from collectors.chaos.moments import Moment
from collectors.chaos.oracle import (
    LETTERS,
    Contents,
    Difference,
    changing_columns,
    compare,
    read_contents,
    write_contents,
)
from collectors.chaos.recordings import SenderConfig, handed_over
from collectors.chaos.report import Broken, Promise, Report
from collectors.config.model import PipelineConfig
from collectors.errors import ConfigurationError, FatalError
from collectors.runtime.guarantee import Guarantee, Level, guarantees
from collectors.storage.base import BackendConfig

__all__ = ["run_trial"]

AT_RANDOM = 0.2
"""The share of kills that come at a random time instead of a chosen moment."""
AGAIN = 0.3
"""How likely the life after a kill is killed too."""
UNANSWERED = 0.25
"""How likely the answer of a commit gets lost in a life."""
LIFE_SECONDS = 60.0
ENOUGH_BROKEN = 5
HOPELESS = 50
"""How many kills in a row may not come about, since the moment did not come, before the trial is given up."""


def run_trial(
    config: PipelineConfig,
    folder: Path,
    *,
    kills: int = 100,
    seed: int = 0,
    size: int = 2**20,
    samples: Mapping[str, Path] | None = None,
    seconds: float | None = None,
    at: Sequence[Kill] = (),
    on_progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Kill a copy of the pipeline so many times, in an empty folder, and return what that cost.

    `size`: bytes of each source to copy; `samples`: files with records, by source; `seconds`: stop after this time; `at`: the kills of the lives of every
    story, instead of chosen ones. Must be called where there is no other thread and no event loop: it forks. Raises ConfigurationError when nothing can be
    tested, or when the pipeline fails without a kill.
    """
    try:
        copy = copy_pipeline(config, folder, size, samples)
    except FatalError as error:
        raise ConfigurationError(f"the pipeline cannot be copied: {error}") from error
    report = Report(config.name, seed, kills, copy.notes, _promises(config, copy.config))
    trial = _Trial(copy, folder, report, list(at))
    on_progress(report)
    trial.observe()
    if report.broken:
        return report
    end = None if seconds is None else time.monotonic() + seconds
    for number in itertools.count(1):
        on_progress(report)
        if report.kills >= kills or len(report.broken) >= ENOUGH_BROKEN or report.misses_in_a_row >= HOPELESS:
            break
        if end is not None and time.monotonic() >= end:
            break
        trial.tell(number)
    on_progress(report)
    return report


def _promises(config: PipelineConfig, copy: PipelineConfig) -> dict[str, Promise]:
    """Return what the original pipeline promises for each storage: the weakest of all ways into it."""
    edges: dict[str, list[Guarantee]] = {}
    for edge in guarantees(config):
        edges.setdefault(edge.backend, []).append(edge)
    order = list(Level)
    promises = {}
    for name in copy.backends:
        weakest = max(edges[name], key=lambda edge: order.index(edge.level))
        promises[name] = Promise(
            level=weakest.level.value,
            may_lose=any(edge.level is Level.AT_MOST_ONCE for edge in edges[name]),
            may_double=any(edge.may_double for edge in edges[name]),
        )
    may_lose = all(promise.may_lose for promise in promises.values())
    promises[LETTERS] = Promise("each once, with a reason", may_lose=may_lose, may_double=False)
    return promises


class _Trial:
    """What a trial knows: the copy, what should be stored, and the moments that there are."""

    def __init__(self, copy: Copy, folder: Path, report: Report, at: list[Kill]) -> None:
        self._copy = copy
        self._folder = folder
        self._report = report
        self._at = at
        self._log = folder / "log"
        self._names = list(copy.config.backends)
        self._senders = [
            name for name, each in copy.config.sources.items() if isinstance(each.settings, SenderConfig)
        ]
        self._whole: Contents = {}
        self._changing: dict[str, set[str]] = {}
        self._moments: list[Moment] = []
        self._known: dict[str, Contents] = {}
        self._life_seconds = 0.0

    def observe(self) -> None:
        """Run the pipeline undisturbed, twice, cut in two ways, to learn what it stores; once more to see its moments."""
        one, life = self._undisturbed("undisturbed-1", PIECES, watch=False)
        other, second = self._undisturbed("undisturbed-2", PIECES // 3, watch=False)
        self._life_seconds = life.seconds
        self._check_books(life, one)
        self._check_books(second, other)
        if self._report.broken:
            return
        self._changing = changing_columns(one, other)
        if self._changing:
            one, other = (self._contents(self._folder / f"undisturbed-{number}") for number in (1, 2))
            if one != other:
                raise ConfigurationError(
                    f"two undisturbed runs store different rows ({_first_difference(one, other)}), so nobody can tell "
                    "what a kill changes; does a processor depend on chance, on the time, or on how records are grouped?"
                )
            for name, columns in self._changing.items():
                self._report.notes.append(
                    f"{name}: not compared, since they differ from run to run: {', '.join(sorted(columns))}"
                )
        self._whole = one
        _, watched = self._undisturbed("watched", PIECES, watch=True)
        self._learn(watched.passed or {})

    def tell(self, number: int) -> None:
        """Tell one story: kills, restarts, and a comparison at the end."""
        chance = random.Random(f"{self._report.seed}:{number}")  # noqa: S311  # nothing secret
        folder = self._folder / f"story-{number}"
        folder.mkdir()
        config = self._copy.at(folder)
        kills = self._at or self._choose(number, chance)
        killed: list[str] = []
        while True:
            kill = kills[len(killed)] if len(killed) < len(kills) else None
            unanswered = chance.randint(1, 2) if chance.random() < UNANSWERED else None
            life = live(config, folder / "log", kill=kill, limit=LIFE_SECONDS, unanswered=unanswered)
            self._report.unanswered += life.unanswered
            if killed:
                self._report.recovered(life.recovered)
            if life.ended != "killed":
                break
            killed.append(str(kill))
            self._report.add_kill(kill.moment.place if kill and kill.moment else None)
        if kill is not None:
            self._report.add_miss()
        if killed or life.ended != "done":
            self._report.stories += 1
            self._judge(number, folder, killed, life)
        shutil.rmtree(folder)

    def _undisturbed(self, name: str, pieces: int, *, watch: bool) -> tuple[Contents, Life]:
        folder = self._folder / name
        folder.mkdir()
        config = self._copy.at(folder, pieces=pieces)
        life = live(config, self._log, kill=None, limit=LIFE_SECONDS * 5, watch=watch)
        if life.ended != "done":
            problem = life.problem or f"it had not ended after {LIFE_SECONDS * 5:g} s"
            advice = "; give it real records with --sample SOURCE=FILE" if self._copy.made_up else ""
            raise ConfigurationError(f"a run of the copy failed without any kill: {problem}{advice}")
        return self._contents(folder, config), life

    def _contents(self, folder: Path, config: PipelineConfig | None = None) -> Contents:
        path = folder / "contents"
        if config is not None:
            in_child(lambda: write_contents(config, path), folder / "log")
        return read_contents(path, self._names, self._changing)

    def _check_books(self, life: Life, contents: Contents) -> None:
        """Compare the books of an undisturbed run with the source and with the stores themselves."""
        assert life.report is not None  # noqa: S101  # it is done
        wrong = [] if life.report["balanced"] else ["the books of the run do not balance"]
        for flow in life.report["flows"]:
            records = self._copy.records[flow["source"]]
            if flow["read"] != records:
                wrong.append(
                    f"source '{flow['source']}' has {records:,} records, the run read {flow['read']:,}"
                )
        for name in self._names:
            stored = sum(
                edge["stored"]
                for flow in life.report["flows"]
                for edge in flow["storage"]
                if edge["backend"] == name
            )
            settings = cast("BackendConfig", self._copy.config.backends[name].settings)
            kept = contents[name].total()
            if kept != stored and not (settings.replaces() and kept < stored):
                wrong.append(f"{name} has {kept:,} rows, the run counted {stored:,}")
        aside = sum(max(edge["set_aside"] for edge in flow["storage"]) for flow in life.report["flows"])
        if contents[LETTERS].total() < aside:
            wrong.append(
                f"{aside:,} records were set aside, {contents[LETTERS].total():,} dead letters are kept"
            )
        self._report.records = sum(self._copy.records.values())
        for problem in wrong:
            self._report.broken.append(Broken(0, [], problem, {}))

    def _learn(self, passed: dict[str, int]) -> None:
        """Put the moments in the order of their stories: each place in turn, each time at another of its passages."""
        chance = random.Random(self._report.seed)  # noqa: S311  # nothing secret
        places = sorted(passed)
        chance.shuffle(places)
        passages = [chance.sample(range(1, passed[place] + 1), passed[place]) for place in places]
        self._moments = [
            Moment(place, count)
            for turn in itertools.zip_longest(*passages)
            for place, count in zip(places, turn, strict=True)
            if count is not None
        ]
        self._report.places = len(passed)
        self._report.moments = len(self._moments)

    def _choose(self, number: int, chance: random.Random) -> list[Kill]:
        """Return the kills of a story: for its first life the moments in turn, or, as for the next ones, any."""
        kills = [Kill(self._moments[(number - 1) % len(self._moments)])]
        while chance.random() < AGAIN:
            kills.append(Kill(Moment(chance.choice(self._moments).place, 1)))
        return [
            Kill(after=chance.uniform(0, self._life_seconds)) if chance.random() < AT_RANDOM else kill
            for kill in kills
        ]

    def _judge(self, number: int, folder: Path, killed: list[str], life: Life) -> None:
        problem = ""
        if life.ended == "stuck":
            problem = f"the last life had not ended after {LIFE_SECONDS:g} s"
        elif life.ended == "failed":
            problem = f"the last life failed: {life.problem}"
        elif life.report and not life.report["balanced"]:
            problem = "the books of the last life do not balance"
        try:
            found = self._contents(folder, self._copy.at(folder))
        except FatalError as error:
            problem = "; ".join([*filter(None, [problem]), f"what is stored cannot be read: {error}"])
            self._report.broken.append(Broken(number, killed, problem, {}))
            return
        differences = compare(found, *self._bounds(folder))
        self._report.add(differences)
        broken = {name: each for name, each in differences.items() if self._breaks(name, each)}
        if problem or broken:
            self._report.broken.append(Broken(number, killed, problem, broken))

    def _breaks(self, name: str, difference: Difference) -> bool:
        promise = self._report.promises[name]
        lost = difference.lost and not promise.may_lose
        doubled = difference.doubled and not promise.may_double
        return bool(lost or doubled or difference.unknown)

    def _bounds(self, folder: Path) -> tuple[Contents, Contents]:
        """Return the least and the most that must be stored: without senders, what an undisturbed run stores."""
        if not self._senders:
            return self._whole, self._whole
        handed, acknowledged = {}, {}
        for name in self._senders:
            handed[name], acknowledged[name] = handed_over(folder / f"sender-{name}")
        return self._of(acknowledged), self._of(handed)

    def _of(self, only: dict[str, list[int]]) -> Contents:
        """Return what an undisturbed run stores of these chunks."""
        key = json.dumps(only)
        if key not in self._known:
            folder = self._folder / "bound"
            folder.mkdir()
            config = self._copy.at(folder, only=only)
            life = live(config, self._log, kill=None, limit=LIFE_SECONDS)
            if life.ended != "done":
                raise FatalError(f"a run of the copy failed without any kill: {life.problem}")
            self._known[key] = self._contents(folder, config)
            shutil.rmtree(folder)
        return self._known[key]


def _first_difference(one: Contents, other: Contents) -> str:
    for name, rows in one.items():
        if rows != other[name]:
            row = next(iter((rows - other[name]) | (other[name] - rows))).decode(errors="replace")
            return f"{name}: {row[:200]}"
    return ""
