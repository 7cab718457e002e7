"""Takes a changed pipeline file over while it runs: what has changed is stopped, drained and started anew.

Looks at the file once a second, and at SIGHUP. A file with a mistake changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from collectors.config.load import file_stamp, load
from collectors.config.model import Component, PipelineConfig
from collectors.errors import CollectorsError, ConfigurationError, TransientError
from collectors.runtime.assembly import make_sources
from collectors.runtime.env import Env
from collectors.runtime.flow_names import check_names
from collectors.runtime.scheduler import check_schedule
from collectors.runtime.shutdown import Shutdown
from collectors.runtime.supervisor import Supervisor
from collectors.storage.base import Backend

if TYPE_CHECKING:
    from collectors.runtime.building import Builder

__all__ = ["Change", "Reloader", "Watch", "compare"]

LOOK_SECONDS = 1.0


class Change(Struct, frozen=True):
    """Sources whose flows end, those whose flows begin, and backends that are closed, all by id.

    A flow of which anything has changed is in both. `needs_restart` names settings that only a new run takes over.
    """

    stop: frozenset[str]
    start: frozenset[str]
    close: frozenset[str]
    needs_restart: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.stop or self.start)


def compare(old: PipelineConfig, new: PipelineConfig) -> Change:
    """Return what has to change for a pipeline that runs by `old` to run by `new`."""
    same = {name for name in old.sources if name in new.sources and _flow(old, name) == _flow(new, name)}
    return Change(
        stop=frozenset(old.sources.keys() - same),
        start=frozenset(new.sources.keys() - same),
        close=frozenset(
            name
            for name, backend in old.backends.items()
            if name not in new.backends or _identity(backend) != _identity(new.backends[name])
        ),
        needs_restart=tuple(
            name for name in ("name", "memory", "state") if getattr(old, name) != getattr(new, name)
        ),
    )


def _flow(config: PipelineConfig, source: str) -> Any:
    """Return everything that a flow is made of, comparable."""
    routes = [route for route in config.routes if source in route.sources]
    return (
        _identity(config.sources[source]),
        config.spool,
        config.latency,
        [
            (
                route.label,
                [_identity(step) for step in route.processors],
                [(name, _identity(config.backends[name])) for name in route.backends],
            )
            for route in routes
        ],
    )


def _identity(component: Component) -> Any:
    return component.type, component.cls, component.settings, component.instance


class Watch:
    """Tells when a file has changed and has been left alone for a moment: an editor may write it in several steps.

    `known` is its stamp when it was read.
    """

    def __init__(self, path: Path, env: Env, known: tuple[int, ...] | None) -> None:
        self._path = path
        self._env = env
        self._known = known

    async def changed(self) -> None:
        """Return as soon as the file is another than when it was last looked at."""
        before = self._known
        while True:
            await self._env.sleep(LOOK_SECONDS)
            now = file_stamp(self._path)
            if now is not None and now == before and now != self._known:
                self._known = now
                return
            before = now


class Reloader:
    """The running pipeline, as a change finds it: its configuration, open backends, and how each flow is stopped."""

    def __init__(
        self,
        config: PipelineConfig,
        builder: Builder,
        backends: dict[str, Backend[Any]],
        stops: dict[str, Shutdown],
        shutdown: Shutdown,
    ) -> None:
        self.config = config
        self._builder = builder
        self._backends = backends
        self._stops = stops
        self._shutdown = shutdown
        self._env = builder.env
        self._tell = builder.on_notice

    async def run(self, supervisor: Supervisor) -> None:
        """Take changes over until cancelled."""
        path = self.config.file
        assert path is not None, "a pipeline without a file is not reloaded"  # noqa: S101
        hangup = asyncio.Event()
        undo = self._env.on_signals(hangup.set, "SIGHUP")
        watch = Watch(path, self._env, self.config.stamp)
        try:
            while True:
                waiting = [asyncio.ensure_future(hangup.wait()), asyncio.ensure_future(watch.changed())]
                try:
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in waiting:
                        task.cancel()
                hangup.clear()
                if self._shutdown.requested.is_set():
                    return
                with supervisor.held():
                    try:
                        await self.reload(path, supervisor)
                    except (CollectorsError, OSError) as error:
                        self._tell(f"the change of {path.name} could not be taken over as a whole: {error}")
        finally:
            undo()

    async def reload(self, path: Path, supervisor: Supervisor) -> None:
        """Read the file and do what it says anew; a mistake in it, or a part that cannot start, leaves all as it was."""
        try:
            new = await asyncio.to_thread(load, path)
        except ConfigurationError as error:
            self._tell(f"the change of {path.name} is not taken over: {error}")
            return
        old, change = self.config, compare(self.config, new)
        if change.needs_restart:
            names = " and ".join(f"`{name}`" for name in change.needs_restart)
            self._tell(
                f"{path.name}: {names} changed; that needs a restart, nothing is taken over until then"
            )
            return
        if not change:
            return
        await self._stop(change, supervisor)
        try:
            await self._start(new, change.start, supervisor)
        except ConfigurationError as error:
            self._tell(f"the change of {path.name} is not taken over: {error}")
            await self._start(old, change.stop, supervisor)
            return
        self.config = new
        ended, begun = change.stop - change.start, change.start - change.stop
        what = [
            f"{verb} {', '.join(sorted(names))}"
            for verb, names in (
                ("started", begun),
                ("started anew", change.stop & change.start),
                ("ended", ended),
            )
            if names
        ]
        self._tell(f"{path.name} has changed: {'; '.join(what)}")

    async def _stop(self, change: Change, supervisor: Supervisor) -> None:
        for name in change.stop:
            self._stops[name].request()
        for name in change.stop:
            await supervisor.ended(f"{self.config.name}/{name}")
        for report in self._builder.report.flows:
            report.reloaded |= report.source in change.stop
        for name in change.close:
            await self._backends.pop(name).disconnect()

    async def _start(self, config: PipelineConfig, names: Collection[str], supervisor: Supervisor) -> None:
        """Start flows. Raises ConfigurationError, with nothing new left open."""
        sources = {name: source for name, source in make_sources(config).items() if name in names}
        backends = {
            name: component.make()
            for name, component in config.backends.items()
            if name not in self._backends
        }
        try:
            for name, backend in backends.items():
                await self._connect(backend, f"storage '{name}'", config.backends[name])
            for name, source in sources.items():
                check_schedule(source)
                await self._connect(source, f"source '{name}'", config.sources[name])
                with suppress(TransientError):  # a storage that is away is asked again by the flow
                    await check_names(config, name, self._backends | backends, self._builder.state)
        except ConfigurationError:
            for part in (*sources.values(), *backends.values()):
                await part.disconnect()
            raise
        self._backends |= backends
        for name, source in sources.items():
            self._stops[name] = self._shutdown.part()
            supervisor.start(self._builder.flow(config, source, self._backends, self._stops[name]))

    async def _connect(self, part: Any, what: str, component: Component) -> None:
        try:
            await part.connect()
        except ConfigurationError as error:
            raise ConfigurationError(f"{component.where}: {error}") from error
        except CollectorsError as error:
            self._tell(f"{what}: {error}")
