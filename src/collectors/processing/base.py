"""What an author of a processor subclasses: write `transform(table)`.

A processor works on whole tables in a worker thread. It never retries, sleeps, counts or logs; the runtime does.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar, cast

import msgspec
import pyarrow as pa
from msgspec import Struct, field

from collectors.bisection import Culprits, search
from collectors.chunks import Rejected
from collectors.errors import CollectorsError, ConfigurationError, DataError, FatalError, TransientError
from collectors.interfaces.processing import IProcessor
from collectors.models import ProcessingResult
from collectors.processing.records import to_table
from collectors.rows import batches, python_rows
from collectors.settings import Name, Settings, settings_class

__all__ = ["Outcome", "Processor", "ProcessorConfig", "row_bytes", "rows_bytes"]

MOST_TRIES = 16384
"""So many parts of a table are tried to find rows that `transform` refuses without naming them; then the flow stops."""
MOST_ROUNDS = 1024
_STOPPING = (ConfigurationError, FatalError, TransientError, MemoryError)


class ProcessorConfig(Settings):
    """Settings that every processor has."""

    id: Name | None = None
    """Name of the step in the ledger and in messages; its type when left out."""


ConfigT = TypeVar("ConfigT", bound=ProcessorConfig)


class Outcome(Struct):
    """What a step made of a table: the rows that go on, and those it refused."""

    table: pa.Table
    rejected: list[Rejected] = field(default_factory=list)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"


def row_bytes(table: pa.Table, row: int) -> bytes:
    """Return one row as a JSON object, for a dead letter."""
    (record,) = python_rows(table.slice(row, 1))
    return msgspec.json.encode(record, enc_hook=str)


def rows_bytes(table: pa.Table, rows: Sequence[int]) -> list[bytes]:
    """Return `row_bytes` of many rows, in a fraction of the time."""
    found: list[bytes] = []
    for start, count in batches(len(rows)):
        part = table.take(pa.array(rows[start : start + count], pa.int64()))
        found += [msgspec.json.encode(record, enc_hook=str) for record in python_rows(part)]
    return found


class Processor(IProcessor, Generic[ConfigT]):
    """Base of processors: table in, table out; dicts and lists of dicts are converted where a caller has those."""

    config_class: ClassVar[type[ProcessorConfig]] = ProcessorConfig

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declared = settings_class(cls, Processor)
        if declared is not None:
            cls.config_class = cast("type[ProcessorConfig]", declared)

    def __init__(self, config: ConfigT | None = None, **settings: Any) -> None:
        self.config = cast("ConfigT", config if config is not None else self.config_class(**settings))

    @abstractmethod
    def transform(self, table: pa.Table) -> pa.Table:
        """Return the new table; the input must not be changed. Called once a chunk, in order, in a worker thread.

        Raises DataError with `rows` for the rows that it cannot use (it is then called again without them), with no
        rows when it does not know which (it is then called with parts of the table until they are found); FatalError or ConfigurationError when no row can ever work (no such column).
        """

    def apply(self, table: pa.Table) -> Outcome:
        """Return what `transform` makes of the table, with the rows it refuses set aside, found by halving if need be.

        An exception that is none of this package's is taken for a refusal too, when it comes from some rows only.
        """
        rejected: list[Rejected] = []
        rows: Sequence[int] = range(table.num_rows)
        good = table
        for _ in range(MOST_ROUNDS):
            bad: Culprits = {}
            try:
                return Outcome(self.transform(good), sorted(rejected, key=lambda item: item.record))
            except _STOPPING:
                raise
            except Exception as error:
                bad = dict(error.rows) if isinstance(error, DataError) else {}
                bad = bad or self._culprits(good, _reason(error))
                if not bad:
                    raise
            rejected += [
                Rejected(row_bytes(good, row), reason, rows[row]) for row, reason in sorted(bad.items())
            ]
            keep = [row for row in range(good.num_rows) if row not in bad]
            rows = [rows[row] for row in keep]
            good = good.take(pa.array(keep, pa.int64()))
        raise FatalError(
            f"{self.get_processor_name()}: refused rows of one table {MOST_ROUNDS} times over, each time others; "
            f"the last reason: {rejected[-1].reason}"
        )

    def _culprits(self, table: pa.Table, reason: str) -> Culprits:
        """Return the rows that are refused by themselves; none of an empty table."""
        if not table.num_rows:
            return {}
        trying = search(table.num_rows, reason, MOST_TRIES)
        told: str | None = None
        try:
            start, end = next(trying)
            while True:
                told = None
                try:
                    self.transform(table.slice(start, end - start))
                except _STOPPING:
                    raise
                except Exception as error:  # noqa: BLE001  # whatever it is, it is because of these rows
                    told = _reason(error)
                start, end = trying.send(told)
        except StopIteration as done:
            found: Culprits = done.value
            return found

    async def process(self, data: Any) -> ProcessingResult:
        """Process a dict, a list of dicts or a table and return the same kind of thing.

        A dict that is filtered out gives success with None. What fails is told in `error`, never raised; only input
        of another kind raises ValueError.
        """
        if not self.validate_input(data):
            raise DataError(
                f"{self.get_processor_name()}: expected a dict, a list of dicts or a table, got {type(data).__name__}"
            )
        started = time.perf_counter()
        result: Any = None
        problem: str | None = None
        try:
            result, problem = await asyncio.to_thread(self._process, data)
        except (CollectorsError, pa.ArrowException) as error:
            problem = str(error)
        return ProcessingResult(problem is None, result, problem, time.perf_counter() - started)

    def _process(self, data: Any) -> tuple[Any, str | None]:
        if isinstance(data, pa.Table):
            outcome = self.apply(data)
            return outcome.table, _first_reason(outcome)
        table, misfits = to_table([data] if isinstance(data, dict) else data)
        if misfits:
            return None, f"record {min(misfits)}: {misfits[min(misfits)]}"
        outcome = self.apply(table)
        records = python_rows(outcome.table)
        if isinstance(data, dict):
            return (records[0] if len(records) == 1 else records or None), _first_reason(outcome)
        return records, _first_reason(outcome)

    def get_processor_name(self) -> str:
        """Return `id` of the settings, or the type's name."""
        return self.config.id or type(self).__module__.rpartition(".")[2]

    def validate_input(self, data: Any) -> bool:
        """Return whether this is a dict, a list of dicts or an Arrow table."""
        if isinstance(data, list):
            return all(isinstance(item, dict) for item in data)
        return isinstance(data, (dict, pa.Table))


def _first_reason(outcome: Outcome) -> str | None:
    return outcome.rejected[0].reason if outcome.rejected else None
