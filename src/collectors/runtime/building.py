"""From a pipeline's configuration to a flow that can run: its edges, its steps, its letters, its intake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from collectors.chunks import Drift
from collectors.collection.base import Source
from collectors.collection.group import SourceGroup
from collectors.config.model import PipelineConfig
from collectors.runtime.assembly import make_codecs, make_pipeline
from collectors.runtime.budget import Budget
from collectors.runtime.delivery import Edge
from collectors.runtime.env import Env
from collectors.runtime.error_budget import budget_of
from collectors.runtime.flow import Flow
from collectors.runtime.hooks import Hooks
from collectors.runtime.intake import Intake, SpoolSource
from collectors.runtime.ledger import FlowReport, RunReport
from collectors.runtime.lingering import LINGER_SECONDS
from collectors.runtime.preparing import Letters, Preparer, Way
from collectors.runtime.reading import Reader
from collectors.runtime.retry import Patience
from collectors.runtime.shutdown import Shutdown
from collectors.runtime.state import State
from collectors.storage.base import Backend
from collectors.workers import Workers

__all__ = ["Builder", "choose_letter_keepers", "notifier"]

BATCH_PATIENCE = 60.0
"""Seconds for which a pipeline that comes to an end by itself puts up with failures in a row; others: for ever."""


class Builder(Struct, frozen=True):
    """Makes the flows of one run; `at_end` takes what is to be called when the run is over.

    `disk` are the threads for spools: several that wait for the disk at a time share its flushes. `patience` is what the
    user asked for, in seconds; `batch` says whether all sources come to an end by themselves.
    """

    env: Env
    report: RunReport
    state: State
    budget: Budget
    intake_budget: Budget
    disk: Workers
    patience: float | None
    batch: bool
    on_notice: Callable[[str], None]
    on_event: Callable[[str, FlowReport], None]
    on_drifts: Callable[[FlowReport, Sequence[Drift]], None]
    at_end: Callable[[Callable[[], None]], Any]

    def flow(
        self,
        config: PipelineConfig,
        source: Source[Any],
        backends: Mapping[str, Backend[Any]],
        shutdown: Shutdown,
    ) -> Flow:
        """Return a source's way through the pipeline; its report is in the run's report from now on."""
        name = source.get_source_id()
        flow_name = f"{config.name}/{name}"
        routes = [route for route in config.routes if name in route.sources]
        ways = [Way(route.label, make_pipeline(route)) for route in routes]
        report = self._listen(source, FlowReport(name))
        ends = [backends[backend] for route in routes for backend in route.backends]
        source.marks_readings = any(backend.config.replaces_readings() for backend in ends)
        letters = Letters(config.name, name, self.report.run, config.version, self.env.now)
        notify, notify_reading = notifier(self.on_notice, name), notifier(self.on_notice, name)
        spooled = self._spooled(config, source, report, shutdown) if source.needs_spool() else None
        told = notify, notify_reading, partial(self.on_drifts, report)
        linger = LINGER_SECONDS[config.latency]
        hooks = Hooks(self.env, shutdown, self.state, letters, self._patience(spooled), linger, *told)
        edges = [
            Edge(route.flow(config.name, name), backends[backend], number, hooks, route_name=way.name)
            for number, (route, way) in enumerate(zip(routes, ways, strict=True))
            for backend in route.backends
        ]
        choose_letter_keepers(edges, len(routes))
        preparer = Preparer(make_codecs(source), ways, letters, source.data_format, self.env.monotonic)
        preparer.set_misfits_aside = source.endless
        report.decoding = preparer.decoding
        report.ways = [(way.name, way.steps) for way in ways]
        report.edges = [edge.report for edge in edges]
        self.report.add(report)
        return Flow(
            name=flow_name,
            source=source if spooled is None else spooled,
            preparer=preparer,
            edges=edges,
            share=self.budget.share(),
            hooks=hooks,
            report=report,
            on_event=self.on_event,
            intake=None if spooled is None else self._intake(source, spooled, hooks, report),
            isolate=None if config.file is None else self._isolator(config.file),
            stop_above=budget_of(config, source),
        )

    def _patience(self, spooled: SpoolSource | None = None) -> Patience:
        """Return how long failures are put up with: as the user says; else for ever, or a minute in a batch.

        A batch whose source is still filling the spool is not at its end: nobody can send again what it would not read.
        """
        if self.patience is not None or not self.batch:
            return lambda: self.patience
        return lambda: BATCH_PATIENCE if spooled is None or spooled.closed else None

    def _listen(self, source: Source[Any], report: FlowReport) -> FlowReport:
        """Return the report, in which everything is kept that the source has to tell; it is shown as well."""

        def tell(text: str) -> None:
            report.notices.append(text)
            self.on_notice(f"source '{source.get_source_id()}': {text}")

        source.tell = tell
        for each in _parts(source):
            each.tell = tell
            each.count_lost = report.count_lost
        return report

    def _spooled(
        self, config: PipelineConfig, source: Source[Any], report: FlowReport, shutdown: Shutdown
    ) -> SpoolSource:
        from collectors.runtime.spool import Spool

        name = source.get_source_id()
        spool = Spool(config.state / "spool" / name, name, config.spool, now=self.env.now, tell=source.tell)
        for each in _parts(source):
            each.cannot_keep = spool.problem
        return SpoolSource(source, spool, self.disk, shutdown)

    def _intake(self, source: Source[Any], spooled: SpoolSource, hooks: Hooks, report: FlowReport) -> Intake:
        return Intake(
            source,
            spooled,
            self.intake_budget.share(),
            self.env,
            hooks.shutdown,
            readers=[
                Reader(
                    each,
                    self.env,
                    hooks.shutdown,
                    patience=self._patience(),
                    notify=notifier(self.on_notice, each.get_source_id()),
                    count_missed=report.count_missed,
                    linger=hooks.linger,
                )
                for each in _parts(source)
            ],
            keeping=hooks.patience,
            notify=notifier(self.on_notice, source.get_source_id()),
        )

    def _isolator(self, file: Path) -> Callable[[Preparer], Preparer]:
        def isolate(preparer: Preparer) -> Preparer:
            from collectors.runtime.isolation import IsolatedPreparer

            isolated = IsolatedPreparer.around(preparer, file)
            self.at_end(isolated.close)
            return isolated

        return isolate


def _parts(source: Source[Any]) -> list[Source[Any]]:
    """Return the sources to read in the place of one that is a group; of another, itself."""
    return source.members if isinstance(source, SourceGroup) else [source]


def notifier(on_notice: Callable[[str], None], source: str) -> Callable[[str | None], None]:
    """Return what is told of each problem of one kind, and None when it has passed; only changes go further."""
    told: list[str | None] = [None]

    def notify(problem: str | None) -> None:
        if problem is None and told[0] is not None:
            on_notice(f"source '{source}': going on")
        elif problem is not None and problem != told[0]:
            on_notice(f"source '{source}': {problem}")
        told[0] = problem

    return notify


def choose_letter_keepers(edges: list[Edge], routes: int) -> None:
    """Letters of decoding are kept at one edge of the flow, those of a route's steps at one edge of the route.

    The first backend with room for them in its commit; if there is none, the first, by way of the state file.
    """
    for number in range(routes):
        candidates = [edge for edge in edges if edge.route == number]
        keeper = next((edge for edge in candidates if edge.holds_letters), candidates[0])
        keeper.keeps_route_letters = True
        keeper.keeps_decode_letters = number == 0
