"""Processors in an order: `execute` for any data behind the specification's interface, `apply` for the runtime's tables."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import replace
from typing import Any

import pyarrow as pa
from msgspec import Struct

from collectors.chunks import Rejected
from collectors.errors import ConfigurationError, DataError, FatalError
from collectors.interfaces.processing import IPipeline, IProcessor
from collectors.models import PipelineResult, PipelineStep, ProcessingResult, ProcessingStatistics
from collectors.processing.base import Outcome, Processor, row_bytes
from collectors.processing.records import to_table
from collectors.rows import dicts_or_reasons

__all__ = ["Applied", "Pipeline", "StepOutcome"]


class StepOutcome(Struct):
    """What one step did to a table: rows in and out, the rows it refused, the seconds it took."""

    name: str
    rows_in: int
    rows_out: int
    rejected: list[Rejected]
    seconds: float


class Applied(Struct):
    """What all steps made of a table, and what each of them did."""

    table: pa.Table
    steps: list[StepOutcome]


class _Tally(Struct):
    executions: int = 0
    failures: int = 0
    seconds: float = 0.0

    def add(self, result: ProcessingResult) -> None:
        self.executions += 1
        self.failures += not result.success
        self.seconds += result.processing_time


class Pipeline(IPipeline):
    """Runs its steps in ascending order; what a step returns is the input of the next."""

    def __init__(self) -> None:
        self._steps: list[PipelineStep] = []
        self._tallies: dict[str, _Tally] = {}
        self._places: dict[str, str] = {}

    async def add_step(self, processor: IProcessor, order: int) -> str:
        """Add a step and return its id. Raises ValueError when it is no processor, or the order is taken."""
        if not isinstance(processor, IProcessor):
            raise DataError(f"expected a processor (an IProcessor), got {type(processor).__name__}")
        if isinstance(order, bool) or not isinstance(order, int):
            raise DataError(f"order: expected a whole number, got {order!r}")
        if any(step.order == order for step in self._steps):
            raise DataError(f"order {order} is taken; taken are {[step.order for step in self._steps]}")
        step = PipelineStep(uuid.uuid4().hex, processor, order)
        self._steps = sorted([*self._steps, step], key=lambda member: member.order)
        self._tallies[step.step_id] = _Tally()
        return step.step_id

    async def remove_step(self, step_id: str) -> None:
        """Take a step out, with its statistics. Raises KeyError for an unknown id."""
        del self._tallies[step_id]
        self._steps = [step for step in self._steps if step.step_id != step_id]

    def get_steps(self) -> list[PipelineStep]:
        """Return the steps in the order in which they run; to change one, take it out and add it again."""
        return [replace(step) for step in self._steps]

    def append(self, processor: IProcessor, place: str = "") -> None:
        """Add a step behind the last one; `place` is where it is configured, for messages: `pipeline.yaml:7`."""
        order = self._steps[-1].order + 1 if self._steps else 1
        step = PipelineStep(uuid.uuid4().hex, processor, order)
        self._steps.append(step)
        self._tallies[step.step_id] = _Tally()
        self._places[step.step_id] = place

    def step_names(self) -> list[str]:
        """Return the names of the steps in order, each once: a second `filter` is `filter-2`."""
        names: list[str] = []
        for step in self._steps:
            name = _name(step.processor)
            count = 1
            while (unique := name if count == 1 else f"{name}-{count}") in names:
                count += 1
            names.append(unique)
        return names

    def get_statistics(self) -> list[ProcessingStatistics]:
        """Return what `execute` did so far, one entry a step, in order; mean times in seconds."""
        return [
            ProcessingStatistics(
                step_name=name,
                execution_count=tally.executions,
                success_count=tally.executions - tally.failures,
                failure_count=tally.failures,
                average_time=tally.seconds / tally.executions if tally.executions else 0.0,
            )
            for name, tally in zip(
                self.step_names(), (self._tallies[step.step_id] for step in self._steps), strict=True
            )
        ]

    async def execute(self, input_data: Any) -> PipelineResult:
        """Run the steps; the first that fails ends the run, and `failed_step` is its name. Never raises.

        A step that filters a record out (success, without data) ends the run too, as a success.
        """
        started = time.perf_counter()
        data, results = input_data, list[ProcessingResult]()
        tallies = [self._tallies[step.step_id] for step in self._steps]
        for step, name, tally in zip(self._steps, self.step_names(), tallies, strict=True):
            result = await _process(step.processor, data)
            results.append(result)
            tally.add(result)
            if not result.success:
                return PipelineResult(False, None, results, name, time.perf_counter() - started)
            data = result.processed_data
            if data is None:
                break
        return PipelineResult(True, data, results, None, time.perf_counter() - started)

    def apply(
        self, table: pa.Table, first: int = 0, end: int | None = None, *, set_misfits_aside: bool = False
    ) -> Applied:
        """Run the steps, or those from number `first` up to `end`, over a table.

        Called by the runtime in a worker thread, once a chunk, in order.
        Rows that a step refuses are in its outcome, the rest goes on. Raises what no row can be blamed for; columns that
        do not fit the settings of a step are the rows' fault if `set_misfits_aside`, else a ConfigurationError that
        begins with the step and its place.
        """
        outcomes: list[StepOutcome] = []
        for step, name in list(zip(self._steps, self.step_names(), strict=True))[first:end]:
            started = time.perf_counter()
            rows_in = table.num_rows
            try:
                outcome = _apply(step.processor, table)
            except ConfigurationError as error:
                if not set_misfits_aside:
                    place = self._places.get(step.step_id)
                    where = f"{place}  " if place else ""
                    raise ConfigurationError(f"{where}step '{name}': {error}") from error
                outcome = _refuse_all(table, str(error))
            except MemoryError as error:
                told = f": {error}" if str(error) else ""
                raise FatalError(f"step '{name}' has run out of memory{told}") from error
            table = outcome.table
            seconds = time.perf_counter() - started
            outcomes.append(StepOutcome(name, rows_in, table.num_rows, outcome.rejected, seconds))
        return Applied(table, outcomes)


def _name(processor: IProcessor) -> str:
    """Return the processor's name, or its type's: a third-party one may raise even here."""
    try:
        name = processor.get_processor_name()
    except Exception:  # noqa: BLE001  # `execute` never raises
        name = None
    return name if isinstance(name, str) else type(processor).__name__


async def _process(processor: IProcessor, data: Any) -> ProcessingResult:
    """Process, with what a processor raises as its result: third-party ones may raise anything."""
    started = time.perf_counter()
    try:
        if not processor.validate_input(data):
            problem = f"{_name(processor)} does not take {type(data).__name__} input"
        else:
            result: Any = await processor.process(data)
            if isinstance(result, ProcessingResult):
                return result
            problem = f"{_name(processor)} returned {type(result).__name__}, not a ProcessingResult"
    except Exception as error:  # noqa: BLE001  # the contract: a failing step is in the result, never raised
        problem = f"{type(error).__name__}: {error}"
    return ProcessingResult(False, None, problem, time.perf_counter() - started)


def _refuse_all(table: pa.Table, reason: str) -> Outcome:
    rows = range(table.num_rows)
    return Outcome(table.slice(0, 0), [Rejected(row_bytes(table, row), reason, row) for row in rows])


def _apply(processor: IProcessor, table: pa.Table) -> Outcome:
    if isinstance(processor, Processor):
        return processor.apply(table)
    return asyncio.run(_apply_records(processor, table))


async def _apply_records(processor: IProcessor, table: pa.Table) -> Outcome:
    """Drive a processor that knows only the specification's interface, record by record."""
    records: list[dict[str, Any]] = []
    origins: list[int] = []
    given, refused = dicts_or_reasons(table)
    for row, record in enumerate(given):
        if row in refused:
            continue
        result = await _process(processor, record)
        data = result.processed_data
        made = data if isinstance(data, list) else [] if data is None else [data]
        if result.success and all(isinstance(item, dict) for item in made):
            records += made
            origins += [row] * len(made)
        else:
            refused[row] = result.error or f"expected a dict or a list of dicts, got {type(data).__name__}"
    made_table = table.slice(0, 0)
    while records:
        made_table, misfits = to_table(records, table.schema)
        if not misfits:
            break
        # a record that was split goes on whole or not at all: its letter is the whole record
        refused |= {origins[number]: reason for number, reason in misfits.items()}
        kept = [number for number, row in enumerate(origins) if row not in refused]
        records, origins = [records[number] for number in kept], [origins[number] for number in kept]
        made_table = table.slice(0, 0)
    rejected = [Rejected(row_bytes(table, row), reason, row) for row, reason in sorted(refused.items())]
    return Outcome(made_table, rejected)
