"""The session that the broker keeps for us, and our side of it: what is subscribed to, and which messages are not over."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from collectors.collection.sources import _mqtt_packets as wire
from collectors.collection.sources._mqtt_connection import Connection, Welcome
from collectors.collection.sources._mqtt_exchanges import Exchange, Exchanges, Memory
from collectors.collection.sources._mqtt_packets import Packet
from collectors.errors import FatalError, TransientError
from collectors.models import CollectedData

__all__ = ["Session"]

_FILE = "session.json"
_SUBSCRIBING, _UNSUBSCRIBING = 1, 2


class Session:
    """Answers the broker; `exchanges` are the messages it has not done with. For one event loop, but for `remember`."""

    def __init__(
        self, address: str, client_id: str | None, made_up: str, tell: Callable[[str], None]
    ) -> None:
        self.exchanges = Exchanges()
        self._address = address
        self._tell = tell
        self._given_id = client_id
        self._memory = Memory(client_id or made_up)
        self._path: Path | None = None
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._saves: set[asyncio.Task[None]] = set()
        self._unsaid: list[Exchange] = []
        self._stale = False
        self._due: set[int] = set()
        self._asked: tuple[dict[str, int], list[tuple[str, int]]] = ({}, [])

    @property
    def client_id(self) -> str:
        """What names the session at the broker."""
        return self._memory.client_id

    @property
    def lasts(self) -> bool:
        """Whether it outlives this process: only then the broker is to keep it."""
        return self._path is not None

    @property
    def name(self) -> str:
        """What names it here, with those of all brokers."""
        return hashlib.blake2b(f"{self._address} {self.client_id}".encode(), digest_size=8).hexdigest()

    def remember(self, folder: Path, kept: Iterable[CollectedData]) -> None:
        """Learn who we are, and which messages of QoS 2 are kept and not over. Blocks. Raises TransientError."""
        self._path = folder / _FILE
        found = self._read(self._path)
        if found is not None and self._given_id in {None, found.client_id}:
            self._memory = found
        if self._memory.session != self.name:
            self._memory = Memory(self.client_id, self.name, self._memory.number)
        last = number = self._memory.number
        known = {mid: (each, mid, checksum) for each, mid, checksum in self._memory.known}
        for chunk in kept:
            if chunk.metadata.get("session") == self.name:
                for each, mid, checksum in chunk.metadata["exchanges"]:
                    if each > last:
                        known[mid] = (each, mid, checksum)
                        number = max(number, each)
        self.exchanges.restore(number, known.values())
        try:
            self._now().write(self._path)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _read(self, path: Path) -> Memory | None:
        try:
            return Memory.read(path)
        except (OSError, ValueError) as error:
            self._tell(
                f"{path}: {error}; it is made anew: messages of QoS 2 that were on their way may be stored twice"
                + ("" if self._given_id else ", and the broker begins a session under a new client id")
            )
            return None

    def _now(self) -> Memory:
        exchanges = self.exchanges
        return Memory(self.client_id, self.name, exchanges.settled, exchanges.known(), self._memory.topics)

    async def begin(self, connection: Connection, welcome: Welcome, wanted: dict[str, int]) -> None:
        """Go on with the session, or begin one, and subscribe to what it lacks; `wanted` are filters with their options."""
        self.exchanges.begin(present=welcome.present)
        self._unsaid.clear()
        self._connection = connection
        if not welcome.present:
            self._memory.topics = {}
            await self.save()
        have = self._memory.topics
        gone = [name for name in have if name not in wanted]
        self._asked = wanted, [each for each in wanted.items() if have.get(each[0]) != each[1]]
        self._due.clear()
        if gone:
            connection.send(wire.unsubscribe(_UNSUBSCRIBING, gone, v5=connection.broker.v5))
            self._due.add(wire.UNSUBACK)
        if self._asked[1]:
            connection.send(wire.subscribe(_SUBSCRIBING, self._asked[1], v5=connection.broker.v5))
            self._due.add(wire.SUBACK)
        while self._due and (packet := await connection.answer(self._due, "SUBSCRIBE", unless=wire.PUBLISH)):
            await self.subscribed(packet)

    async def subscribed(self, packet: Packet) -> None:
        """Take the answer to what was subscribed to; it may stand behind messages that have to be acknowledged first."""
        kind, connection = packet[0] >> 4, self._connection
        if connection is None or kind not in self._due:
            return
        self._due.discard(kind)
        wanted, new = self._asked
        if kind == wire.SUBACK:
            self._check_granted(connection, new, packet[1][-len(new) :])
        if not self._due:
            self._memory.topics = wanted
            await self.save()

    def _check_granted(self, connection: Connection, asked: list[tuple[str, int]], codes: bytes) -> None:
        pairs = list(zip(asked, codes, strict=False))
        refused = [f"'{name}' (code {code})" for (name, _), code in pairs if code >= 0x80]
        if refused:
            raise FatalError(
                f"{connection.broker} refuses the subscription to {', '.join(refused)}; look at `topics`, and at what it "
                "allows this user to read"
            )
        less = [f"'{name}' (QoS {code})" for (name, options), code in pairs if code < options & 3]
        if less:
            self._tell(f"{connection.broker} grants less than was asked for: {', '.join(less)}")

    async def end(self) -> None:
        """Answer no more, and wait until what is being saved is."""
        self._connection = None
        if self._saves:
            await asyncio.wait(self._saves)

    async def answer(self, due: Iterable[Exchange]) -> None:
        """Tell the broker of messages that are durable. Raises TransientError when that cannot be noted first."""
        connection, first = self._connection, list[Exchange]()
        second, self._unsaid = self._unsaid, []
        for exchange in due:
            (first if exchange.qos == 1 else second).append(exchange)
        if first and connection is not None:
            ends = [each for each in first if self.exchanges.is_open(each)]
            if connection.send(b"".join(wire.acknowledgement(wire.PUBACK, each.mid) for each in ends)):
                for each in ends:
                    self.exchanges.end(each.mid)
        if not second:
            return
        try:
            await self.save()
        except TransientError:
            self._unsaid += second
            raise
        # The broker waits on this connection for those that it sent on it.
        waits = [each.mid for each in second if each.here and self.exchanges.is_open(each)]
        if self._connection is not None:
            self._connection.send(b"".join(wire.acknowledgement(wire.PUBREC, mid) for mid in waits))

    async def over(self, mids: list[int]) -> None:
        """Answer PUBREL: forget the exchanges, durably, and then say so."""
        self._stale |= any([self.exchanges.end(mid) for mid in mids])  # noqa: C419  # all of them end
        if self._stale:
            await self.save()
        if self._connection is not None:
            self._connection.send(b"".join(wire.acknowledgement(wire.PUBCOMP, mid) for mid in mids))

    async def save(self) -> None:
        """Make durable what a later process has to know. Raises TransientError."""
        if self._path is None:
            return
        task = asyncio.ensure_future(self._save(self._path))
        self._saves.add(task)
        task.add_done_callback(self._saved)
        await asyncio.shield(task)

    async def _save(self, path: Path) -> None:
        async with self._lock:
            stale, self._stale = self._stale, False
            try:
                await asyncio.to_thread(self._now().write, path)
            except OSError as error:
                self._stale |= stale
                raise _unwritable(path, error) from error

    def _saved(self, task: asyncio.Task[None]) -> None:
        self._saves.discard(task)
        if not task.cancelled():
            task.exception()  # who waited has it, or has gone


def _unwritable(path: Path, error: OSError) -> TransientError:
    return TransientError(f"{path}: cannot note what the broker may be told: {error.strerror or error}")
