"""A console that shows what outsiders have sent without letting it do anything to the terminal.

A record, and so a reason or a name made from one, can hold escape sequences that clear the screen, set the title, or
change what other lines look like (CWE-150).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich import console
from rich.segment import Segment

__all__ = ["Console", "printable"]

_ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters, without tab and line feed, and those that change the direction of writing."""


def printable(text: str) -> str:
    """Return the text with each character that a terminal would act upon replaced by U+FFFD."""
    return _ACTIVE.sub("\ufffd", text)


class Console(console.Console):
    """rich's console; whatever is printed is made `printable` after layout and before colours."""

    def render(self, renderable: Any, options: console.ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is shown of a renderable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
