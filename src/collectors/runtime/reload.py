"""When the pipeline file has changed: what of the running pipeline that concerns, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collectors.config.model import Component, PipelineConfig
from collectors.runtime.env import Env

__all__ = ["Change", "Watch", "compare"]

LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Change:
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
        [
            (
                route.name if len(routes) > 1 else "",
                [_identity(step) for step in route.processors],
                [(name, _identity(config.backends[name])) for name in route.backends],
            )
            for route in routes
        ],
    )


def _identity(component: Component) -> Any:
    return component.type, component.cls, component.settings, component.instance


class Watch:
    """Tells when a file has changed and has been left alone for a moment: an editor may write it in several steps."""

    def __init__(self, path: Path, env: Env) -> None:
        self._path = path
        self._env = env
        self._known = self._stamp()

    async def changed(self) -> None:
        """Return as soon as the file is another than when it was last looked at."""
        before = self._known
        while True:
            await self._env.sleep(LOOK_SECONDS)
            now = self._stamp()
            if now is not None and now == before and now != self._known:
                self._known = now
                return
            before = now

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
