"""One run of a Singer target: messages go in, and the STATE that it writes out again says what it has stored.

The STATE has for each stream the number of the last delivery: so it can be told what is stored by a target that writes the
STATE as it came, and by one that puts it together from those of its streams. A target is first told of a STATE that says
nothing, since some take what comes first for stored.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from collectors.programs.command import Command, Run

__all__ = ["Target"]

_PIECE = 256 * 1024
_MOST_LINE = 2**20


class Target:
    """A target that runs. `stored` is told the stream and the number of the last delivery of it that is stored.

    `rubbish` gets what it writes beside that.
    """

    def __init__(
        self, run: Run, stored: Callable[[str, int], None], rubbish: Callable[[bytes], None]
    ) -> None:
        self.number = 0
        """The last delivery that it was told of."""
        self.schemas: dict[str, bytes] = {}
        """What it was told the columns of each stream are."""
        self._run = run
        self._stored = stored
        self._rubbish = rubbish
        self._token = secrets.token_hex(8)
        self._bookmarks: dict[str, dict[str, Any]] = {}
        self._torn = False
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    async def start(
        cls,
        command: Command,
        *,
        hear: Callable[[bytes], None],
        stored: Callable[[str, int], None],
        rubbish: Callable[[bytes], None],
    ) -> Target:
        """Start it. Raises ConfigurationError when it cannot be started."""
        return cls(await Run.start(command, hear, takes_input=True), stored, rubbish)

    @property
    def lost(self) -> bool:
        """Whether it takes nothing more: it has ended, or was left in the middle of a message."""
        return self._torn or self._listening.done()

    @property
    def code(self) -> int | None:
        """Its exit code; None as long as it runs."""
        return self._run.code

    def failure(self) -> str:
        """Return how it ended, with the last that it said."""
        return self._run.failure()

    async def tell(self, data: bytes) -> None:
        """Hand over whole messages. It is `lost` unless this returns."""
        self._torn = True
        await self._run.write(data)
        self._torn = False

    async def tell_state(self, stream: str | None = None) -> int:
        """Say that a delivery of a stream ends here; returns its number. Without a stream it says nothing."""
        if stream is not None:
            self.number += 1
            self._bookmarks[stream] = {"run": self._token, "delivery": self.number}
        state = {"type": "STATE", "value": {"bookmarks": self._bookmarks}}
        await self.tell(msgspec.json.encode(state) + b"\n")
        return self.number

    async def finish(self) -> None:
        """Say that there is no more, and wait for its end; `code` is there then."""
        self._run.end_input()
        await self._end_of_output()

    async def stop(self) -> None:
        """End it, with all that it has started; safe twice, and when it has ended."""
        await self._run.stop()
        await self._end_of_output()

    async def _end_of_output(self) -> None:
        """Wait until nothing more comes; who waits no longer does not end the listening, `stop` needs it still."""
        await asyncio.wait([self._listening])
        self._listening.result()

    async def _listen(self) -> None:
        rest = b""
        while data := await self._run.read(_PIECE):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(line)
            if len(rest) > _MOST_LINE:
                self._rubbish(rest)
                rest = b""
        self._take(rest)

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            bookmarks = msgspec.json.decode(line)["bookmarks"].items()
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
            self._rubbish(line)
            return
        for stream, mark in bookmarks:
            number = (
                mark.get("delivery") if isinstance(mark, dict) and mark.get("run") == self._token else None
            )
            if isinstance(number, int) and 0 < number <= self._bookmarks.get(stream, {}).get("delivery", 0):
                self._stored(stream, number)
            else:
                self._rubbish(line)
