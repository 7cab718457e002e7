"""What `explain` does: measures each step of a pipeline on a source's first chunk; its own stores are left alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec import Struct, field
from msgspec.structs import replace

from collectors.codecs.base import Codec
from collectors.collection.base import Room, Source
from collectors.config.model import PipelineConfig, Route
from collectors.errors import CollectorsError, ConfigurationError, DataError
from collectors.models import CollectedData
from collectors.processing.pipeline import Pipeline
from collectors.processing.processors.python import Python
from collectors.processing.translating import NotSimpleError
from collectors.runtime.assembly import make_codecs, make_pipeline, make_sources
from collectors.runtime.batching import join_bytes
from collectors.runtime.env import Env
from collectors.runtime.measuring import Memory, fresh, memory_of, python_lines, typical_seconds
from collectors.runtime.replacing import Replacement, replacement
from collectors.runtime.sampling import first_chunks
from collectors.runtime.trying import store_seconds

__all__ = ["Cost", "Explanation", "SlowFunction", "explain"]

SAMPLE_BYTES = 2 * 2**20
MOST_BYTES = 4 * 2**20
WANTED_RECORDS = 10_000
"""A smaller sample is repeated up to so many records, so that what a call costs does not hide what a record costs."""
LOOKED_AT = 2_000
PASS_SECONDS = 1.0
PROBE_SECONDS = 0.1
WORTH_A_WARNING = 3.0
"""A function is warned of when it makes the steps without Python so many times slower."""


class Cost(Struct, frozen=True):
    """What a step costs, `seconds` for a record that was read. None is what cannot be known, or does not apply.

    `python_lines`: so many lines of Python run for every record. `new`: its columns that are new memory, the others
    are shared with what came in; `new_bytes` are the bytes of them, `bytes` all that come out, both for a record.
    """

    step: str
    seconds: float
    python_lines: int | None = None
    bytes: float | None = None
    columns: int | None = None
    new: list[str] | None = None
    new_bytes: float | None = None

    @property
    def runs(self) -> str | None:
        """How it works: on `columns`, on `chunks` where no table comes out, or `per record`; None: nobody knows."""
        if self.python_lines is None:
            return None
        return "per record" if self.python_lines else "chunks" if self.columns is None else "columns"


class SlowFunction(Struct, frozen=True):
    """A step that runs Python for every record: with it, all steps that do not take `factor` times as long.

    `replacement` is SQL that does the same; where there is none, `reason` says why.
    """

    step: str
    function: str
    factor: float
    replacement: Replacement | None
    reason: str | None

    @property
    def warns(self) -> bool:
        """Whether it makes the pipeline many times slower."""
        return self.factor >= WORTH_A_WARNING


class Explanation(Struct):
    """What a source's records cost on their way; `problem` is why that is not known, `misconfigured` as in a `Sample`.

    `records` were in the sample, steps were measured on `measured`; `unmeasured` are steps and why they were left out.
    """

    source: str
    problem: str | None = None
    misconfigured: bool = False
    records: int = 0
    refused: int = 0
    measured: int = 0
    costs: list[Cost] = field(default_factory=list)
    unmeasured: list[tuple[str, str]] = field(default_factory=list)
    functions: list[SlowFunction] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """What a record costs in all, one step after the other."""
        return sum(cost.seconds for cost in self.costs)


async def explain(
    config: PipelineConfig, within: float, tell: Callable[[str], None], env: Env | None = None
) -> list[Explanation]:
    """Return what each source's records cost; `within` is how long to wait for its first chunk, in seconds.

    `tell` is called with what is being measured, from any thread.
    """
    env = env or Env()
    try:
        return [await _explain(config, source, within, tell, env) for source in make_sources(config).values()]
    finally:
        env.close()


async def _explain(
    config: PipelineConfig, source: Source[Any], within: float, tell: Callable[[str], None], env: Env
) -> Explanation:
    found = Explanation(source.get_source_id())
    routes = [route for route in config.routes if found.source in route.sources]
    work = _Work(found, tell, env.monotonic)
    try:
        tell(f"{found.source}: reading")
        chunks, late = await first_chunks(source, within, env, SAMPLE_BYTES)
        if not chunks:
            how = f"no record came within {within:g} s" if late else "there is no record"
            raise DataError(f"{how}, so nothing can be measured")
        table = await env.in_thread(work.decode, source, chunks)
        for route in routes:
            result = await env.in_thread(work.process, make_pipeline(route), route.label, table)
            for name in route.backends:
                await _store(config, route, name, result, work)
        await env.in_thread(work.judge)
    except ConfigurationError as error:
        found.problem, found.misconfigured = str(error), True
    except (CollectorsError, OSError) as error:
        text = str(error)
        found.problem = text if text.startswith(found.source) else f"{found.source}: {text}"
    finally:
        await source.disconnect()
    return found


async def _store(config: PipelineConfig, route: Route, name: str, table: pa.Table, work: _Work) -> None:
    """Measure storing a table in an empty store of the same kind as the backend, in a temporary folder."""
    found, component = work.found, config.backends[name]
    step = _named(route.label, f"store {name}")
    work.tell(f"{found.source}: {step}")
    with tempfile.TemporaryDirectory(prefix="collectors-explain-") as folder:
        settings = component.settings.scratch(Path(folder))  # type: ignore[attr-defined]  # those of a backend
        if settings is None:
            reason = f"{component.type} has no scratch store to try it in, and the real one is left alone"
            found.unmeasured.append((step, reason))
            return
        backend = replace(component, settings=settings, instance=None).make()
        try:
            seconds, lines = await store_seconds(
                backend, table, route.flow(config.name, found.source), work.clock
            )
        except (CollectorsError, OSError) as error:
            found.unmeasured.append((step, str(error)))
        else:
            found.costs.append(Cost(step, seconds / max(1, found.measured), lines))


class _Work(Struct):
    """Measures in a worker thread, as a run does its work, and notes the costs."""

    found: Explanation
    tell: Callable[[str], None]
    clock: Callable[[], float]
    slow: list[tuple[Cost, Any, pa.Table]] = field(default_factory=list)
    """Steps that run Python for every record, with their processors and what comes in."""

    def decode(self, source: Source[Any], chunks: list[CollectedData]) -> pa.Table:
        """Measure reading and decoding, and return the records of the sample. Raises DataError when there are none."""
        found = self.found
        good = [data for data in chunks if data.data_format != "rejected"]
        if not good:
            raise DataError(f"the first record cannot be read: {chunks[0].metadata['reason']}")
        kind = good[0].data_format
        codec = make_codecs(source)(kind)
        pieces = [data.raw_data for data in good if data.data_format == kind]
        sample = join_bytes(pieces) if codec.joinable else pieces[0]
        first = codec.decode(sample)
        found.records, found.refused = first.read, len(first.rejected)
        if not first.table.num_rows:
            reason = f": {first.rejected[0].reason}" if first.rejected else ""
            raise DataError(f"none of the {first.read:,} records of the sample can be decoded{reason}")
        self._read(source, len(sample) / first.read)
        self.tell(f"{found.source}: decode")
        raw = _repeated(codec, sample, first.read)
        schema = first.table.schema.remove_metadata()
        times = first.read * (len(raw) // len(sample))
        decoded, lines = python_lines(lambda: codec.decode(raw, schema), times)
        seconds = typical_seconds(lambda: codec.decode(raw, schema), self.clock)
        buffer = pa.py_buffer(raw)
        came = [(buffer.address, buffer.address + buffer.size)]
        found.costs.append(_cost("decode", seconds / decoded.read, lines, decoded.table, came))
        table = decoded.table
        times = min(WANTED_RECORDS // table.num_rows, MOST_BYTES // max(1, table.nbytes))
        return pa.concat_tables([table] * times).combine_chunks() if times > 1 else table

    def _read(self, source: Source[Any], record_bytes: float) -> None:
        """Measure reading the first chunk again, from a source that can do that."""
        chunks = None if source.needs_spool() else source.read(None)
        if not isinstance(chunks, Iterator):
            self.found.unmeasured.append(("read", "this source cannot be read again to measure it"))
            return
        records = round(len(_next_chunk(source).raw_data) / record_bytes)
        chunk, lines = python_lines(lambda: _next_chunk(source), records)
        seconds = typical_seconds(lambda: _next_chunk(source), self.clock)
        self.found.costs.append(Cost("read", seconds / len(chunk.raw_data) * record_bytes, lines))

    def process(self, pipeline: Pipeline, route: str, table: pa.Table) -> pa.Table:
        """Measure each step of a route, and return what comes out of the last."""
        found = self.found
        table = table.slice(0, self._fitting(pipeline, table))
        found.measured = records = table.num_rows
        for number, (name, member) in enumerate(
            zip(pipeline.step_names(), pipeline.get_steps(), strict=True)
        ):
            step = _named(route, name)
            self.tell(f"{found.source}: {step}")
            run = partial(pipeline.apply, first=number, end=number + 1)
            some = table.slice(0, LOOKED_AT)
            _, lines = python_lines(partial(run, some), some.num_rows)
            came, result = memory_of(table), run(table).table
            seconds = typical_seconds(partial(run, table), self.clock)
            cost = _cost(step, seconds / records, lines, result, came)
            found.costs.append(cost)
            if lines:
                self.slow.append((cost, member.processor, table))
            table = result
        return table

    def _fitting(self, pipeline: Pipeline, table: pa.Table) -> int:
        """Return how many records go through the steps in about a second."""
        records = 1
        while True:
            began = self.clock()
            pipeline.apply(table.slice(0, records))
            seconds = self.clock() - began
            if records >= table.num_rows:
                return int(table.num_rows)
            if seconds > PROBE_SECONDS:
                return min(int(table.num_rows), max(records, int(records / seconds * PASS_SECONDS)))
            records = min(records * 8, table.num_rows)

    def judge(self) -> None:
        """Find out how much slower each function makes all the rest, and whether SQL can do its work."""
        rest = self.found.seconds - sum(cost.seconds for cost, _, _ in self.slow)
        for cost, processor, table in self.slow:
            function, made, reason = cost.step, None, "it is no function of one record"
            if isinstance(processor, Python):
                function = getattr(processor.function, "__qualname__", function)
                if processor.config.per == "record":
                    self.tell(f"{self.found.source}: looking for SQL in place of {function}")
                    try:
                        made = replacement(processor, table, cost.seconds * self.found.measured, self.clock)
                    except NotSimpleError as error:
                        reason = str(error)
            factor = (rest + cost.seconds) / rest
            self.found.functions.append(
                SlowFunction(cost.step, function, factor, made, None if made else reason)
            )


def _cost(step: str, seconds: float, lines: int | None, table: pa.Table, came: Memory) -> Cost:
    new, size = fresh(table, came)
    rows = table.num_rows
    if not rows:
        return Cost(step, seconds, lines, columns=table.num_columns)
    return Cost(step, seconds, lines, table.nbytes / rows, table.num_columns, new, size / rows)


def _named(route: str, step: str) -> str:
    return f"{route}: {step}" if route else step


def _next_chunk(source: Source[Any]) -> CollectedData:
    """Read the first chunk once more."""
    chunks: Any = source.read(None)
    try:
        chunk: CollectedData = next(chunk for chunk in chunks if not isinstance(chunk, Room))
        return chunk
    finally:
        chunks.close()


def _repeated(codec: Codec[Any], raw: bytes, records: int) -> bytes:
    """Return a small chunk several times over, where the format can be put behind itself."""
    times = min(WANTED_RECORDS // records, MOST_BYTES // len(raw))
    head = raw[: codec.preamble(raw)]
    if times < 2 or not (codec.joinable or head):
        return raw
    return head + join_bytes([raw[len(head) :]] * times)
