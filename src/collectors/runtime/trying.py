"""Storing a table in a scratch store, to see what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from collectors.chunks import ChunkKey, Counts, Delivery
from collectors.runtime.measuring import python_lines
from collectors.storage.base import Backend, KeepsPosition

__all__ = ["store_seconds"]

LEAST_COMMITS = 3
LEAST_SECONDS = 0.3


async def store_seconds(
    backend: Backend[Any], table: pa.Table, flow: str, clock: Callable[[], float]
) -> tuple[float, int | None]:
    """Return what one commit of a table takes, and how many lines of Python run for each of its rows.

    The store is an empty one that nobody else has. What it puts off, such as closing a file, is in the time.
    """
    await backend.connect()
    try:
        return await backend.call(_commits, backend, table, flow, clock)  # type: ignore[no-any-return]
    finally:
        await backend.disconnect()


def _commits(
    backend: Backend[Any], table: pa.Table, flow: str, clock: Callable[[], float]
) -> tuple[float, int | None]:
    """Commit again and again, in the backend's own thread; the first time makes the tables, and is not counted."""
    epoch = backend.claim(flow).epoch if isinstance(backend, KeepsPosition) else 1
    counts = Counts(read=table.num_rows, stored=table.num_rows)

    def store(seq: int) -> None:
        key = ChunkKey(flow, epoch, seq)
        if isinstance(backend, KeepsPosition):
            backend.commit(Delivery(key, seq, table, {"n": seq}, None, "explain", counts))
        else:
            backend.write(table, key)

    _, lines = python_lines(lambda: store(1), table.num_rows)
    backend.flush()
    began, seq = clock(), 1
    while seq <= LEAST_COMMITS or clock() - began < LEAST_SECONDS:
        seq += 1
        store(seq)
    backend.flush()
    return (clock() - began) / (seq - 1), lines
