"""Joins what is waiting anyway, so that many small chunks cost one decode and one commit.

There is no timer between hops: whoever takes from a queue takes all that fits. While a commit is under way the next group grows,
so batches get large under load and stay small when it is quiet. What one hop makes ahead of the next is bounded, so
that small chunks wait where joining them costs least: as bytes, in front of the decoder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf
from typing import TypeVar

import pyarrow as pa

from collectors.models import CollectedData

__all__ = ["Ahead", "End", "Joining", "concat", "join_bytes", "join_chunks", "take_waiting"]

Item = TypeVar("Item")


Joining = Callable[[Item], Callable[[Item], bool]]
"""Takes the first item of a group; what it returns is asked for each further one, in order, whether it joins."""


class End:
    """The last thing in a queue."""


class Ahead:
    """How much of something one hop has made that the next has not taken; `wait` returns while it is at most `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._taken = asyncio.Event()

    def add(self, count: int) -> None:
        """Count what was made."""
        self._count += count

    def take(self, count: int) -> None:
        """Count what was taken."""
        self._count -= count
        self._taken.set()

    async def wait(self) -> None:
        """Return as soon as no more than `most` is there."""
        while self._count > self._most:
            self._taken.clear()
            await self._taken.wait()


async def take_waiting(
    queue: asyncio.Queue[Item | End],
    held: list[Item | End],
    joining: Joining[Item],
    taken: Callable[[], bool] = lambda: False,
) -> list[Item]:
    """Return the next item and all those waiting behind it that join it; an empty list at the end.

    `held` keeps between calls what was taken and did not join. `taken` is called for each item, and says whether to wait
    for one more: something must be on its way then.
    """
    first = held.pop() if held else await queue.get()
    if isinstance(first, End):
        return []
    group, joins = [first], joining(first)
    while taken() or not queue.empty():
        item = await queue.get()
        if isinstance(item, End) or not joins(item):
            held.append(item)
            break
        group.append(item)
    return group


def join_bytes(pieces: list[bytes]) -> bytes:
    """Join chunks of a line format; a chunk whose last line has no newline gets one."""
    if len(pieces) == 1:
        return pieces[0]
    return b"".join(piece if piece.endswith(b"\n") else piece + b"\n" for piece in pieces)


def join_chunks(
    chunks: Iterable[CollectedData],
    joins: Callable[[CollectedData, CollectedData], bool],
    most: float = inf,
) -> list[CollectedData]:
    """Return the chunks, with those of which `joins` says that one joins the one before it as one of up to `most` bytes.

    That is a new chunk, like the first of them, with the position of the last.
    """
    groups: list[list[CollectedData]] = []
    size = 0
    for chunk in chunks:
        size += len(chunk.raw_data)
        if groups and size <= most and joins(groups[-1][-1], chunk):
            groups[-1].append(chunk)
        else:
            groups.append([chunk])
            size = len(chunk.raw_data)
    return [group[0] if len(group) == 1 else _one(group) for group in groups]


def _one(group: list[CollectedData]) -> CollectedData:
    raw = join_bytes([chunk.raw_data for chunk in group])
    return replace(group[0], raw_data=raw, position=group[-1].position)


def concat(tables: list[pa.Table]) -> pa.Table:
    """Join tables whose columns only grew and widened from one to the next."""
    if len(tables) == 1:
        return tables[0]
    return pa.concat_tables(tables, promote_options="permissive")
