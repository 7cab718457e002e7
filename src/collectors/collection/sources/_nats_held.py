"""What was handed on of a durable consumer: nothing of it may be handed on again.

The server gives again what it has no acknowledgement of, in whatever order: also what is stored already when this process,
or the connection, died between the commit and the acknowledgement, and what it had acknowledged itself when it dies before
that is on its disk. So the position has the sequences that were handed on, as ranges: one, as long as they come in order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from collectors.collection.sources._nats_pull import Delivered
from collectors.models import Position
from collectors.nats_client import Connection

__all__ = ["Held"]

Range = tuple[int, int]


class _Group(Struct):
    ranges: list[Range]
    replies: list[str]
    position: Position


class Held:
    """The sequences that were handed on; `hand_on` and `committed` are told of chunks in order."""

    def __init__(self) -> None:
        self.last = 0
        """The highest sequence that was handed on."""
        self.ranges: list[Range] = []
        self._reading: deque[_Group] = deque()
        self._stored: list[str] = []
        self._previous: Delivered | None = None

    def begin(self, since: Position | None, floor: int) -> None:
        """Go on behind a position; everything up to the floor is acknowledged."""
        self.last = since["seq"] if since is not None else 0
        known = since.get("held", [[1, self.last]]) if since is not None else []  # without `durable`: all
        self.ranges = _merged([(first, last) for first, last in known])
        self._stored.clear()
        self._previous = None
        self.settle(floor)

    def settle(self, floor: int) -> None:
        """Take everything up to the floor as stored: somebody has acknowledged it."""
        if floor > 0:
            self.ranges = _merged([(1, floor), *self.ranges])

    def __contains__(self, message: Delivered) -> bool:
        return _within(message.seq, self.ranges)

    def is_stored(self, message: Delivered) -> bool:
        """Return whether a message that was handed on is stored: then it can be acknowledged at once."""
        return not any(_within(message.seq, group.ranges) for group in self._reading)

    def hand_on(self, messages: Iterable[Delivered], **about: str) -> Position:
        """Return the position behind messages that are handed on now."""
        ranges: list[Range] = []
        replies: list[str] = []
        for message in messages:
            ranges.append((self._first_of(message), message.seq))
            replies.append(message.reply)
            self._previous = message
            self.last = max(self.last, message.seq)
        group = _Group(_merged(ranges), replies, {})
        self._reading.append(group)
        self.ranges = _merged([*self.ranges, *group.ranges])
        group.position = {**about, "seq": self.last, "held": [[first, last] for first, last in self.ranges]}
        return group.position

    def committed(self, position: Position) -> None:
        """Everything up to the position is stored; `acknowledge` tells the server."""
        if any(group.position == position for group in self._reading):
            while True:
                group = self._reading.popleft()
                self._stored += group.replies
                if group.position == position:
                    return

    async def acknowledge(self, connection: Connection) -> None:
        """Acknowledge what is stored. Raises TransientError; what the server does not know of then it gives again."""
        replies, self._stored = self._stored, []
        for reply in replies[:-1]:
            await connection.publish(reply, b"+ACK")
        for reply in replies[-1:]:
            await connection.request(reply, b"+ACK")  # answered behind all of them

    def _first_of(self, message: Delivered) -> int:
        """Return where the range of a message begins: between two that came one after the other, none is for us."""
        before = self._previous
        fresh = before is not None and not before.again and not message.again
        if before is not None and fresh and message.run == before.run + 1 and message.seq > before.seq:
            return before.seq + 1
        return message.seq


def _merged(ranges: list[Range]) -> list[Range]:
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _within(seq: int, ranges: list[Range]) -> bool:
    at = bisect_right(ranges, (seq, 1 << 64))
    return at > 0 and ranges[at - 1][1] >= seq
