"""Keeps processors, pipelines made of them, and what happened in each; plain functions can be processors."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from collectors.enums import ErrorType, EventType
from collectors.errors import ConfigurationError, DataError
from collectors.interfaces.crosscutting import IErrorHandler, IEventEmitter
from collectors.interfaces.processing import IPipeline, IProcessingManager, IProcessor
from collectors.models import PipelineResult, ProcessingResult, ProcessingStatistics
from collectors.processing.pipeline import Pipeline
from collectors.reporting import Reporter

__all__ = ["FunctionProcessor", "ProcessingManager", "check_function"]

FITS = "expected a function of one argument, for example `def clean(record: dict) -> dict`"


def check_function(function: object) -> None:
    """Raise ConfigurationError unless this is a function that can be called with one positional argument.

    Sync or async; more parameters need defaults. Classes and generator functions are refused.
    """
    if inspect.isclass(function) or not callable(function):
        raise ConfigurationError(f"{FITS}; got {_name(function)}", error_type=ErrorType.VALIDATION)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"{FITS}; '{_name(function)}' is a generator: return a list instead of yielding",
            error_type=ErrorType.VALIDATION,
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a function written in C that does not tell its signature
    try:
        signature.bind(object())
    except TypeError as error:
        raise ConfigurationError(
            f"{FITS}; got {_name(function)}{signature}: {error}", error_type=ErrorType.VALIDATION
        ) from error


def _name(thing: object) -> str:
    return str(getattr(thing, "__name__", None) or type(thing).__name__)


class FunctionProcessor(IProcessor):
    """A plain function as a processor; what it returns is the processed data, what it raises the error."""

    def __init__(self, function: Callable[[Any], Any], name: str | None = None) -> None:
        check_function(function)
        self._function = function
        self._name_given = name or _name(function)

    async def process(self, data: Any) -> ProcessingResult:
        """Call the function; a plain one runs in a worker thread."""
        started = time.perf_counter()
        try:
            if inspect.iscoroutinefunction(self._function):
                result = await self._function(data)
            else:
                result, stopped = await asyncio.to_thread(self._call, data)
                if stopped is not None:
                    raise stopped
                if inspect.isawaitable(result):
                    result = await result
        except Exception as error:  # noqa: BLE001  # a user's function may raise anything
            problem = f"{type(error).__name__}: {error}"
            return ProcessingResult(False, None, problem, time.perf_counter() - started)
        return ProcessingResult(True, result, None, time.perf_counter() - started)

    def _call(self, data: Any) -> tuple[Any, StopIteration | None]:
        """Call the function in a worker thread; a StopIteration cannot leave it: asyncio would wait forever."""
        try:
            return self._function(data), None
        except StopIteration as stopped:
            return None, stopped

    def get_processor_name(self) -> str:
        """Return the name given, or the function's."""
        return self._name_given

    def validate_input(self, data: Any) -> bool:
        """Return whether there is something to hand to the function."""
        return data is not None


class _ReportingPipeline(Pipeline):
    """A pipeline that tells when it begins, fails and ends."""

    def __init__(self, pipeline_id: str, reporter: Reporter) -> None:
        super().__init__()
        self._pipeline_id = pipeline_id
        self._reporter = reporter

    async def execute(self, input_data: Any) -> PipelineResult:
        """Run the steps and report it."""
        await self._reporter.event(EventType.PROCESSING_START, self._pipeline_id, {})
        result = await super().execute(input_data)
        if not result.success:
            error = DataError(str(result.step_results[-1].error), error_type=ErrorType.PROCESSING)
            step = {"failed_step": result.failed_step}
            await self._reporter.error(error, "execute", self._pipeline_id, step)
        details = {
            "success": result.success,
            "failed_step": result.failed_step,
            "seconds": result.total_time,
        }
        await self._reporter.event(EventType.PROCESSING_COMPLETE, self._pipeline_id, details)
        return result


class ProcessingManager(IProcessingManager):
    """Processors and pipelines by id; a processor's id is its name.

    `events` is told of each `execute` of a pipeline and of steps that fail, `errors` gets those as `ErrorInfo`.
    """

    def __init__(
        self,
        *,
        events: IEventEmitter | None = None,
        errors: IErrorHandler | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._reporter = Reporter("processing", events, errors, now)
        self._processors: dict[str, IProcessor] = {}
        self._pipelines: dict[str, Pipeline] = {}

    async def register_processor(self, processor: IProcessor | Callable[[Any], Any]) -> str:
        """Keep a processor, or a function as one, and return its id.

        Raises ValueError when it is neither, when a function's signature does not fit (the message says what
        would), or when the name is taken.
        """
        if not isinstance(processor, IProcessor):
            processor = FunctionProcessor(processor)
        name = processor.get_processor_name()
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError(f"a processor's name must be a text that is not empty, got {name!r}")
        if name in self._processors:
            raise ConfigurationError(f"a processor '{name}' is registered already")
        self._processors[name] = processor
        return name

    async def unregister_processor(self, processor_id: str) -> None:
        """Forget a processor; pipelines that have it keep it. Raises KeyError for an unknown id."""
        del self._processors[processor_id]

    async def create_pipeline(self, pipeline_id: str) -> IPipeline:
        """Make an empty pipeline. Raises ValueError when the id exists or is empty."""
        if not isinstance(pipeline_id, str) or not pipeline_id.strip():
            raise ConfigurationError(f"a pipeline's id must be a text that is not empty, got {pipeline_id!r}")
        if pipeline_id in self._pipelines:
            raise ConfigurationError(f"a pipeline '{pipeline_id}' exists already")
        self._pipelines[pipeline_id] = _ReportingPipeline(pipeline_id, self._reporter)
        return self._pipelines[pipeline_id]

    async def get_pipeline(self, pipeline_id: str) -> IPipeline:
        """Return a pipeline. Raises KeyError for an unknown id."""
        return self._pipelines[pipeline_id]

    async def add_step(self, pipeline_id: str, processor_id: str, order: int) -> str:
        """Add a registered processor to a pipeline and return the step's id. Raises KeyError, ValueError (order taken)."""
        return await self._pipelines[pipeline_id].add_step(self._processors[processor_id], order)

    async def delete_pipeline(self, pipeline_id: str) -> None:
        """Forget a pipeline. Raises KeyError for an unknown id."""
        del self._pipelines[pipeline_id]

    async def get_statistics(self, pipeline_id: str) -> list[ProcessingStatistics]:
        """Return what happened so far, one entry a step, in order. Raises KeyError for an unknown id."""
        return self._pipelines[pipeline_id].get_statistics()
