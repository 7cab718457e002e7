"""Reading the dead letters of a pipeline back, wherever its backends or the state file keep them."""

from __future__ import annotations

from typing import Any

from collectors.chunks import DeadLetter
from collectors.config.model import PipelineConfig
from collectors.runtime.env import Env
from collectors.runtime.state import State
from collectors.storage.base import KeepsDeadLetters

__all__ = ["read_letters"]


async def read_letters(config: PipelineConfig) -> list[DeadLetter]:
    """Return all letters of the pipeline, oldest first. Raises as connecting to its backends does."""
    letters: dict[str, DeadLetter] = {}
    path = config.state / "state.db"
    if path.exists():
        state = State(path, Env())
        try:
            await state.open()
            letters |= {letter.letter_id: letter for letter in await state.dead_letters(config.name)}
        finally:
            await state.close()
    for component in config.backends.values():
        backend = component.make()
        if isinstance(backend, KeepsDeadLetters):
            found = await _read_from(backend, config.name)
            letters |= {letter.letter_id: letter for letter in found}
    return sorted(letters.values(), key=lambda letter: (letter.created_at, letter.seq, letter.record))


async def _read_from(backend: Any, pipeline: str) -> list[DeadLetter]:
    await backend.connect()
    try:
        found: list[DeadLetter] = await backend.call(lambda: list(backend.dead_letters(pipeline)))
    finally:
        await backend.disconnect()
    return found
