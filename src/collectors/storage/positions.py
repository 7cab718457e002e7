"""The two checks of every commit: is the epoch still ours, and does the delivery follow what is stored."""

from __future__ import annotations

from collectors.chunks import Checkpoint, Delivery
from collectors.errors import FencedError

__all__ = ["check_follows"]


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
