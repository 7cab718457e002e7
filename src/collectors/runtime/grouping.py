"""Which of the groups that are prepared go into one commit of a storage, and how long it waits for more of them."""

from __future__ import annotations

from collections.abc import Callable

from collectors.chunks import Reading
from collectors.runtime.preparing import Prepared

__all__ = ["Grouping"]

GROUP_BYTES = 16 * 2**20
GROUP_ROWS = 64 * 1024
MOST_LETTERS = 1024
WAIT_SECONDS = 1.0
"""Behind this a commit waits no more for rows that are being decoded."""
_ALONE = {"begins", "ends"}
"""Where a reading begins and ends are commits of their own."""


class Grouping:
    """What is taken for the next commit by one route; `now` is a clock in seconds.

    A storage may wish for `commit_rows`. It gets fewer where most records are filtered, where many are set aside, which
    may be too many, or where that would take long.
    """

    def __init__(self, route: int, commit_rows: int, now: Callable[[], float]) -> None:
        self._route = route
        self._wish = commit_rows
        self._now = now
        self._since = 0.0
        self._rows = self._records = self._letters = self._size = 0
        self._reading: Reading = ""

    def begin(self, first: Prepared) -> Callable[[Prepared], bool]:
        """Begin with a group; what it returns says of each further one, in order, whether it joins."""
        self._rows = self._records = self._letters = self._size = 0
        self._since = self._now()
        self._reading = first.reading
        self._add(first)
        return self._joins

    def wants_more(self) -> bool:
        """Return whether to wait for what is being decoded."""
        return self._are_few() and self._now() - self._since < WAIT_SECONDS

    def _are_few(self) -> bool:
        few_rows = self._rows < self._wish and self._records < 2 * self._wish
        return few_rows and self._letters < MOST_LETTERS and self._reading not in _ALONE

    def _joins(self, item: Prepared) -> bool:
        if item.reading != self._reading or item.reading in _ALONE:
            return False
        few = self._are_few()
        self._add(item)
        return (few or self._rows <= GROUP_ROWS) and self._size <= GROUP_BYTES

    def _add(self, item: Prepared) -> None:
        part = item.parts[self._route]
        self._rows += part.table.num_rows
        self._records += item.read
        self._letters += len(item.letters) + len(part.letters)
        self._size += item.size
