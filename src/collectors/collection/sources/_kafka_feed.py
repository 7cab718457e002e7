"""A consumer that knows where it is: of partitions that it takes, or of those that its group gives it.

Its methods block, and are called in worker threads, one at a time; `stored` and `hurry` at any time from anywhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from math import inf
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException
from msgspec import Struct

from collectors.collection.sources._kafka_client import Client
from collectors.collection.sources._kafka_records import Lines, kind_of, lines, payloads
from collectors.errors import ConfigurationError, FatalError, TransientError
from collectors.models import Position

if TYPE_CHECKING:
    from collectors.collection.sources.kafka import KafkaConfig

__all__ = ["Feed", "Piece"]

Place = tuple[str, int]
"""A topic and a partition of it."""
Offsets = dict[Place, int]
POLL_SECONDS = 0.2
COMMIT_SECONDS = 1.0
LOOK_SECONDS = 30.0
"""How often the topics are looked at for new partitions."""
HAND_OVER_SECONDS = 20.0
"""How long partitions that go to another process are kept until what was read of them is stored."""
MOST_MESSAGES = 10_000
_EOF = KafkaError._PARTITION_EOF  # noqa: SLF001  # librdkafka's own errors begin like that
_OUT_OF_RANGE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}  # noqa: SLF001
_TOO_SLOW = KafkaError._MAX_POLL_EXCEEDED  # noqa: SLF001
_MOVING = {
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
}


class Piece(Struct, frozen=True):
    """Lines, and the position behind them; with a `reason`, one message that is no record. `place` is of a single one."""

    raw: bytes
    position: Position
    reason: str | None = None
    place: str = ""


class Feed:
    """Goes on at the position that `start` gets, and gives pieces with the positions behind them."""

    def __init__(
        self,
        config: KafkaConfig,
        name: str,
        *,
        joins: bool,
        tell: Callable[[str], None],
        count_lost: Callable[[int], None],
    ) -> None:
        self._config = config
        self._kind = kind_of(config.format or "ndjson")
        self._joins = joins
        self._tell = tell
        self._count_lost = count_lost
        self._client = Client(config, name, self._on_commit)
        self._positions: Offsets = {}
        self._owned: set[Place] = set()
        self._at_end: set[Place] = set()
        self._fresh = False
        self._subscribed = False
        self._count = 100
        self._stored: Offsets = {}
        self._committed: Offsets = {}
        self._commit_at = self._look_at = 0.0
        self._told: set[str] = set()
        self._changed = threading.Condition()
        self._hurried = False

    def connect(self, *, known: bool) -> None:
        """See that the brokers have the topics; `known` says that they had them before."""
        self._client.check_topics(known=known)

    def start(self, since: Position | None) -> None:
        """Go on behind this position."""
        self._hurried = False
        self._at_end.clear()
        owned = list(self._owned)
        self._give_up(owned)
        self._positions = _offsets_of(since)
        if not self._config.share:
            self._take_on(self._wanted())
        elif self._subscribed:
            self._take_on(owned)
        else:
            self._client.subscribe(self._take_on, self._hand_over, self._give_up)
            self._subscribed = True

    @property
    def ended(self) -> bool:
        """Whether all that there was has been read, where reading ends at all."""
        return not self._config.follow and self._at_end >= self._owned and not self._fresh

    def take(self) -> list[Piece]:
        """Return what comes in the next moment; perhaps nothing."""
        self._look_for_partitions()
        self._commit_now_and_then()
        if self._fresh:
            self._fresh = False
            return [Piece(b"", self._position())]
        messages = self._client.messages(self._count, POLL_SECONDS)
        failed = [message for message in messages if message.error() is not None]
        good = [message for message in messages if message.error() is None] if failed else messages
        groups: dict[Place, list[Any]] = {}
        for place, run in groupby(good, _place_of):
            groups.setdefault(place, []).extend(run)
        if good:
            fitting = self._config.chunk_size * len(good) // max(1, sum(map(len, good)))
            self._count = min(MOST_MESSAGES, max(1, fitting))
        pieces = list(self._cut(groups, self._config.chunk_size))
        for message in failed:
            self._failed(message)
        return pieces

    def again(self, since: Position | None, until: Position) -> Piece:
        """Return the piece between the two positions once more. For a feed of its own, that was not started."""
        ends, begins = _offsets_of(until), _offsets_of(since)
        begins = {place: offset for place, offset in begins.items() if offset < ends.get(place, 0)}
        self._positions = begins | {place: end for place, end in ends.items() if place not in begins}
        self._assign(dict(begins))
        groups: dict[Place, list[Any]] = {place: [] for place in begins}
        while self._owned - self._at_end:
            for message in self._client.messages(self._count, self._config.timeout, needed=True):
                place = (message.topic(), message.partition())
                if message.error() is not None and message.error().code() in _OUT_OF_RANGE:
                    raise FatalError(f"cannot read {_named(place)} once more: its records were deleted")
                if message.error() is not None:
                    self._failed(message)
                elif message.offset() < ends[place]:
                    groups[place].append(message)
                if message.error() is None and message.offset() >= ends[place] - 1:
                    self._at_end.add(place)
        pieces = list(self._cut(groups, inf)) or [Piece(b"", until)]
        if len(pieces) != 1 or pieces[0].position != until:
            raise FatalError(f"cannot read the records up to {until} once more: they are not as they were")
        return pieces[0]

    def stored(self, position: Position) -> None:
        """Note what is stored durably; it is committed to the group soon."""
        with self._changed:
            for place, offset in _offsets_of(position).items():
                if place in self._owned:
                    self._stored[place] = max(offset, self._stored.get(place, 0))
            self._changed.notify_all()

    def hurry(self) -> None:
        """Wait for nothing any more."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def close(self) -> None:
        """Leave the group and close all connections."""
        self.hurry()
        if not self._client.watch.down:
            self._commit(self._owned)
        self._client.close()

    def _cut(self, groups: dict[Place, list[Any]], limit: float) -> Iterator[Piece]:
        """Yield the messages as pieces of up to `limit` bytes, each refused one alone."""
        held: list[bytes] = []
        size = 0
        for place in sorted(groups):
            for part in self._lines(place, groups[place]):
                alone = part.refused is not None or not self._joins
                if held and (alone or size + len(part.raw) > limit):
                    yield Piece(b"".join(held), self._position())
                    held, size = [], 0
                self._positions[place] = part.last + 1
                if alone:
                    yield self._single(place, part)
                else:
                    held.append(part.raw)
                    size += len(part.raw)
        if held:
            yield Piece(b"".join(held), self._position())

    def _lines(self, place: Place, messages: list[Any]) -> Iterator[Lines]:
        if place not in self._owned:
            return
        if messages and messages[0].offset() < self._positions[place]:
            messages = [message for message in messages if message.offset() >= self._positions[place]]
        limit = self._config.max_record
        for start in range(0, len(messages), self._count):
            some = messages[start : start + self._count]
            if self._kind == "other":
                yield from payloads(some, limit, lines=self._joins)
            else:
                yield from lines(*place, some, self._kind, limit)

    def _single(self, place: Place, part: Lines) -> Piece:
        topic, partition = place
        where = f"{topic}[{partition}]@{part.last}"
        if part.refused is not None:
            return Piece(part.refused.raw, self._position(), part.refused.reason, where)
        return Piece(part.raw, self._position(), None, where)

    def _position(self) -> Position:
        found: dict[str, dict[str, int]] = {}
        for (topic, partition), offset in self._positions.items():
            found.setdefault(topic, {})[str(partition)] = offset
        return dict(found)

    def _wanted(self) -> list[Place]:
        found: list[Place] = []
        for topic in self._config.topics:
            there = self._client.partitions(topic)
            chosen = there if self._config.partitions is None else set(self._config.partitions)
            if chosen - there:
                missing = ", ".join(map(str, sorted(chosen - there)))
                have = ", ".join(map(str, sorted(there)))
                raise ConfigurationError(
                    f"partitions: topic '{topic}' has no partition {missing}; it has {have}"
                )
            found += [(topic, number) for number in sorted(chosen)]
        return found

    def _take_on(self, places: Iterable[Place]) -> None:
        """Begin with these partitions, where we or the group have stored them to, whichever is further."""
        places = list(places)
        known = {topic for topic, _ in self._positions}
        committed: Offsets = {}
        if self._config.share and places:
            committed = self._client.committed({topic for topic, _ in places})
            known |= {topic for topic, _ in committed}
        begins: Offsets = {}
        for place in places:
            there = [offsets[place] for offsets in (self._positions, committed) if place in offsets]
            begins[place] = max(there) if there else self._first(place, new=place[0] in known)
        self._fresh |= any(self._positions.get(place) != offset for place, offset in begins.items())
        told = committed if self._config.share else begins
        self._committed |= {place: told[place] for place in places if place in told}
        self._assign(begins)
        if self._config.share:
            self._commit(place for place in places if place not in committed)

    def _assign(self, begins: Offsets) -> None:
        self._positions |= begins
        with self._changed:
            self._owned |= set(begins)
            self._stored |= begins
        self._client.assign(begins)

    def _first(self, place: Place, *, new: bool) -> int:
        """Return where to begin with a partition of which nothing is known; one that is new, at its beginning."""
        start = self._config.start
        low, high = self._client.bounds(place)
        if new or start == "earliest":
            return low
        if start == "latest":
            return high
        if isinstance(start, dict):
            topic, partition = place
            return start.get(topic, {}).get(partition, low)
        found = self._client.offset_at(place, start)
        return high if found is None else found

    def _hand_over(self, places: Iterable[Place]) -> None:
        """Give partitions to another process: once what was read of them is stored, and the group knows it."""
        places = list(places)
        with self._changed:
            self._changed.wait_for(
                lambda: self._hurried or all(self._is_stored(place) for place in places),
                HAND_OVER_SECONDS,
            )
        self._commit(places)
        self._give_up(places)

    def _is_stored(self, place: Place) -> bool:
        return place not in self._owned or self._stored[place] >= self._positions[place]

    def _give_up(self, places: Iterable[Place]) -> None:
        places = list(places)
        with self._changed:
            self._owned -= set(places)
        self._client.unassign(places)

    def _commit(self, places: Iterable[Place]) -> None:
        """Tell the group how far these are stored, and wait until it knows."""
        found = self._uncommitted(places)
        if found:
            try:
                self._client.commit(found, wait=True)
                self._committed |= found
            except KafkaException as error:
                self._on_commit(error.args[0], list(found))

    def _commit_now_and_then(self) -> None:
        now = time.monotonic()
        if now < self._commit_at:
            return
        self._commit_at = now + COMMIT_SECONDS
        found = self._uncommitted(self._owned)
        if found:
            self._client.commit(found, wait=False)
            self._committed |= found

    def _uncommitted(self, places: Iterable[Place]) -> Offsets:
        """Return what is stored of these and the group, if there is one, does not know."""
        if self._config.group_id is None:
            return {}
        with self._changed:
            found = {place: self._stored[place] for place in places if place in self._owned}
        return {place: offset for place, offset in found.items() if self._committed.get(place) != offset}

    def _on_commit(self, error: KafkaError | None, places: list[Place]) -> None:
        """Have what the group did not take committed again; unless partitions are just moving, say so once."""
        if error is None:
            return
        for place in places:
            self._committed.pop(place, None)
        if error.code() not in _MOVING and error.str() not in self._told:
            self._told.add(error.str())
            self._tell(f"cannot commit offsets to the group '{self._config.group_id}': {error.str()}")

    def _look_for_partitions(self) -> None:
        """Take on partitions that there were not before; the group does that by itself."""
        now = time.monotonic()
        if self._config.share or self._config.partitions is not None or now < self._look_at:
            return
        first, self._look_at = self._look_at == 0.0, now + LOOK_SECONDS
        if not first:
            with suppress(KafkaException, TransientError):  # nothing new is known then
                new = [place for place in self._wanted() if place not in self._owned]
                self._take_on(new)

    def _failed(self, message: Any) -> None:
        error, place = message.error(), (message.topic(), message.partition())
        if error.code() == _EOF:
            self._at_end.add(place)
        elif error.code() in _OUT_OF_RANGE and place in self._owned:
            self._out_of_range(place)
        elif error.code() == _TOO_SLOW:
            self._tell(f"the group has taken its partitions away: {error.str()}")
        else:
            raise self._client.explained(error, _named(place) if message.topic() else "")

    def _out_of_range(self, place: Place) -> None:
        offset = self._positions[place]
        low, high = self._client.bounds(place)
        if low <= offset <= high:
            begin, what = offset, ""
        else:
            begin, gap = low, max(0, low - offset)
            what = (
                f"{_named(place)}: offset {offset} is the next one, but the brokers have {low} to {high}; "
                + (
                    f"{gap:,} were deleted before they were read"
                    if gap
                    else "the topic lost records, or was made anew"
                )
            )
            if self._config.out_of_range == "stop":
                raise FatalError(f"{what}. To go on at the earliest that is there: `out_of_range: earliest`")
            self._count_lost(gap)
            self._tell(f"{what}; going on at {low}")
        self._give_up([place])
        self._positions[place] = begin
        self._assign({place: begin})
        self._fresh |= bool(what)


def _offsets_of(position: Position | None) -> Offsets:
    return {
        (topic, int(number)): int(offset)
        for topic, offsets in (position or {}).items()
        for number, offset in offsets.items()
    }


def _place_of(message: Any) -> Place:
    return message.topic(), message.partition()


def _named(place: Place) -> str:
    return f"topic '{place[0]}', partition {place[1]}"
