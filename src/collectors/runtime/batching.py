"""Joins what is waiting anyway, so that many small chunks cost one decode and one commit.

There is no timer: whoever takes from a queue takes all that fits. While a commit is under way the next group grows,
so batches get large under load and stay small when it is quiet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

__all__ = ["End", "concat", "join_bytes", "take_waiting"]

Item = TypeVar("Item")


class End:
    """The last thing in a queue."""


async def take_waiting(
    queue: asyncio.Queue[Item | End], held: list[Item | End], fits: Callable[[list[Item], Item], bool]
) -> list[Item]:
    """Return the next item and all those waiting behind it that fit to it; an empty list at the end.

    `held` keeps between calls what was taken and did not fit.
    """
    first = held.pop() if held else await queue.get()
    if isinstance(first, End):
        return []
    group = [first]
    while not queue.empty():
        item = queue.get_nowait()
        if isinstance(item, End) or not fits(group, item):
            held.append(item)
            break
        group.append(item)
    return group


def join_bytes(pieces: list[bytes]) -> bytes:
    """Join chunks of a line format; a chunk whose last line has no newline gets one."""
    if len(pieces) == 1:
        return pieces[0]
    return b"".join(piece if piece.endswith(b"\n") else piece + b"\n" for piece in pieces)


def concat(tables: list[pa.Table]) -> pa.Table:
    """Join tables whose columns only grew and widened from one to the next."""
    if len(tables) == 1:
        return tables[0]
    return pa.concat_tables(tables, promote_options="permissive")
