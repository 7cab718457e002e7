"""The contract of sources, as tests: subclass it with a rig, and pytest runs every rule against the component.

    class TestNumbers(SourceContract):
        component = "numbers"

        @asynccontextmanager
        async def rig(self, ids):
            yield {"limit": len(ids)}

A rule that a source cannot keep is waived by name with the reason; it then has to fail, so that a waiver which is no
longer needed is found.
"""

from __future__ import annotations

import asyncio
import functools
import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import UTC, timedelta
from typing import Any, ClassVar

import pytest

from collectors import registry
from collectors.collection.base import Source
from collectors.models import CollectedData, Position
from collectors.testing.faults import Census, leaks

__all__ = ["SourceContract"]

_PATIENCE_SECONDS = 20.0


class SourceContract:
    """What every source promises. All records that the rig holds carry an id; the rules compare sets of ids."""

    component: ClassVar[str]
    """The type of the source, as settings have it."""
    waive: ClassVar[dict[str, str]] = {}
    """Rule (a test's name without `test_`) → why this source cannot keep it."""
    endless: ClassVar[bool] = False
    """Whether reading never returns by itself; it is then stopped when nothing comes for `quiet_seconds`."""
    quiet_seconds: ClassVar[float] = 0.3
    count: ClassVar[int] = 40
    """So many records wait in the rig."""

    @abstractmethod
    def rig(self, ids: Sequence[int]) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Enter a world in which records with these ids wait in several chunks; yield the settings, without type."""

    def ids_of(self, chunk: CollectedData) -> list[int]:
        """Return the ids in a chunk: the column `id` of its records, or their only column."""
        if chunk.data_format == "ndjson":
            records = [json.loads(line) for line in chunk.raw_data.splitlines() if line.strip()]
        else:
            codec = registry.create("codec", chunk.data_format, {})
            records = codec.decode(chunk.raw_data).table.to_pylist()
        return [int(record["id"] if "id" in record else next(iter(record.values()))) for record in records]

    def make(self, settings: dict[str, Any]) -> Source[Any]:
        """Return a new source object with these settings, framed by its codec as in a pipeline."""
        source: Source[Any] = registry.create("source", self.component, settings)
        spec = source.format()
        kind, options = (spec, {}) if isinstance(spec, str) else (spec["type"], {**spec})
        options.pop("type", None)
        if kind in registry.names("codec"):
            source.framing = registry.create("codec", kind, options)
        return source

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for rule, reason in cls.waive.items():
            test = getattr(cls, f"test_{rule}", None)
            if test is None:
                raise TypeError(f"{cls.__name__}.waive: there is no rule '{rule}'")
            setattr(cls, f"test_{rule}", pytest.mark.xfail(reason=reason, strict=True)(_copy(test)))

    @property
    def ids(self) -> list[int]:
        """The ids of the records that the rig holds."""
        return list(range(1, self.count + 1))

    def test_found_by_type(self) -> None:
        """The type's name leads to the class, and its file says what it is."""
        component = registry.find("source", self.component)
        assert issubclass(component, Source)
        assert component.__doc__, "the class needs a docstring"

    def test_unknown_setting_refused(self) -> None:
        """A setting that does not exist is refused by name, before anything is opened."""

        async def check() -> None:
            async with self.rig(self.ids) as settings:
                with pytest.raises(ValueError, match="no_such_setting"):
                    self.make({**settings, "no_such_setting": 1})

        _run(check)

    def test_every_id_once(self) -> None:
        """Reading from the beginning to the end gives every record once, in order."""

        async def check() -> None:
            async with self.rig(self.ids) as settings:
                assert self._ids(await self._read_all(settings, None)) == self.ids

        _run(check)

    def test_chunks_are_labelled(self) -> None:
        """Each chunk says from which source it is, when and how it was collected, and in which format."""

        async def check() -> None:
            async with self.rig(self.ids) as settings:
                source = self.make({**settings, "id": "the-source"})
                chunks = await self._chunks(source, None)
                assert chunks
                for chunk in chunks:
                    assert chunk.source_id == source.get_source_id() == "the-source"
                    assert chunk.timestamp.utcoffset() == timedelta(0), "timestamps are aware UTC"
                    assert abs(chunk.timestamp - chunk.timestamp.now(UTC)) < timedelta(minutes=5)
                    assert chunk.data_format
                    assert chunk.collection_method
                    assert isinstance(chunk.raw_data, bytes)
                    json.dumps(chunk.metadata)

        _run(check)

    def test_position_survives_json(self) -> None:
        """Every chunk has a position, and it is the same after it was written as JSON and read again."""

        async def check() -> None:
            async with self.rig(self.ids) as settings:
                for chunk in await self._read_all(settings, None):
                    assert chunk.position is not None
                    assert json.loads(json.dumps(chunk.position)) == chunk.position

        _run(check)

    def test_resume_from_every_position(self) -> None:
        """A new object reads from any position what lies behind it: nothing is lost, nothing comes twice."""

        async def check() -> None:
            async with self.rig(self.ids) as settings:
                chunks = await self._read_all(settings, None)
                for number, chunk in enumerate(chunks):
                    position = json.loads(json.dumps(chunk.position))
                    before = self._ids(chunks[: number + 1])
                    after = self._ids(await self._read_all(settings, position))
                    assert before + after == self.ids, f"resumed from position {number}: {position}"

        _run(check)

    def test_read_again_from_earlier_position(self) -> None:
        """After an error the same object is read from an earlier position again, and gives the same records."""

        async def check() -> None:
            async with self.rig(self.ids) as settings:
                source = self.make(settings)
                await source.connect()
                try:
                    chunks = await self._stream(source, None)
                    middle = (len(chunks) - 1) // 2
                    rest = await self._stream(source, chunks[middle].position)
                    assert self._ids(chunks[: middle + 1] + rest) == self.ids
                finally:
                    await source.disconnect()

        _run(check)

    def test_nothing_twice_at_the_end(self) -> None:
        """Read again on the same object behind the last chunk, there is nothing."""

        async def check() -> None:
            async with self.rig(self.ids) as settings:
                source = self.make(settings)
                await source.connect()
                try:
                    chunks = await self._stream(source, None)
                    assert self._ids(chunks) == self.ids
                    assert await self._stream(source, chunks[-1].position) == []
                finally:
                    await source.disconnect()

        _run(check)

    def test_collect_gives_the_next_chunk(self) -> None:
        """`collect` gives one chunk, and called again the next one."""

        async def check() -> None:
            async with self.rig(self.ids) as settings:
                source = self.make(settings)
                await source.connect()
                try:
                    found: list[int] = []
                    while len(found) < len(self.ids):
                        found += self.ids_of(await asyncio.wait_for(source.collect(), _PATIENCE_SECONDS))
                    assert found == self.ids
                finally:
                    await source.disconnect()

        _run(check)

    def test_collect_before_connect(self) -> None:
        """Before `connect` there is a ConnectionError, not an empty result."""

        async def check() -> None:
            async with self.rig(self.ids) as settings:
                source = self.make(settings)
                with pytest.raises(ConnectionError):
                    await source.collect()

        _run(check)

    def test_disconnect_at_any_time(self) -> None:
        """`disconnect` is safe before `connect`, twice, and half-way through; nothing stays open after it."""

        async def check() -> None:
            async with self.rig(self.ids) as settings:
                before = Census.take()
                source = self.make(settings)
                await source.disconnect()
                await source.connect()
                await source.connect()
                await source.disconnect()
                await source.disconnect()
                await source.connect()
                async with aclosing(source.stream(None)) as stream:
                    await asyncio.wait_for(anext(stream), _PATIENCE_SECONDS)
                await source.disconnect()
                left = await leaks(before)
                assert left == [], left

        _run(check)

    def test_cancel_leaves_nothing(self) -> None:
        """Cancelled at its first chunk, at its second, or waiting, it leaves no task, thread, file or child process."""

        async def check() -> None:
            async with self.rig(self.ids) as settings:
                before = Census.take()
                for wanted in (1, 2, self.count + 1):
                    source = self.make(settings)
                    await source.connect()
                    seen = asyncio.Event()
                    task = asyncio.ensure_future(_consume(source, wanted, seen))
                    await asyncio.wait(
                        [task, waiting := asyncio.ensure_future(seen.wait())],
                        timeout=self.quiet_seconds,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    for each in (task, waiting):
                        each.cancel()
                    await asyncio.wait([task, waiting], timeout=_PATIENCE_SECONDS)
                    assert task.done(), "reading does not end when it is cancelled"
                    await source.disconnect()
                    left = await leaks(before)
                    assert left == [], left

        _run(check)

    def _ids(self, chunks: Sequence[CollectedData]) -> list[int]:
        return [each for chunk in chunks for each in self.ids_of(chunk)]

    async def _read_all(self, settings: dict[str, Any], since: Position | None) -> list[CollectedData]:
        return await self._chunks(self.make(settings), since)

    async def _chunks(self, source: Source[Any], since: Position | None) -> list[CollectedData]:
        await source.connect()
        try:
            return await self._stream(source, since)
        finally:
            await source.disconnect()

    async def _stream(self, source: Source[Any], since: Position | None) -> list[CollectedData]:
        """Return all chunks until reading returns, or, where it never does, until nothing comes any more."""
        chunks: list[CollectedData] = []
        async with aclosing(source.stream(since)) as stream:
            while True:
                patience = self.quiet_seconds if self.endless else _PATIENCE_SECONDS
                try:
                    chunks.append(await asyncio.wait_for(anext(stream), patience))
                except StopAsyncIteration:
                    return chunks
                except TimeoutError:
                    if not self.endless:
                        raise AssertionError(f"reading hangs after {len(chunks)} chunks") from None
                    return chunks


async def _consume(source: Source[Any], wanted: int, seen: asyncio.Event) -> None:
    """Read until so many chunks were seen, then hold the next one open, as a busy consumer does."""
    while True:
        async with aclosing(source.stream(None)) as stream:
            async for _ in stream:
                wanted -= 1
                if wanted == 0:
                    seen.set()
                    await asyncio.Event().wait()
        await asyncio.Event().wait()


def _copy(test: Callable[..., None]) -> Callable[..., None]:
    """Return the same test as a function of its own, so that a mark on it stays in one subclass."""

    @functools.wraps(test)
    def waived(self: SourceContract) -> None:
        test(self)

    return waived


def _run(check: Callable[[], Any]) -> None:
    asyncio.run(check())
