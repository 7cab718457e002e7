"""Finding the rows that make a whole table fail, by trying parts of it.

One algorithm for whoever does the trying: a generator that yields parts and is sent what came of them.
"""

from __future__ import annotations

from collections.abc import Generator

from collectors.errors import FatalError

__all__ = ["Culprits", "Search", "search"]

Culprits = dict[int, str]
"""Row number → why it is refused."""

Search = Generator[tuple[int, int], str | None, Culprits]


def search(rows: int, reason: str, most: int) -> Search:
    """Yield parts of a table of so many rows as `(start, end)`; expects why each is refused, None when it is not.

    The table as a whole is known to be refused, with `reason`. Parts come from the first row to the last, so that who
    keeps what is not refused keeps it in order. Returns the rows that are refused by themselves; none when rows are
    only refused together. Every row is in exactly one part that was not refused, or is returned. One culprit costs
    log2(rows) tries or a few more. Raises FatalError when more than `most` would be needed, as when all rows are
    refused: then it is hardly the data.
    """
    tries = 0

    def halve(start: int, end: int, reason: str) -> Search:
        nonlocal tries
        if end - start == 1:
            return {start: reason}
        culprits: Culprits = {}
        middle = (start + end) // 2
        fine = False
        for part in ((start, middle), (middle, end)):
            if fine and part[1] - part[0] > 1:
                culprits |= yield from halve(*part, reason)  # what is wrong must be in this half
                continue
            tries += 1
            if tries > most:
                raise FatalError(
                    f"too many of {rows:,} rows are refused to find out which ({most:,} tries); the last reason: {reason}"
                )
            told = yield part
            fine = told is None
            if told is not None:
                culprits |= yield from halve(*part, told)
        return culprits

    return halve(0, rows, reason)
