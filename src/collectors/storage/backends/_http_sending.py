"""Sending one delivery: so many requests at a time, what is refused row by row, and what was sent not once more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct, field

from collectors.bisection import search
from collectors.chunks import ChunkKey
from collectors.errors import TransientError
from collectors.storage.backends._http_requests import Part

__all__ = ["Progress", "Sender"]

Send = Callable[[Part], Awaitable[str | None]]
"""Sends the rows of one request; returns why they are refused, None when they are not. Raises what stops the delivery."""

_FEW_ROWS = 64
"""Of more rows in one request not all can be set aside: so many are hardly bad data."""


class Progress(Struct):
    """How far a delivery is: what need not be sent again while this process lives, and the rows that are refused."""

    key: ChunkKey
    answers: dict[tuple[int, int], str | None] = field(default_factory=dict)
    """What came of the rows of requests: why they were refused, None when they were not."""
    refused: dict[int, str] = field(default_factory=dict)
    stored: bool = False


class Sender:
    """Sends requests, up to `most` at a time."""

    def __init__(self, send: Send, most: int) -> None:
        self._send = send
        self._most = most

    async def send_all(self, parts: Callable[[], Awaitable[Part | None]], progress: Progress) -> None:
        """Send what `parts` gives, until it gives None. Raises the worst of what happened, once nothing is under way.

        No further request is begun after a failure; those under way are waited for, so that it is known what came of them.
        """
        running: set[asyncio.Task[None]] = set()
        errors: list[BaseException] = []
        try:
            while not errors and (part := await parts()) is not None:
                if progress.answers.get(part.span, "") is None:
                    continue
                running.add(asyncio.ensure_future(self._deliver(part, progress)))
                if len(running) >= self._most:
                    running = await self._some(running, errors)
            while running:
                running = await self._some(running, errors)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if errors:
            raise _worst(errors)

    async def _some(
        self, running: set[asyncio.Task[None]], errors: list[BaseException]
    ) -> set[asyncio.Task[None]]:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        errors += [error for task in done if (error := task.exception()) is not None]
        return running

    async def _deliver(self, part: Part, progress: Progress) -> None:
        """Send one request; of one that is refused, the rows that are to blame are found with smaller ones."""
        reason = await self._answer(part, progress)
        if reason is not None:
            trying = search(len(part.rows), reason, 2 * max(_FEW_ROWS, len(part.rows) // 2))
            try:
                start, end = next(trying)
                while True:
                    start, end = trying.send(await self._answer(part.piece(start, end), progress))
            except StopIteration as done:
                progress.refused.update({part.rows[row]: why for row, why in done.value.items()})

    async def _answer(self, part: Part, progress: Progress) -> str | None:
        """Send rows, unless it is known what comes of it."""
        if part.span not in progress.answers:
            progress.answers[part.span] = await self._send(part)
        return progress.answers[part.span]


def _worst(errors: list[BaseException]) -> BaseException:
    """Return what stops a flow before what is tried again, and of the latter what wants to wait longest."""
    for error in errors:
        if not isinstance(error, TransientError):
            return error
    return max(errors, key=lambda error: getattr(error, "retry_after", None) or 0.0)
