"""Letters through the current pipeline again: read from their queue, taken up at the step that had refused them.

Many are tried at once; where one of them is refused again, filtered or split, the batch is halved until that letter is
alone, so that what comes of it is known to come from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
from msgspec import Struct
from msgspec.structs import replace

from collectors.chunks import Counts, DeadLetter, Rejected
from collectors.codecs.base import Decoded
from collectors.collection.base import Source, SourceConfig
from collectors.errors import FatalError
from collectors.models import CollectedData, Position
from collectors.processing.letter_rows import read_rows
from collectors.processing.pipeline import Applied
from collectors.runtime.batching import concat
from collectors.runtime.letter_queue import LetterQueue, Queued
from collectors.runtime.preparing import Item, Part, Prepared, Preparer, Way, count_step

__all__ = ["LetterPreparer", "LetterSource", "first_step"]


class LetterSource(Source[SourceConfig]):
    """Reads the letters of one source that wait for the same way; they can be read again. Made in the event loop."""

    def __init__(
        self, source: str, way: str, queue: LetterQueue, done: Callable[[Sequence[Queued]], Awaitable[None]]
    ) -> None:
        super().__init__(SourceConfig(id=source))
        self._way = way
        self._queue = queue
        self._done = done
        self._settled = 0
        self._loop = asyncio.get_running_loop()

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Yield batches of letters until the queue is empty."""
        behind = since["letter"] if since else 0
        while letters := await self._queue.read(self.get_source_id(), self._way, behind):
            behind = letters[-1].number
            yield self._batch(letters)

    def replay(self, since: Position | None, until: Position) -> CollectedData:
        """Return the batch between two positions."""
        reading = self._queue.read(
            self.get_source_id(), self._way, since["letter"] if since else 0, until["letter"], limited=False
        )
        return self._batch(asyncio.run_coroutine_threadsafe(reading, self._loop).result())

    async def commit(self, position: Position) -> None:
        """Let go of what every backend has."""
        done = await self._queue.read(
            self.get_source_id(), self._way, self._settled, position["letter"], limited=False
        )
        await self._done(done)
        self._settled = position["letter"]

    def knows(self, position: Position | None) -> bool:
        """Return whether a position is one of this queue, not of one that was removed."""
        return position is None or position["queue"] == self._queue.id

    def _batch(self, letters: list[Queued]) -> CollectedData:
        raw = b"".join(item.letter.raw for item in letters)
        position = {"queue": self._queue.id, "letter": letters[-1].number}
        return self.chunk(raw, position, data_format="letters", letters=letters)


def first_step(letter: DeadLetter, way: Way, *, from_start: bool) -> int | None:
    """Return the number of the step that a letter goes to, behind the last one for storing; None: to the decoder.

    A letter of a processor goes on behind the step that it had passed last, so that a step which was put in front of
    the one that had refused it is not left out; if that is gone, to the one that had refused it. Raises KeyError when
    the route has neither of them any more.
    """
    if letter.step == "decode":
        return None
    if letter.step.startswith("store "):
        return len(way.steps)
    if from_start or not letter.passed:
        return 0
    names = way.pipeline.step_names()
    if letter.passed in names:
        return names.index(letter.passed) + 1
    if letter.step not in names:
        raise KeyError(letter.step)
    return names.index(letter.step)


class _Try(Struct):
    """What came of some letters: of decoding or reading them back, and on each route."""

    letters: list[DeadLetter]
    first: int | None
    refused: list[Rejected]
    table: pa.Table
    applied: list[Applied]

    @property
    def smooth(self) -> bool:
        """Whether each letter has become one row."""
        return self.table.num_rows == len(self.letters) and not any(
            step.rejected or step.rows_out != step.rows_in for each in self.applied for step in each.steps
        )


