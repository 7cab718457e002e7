"""A copy of a pipeline that can be killed as often as one likes: its sources are finite, its stores are scratch.

What could not be copied is replaced by something that behaves like it, or left out; `notes` say which.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec import Struct, field
from msgspec.structs import replace

from collectors import registry
from collectors.chaos.forks import in_child
from collectors.chaos.lines_store import LinesBackend, LinesConfig
from collectors.chaos.recordings import (
    Chunk,
    Recording,
    RecordingConfig,
    Sender,
    SenderConfig,
    write_chunks,
)
from collectors.collection.base import Answers, ByteSourceConfig, Source
from collectors.config.model import Component, PipelineConfig
from collectors.errors import CollectorsError, ConfigurationError, DataError
from collectors.models import CollectedData, Position
from collectors.runtime.assembly import make_codecs, make_sources
from collectors.runtime.env import Env
from collectors.runtime.scheduler import is_endless
from collectors.storage.base import KeepsPosition

__all__ = ["Copy", "copy_pipeline", "count_records"]

PIECES = 12
"""Into how many chunks a source's bytes are cut, where its settings have a `chunk_size`."""
RECORDED_CHUNKS = 24
RECORD_SECONDS = 2.0
READ_SECONDS = 20.0
_POLL = 0.05


class Copy(Struct):
    """A pipeline whose sources can be read any number of times; `at` gives it stores of its own.

    `records`: how many records each source has, counted by its codec alone. `made_up`: some say nothing.
    """

    config: PipelineConfig
    folder: Path
    notes: list[str] = field(default_factory=list)
    records: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    made_up: bool = False

    def at(
        self, folder: Path, *, pieces: int = PIECES, only: Mapping[str, list[int]] | None = None
    ) -> PipelineConfig:
        """Return the pipeline with all that it writes in a folder.

        `only`: these chunks of the senders, handed over by something that can do it again.
        """
        sources = {
            name: self._source(name, component, folder, pieces, only)
            for name, component in self.config.sources.items()
        }
        backends = {}
        for name, component in self.config.backends.items():
            store = folder / "stores" / name
            store.mkdir(parents=True, exist_ok=True)
            backends[name] = _scratch_backend(component, store)
        return replace(self.config, state=folder / "state", sources=sources, backends=backends)

    def _source(
        self,
        name: str,
        component: Component,
        folder: Path,
        pieces: int,
        only: Mapping[str, list[int]] | None,
    ) -> Component:
        settings: Any = component.settings
        if isinstance(settings, SenderConfig):
            if only is None:
                settings = settings.model_copy(update={"marks": str(folder / f"sender-{name}")})
                return replace(component, settings=settings)
            fields = settings.model_dump(exclude={"marks"}) | {"only": only[name]}
            return replace(component, cls=Recording, settings=RecordingConfig(**fields))
        if isinstance(settings, ByteSourceConfig) and name in self.sizes:
            size = max(256, min(settings.chunk_size, self.sizes[name] // pieces))
            settings = settings.model_copy(update={"chunk_size": size})
        return replace(component, settings=settings)


def copy_pipeline(
    config: PipelineConfig, folder: Path, size: int, samples: Mapping[str, Path] | None = None
) -> Copy:
    """Copy about `size` bytes of each source into the folder.

    `samples`: files with records, by source, for sources that are not to be read. Raises ConfigurationError when
    nothing can be tested.
    """
    samples = samples or {}
    for name in samples:
        if name not in config.sources:
            raise ConfigurationError(f"--sample: no source '{name}'; there are: {', '.join(config.sources)}")
    copy = Copy(config, folder)
    copy.config = _without(config, _untestable(config, copy.notes))
    sources = make_sources(copy.config)
    log = folder / "log"
    replaced = {}
    for name, component in copy.config.sources.items():
        replaced[name] = _copy_source(copy, name, component, sources[name], size, samples.get(name))
    copy.config = replace(copy.config, sources=replaced)
    plain = copy.at(folder / "count", only=_everything(copy.config))
    copy.records = in_child(lambda: count_records(plain), log)
    for name, records in copy.records.items():
        if records == 0:
            raise ConfigurationError(
                f"source '{name}' has no records, so there is nothing that could get lost"
            )
    return copy


def _untestable(config: PipelineConfig, notes: list[str]) -> set[str]:
    """Return the backends that cannot be tested, and note why; and what happens to the others."""
    left_out = set()
    for name, component in config.backends.items():
        backend = component.make()
        if not backend.durable:
            notes.append(f"storage {name}: left out; nothing in memory outlives a kill")
            left_out.add(name)
        elif component.settings.scratch(Path()) is not None:  # type: ignore[attr-defined]
            notes.append(f"storage {name}: a scratch store of the same kind")
        elif isinstance(backend, KeepsPosition):
            notes.append(
                f"storage {name}: left out; {component.type} does not say how to make a scratch store"
            )
            left_out.add(name)
        else:
            notes.append(f"storage {name}: a scratch file stands in for {backend.describe()}")
    if len(left_out) == len(config.backends):
        raise ConfigurationError("; ".join([*notes, "there is no storage that chaos can test"]))
    return left_out


def _without(config: PipelineConfig, left_out: set[str]) -> PipelineConfig:
    backends = {name: component for name, component in config.backends.items() if name not in left_out}
    routes = [
        replace(route, backends=tuple(name for name in route.backends if name in backends))
        for route in config.routes
    ]
    routes = [route for route in routes if route.backends]
    used = {name for route in routes for name in route.sources}
    sources = {name: component for name, component in config.sources.items() if name in used}
    return replace(config, backends=backends, routes=tuple(routes), sources=sources)


def _scratch_backend(component: Component, folder: Path) -> Component:
    settings = component.settings.scratch(folder)  # type: ignore[attr-defined]
    if settings is not None:
        return replace(component, settings=settings, instance=None)
    settings = LinesConfig(path=str(folder / "rows.ndjson"), id=component.id)
    return replace(component, cls=LinesBackend, settings=settings, instance=None)


def _copy_source(
    copy: Copy, name: str, component: Component, source: Source[Any], size: int, sample: Path | None
) -> Component:
    """Return something finite in the source's place, and note what."""
    folder = copy.folder / f"source-{name}"
    folder.mkdir()
    settings = source.scratch(folder, size) if sample is None else None
    if settings is not None:
        files = [path for path in folder.rglob("*") if path.is_file()]
        copy.sizes[name] = sum(path.stat().st_size for path in files)
        what = "a copy of a file" if len(files) == 1 else f"copies of {len(files):,} files"
        copy.notes.append(f"source {name}: {what}, {copy.sizes[name]:,} bytes")
        return replace(component, settings=settings, instance=None)
    recording = folder / "recording"
    if sample is not None:
        write_chunks(recording, _sampled(source, sample, size))
        what = f"records from {sample}"
    else:
        told = in_child(
            lambda: _record(source, recording, size), copy.folder / "log", stdin=not _is_terminal()
        )
        if told["whole"]:
            copy.notes.append(f"source {name}: read where it is, from its beginning, by every run")
            return component
        copy.made_up |= told["made_up"]
        what = told["what"]
    common = {"id": name, "recording": str(recording), "codec": source.format()}
    if not source.needs_spool():
        copy.notes.append(f"source {name}: {what}")
        return replace(component, cls=Recording, settings=RecordingConfig(**common), instance=None)
    copy.notes.append(f"source {name}: {what}; each is handed over once, through the spool")
    return replace(component, cls=Sender, settings=SenderConfig(**common, marks=""), instance=None)


def _is_terminal() -> bool:
    return sys.stdin is None or sys.stdin.isatty()


def _sampled(source: Source[Any], path: Path, size: int) -> list[Chunk]:
    """Return the records of a file in the source's format as chunks."""
    try:
        with path.open("rb") as file:
            data = file.read(size)
            whole = not file.read(1)
    except OSError as error:
        raise ConfigurationError(f"--sample: cannot read {path}: {error.strerror}") from error
    framing = source.framing
    head = data[: framing.preamble(data)]
    piece = max(256, len(data) // RECORDED_CHUNKS)
    data, chunks = data[len(head) :], []
    while data:
        length = framing.cut(data[:piece], final=False)
        if not length and len(data) > piece:
            piece *= 2
            continue
        length = length or framing.cut(data, final=whole)
        if not length:
            break
        chunks.append(Chunk(head + data[:length], source.data_format))
        data = data[length:]
    if not chunks:
        raise ConfigurationError(f"--sample: {path} has no record within {size:,} bytes")
    return chunks


def _everything(config: PipelineConfig) -> dict[str, list[int]]:
    senders = {
        name: each.settings
        for name, each in config.sources.items()
        if isinstance(each.settings, SenderConfig)
    }
    return {name: list(range(1, RECORDED_CHUNKS * 1000)) for name in senders}


async def count_records(config: PipelineConfig) -> dict[str, int]:
    """Return how many records each source has: read to its end and decoded, with no delivery in between."""
    counts = {}
    for name, source in make_sources(config).items():
        codec_for = make_codecs(source)
        await source.connect()
        counts[name] = 0
        async with aclosing(source.stream(None)) as stream:
            async for data in stream:
                refused = data.data_format == "rejected"
                counts[name] += 1 if refused else codec_for(data.data_format).decode(data.raw_data).read
        await source.disconnect()
    return counts


async def _record(source: Source[Any], path: Path, size: int) -> dict[str, Any]:
    """Record what a source gives; of one that can be read again only to see whether it comes to an end by itself."""
    spooled = source.needs_spool()
    chunks: list[Chunk] = []
    ended, why = False, "its senders must not be answered by a test"
    if not isinstance(source, Answers):
        why = f"nothing came within {RECORD_SECONDS:g} s"
        try:
            ended = await _listen(source, chunks, size, RECORD_SECONDS if spooled else READ_SECONDS)
        except (CollectorsError, OSError) as error:
            why = str(error)
    if ended and not spooled:
        return {"whole": True}
    recorded = len(chunks)
    what = f"{recorded} chunk{'s' if recorded != 1 else ''} recorded from it once"
    if not recorded:
        chunks = _made_up(source)
        what = f"made-up records (id, at, text) in its place, since {why}; --sample {source.get_source_id()}=FILE "
        what += "gives others"
    elif spooled and recorded < RECORDED_CHUNKS:
        chunks = [chunks[number % recorded] for number in range(RECORDED_CHUNKS)]
        what += f" and repeated to {RECORDED_CHUNKS}"
    write_chunks(path, chunks)
    return {"whole": False, "made_up": not recorded, "what": what}


async def _listen(source: Source[Any], chunks: list[Chunk], size: int, seconds: float) -> bool:
    """Record until the size or the time is reached, again and again if the source is; return whether it ended."""
    end = time.monotonic() + seconds
    since: Position | None = None
    await source.connect()
    try:
        while True:
            async for data in _until(source.stream(since), end):
                since = data.position
                chunks.append(Chunk(data.raw_data, data.data_format, data.metadata))
                size -= len(data.raw_data)
                if size <= 0:
                    return False
            if time.monotonic() >= end:
                return False
            if not is_endless(source):
                return True
            await Env().sleep(_POLL)
    finally:
        await source.disconnect()


async def _until(stream: Any, end: float) -> AsyncIterator[CollectedData]:
    async with aclosing(stream):
        while True:
            try:
                yield await asyncio.wait_for(anext(stream), max(0.01, end - time.monotonic()))
            except (StopAsyncIteration, TimeoutError):
                return


def _made_up(source: Source[Any]) -> list[Chunk]:
    """Return chunks of records that say nothing, in the source's format if that can be written, else as NDJSON."""
    codec, kind = source.framing, source.data_format
    chunks = []
    for first in range(0, RECORDED_CHUNKS * 20, 20):
        ids = list(range(first, first + 20))
        table = pa.table(
            {
                "id": ids,
                "at": [
                    f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"
                    for number in ids
                ],
                "text": [f"made-up record {number}" for number in ids],
            }
        )
        try:
            raw = codec.encode(table)  # type: ignore[attr-defined]  # make_sources has put a codec there
        except DataError:
            raw, kind = registry.create("codec", "ndjson", {}).encode(table), "ndjson"
        chunks.append(Chunk(raw, kind))
    return chunks
