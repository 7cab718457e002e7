"""Deliveries of numbered rows, as the tests of backends commit them."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from collectors.chunks import ChunkKey, Counts, DeadLetter, Delivery
from collectors.models import QueryCriteria

__all__ = ["NOON", "SCHEMA", "delivery", "everything"]

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SCHEMA = b"\x00schema\xff"


def everything() -> QueryCriteria:
    """Return the criteria that every row meets."""
    return QueryCriteria({}, None, None, None)


def delivery(
    first: int, last: int, epoch: int = 1, *, flow: str = "contract/source", rows: int = 3, letters: int = 1
) -> Delivery:
    """Return the delivery of the chunks `first` to `last`: `rows` rows a chunk, numbered in `n`, and `letters` a chunk."""
    set_aside = letters * (last - first + 1)
    numbers = list(range((first - 1) * rows, last * rows))
    return Delivery(
        key=ChunkKey(flow, epoch, last),
        first_seq=first,
        table=pa.table(
            {
                "n": numbers,
                "text": [f"row {number}" for number in numbers],
                "even": [number % 2 == 0 for number in numbers],
            }
        ),
        position={"offset": last * 100},
        schema=SCHEMA,
        run="run-1",
        counts=Counts(read=len(numbers) + set_aside, stored=len(numbers), set_aside=set_aside),
        dead_letters=[
            DeadLetter(
                pipeline=flow.partition("/")[0],
                source="source",
                run="run-1",
                seq=seq,
                record=number,
                step="decode",
                reason="no JSON: 'x'",
                raw=b"\x00\xff{",
                position={"offset": (seq - 1) * 100},
                version="v1",
                created_at=NOON,
            )
            for seq in range(first, last + 1)
            for number in range(letters)
        ],
    )
