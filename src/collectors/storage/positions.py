"""What all stores that keep positions have in common: the checks of every commit, and under which name one is kept."""

from __future__ import annotations

from collectors.chunks import Checkpoint, Delivery
from collectors.errors import FencedError

__all__ = ["SOURCE", "check_follows", "is_of", "same_table", "table_of"]

SOURCE = "{source}"
"""Stands for the id of the source in the name of a table."""


def check_follows(stored: Checkpoint, delivery: Delivery) -> bool:
    """Return whether the delivery is the next one; False when it is stored already.

    Raises FencedError when the flow has another epoch, or when chunks are missing between the two.
    """
    key = delivery.key
    if stored.epoch != key.epoch:
        raise FencedError(
            f"{key.flow}: another process has taken this flow over (epoch {stored.epoch}, ours is {key.epoch}); "
            "stop one of the two"
        )
    if stored.seq >= key.seq:
        return False
    if stored.seq != delivery.first_seq - 1:
        raise FencedError(
            f"{key.flow}: chunks {delivery.first_seq} to {key.seq} do not follow chunk {stored.seq}, the last one "
            f"stored; nothing was stored; start again to go on behind chunk {stored.seq}"
        )
    return True


def is_of(flow: str, source: str) -> bool:
    """Return whether a flow is one of a source, which is `pipeline/source`."""
    return flow == source or flow.startswith(f"{source}/")


def table_of(table: str, flow: str) -> str:
    """Return the table that a setting means for a flow, `pipeline/source`; that of source `records` for other names."""
    parts = flow.split("/")
    return table.replace(SOURCE, parts[1] if len(parts) > 1 else "records")


def same_table(one: str, other: str, flow: str, *, any_case: bool = False) -> bool:
    """Return whether two settings mean one table for a flow: its position is kept under the one that it began with."""
    one, other = table_of(one, flow), table_of(other, flow)
    return one == other or (any_case and _folded(one) == _folded(other))


def _folded(name: str) -> bytes:
    """Return a name as SQLite and DuckDB compare it: only A to Z lose their case."""
    return name.encode("utf-8", "surrogatepass").lower()
