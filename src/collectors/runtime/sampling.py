"""What `check` does: a first chunk on its way through a pipeline, up to the doors of its backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pyarrow as pa
from msgspec import Struct, field

from collectors.collection.base import Source
from collectors.config.model import PipelineConfig, Route
from collectors.errors import CollectorsError, ConfigurationError
from collectors.models import CollectedData
from collectors.rows import python_rows
from collectors.runtime.assembly import make_codecs, make_pipeline, make_sources
from collectors.runtime.env import Env
from collectors.runtime.error_budget import budget_of, check_budget, percent
from collectors.runtime.flow_names import check_names
from collectors.runtime.ledger import EdgeReport
from collectors.runtime.preparing import Item, Letters, Prepared, Preparer, Way
from collectors.runtime.reading import race
from collectors.runtime.scheduler import check_schedule, is_endless
from collectors.runtime.state import STATE_HINT, State
from collectors.storage.base import Backend
from collectors.storage.files import check_writable

__all__ = ["Preview", "Sample", "first_chunks", "sample"]

SAMPLE_ROWS = 100
MORE_SECONDS = 1.0


class Preview(Struct):
    """What storing a source's sample would change at one backend; `rows` are some of the rows, as dicts."""

    backend: str
    where: str
    lines: list[str]
    rows: list[dict[str, Any]]
    problem: str | None = None


class Sample(Struct):
    """What a source's first chunk came to; `refused` are step and reason of records that would be set aside.

    `problem` is why a run would fail, `misconfigured` whether that is for its settings; `note` is what people should
    know of a source that could run.
    """

    source: str
    problem: str | None = None
    misconfigured: bool = False
    note: str | None = None
    read: int | None = None
    refused: list[tuple[str, str]] = field(default_factory=list)
    previews: list[Preview] = field(default_factory=list)


async def sample(config: PipelineConfig, within: float, env: Env | None = None) -> list[Sample]:
    """Return a sample for each source; `within` is how long to wait for its first chunk, in seconds."""
    env = env or Env()
    try:
        return [await _sample(config, source, within, env) for source in make_sources(config).values()]
    finally:
        env.close()


async def _sample(config: PipelineConfig, source: Source[Any], within: float, env: Env) -> Sample:
    result = Sample(source.get_source_id())
    routes = [route for route in config.routes if result.source in route.sources]
    try:
        chunks, late = await first_chunks(source, within, env)
        if not chunks:
            how = f"no record came within {within:g} s" if late else "there is no record"
            result.note = f"{how}; the source is reachable, its schema is not known yet"
            tables = [pa.table({}) for _ in routes]
        else:
            tables = await _prepare(config, source, chunks[0], routes, result, env)
        await _preview(config, routes, tables, result, env)
        if result.problem is None:
            await _check_names(config, result.source, env)
        check_writable(config.state / "lock", STATE_HINT)
    except ConfigurationError as error:
        result.problem, result.misconfigured = str(error), True
    except (CollectorsError, OSError) as error:
        result.problem = result.problem or f"{result.source}: {error}"
    finally:
        await source.disconnect()
    return result


async def first_chunks(
    source: Source[Any], within: float, env: Env, size: int = 1
) -> tuple[list[CollectedData], bool]:
    """Connect a source and return its first chunks, and whether the time for the first has run out.

    It ends with the chunk that makes `size` bytes of them, and waits no more than a second for those behind the first.
    """
    check_schedule(source)
    await source.connect()
    late = asyncio.Event()

    async def wait(seconds: float) -> None:
        await env.sleep(seconds)
        late.set()

    timer = asyncio.ensure_future(wait(within))
    chunks: list[CollectedData] = []
    try:
        async with aclosing(source.stream(None)) as stream:
            while (data := await race(anext(stream, None), late)) is not None:
                if not data.raw_data:  # it only moves the position
                    continue
                chunks.append(data)
                size -= len(data.raw_data)
                if size <= 0:
                    break
                if len(chunks) == 1:
                    timer.cancel()
                    timer = asyncio.ensure_future(wait(MORE_SECONDS))
        return chunks, late.is_set()
    finally:
        timer.cancel()


async def _prepare(
    config: PipelineConfig,
    source: Source[Any],
    data: CollectedData,
    routes: list[Route],
    result: Sample,
    env: Env,
) -> list[pa.Table]:
    """Return what each route makes of a chunk; what is refused on the way is noted in the result."""
    ways = [Way("", make_pipeline(route)) for route in routes]
    letters = Letters(config.name, result.source, "check", config.version, env.now)
    preparer = Preparer(make_codecs(source), ways, letters, source.data_format, env.monotonic)
    prepared: Prepared = await env.in_thread(preparer.prepare, [Item(1, None, data, len(data.raw_data))])
    result.read = prepared.read
    for letter in [*prepared.letters, *(letter for part in prepared.parts for letter in part.letters)]:
        result.refused.append((letter.step, letter.reason))
    stop_above = budget_of(config, source)
    for part in prepared.parts:
        edge = EdgeReport("", "", committed=part.counts)
        if check_budget(stop_above, edge, at_end=not is_endless(source)) and stop_above is not None:
            result.problem = (
                f"{result.source}: {part.counts.set_aside:,} of {part.counts.read + part.counts.added:,} records "
                f"of the sample would be set aside; `stop_above` allows {percent(stop_above)}, so a run would stop "
                "with exit code 3; mend the records or the step that refuses them, or allow more"
            )
    return [part.table for part in prepared.parts]


async def _preview(
    config: PipelineConfig, routes: list[Route], tables: list[pa.Table], result: Sample, env: Env
) -> None:
    """Ask each backend what it would do with the table of its route."""
    for route, table in zip(routes, tables, strict=True):
        for name in route.backends:
            backend = config.backends[name].make()
            preview = Preview(
                name, backend.describe(), [], python_rows(table.slice(0, min(SAMPLE_ROWS, table.num_rows)))
            )
            result.previews.append(preview)
            try:
                preview.lines = await env.in_thread(
                    backend.preview, table, route.flow(config.name, result.source)
                )
                unfit = [line.removeprefix("! ") for line in preview.lines if line.startswith("! ")]
                if unfit:
                    result.problem = (
                        f"storage '{name}' cannot take this: {'; '.join(unfit)}; "
                        "cast the column in a processor, rename it, or choose another table"
                    )
            except (CollectorsError, OSError) as error:
                preview.problem = str(error)
                result.problem = f"storage '{name}' cannot take this: {error}"
                result.misconfigured = isinstance(error, ConfigurationError)


async def _check_names(config: PipelineConfig, source: str, env: Env) -> None:
    """Ask what a run would, before it claims anything: by which names the storages know the source."""
    backends: dict[str, Backend[Any]] = {name: each.make() for name, each in config.backends.items()}
    async with _state(config, env) as state:
        try:
            await check_names(config, source, backends, state)
        finally:
            for backend in backends.values():
                await backend.disconnect()


@asynccontextmanager
async def _state(config: PipelineConfig, env: Env) -> AsyncIterator[State | None]:
    """Give the state file to read, None while there is none."""
    path = config.state / "state.db"
    if not path.exists():
        yield None
        return
    state = State(path, env, read_only=True)
    try:
        await state.open()
        yield state
    finally:
        await state.close()
