"""Simulated sources: numbered records in chunks that are cut anew each time, with all that goes wrong on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal, Protocol

import pyarrow as pa
from msgspec import Struct, field

from collectors.chunks import Rejected
from collectors.codecs.base import Codec, CodecConfig, Decoded
from collectors.collection.base import Source, SourceConfig
from collectors.errors import DataError, TransientError
from collectors.models import CollectedData, Position
from collectors.processing.base import Processor, ProcessorConfig

__all__ = ["Chance", "Lines", "Series", "Sieve", "make_source"]

Fate = Literal["stored", "filtered", "malformed", "refused", "rejected"]
_SCHEMA = pa.schema([("s", pa.string()), ("n", pa.int64())])
_SHARES: dict[Fate, int] = {"stored": 70, "filtered": 15, "malformed": 6, "refused": 4, "rejected": 6}
_FATES = [fate for fate, share in _SHARES.items() for _ in range(share)]


class Chance(Protocol):
    """What sources ask the simulated world."""

    calm: bool

    def hits(self, rate: float) -> bool:
        """Return whether something with this probability happens now; never when the world is calm."""

    def below(self, limit: int) -> int:
        """Return a number from 0 up to the limit."""

    def seconds(self) -> float:
        """Return how long something takes: mostly nothing, now and then long."""

    def elapsed(self) -> float:
        """Return the simulated seconds since the start."""


class Series(Struct):
    """One source's records, 0 to `count`, over all processes that read it.

    `rate` is how many records there are after each second, 0 for all at once. `handed` counts how often a process got
    each record from a sender that does not repeat what it was told is kept (`pushed`), `told` is how far that is.
    """

    id: str
    count: int
    most: int
    threaded: bool
    replays: bool
    pushed: bool
    rate: float
    failures: float
    told: int = 0
    handed: list[int] = field(default_factory=list)
    fates: list[Fate] = field(default_factory=list)
    """What becomes of each record on its way to the stores."""

    def __post_init__(self) -> None:
        self.handed = [0] * self.count
        self.fates = [_FATES[(n * 2654435761 + self.count) % len(_FATES)] for n in range(self.count)]

    def line(self, n: int) -> bytes:
        """Return a record as the source gives it."""
        return b"%s %s%d\n" % (self.id.encode(), b"?" if self.fates[n] == "malformed" else b"", n)


class Lines(Codec[CodecConfig]):
    """One record a line: the source's name and a number. Decoding costs next to nothing."""

    joinable = True

    def decode(self, data: bytes, schema: pa.Schema | None = None) -> Decoded:
        """Return the lines whose second word is a number; the others are refused."""
        lines = data.splitlines()
        words = [line.decode().split() for line in lines]
        bad = [row for row, (_, number) in enumerate(words) if not number.isdecimal()]
        good = [(source, int(number)) for source, number in words if number.isdecimal()]
        return Decoded(
            _table(good),
            len(lines),
            [Rejected(lines[row], "not a number", row) for row in bad],
        )

    def encode(self, table: pa.Table) -> bytes:
        """Return the rows as lines."""
        return b"".join(b"%s %d\n" % (row["s"].encode(), row["n"]) for row in table.to_pylist())


def _table(rows: list[tuple[str, int]]) -> pa.Table:
    return pa.table(
        [pa.array([source for source, _ in rows], pa.string()), [n for _, n in rows]], schema=_SCHEMA
    )


class _Base(Source[SourceConfig]):
    data_format = f"{__name__}:{Lines.__name__}"

    def __init__(self, series: Series, chance: Chance, on_commit: Callable[[Series, int], None]) -> None:
        super().__init__(SourceConfig(id=series.id, every=0.5 if series.rate else None))
        self.series = series
        self.chance = chance
        self.on_commit = on_commit

    async def open(self) -> None:
        await asyncio.sleep(self.chance.seconds())
        self.fail("cannot be reached")

    def fail(self, what: str) -> None:
        if self.chance.hits(self.series.failures):
            raise TransientError(f"{self.series.id} {what}")

    def available(self) -> int:
        series = self.series
        if not series.rate or self.chance.calm:
            return series.count
        return min(series.count, int(series.rate * self.chance.elapsed()))

    def poll_interval(self) -> float | None:
        return None if self.available() == self.series.count else self.config.every

    def first(self, since: Position | None) -> int:
        return int(since["n"]) if since else 0

    def cut(self, start: int) -> CollectedData:
        self.fail(f"breaks off at {start}")
        end = min(start + 1 + self.chance.below(self.series.most), self.available())
        return self.piece(start, end)

    def piece(self, start: int, end: int) -> CollectedData:
        series = self.series
        if series.fates[start] == "refused":
            return self.refuse(series.line(start), {"n": start + 1}, "too long")
        end = next((n for n in range(start, end) if series.fates[n] == "refused"), end)
        return self.chunk(b"".join(map(series.line, range(start, end))), {"n": end})

    async def commit(self, position: Position) -> None:
        await asyncio.sleep(self.chance.seconds())
        self.fail("does not hear that it is stored")
        self.on_commit(self.series, int(position["n"]))


class _Streamed(_Base):
    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        start = self.first(since)
        while start < self.available():
            await asyncio.sleep(self.chance.seconds())
            data = self.cut(start)
            start = int(data.position["n"]) if data.position else start
            yield data


class _Threaded(_Base):
    def read(self, since: Position | None) -> Iterator[CollectedData]:
        start = self.first(since)
        while start < self.available():
            data = self.cut(start)
            start = int(data.position["n"]) if data.position else start
            yield data


class _Replaying(_Streamed):
    def replay(self, since: Position | None, until: Position) -> CollectedData:
        return self.piece(self.first(since), int(until["n"]))


class _ReplayingThreaded(_Threaded):
    def replay(self, since: Position | None, until: Position) -> CollectedData:
        return self.piece(self.first(since), int(until["n"]))


class _Pushed(_Streamed):
    """A sender goes on behind what it was told is kept when it has to begin anew."""

    def needs_spool(self) -> bool:
        return True

    def first(self, since: Position | None) -> int:
        return int(since["n"]) if since else self.series.told

    def piece(self, start: int, end: int) -> CollectedData:
        data = super().piece(start, end)
        for n in range(start, data.position["n"] if data.position else start):
            self.series.handed[n] += 1
        return data

    async def commit(self, position: Position) -> None:
        await super().commit(position)
        self.series.told = max(self.series.told, int(position["n"]))


def make_source(series: Series, chance: Chance, on_commit: Callable[[Series, int], None]) -> Source[Any]:
    """Return a new process's way to the series."""
    if series.pushed:
        return _Pushed(series, chance, on_commit)
    if series.replays:
        return (_ReplayingThreaded if series.threaded else _Replaying)(series, chance, on_commit)
    return (_Threaded if series.threaded else _Streamed)(series, chance, on_commit)


class Sieve(Processor[ProcessorConfig]):
    """Filters and rejects what its fate says."""

    def __init__(self, series: dict[str, Series]) -> None:
        super().__init__(ProcessorConfig(id="sieve"))
        self._series = series

    def transform(self, table: pa.Table) -> pa.Table:
        """Return the rows that are to be stored."""
        if not table.num_rows:
            return table
        pairs = list(zip(table["s"].to_pylist(), table["n"].to_pylist(), strict=True))
        fates = [self._series[source].fates[n] for source, n in pairs]
        rejected = {row: "not wanted" for row, fate in enumerate(fates) if fate == "rejected"}
        if rejected:
            raise DataError("rejected", rows=rejected)
        return _table([pair for pair, fate in zip(pairs, fates, strict=True) if fate == "stored"])
