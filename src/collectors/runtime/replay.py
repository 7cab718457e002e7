"""`dead-letters replay`: a run whose sources are the dead letters.

1. The chosen letters are queued in the state file, each with its way: which routes, which backends.
2. Each way is a flow like any other, with a name, seq and position of its own at every backend, so no row is stored
   twice. The commit that stores a letter's rows, or sets it aside anew, deletes it where the backend keeps letters.
3. What every backend has leaves the queue. What some have and others lack, because the replay was killed, is finished
   by the next one; what none has is given back and can be chosen again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

from collectors.collection.base import Source
from collectors.config.model import PipelineConfig
from collectors.errors import ConfigurationError, TransientError
from collectors.runtime.assembly import make_codecs, make_pipeline
from collectors.runtime.building import choose_letter_keepers, notifier
from collectors.runtime.delivery import Edge
from collectors.runtime.engine import Engine
from collectors.runtime.flow import Flow
from collectors.runtime.hooks import Hooks
from collectors.runtime.ledger import FlowReport
from collectors.runtime.letter_queue import LetterQueue
from collectors.runtime.letter_ways import finish, lanes_of, replay_name, tidy, way_of
from collectors.runtime.preparing import Letters, Way
from collectors.runtime.replaying import LetterPreparer, LetterSource
from collectors.runtime.shutdown import Shutdown
from collectors.runtime.state import State
from collectors.storage.base import Backend, KeepsPosition

__all__ = ["Replay"]

PATIENCE = 60.0


class Replay(Engine):
    """Replays letters, by their keys, and finishes what an earlier replay has left in the middle.

    `from_start` sends letters of processors through all steps of their route again. Run it once, as an `Engine`.
    """

    def __init__(
        self,
        config: PipelineConfig,
        chosen: Collection[tuple[str, str]],
        *,
        from_start: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(config, **{"patience": PATIENCE, **options})
        self.report.kind = "replay"
        self._chosen = set(chosen)
        self._from_start = from_start

    async def _connect_sources(
        self, sources: Mapping[str, Source[Any]], stack: AsyncExitStack, shutdown: Shutdown
    ) -> None:
        """Leave the sources alone: they only say how their records are decoded."""

    async def _flows(
        self,
        sources: Mapping[str, Source[Any]],
        backends: dict[str, Backend[Any]],
        state: State,
        shutdown: Shutdown,
        *,
        batch: bool,
    ) -> list[Flow]:
        queue = LetterQueue(state, self.env)
        under_way = {letter.key: place for place, letter in enumerate(await queue.waiting())}
        held = await tidy(self.config, queue, backends, state, self.report.run)
        chosen = [letter for letter in held if letter.key in self._chosen]
        # a storage that numbers what it sends knows again those that a killed replay had under way
        chosen.sort(key=lambda letter: under_way.get(letter.key, len(under_way)))
        ways = [way_of(self.config, letter, from_start=self._from_start) for letter in chosen]
        self._refuse_replaced(
            {(letter.source, way) for letter, way in zip(chosen, ways, strict=True)}, backends
        )
        await queue.put([(way, self._from_start, letter) for letter, way in zip(chosen, ways, strict=True)])
        return [
            await self._replay_flow(sources, way, name, queue, backends, state, shutdown)
            for name, way in await queue.ways()
        ]

    def _refuse_replaced(
        self, ways: Collection[tuple[str, str]], backends: Mapping[str, Backend[Any]]
    ) -> None:
        """Raise ConfigurationError for letters whose records the next reading gives anew, so that they would be there twice."""
        for source, way in sorted(ways):
            for lane in lanes_of(self.config, source, way):
                if backends[lane.backend].config.replaces_readings():
                    raise ConfigurationError(
                        f"letters of source '{source}' cannot be replayed: the rows of storage '{lane.backend}' are those of "
                        "one whole reading (`write: replace`). Run the pipeline again, which reads these records anew; then "
                        "discard the letters"
                    )

    async def _replay_flow(
        self,
        sources: Mapping[str, Source[Any]],
        way: str,
        name: str,
        queue: LetterQueue,
        backends: dict[str, Backend[Any]],
        state: State,
        shutdown: Shutdown,
    ) -> Flow:
        if name not in sources:
            raise ConfigurationError(
                f"letters of source '{name}' are half replayed, and there is no such source any more; put it back"
            )
        source = sources[name]
        report = FlowReport(f"{name} ({way})" if way else name)
        letters = Letters(self.config.name, name, self.report.run, self.config.version, self.env.now)
        notify = notifier(self._on_notice, name)
        told = notify, notify, partial(self._on_drifts, report)
        hooks = Hooks(self.env, shutdown, state, letters, lambda: self._patience, 0.0, *told)
        lanes = lanes_of(self.config, name, way)
        routes = {lane.route.name: lane.route for lane in lanes}
        ways = [Way(route.label, make_pipeline(route)) for route in routes.values()]
        number = {name: place for place, name in enumerate(routes)}
        edges = [
            Edge(
                lane.flow, backends[lane.backend], number[lane.route.name], hooks, route_name=lane.route.label
            )
            for lane in lanes
        ]
        choose_letter_keepers(edges, len(routes))
        done = partial(finish, queue, list(backends.values()), self.report.run)
        preparer = LetterPreparer(make_codecs(source), ways, letters, source.data_format, self.env.monotonic)
        preparer.known = await _schema(name, self.config, backends)
        report.decoding, report.edges = preparer.decoding, [edge.report for edge in edges]
        report.ways = [(each.name, each.steps) for each in ways]
        self.report.flows.append(report)
        return Flow(
            name=f"{self.config.name}/{name}/{replay_name(way)}",
            source=LetterSource(name, way, queue, done),
            preparer=preparer,
            edges=edges,
            share=self.budget.share(),
            hooks=hooks,
            report=report,
            on_event=self._on_event,
        )

    async def _finish(self, backends: dict[str, Backend[Any]], state: State) -> None:
        await super()._finish(backends, state)
        with suppress(TransientError):  # a backend is away: the next replay, or `discard`, does it
            await tidy(self.config, LetterQueue(state, self.env), backends, state, self.report.run)


async def _schema(source: str, config: PipelineConfig, backends: dict[str, Backend[Any]]) -> bytes | None:
    """Return the schema that the source's own flow has reached, where some backend keeps it."""
    for route in config.routes:
        for name in route.backends if source in route.sources else ():
            backend = backends[name]
            flow = route.flow(config.name, source)
            if isinstance(backend, KeepsPosition):
                found = await backend.call(backend.stored, flow)
                if found.schema is not None:
                    return bytes(found.schema)
    return None
