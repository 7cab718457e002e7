"""Which messages are on their way from the broker to the disk, and what the broker is to be told about each.

QoS 1: PUBACK once the message is durable in the spool. QoS 2: PUBREC once it is, PUBCOMP once it is durable that the
exchange is over. Until PUBREC the broker has the message; whatever it sends again under a packet identifier that is not
over is the same message, and not handed on twice. Its identifier travels in its chunk's metadata, so it is durable with
it; the file of this module has what is known at the last commit, and the spool's chunks fill the gap behind that.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct

from collectors.collection.sources._durable_file import write_durably

__all__ = ["Exchange", "Exchanges", "Memory"]


class Exchange(Struct, eq=False):
    """One message of QoS 1 or 2 that the broker has not done with."""

    number: int
    mid: int
    qos: int
    checksum: int
    kept: bool = False
    """Whether it is durable in the spool."""
    here: bool = True
    """Whether the broker sent it on this connection, and so waits for an answer on it."""


class Exchanges:
    """The open exchanges of a session, by packet identifier; `number` counts the messages handed on."""

    def __init__(self) -> None:
        self.number = 0
        self.settled = 0
        """Everything up to this number is durable."""
        self._open: dict[int, Exchange] = {}
        self._handed: deque[Exchange] = deque()

    def begin(self, *, present: bool) -> None:
        """Begin a connection; `present`: the broker goes on with the session and sends again what is open."""
        if not present:
            self._open.clear()
        for exchange in self._open.values():
            exchange.here = False

    def restore(self, number: int, known: Iterable[tuple[int, int, int]]) -> None:
        """Go on in a new process; `known` are number, packet identifier and checksum of what is kept, of QoS 2."""
        self.number = self.settled = number
        for each, mid, checksum in known:
            self._open[mid] = Exchange(each, mid, 2, checksum, kept=True, here=False)

    def take(self, mid: int, qos: int, checksum: int, again: list[Exchange]) -> Exchange | None:
        """Return the exchange of a message to be handed on; None when it was, and then it may have to be answered again."""
        known = self._open.get(mid)
        # A broker that lost its state can give an identifier to another message: that is a new one.
        if known is not None and known.checksum == checksum and known.qos == qos:
            known.here = True
            if known.kept:
                again.append(known)
            return None
        exchange = self._open[mid] = Exchange(self.count(), mid, qos, checksum)
        self._handed.append(exchange)
        return exchange

    def count(self) -> int:
        """Return the number of the next message."""
        self.number += 1
        return self.number

    def settle(self, number: int) -> list[Exchange]:
        """Note that everything up to a number is durable; return what the broker waits to hear about."""
        due: list[Exchange] = []
        self.settled = max(self.settled, number)
        while self._handed and self._handed[0].number <= number:
            exchange = self._handed.popleft()
            exchange.kept = True
            if self._open.get(exchange.mid) is exchange and exchange.here:
                due.append(exchange)
        return due

    def end(self, mid: int) -> bool:
        """Forget an exchange; return whether there was one of QoS 2 that the file may know of."""
        found = self._open.pop(mid, None)
        return found is not None and found.qos == 2

    def is_open(self, exchange: Exchange) -> bool:
        """Return whether an exchange is neither over nor forgotten."""
        return self._open.get(exchange.mid) is exchange

    def known(self) -> list[tuple[int, int, int]]:
        """Return number, packet identifier and checksum of each message of QoS 2 that is kept and not over."""
        return [
            (each.number, each.mid, each.checksum)
            for each in self._open.values()
            if each.qos == 2 and each.kept
        ]


class Memory(Struct):
    """What has to be known in a later process; `session` names broker and client, `topics` are those subscribed to."""

    client_id: str
    session: str = ""
    number: int = 0
    known: list[tuple[int, int, int]] = []
    topics: dict[str, int] = {}

    @classmethod
    def read(cls, path: Path) -> Memory | None:
        """Return what the file has; None when there is no file. Raises ValueError when it is damaged, OSError."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        found: dict[str, Any] = json.loads(text)
        try:
            return cls(
                client_id=str(found["client_id"]),
                session=str(found["session"]),
                number=int(found["number"]),
                known=[(int(number), int(mid), int(checksum)) for number, mid, checksum in found["known"]],
                topics={str(name): int(options) for name, options in found["topics"].items()},
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"it lacks something: {error}") from error

    def write(self, path: Path) -> None:
        """Replace the file; when this returns, it survives a power cut. Blocks. Raises OSError."""
        text = json.dumps(
            {
                "client_id": self.client_id,
                "session": self.session,
                "number": self.number,
                "known": self.known,
                "topics": self.topics,
            }
        )
        write_durably(path, text)
