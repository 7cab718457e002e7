"""The dead letters of a pipeline, wherever its backends or the state file keep them: reading them, giving them up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from typing import Any

from msgspec import Struct

from collectors.chunks import DeadLetter
from collectors.config.model import PipelineConfig
from collectors.errors import ConfigurationError
from collectors.runtime.env import Env
from collectors.runtime.letter_queue import LetterQueue, Settled
from collectors.runtime.letter_ways import kept_letters, tidy
from collectors.runtime.state import State
from collectors.storage.base import KeepsDeadLetters, KeepsPosition

__all__ = ["Box", "discard", "look", "read_letters"]


class Box(Struct, frozen=True):
    """All letters of a pipeline, oldest first.

    `replaying` are the keys of those that are in a replay which runs now or was killed; `replayed` and `discarded`
    count those that have left; `discards` say when (UTC), why, and how many at a time.
    """

    letters: list[DeadLetter]
    replaying: frozenset[tuple[str, str]] = frozenset()
    replayed: int = 0
    discarded: int = 0
    discards: Sequence[tuple[str, str, int]] = ()


async def look(config: PipelineConfig) -> Box:
    """Return the letters, whether the pipeline runs or not. Raises as connecting to its backends does."""
    found: list[DeadLetter] = []
    settled = Settled({})
    replaying: list[DeadLetter] = []
    path = config.state / "state.db"
    env = Env()
    async with AsyncExitStack() as stack:
        backends: dict[str, Any] = {name: each.make() for name, each in config.backends.items()}
        for backend in backends.values():
            has_position = isinstance(backend, KeepsPosition)
            if has_position:
                stack.push_async_callback(backend.disconnect)
                await backend.connect()
        if path.exists():
            state = State(path, env, read_only=True)
            stack.push_async_callback(state.close)
            await state.open()
            queue = LetterQueue(state, env)
            found += await kept_letters(config.name, backends, state)
            replaying = await queue.waiting()
            settled = await queue.settled()
        for backend in backends.values():
            keeps = isinstance(backend, KeepsDeadLetters)
            if keeps:
                found += await backend.call(lambda kept=backend: list(kept.dead_letters(config.name)))
    letters = {letter.key: letter for letter in [*replaying, *found] if letter.key not in settled.outcomes}
    return Box(
        sorted(letters.values(), key=lambda letter: (letter.created_at, letter.seq, letter.record)),
        frozenset(letter.key for letter in replaying),
        settled.count("replayed"),
        settled.count("discarded"),
        settled.discards,
    )


async def read_letters(config: PipelineConfig) -> list[DeadLetter]:
    """Return all letters of the pipeline, oldest first. Raises as connecting to its backends does."""
    return (await look(config)).letters


async def discard(
    config: PipelineConfig, chosen: Collection[tuple[str, str]], reason: str, env: Env | None = None
) -> int:
    """Give letters up, by their keys; that they were there, and why they are not any more, stays in the state file.

    Returns how many. Raises ConfigurationError while the pipeline runs.
    """
    env = env or Env()
    async with AsyncExitStack() as stack:
        stack.callback(env.close)
        lock = env.lock(config.state / "lock")
        if isinstance(lock, str):
            raise ConfigurationError(f"the pipeline '{config.name}' is running ({lock}); stop that run first")
        stack.enter_context(lock)
        state = State(config.state / "state.db", env)
        stack.push_async_callback(state.close)
        await state.open()
        backends: dict[str, Any] = {name: each.make() for name, each in config.backends.items()}
        for backend in backends.values():
            stack.push_async_callback(backend.disconnect)
            await backend.connect()
        queue, run = LetterQueue(state, env), env.new_id()
        held = await tidy(config, queue, backends, state, run)
        given_up = [letter for letter in held if letter.key in chosen]
        await queue.discard(given_up, reason, run)
        for backend in backends.values():
            keeps = isinstance(backend, KeepsDeadLetters)
            if given_up and keeps:
                await backend.call(backend.forget_letters, given_up)
        return len(given_up)
