"""The two ways to read a stream: by its sequence alone, or from a durable consumer with acknowledgements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from msgspec import Struct

from collectors.collection.sources._nats_held import Held
from collectors.collection.sources._nats_pull import Delivered, Puller
from collectors.collection.sources._nats_stream import (
    Consumer,
    Start,
    StreamState,
    add_durable,
    add_reader,
    begin_at,
    find_durable,
    look,
)
from collectors.errors import FatalError, TransientError
from collectors.models import Position
from collectors.nats_client import Connection

__all__ = ["ByConsumer", "BySequence", "Reading", "Wanted", "look_at"]


_MOST_RANGES = 1000
"""With more than this in a position, look what of it can be said shorter."""


class Wanted(Struct, frozen=True):
    """What is to be read, and who is told what of it is gone."""

    stream: str
    subjects: list[str]
    start: Start
    size: int
    tell: Callable[[str], None]
    count_lost: Callable[[int], None]

    def report_removed(self, state: StreamState, behind: int, until: int) -> None:
        """Say how many messages behind one and before another are not there any more."""
        count = until - behind - 1
        if count <= 0:
            return
        sure = not self.subjects and not state.replaces
        if sure:
            self.count_lost(count)
        self.tell(
            f"stream '{self.stream}': {'' if sure else 'up to '}{count:,} messages behind {behind:,} were removed, by a limit "
            f"of the stream or a purge, before they were read{'' if sure else '; not all may have been for this source'}"
        )


class Reading(Protocol):
    """One reading of a stream."""

    puller: Puller | None
    """What asks for messages, once the reading has begun."""

    async def begin(self, since: Position | None) -> Position | None:
        """Go on behind a position; return one that is to be noted before anything is read."""

    async def take(self) -> list[Delivered]:
        """Return the next messages, none that was handed on before."""

    def position(self, messages: Sequence[Delivered]) -> Position:
        """Return the position behind messages that are handed on."""

    async def end(self, left: Sequence[Delivered]) -> None:
        """Stop; `left` were taken and not handed on."""


async def look_at(connection: Connection, stream: str, *, durable: bool) -> StreamState:
    """Return the state of a stream. Raises FatalError when it is not one to be read like this."""
    state = await look(connection, stream)
    if state.retention != "limits" and not durable:
        raise FatalError(
            f"stream '{stream}' has {state.retention} retention: its messages go to consumers that acknowledge them; "
            "set `durable`, the name of one"
        )
    return state


class BySequence:
    """Reads by a consumer of its own, which exists as long as the reading: the position says all."""

    puller: Puller | None = None

    def __init__(self, connection: Connection, wanted: Wanted) -> None:
        self._connection = connection
        self._wanted = wanted
        self._consumer = ""
        self._created = ""
        self._last = 0

    async def begin(self, since: Position | None) -> Position | None:
        """Make the consumer."""
        wanted = self._wanted
        state = await look_at(self._connection, wanted.stream, durable=False)
        _check_durable(since, None)
        state.check(since)
        self._created, first = state.created, None
        if since is None and wanted.start == "new":
            since = first = {"stream": state.created, "seq": state.last}
        if since is not None:
            wanted.report_removed(state, since["seq"], state.first)
            self._last = max(since["seq"], state.first - 1)
        begin = begin_at(wanted.start if since is None else self._last + 1)
        self._consumer = await add_reader(self._connection, wanted.stream, wanted.subjects, begin)
        self.puller = Puller(self._connection, wanted.stream, self._consumer, wanted.size)
        await self.puller.open()
        return first

    async def take(self) -> list[Delivered]:
        """Return the next messages; where some are missing, look whether they were removed in front of us."""
        assert self.puller is not None  # noqa: S101  # it has begun
        messages = await self.puller.take()
        if self._last and not self._wanted.subjects and messages[-1].seq - self._last > len(messages):
            await self._look_for_removed(messages)
        self._last = messages[-1].seq
        return messages

    async def _look_for_removed(self, messages: list[Delivered]) -> None:
        state = await look(self._connection, self._wanted.stream)
        before = self._last
        for message in messages:
            if message.seq > before + 1 and state.first > before + 1:
                self._wanted.report_removed(state, before, message.seq)
            before = message.seq

    def position(self, messages: Sequence[Delivered]) -> Position:
        """Return the position behind the messages."""
        return {"stream": self._created, "seq": messages[-1].seq}

    async def end(self, left: Sequence[Delivered]) -> None:
        """Have the server forget the consumer."""
        if self.puller is not None:
            with suppress(TransientError):
                await self.puller.close()
                api = f"$JS.API.CONSUMER.DELETE.{self._wanted.stream}.{self._consumer}"
                await self._connection.publish(api, b"", self._connection.client.new_inbox())


class ByConsumer:
    """Reads from a durable consumer; what is stored is acknowledged, what the server gives again is recognised."""

    puller: Puller | None = None

    def __init__(self, connection: Connection, wanted: Wanted, durable: str, held: Held) -> None:
        self._connection = connection
        self._wanted = wanted
        self._durable = durable
        self._held = held
        self._created = ""
        self._most_ranges = _MOST_RANGES

    async def begin(self, since: Position | None) -> Position | None:
        """Find the consumer, or make it when nothing was read so far."""
        wanted = self._wanted
        state = await look_at(self._connection, wanted.stream, durable=True)
        state.check(since)
        _check_durable(since, self._durable)
        self._created = state.created
        consumer = await self._find(since)
        self._held.begin(since, consumer.floor)
        if state.retention == "limits" and since is not None:
            wanted.report_removed(state, max(since["seq"], consumer.delivered), state.first)
        self.puller = Puller(self._connection, wanted.stream, self._durable, wanted.size)
        await self.puller.open()
        return None

    async def _find(self, since: Position | None) -> Consumer:
        wanted = self._wanted
        found = await find_durable(self._connection, wanted.stream, self._durable, wanted.subjects)
        if found is not None:
            return found
        begin = begin_at(wanted.start)
        if since is not None and "durable" not in since:
            begin = begin_at(since["seq"] + 1)
        elif since is not None:
            raise FatalError(
                f"the durable consumer '{self._durable}' of stream '{wanted.stream}' is gone, and with it what was not "
                f"acknowledged; add it again so that it begins where you want ({since['seq']:,} was the last message that "
                "was read), what is known to be stored is not stored again; or give the source a new `id`"
            )
        return await add_durable(self._connection, wanted.stream, self._durable, wanted.subjects, begin)

    async def take(self) -> list[Delivered]:
        """Return the next messages that were not handed on before; acknowledge those that are stored already."""
        assert self.puller is not None  # noqa: S101  # it has begun
        if len(self._held.ranges) > self._most_ranges:
            found = await self._find(None)
            self._held.settle(found.floor)
            self._most_ranges = max(_MOST_RANGES, 2 * len(self._held.ranges))
        while True:
            fresh: dict[int, Delivered] = {}
            for message in await self.puller.take():  # one that waited long may be there twice
                if message not in self._held:
                    fresh.setdefault(message.seq, message)
                elif self._held.is_stored(message):
                    await self._connection.publish(message.reply, b"+ACK")
            if fresh:
                return [*fresh.values()]

    def position(self, messages: Sequence[Delivered]) -> Position:
        """Return the position behind the messages, and know them again."""
        return self._held.hand_on(messages, stream=self._created, durable=self._durable)

    async def end(self, left: Sequence[Delivered]) -> None:
        """Give back what was not handed on, so that it comes soon to whoever asks next."""
        if self.puller is None:
            return
        with suppress(TransientError):
            await self.puller.close()
            for message in (*left, *self.puller.rest()):
                if message not in self._held:
                    await self._connection.publish(message.reply, b"-NAK")


def _check_durable(since: Position | None, durable: str | None) -> None:
    """Raise FatalError when a position was made with another setting: each knows other things of what is missing."""
    if since is None or since.get("durable") == durable:
        return
    if durable is not None and "durable" not in since:
        return  # nothing is missing before it
    raise FatalError(
        f"until now this source read from the durable consumer '{since['durable']}', which has messages that were not "
        f"stored yet; set `durable: {since['durable']}` again, or give the source a new `id`"
    )
