"""What the tests of storages at brokers have in common: backends, deliveries as the runtime makes them, exact values."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec.structs import replace

from collectors import registry
from collectors.errors import DataError, TransientError

from ._sink_pipeline import SinkPipeline, wait_for

FLOW = "contract/source"
EXACT = pa.table(
    {
        "big": pa.array([2**64 - 1], pa.uint64()),
        "decimal": [Decimal("1.10")],
        "time": [datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)],
        "bytes": [b"\x00\xff"],
        "nan": [float("nan")],
        "infinite": [float("-inf")],
        "nested": [{"a": [1, None]}],
        "text": ["a\nb"],
        "nothing": pa.nulls(1),
    }
)
IN_JSON = {
    "big": 2**64 - 1,
    "decimal": "1.10",
    "time": "2026-01-02T03:04:05.000006Z",
    "bytes": "AP8=",
    "nan": "NaN",
    "infinite": "-Infinity",
    "nested": {"a": [1, None]},
    "text": "a\nb",
    "nothing": None,
}
"""What a message of that row says."""


@asynccontextmanager
async def connected(kind: str, settings: dict[str, Any]) -> AsyncIterator[Any]:
    """A backend that is connected."""
    backend = registry.create("backend", kind, settings)
    await backend.connect()
    try:
        yield backend
    finally:
        await backend.disconnect()


@asynccontextmanager
async def beside(first: Any, **settings: Any) -> AsyncIterator[Any]:
    """A second backend, as in another process, with the settings of the first one."""
    given = first.config.model_dump(exclude={"id"}) | settings
    async with connected(first.get_backend_id(), given) as backend:
        yield backend


async def tried(action: Callable[[], Any]) -> Any:
    """Do it until it works."""
    for _ in range(50):
        try:
            return await action()
        except TransientError:
            continue
    raise AssertionError("it never works")


async def deliver(backend: Any, what: Any) -> None:
    """Commit as the runtime does: after a failure, what is stored is asked for first."""
    begun = False

    async def once() -> None:
        nonlocal begun
        if not begun or (await backend.call(backend.stored, what.key.flow)).seq < what.key.seq:
            begun = True
            await backend.call(backend.commit, what)

    await tried(once)


async def commit_what_is_taken(backend: Any, what: Any) -> None:
    """Commit as the runtime does: what is refused is left out of the next try."""
    while True:
        try:
            await backend.call(backend.commit, what)
        except DataError as error:
            what = replace(what, table=without(what.table, error.rows))
        else:
            return


def without(table: pa.Table, bad: Any) -> pa.Table:
    """Return a table without the rows with these numbers."""
    return table.filter(pa.array([row not in bad for row in range(table.num_rows)]))


def takes_over(folder: Path, storage: dict[str, Any], count: Callable[[], int]) -> int:
    """Run a pipeline, then once more beside it, as on another machine: it takes the flow over, and the first one ends.

    Return how many rows both have read; `count` says how many are stored.
    """
    one, two = (SinkPipeline(folder / name, storage, follow=True) for name in ("one", "two"))
    two.file.unlink()
    two.file.symlink_to(one.file)
    with one:
        one.append(2000)
        wait_for(lambda: count() >= 1000)
        with two:
            for _ in range(400):
                one.append(10)
                assert one.process is not None
                if one.process.poll() is not None:
                    break
                threading.Event().wait(0.05)
            assert one.process.wait(30) == 75, one.log()
            wait_for(lambda: count() >= one.rows)
            assert two.ends() == 0, two.log()
    return one.rows