class LetterPreparer(Preparer):
    """Does for letters what `Preparer` does for chunks; made for one way, so every letter goes to all its routes."""

    known: bytes | None = None

    def restore(self, schema: bytes | None) -> None:
        """Start from the schema that the source's own flow has reached."""
        Preparer.restore(self, self.known or schema)

    def joining(self, first: Item) -> Callable[[Item], bool]:
        """Keep batches apart."""
        return lambda _: False

    def prepare(self, group: list[Item]) -> Prepared:
        """Return what comes of a batch."""
        (item,) = group
        queued: list[Queued] = item.data.metadata["letters"]
        tries: list[_Try] = []
        for first, letters in groupby(queued, key=self._first_step):
            tries += self._try([each.letter for each in letters], first)
        numbers: dict[str, int] = {}
        refused: list[DeadLetter] = []
        parts = [Part(pa.table({}), [], Counts()) for _ in self.ways]
        for each in tries:
            again, base = self._refused(each, item.seq, numbers)
            (refused if each.first is None else parts[0].letters).extend(again)
            for way, part, applied in zip(self.ways, parts, each.applied, strict=True):
                self._add(part, way, each, applied, base, item.seq, numbers)
        for number, part in enumerate(parts):
            tables = [each.applied[number].table for each in tries]
            part.table = concat([table for table in tables if table.num_rows] or tables[:1])
        return Prepared(
            first_seq=item.seq,
            seq=item.seq,
            position=item.data.position,
            schema=self.schema_bytes,
            size=item.size,
            read=len(queued),
            letters=refused,
            parts=parts,
            resolved=[each.letter for each in queued],
        )

    def _first_step(self, queued: Queued) -> int | None:
        letter = queued.letter
        if letter.step != "decode" and len(self.ways) > 1:
            raise FatalError(
                f"letter {letter.letter_id} belongs to one route, but the source has several now; "
                "put the pipeline back as it was when the replay was begun, finish it, then change it"
            )
        try:
            return first_step(letter, self.ways[0], from_start=queued.from_start)
        except KeyError:
            raise FatalError(
                f"letter {letter.letter_id}: there is no step '{letter.step}' any more"
            ) from None

    def _try(self, letters: list[DeadLetter], first: int | None) -> list[_Try]:
        outcome = self._attempt(letters, first)
        if len(letters) == 1 or outcome.smooth:
            return [outcome]
        middle = len(letters) // 2
        return self._try(letters[:middle], first) + self._try(letters[middle:], first)

    def _attempt(self, letters: list[DeadLetter], first: int | None) -> _Try:
        if first is None:
            decoded = self._decode_again(letters)
            table, refused = decoded.table, decoded.rejected
        else:
            table, problems = read_rows([letter.raw for letter in letters], self._schema_at(first))
            refused = [Rejected(letters[row].raw, reason, row) for row, reason in sorted(problems.items())]
        rough = len(letters) > 1 and table.num_rows != len(letters)
        applied = [
            Applied(table, []) if rough or not table.num_rows else way.pipeline.apply(table, first or 0)
            for way in self.ways
        ]
        return _Try(letters, first, refused, table, applied)

    def _decode_again(self, letters: list[DeadLetter]) -> Decoded:
        letter = letters[0]
        codec = self.codec_for(letter.data_format or self.own_format)
        alike = all(
            (each.data_format, each.head) == (letter.data_format, letter.head) and b"\n" not in each.raw
            for each in letters
        )
        if len(letters) > 1 and not (alike and codec.joinable):
            return Decoded(pa.table({}), 0)  # not smooth: each is decoded alone
        raw = letter.raw if len(letters) == 1 else b"\n".join(each.raw for each in letters)
        return self._known(codec.decode_letter(raw, letter.head, self.schema))

    def _schema_at(self, first: int) -> pa.Schema | None:
        """Return the columns that the rows have in front of a step, as far as an empty table tells."""
        if self.schema is None:
            return None
        schema: pa.Schema = self.ways[0].pipeline.apply(self.schema.empty_table(), 0, first).table.schema
        return schema

    def _refused(self, tried: _Try, seq: int, numbers: dict[str, int]) -> tuple[list[DeadLetter], Counts]:
        """Return the letters that did not get as far as the first step, and the counts of all up to there."""
        letters, rows, refused = tried.letters, tried.table.num_rows, len(tried.refused)
        change = rows + refused - len(letters)
        if tried.first is None:
            self.decoding.add(len(letters), rows, refused, 0.0)
        counts = Counts(read=len(letters), added=max(0, change), filtered=max(0, -change), set_aside=refused)
        old = letters[0]
        again = self._again(
            tried,
            tried.refused,
            old.step,
            seq,
            numbers,
            route=old.route,
            head=old.head,
            data_format=old.data_format,
            passed=old.passed,
        )
        return again, counts

    def _add(
        self,
        part: Part,
        way: Way,
        tried: _Try,
        applied: Applied,
        base: Counts,
        seq: int,
        numbers: dict[str, int],
    ) -> None:
        part.counts += base
        if tried.first is not None and tried.first < len(way.steps):
            way.steps[tried.first].entered += tried.table.num_rows
        names = ["", *way.pipeline.step_names()]
        for number, step in enumerate(applied.steps, tried.first or 0):
            part.counts += count_step(way.steps[number], step)
            part.letters += self._again(
                tried, step.rejected, step.name, seq, numbers, route=way.name, passed=names[number]
            )
        alone = len(tried.letters) == 1
        part.origins += tried.letters * applied.table.num_rows if alone else tried.letters

    def _again(
        self,
        tried: _Try,
        refused: Sequence[Rejected],
        step: str,
        seq: int,
        numbers: dict[str, int],
        **about: Any,
    ) -> list[DeadLetter]:
        """Return letters for what was refused once more; a batch in which anything is refused is of one letter."""
        named = f"{about['route']}/{step}"
        start = numbers.get(named, 0)
        numbers[named] = start + len(refused)
        numbered = [replace(each, record=start + place) for place, each in enumerate(refused)]
        return self.letters.again(numbered, step, seq, tried.letters * len(refused), **about)
