"""By which part of the pipeline a dead letter goes again, and how far each way of a replay is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from collectors.chunks import DeadLetter
from collectors.config.model import MAIN_ROUTE, PipelineConfig, Route
from collectors.errors import ConfigurationError
from collectors.runtime.assembly import make_pipeline
from collectors.runtime.letter_queue import LetterQueue, Queued
from collectors.runtime.preparing import Way
from collectors.runtime.replaying import first_step
from collectors.runtime.state import State
from collectors.storage.base import Backend, KeepsDeadLetters, KeepsPosition
from collectors.storage.sqlite_store import letter_owners, letters_of

__all__ = ["Lane", "finish", "kept_letters", "lanes_of", "replay_name", "tidy", "way_of"]


class Lane(Struct, frozen=True):
    """A way's route into one backend: under which name of a flow the backend knows it."""

    flow: str
    backend: str
    route: Route


def way_of(config: PipelineConfig, letter: DeadLetter, *, from_start: bool) -> str:
    """Return by which part of the pipeline a letter goes again: "" for all of it, a route, or `route>backend`.

    Raises ConfigurationError when that is not there any more, or when the letter has only a part of its record.
    """
    name = letter.letter_id
    routes = [route for route in config.routes if letter.source in route.sources]
    if not routes:
        raise ConfigurationError(f"letter {name}: there is no source '{letter.source}' any more")
    if not letter.whole:
        raise ConfigurationError(
            f"letter {name} has only a part of its record, which the source refused ({letter.reason}); "
            "it cannot be replayed"
        )
    if letter.step == "decode":
        return ""
    candidates = [route for route in routes if route.name == (letter.route or MAIN_ROUTE)] or (
        [] if letter.route else routes
    )
    store = letter.step.removeprefix("store ") if letter.step.startswith("store ") else None
    fitting = [route for route in candidates if _fits(route, letter, store, from_start=from_start)]
    if len(fitting) != 1:
        where = f"route '{letter.route}'" if letter.route else "the pipeline"
        what = f"storage '{store}'" if store else f"step '{letter.step}'"
        there = "is in several routes now" if fitting else f"is not in {where} any more"
        hint = "" if store else "; --from-start sends the record, as that step had it, through all steps"
        raise ConfigurationError(f"letter {name}: {what} {there}{hint}")
    (route,) = fitting
    if store is not None and (len(route.backends) > 1 or len(routes) > 1):
        return f"{route.name}>{store}"
    return route.name if len(routes) > 1 else ""


def _fits(route: Route, letter: DeadLetter, store: str | None, *, from_start: bool) -> bool:
    if store is not None:
        return store in route.backends
    try:
        first_step(letter, Way("", make_pipeline(route)), from_start=from_start)
    except KeyError:
        return False
    return True


def replay_name(way: str) -> str:
    """Return what the flows of a way have in their names; no route can be called so."""
    return f"#replay-{way}" if way else "#replay"


def lanes_of(config: PipelineConfig, source: str, way: str) -> list[Lane]:
    """Return the lanes of a way. Raises ConfigurationError when the pipeline does not have it any more."""
    routes = [route for route in config.routes if source in route.sources]
    wanted, _, backend = way.partition(">")
    lanes = []
    for route in routes:
        lanes += [
            Lane(f"{config.name}/{source}/{route.label}{replay_name(way)}", each, route)
            for each in route.backends
            if wanted in {"", route.name} and backend in {"", each}
        ]
    if not lanes:
        raise ConfigurationError(
            f"letters of source '{source}' are half replayed{f' by the way {way!r}' if way else ''}, which is not in "
            "the pipeline any more; put it back, then run the replay again"
        )
    return lanes


async def finish(
    queue: LetterQueue, backends: Sequence[Backend[Any]], run: str, done: Sequence[Queued]
) -> None:
    """Let go of letters that every backend of their way has stored or set aside anew.

    The commit has deleted them at backends of the way that keep letters; here they go from all others.
    """
    letters = [item.letter for item in done]
    for backend in backends:
        if letters and isinstance(backend, KeepsDeadLetters):
            await backend.call(backend.forget_letters, letters)
    await queue.settle(letters, run)


async def tidy(
    config: PipelineConfig,
    queue: LetterQueue,
    backends: dict[str, Backend[Any]],
    state: State,
    run: str,
) -> list[DeadLetter]:
    """Settle the queue by what the backends have, and return all letters that are held and not in it.

    What all backends of a way have leaves; what none has is given back. What some have stays.
    """
    await queue.open()
    for source, way in await queue.ways():
        reached = [
            await _reached(lane, backends[lane.backend], queue, state)
            for lane in lanes_of(config, source, way)
        ]
        done = await queue.read(source, way, 0, min(reached), limited=False)
        await finish(queue, list(backends.values()), run, done)
        await queue.give_back(source, way, max(reached))
    settled = (await queue.settled()).outcomes
    waiting = {letter.key for letter in await queue.waiting()}
    held = await kept_letters(config.name, backends, state)
    for backend in backends.values():
        if isinstance(backend, KeepsDeadLetters):
            found: list[DeadLetter] = await backend.call(_reading(backend, config.name))
            await backend.call(backend.forget_letters, [letter for letter in found if letter.key in settled])
            held += found
    return [letter for letter in held if letter.key not in settled and letter.key not in waiting]


async def kept_letters(pipeline: str, backends: Mapping[str, Backend[Any]], state: State) -> list[DeadLetter]:
    """Return the letters that the state file keeps for backends, without those of chunks that were never committed.

    For a backend with a position, but without room for letters, they are written before its commit: when that did not
    happen, the chunk is read again, and what is set aside then takes their place.
    """
    without_room = {
        backend.get_backend_id(): backend
        for backend in backends.values()
        if isinstance(backend, KeepsPosition) and not isinstance(backend, KeepsDeadLetters)
    }
    found: list[DeadLetter] = []
    for owner in await state.call(letter_owners):
        flow, _, name = owner.rpartition("@")
        last = None
        if name in without_room:
            backend: Any = without_room[name]
            last = (await backend.call(backend.stored, flow)).seq
        letters = await state.call(partial(letters_of, owner=owner))
        found += [
            letter
            for letter in letters
            if letter.pipeline == pipeline and (last is None or letter.seq <= last)
        ]
    return found


def _reading(backend: KeepsDeadLetters, pipeline: str) -> Any:
    return lambda: list(backend.dead_letters(pipeline))


async def _reached(lane: Lane, backend: Backend[Any], queue: LetterQueue, state: State) -> int:
    """Return the number of the last letter that a backend has durably stored."""
    if isinstance(backend, KeepsPosition):
        position = (await backend.call(backend.stored, lane.flow)).position
    else:
        position = (await state.stored(f"{lane.flow}@{backend.get_backend_id()}")).position
    return int(position["letter"]) if position and position["queue"] == queue.id else 0
