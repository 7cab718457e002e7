"""What a program says on its standard error, line by line, for people: from a level on, and not without end."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

__all__ = ["Level", "ProgramLog"]

Level = Literal["debug", "info", "warning", "error"]
_RANKS = {"debug": 0, "info": 1, "warn": 2, "warning": 2, "error": 3, "critical": 3, "fatal": 3}
_LEVEL = re.compile(
    r'"level(?:name)?":\s*"(?P<json>\w+)"|\b(?P<word>DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)\b'
)
_LINE_BYTES = 4096
_SHOWN_CHARACTERS = 500
_LINES = 50
_PERIOD = timedelta(hours=1)


class ProgramLog:
    """Takes bytes as they come, and tells whole lines: those of `least` or above, at most 50 an hour, and how many more.

    `who` is what the program is called in them. A line without a level belongs to the one before it. `clean` takes secrets out of a line.
    """

    def __init__(
        self,
        who: str,
        tell: Callable[[str], None],
        clean: Callable[[str], str],
        least: Level,
        now: Callable[[], datetime],
    ) -> None:
        self._who = who
        self._tell = tell
        self._clean = clean
        self._least = _RANKS[least]
        self._now = now
        self._rest = b""
        self._rank = _RANKS["warning"]
        self._since: datetime | None = None
        self._count = 0

    def hear(self, data: bytes) -> None:
        """Take the next bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        while len(self._rest) > _LINE_BYTES:
            self._line(self._rest[:_LINE_BYTES])
            self._rest = self._rest[_LINE_BYTES:]

    def end(self) -> None:
        """Take what is left for a line: the program has ended."""
        if self._rest:
            self._line(self._rest)
        self._rest, self._rank = b"", _RANKS["warning"]

    def close(self) -> None:
        """Tell how many lines were not shown: nobody listens any more."""
        self._say_more()

    def _line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        found = _LEVEL.search(text[:_SHOWN_CHARACTERS])
        if found:
            self._rank = _RANKS.get((found["json"] or found["word"]).lower(), self._rank)
        if not text or self._rank < self._least:
            return
        now = self._now()
        if self._since is None or now - self._since >= _PERIOD:
            self._say_more()
            self._since, self._count = now, 0
        self._count += 1
        if self._count <= _LINES:
            self._tell(f"{self._who} says: {self._clean(text)[:_SHOWN_CHARACTERS]}")

    def _say_more(self) -> None:
        if self._count > _LINES:
            self._tell(f"{self._who} says {self._count - _LINES} lines more, which are not shown")
            self._count = _LINES
