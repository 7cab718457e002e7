"""Runs a Python function of your own over every record, or over whole tables.

    processors:
      - {type: python, function: "weather:with_comfort"}

`weather.py` lies beside the pipeline file, or is installed:

    def with_comfort(record: dict) -> dict | None:    # or a list of dicts: one record becomes many
        if record["celsius"] is None:
            return None                               # left out
        return {**record, "comfortable": 18 <= record["celsius"] <= 26}

With `per: table` the function takes and returns a `pyarrow.Table`: all records of a chunk at once. A function may be
`async def`; records are then awaited one after the other. From Python the function itself can be given instead of its name.
Ints stay ints; a datetime without a zone is local time; what a column holds is said by its first record. A function must
give the same result for the same record, or a replay stores other rows than the first run.

Columns that a function certainly does not look at are passed by and not made into Python's values: its source is there and
uses the record only as in `record["name"]`, `record.get("name")`, `{**record, "name": …}` and `return record`.

Delivery: a record whose function raises, or returns what no record or column can be, is set aside; the others go on and
are not run twice. Functions of tables are called again on halves of a table that fails. Position: not concerned.
"""

from __future__ import annotations

import asyncio
import difflib
import importlib
import inspect
import pkgutil
import traceback
from array import array
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, cast

import pyarrow as pa
from msgspec import Struct
from pydantic import AfterValidator, WithJsonSchema

from collectors.chunks import Rejected
from collectors.errors import ConfigurationError, DataError, FatalError, TransientError
from collectors.processing._values import is_text, shown
from collectors.processing.base import Outcome, Processor, ProcessorConfig, row_bytes
from collectors.processing.manager import check_function
from collectors.processing.projection import Projection, projection_of
from collectors.processing.records import Columns
from collectors.rows import BATCH_ROWS, Called, call_for_rows, can_stay, dicts_or_reasons

__all__ = ["COMPONENT", "Python", "PythonConfig"]

_PASSED_ON = (ConfigurationError, TransientError, FatalError)
"""What a function may raise about itself, not about its record; the flow stops, or tries again."""
_OF_USERS = (Exception, SystemExit, asyncio.CancelledError)
"""What else a function may raise; only tasks of its own can have been cancelled in its thread."""


def _function_or_name(value: Any) -> Any:
    if callable(value) or (isinstance(value, str) and all(value.partition(":"))):
        return value
    raise ValueError("expected 'module:function', for example my_functions:clean, or a function")


class PythonConfig(ProcessorConfig):
    """Settings of `python`."""

    function: Annotated[Any, AfterValidator(_function_or_name), WithJsonSchema({"type": "string"})]
    """The function, as `module:name`."""
    per: Literal["record", "table"] = "record"
    """What it takes and returns: a `record` (a dict) or a `table` (a pyarrow.Table)."""


class _Made(Struct):
    """What a function made of records: the new ones, of which row each is, and why rows failed."""

    records: list[dict[str, Any]]
    rows: Sequence[int]
    problems: dict[int, str]


class Python(Processor[PythonConfig]):
    """Calls a function."""

    def __init__(self, config: PythonConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        given = self.config.function
        self._function: Callable[[Any], Any] = _load(given) if isinstance(given, str) else given
        check_function(self._function)
        self._names: tuple[str, ...] = ()  # of what the last table became

    @property
    def function(self) -> Callable[[Any], Any]:
        """The function itself."""
        return self._function

    @cached_property
    def _projection(self) -> Projection | None:
        return projection_of(self._function)

    def apply(self, table: pa.Table) -> Outcome:
        """Return what the function makes of the table, with the records that it refuses set aside."""
        if self.config.per == "table":
            return super().apply(table)
        columns, rows = Columns(), array("i")
        given, stays = self._given(table)
        problems = self._call_all_rows(given, columns, rows, stays)
        while True:
            left_out = {number for number, row in enumerate(rows) if row in problems} if problems else set()
            result, misfits = columns.table(table.schema, left_out)
            if not misfits:
                break
            for number, reason in misfits.items():  # a record is set aside with all that it was split into
                problems.setdefault(rows[number], reason)
        if len(left_out) == len(rows):
            result = table.slice(0, 0)
        elif stays:
            kept = [row for number, row in enumerate(rows) if number not in left_out] if left_out else rows
            result = _with_columns(result, table, stays, kept)
        rejected = [Rejected(row_bytes(table, row), problems[row], row) for row in sorted(problems)]
        return Outcome(result, rejected)

    def _given(self, table: pa.Table) -> tuple[pa.Table, set[str]]:
        """Return the columns that the function looks at, and the names of those that stay as they are in what it makes."""
        names, projection = table.column_names, self._projection
        if projection is None or len(set(names)) < len(names):
            return table, set()
        looked_at = [name for name in names if name in projection.columns] or names[:1]
        if not projection.passes_on:
            return table.select(looked_at), set()
        stays = {name for name in names if name not in looked_at or can_stay(table.schema.field(name).type)}
        return table.select(looked_at), stays - projection.changed

    def _call_all_rows(
        self, table: pa.Table, columns: Columns, rows: array[int], stays: set[str]
    ) -> dict[int, str]:
        """Add the records that the function makes, and of which row each is; return why rows failed.

        The values of columns that stay as they are may be left out.
        """
        problems: dict[int, str] = {}

        def take(made: _Made) -> None:
            if not columns.add_alike(made.records):
                made = self._with_names_of_text(made)
                columns.add(made.records)
            rows.extend(made.rows)
            problems.update(made.problems)

        start = 0
        while start < table.num_rows:
            names = columns.names if columns.count else self._names
            called = None
            if names:
                called = call_for_rows(self._function, names, table.slice(start), start, stays)
            if called is not None:
                start += called.done
                if called.rows:
                    columns.add_columns(names, called.columns, len(called.rows))
                    rows += called.rows
                if called.result is not None or called.error is not None:
                    take(self._call_all([{}], start, partial(_outcome, called)))
                    start += 1
                elif called.done:
                    continue
            part = table.slice(start, BATCH_ROWS)  # of dicts that are made first and taken apart later
            take(self._call_for(part, start))
            start += part.num_rows
        self._names = columns.names
        return problems

    def transform(self, table: pa.Table) -> pa.Table:
        """Return what the function makes of the table. Raises DataError, for functions of records with the rows."""
        if self.config.per == "record":
            outcome = self.apply(table)
            if outcome.rejected:
                rows = {item.record: item.reason for item in outcome.rejected}
                raise DataError(next(iter(rows.values())), rows=rows)
            return outcome.table
        try:
            with asyncio.Runner() as runner:
                result = self._call(table, runner)
        except _PASSED_ON:
            raise
        except MemoryError as error:
            raise self._out_of_memory(error) from error
        except _OF_USERS as error:
            if not table.num_rows:
                return table  # all rows were set aside; there may be nothing that the function could work on
            raise DataError(self._reason(error)) from error
        if isinstance(result, pa.RecordBatch):
            return pa.Table.from_batches([result])
        if not isinstance(result, pa.Table):
            raise ConfigurationError(
                f"{self._function_name()} returned {type(result).__name__}, expected a pyarrow.Table"
            )
        return result

    def _process(self, data: Any) -> tuple[Any, str | None]:
        """Hand dicts to the function as they are, without a detour through a table."""
        if isinstance(data, pa.Table) or self.config.per == "table":
            return super()._process(data)
        made = self._with_names_of_text(self._call_all([data] if isinstance(data, dict) else data))
        records, problems = made.records, made.problems
        problem = problems[min(problems)] if problems else None
        if isinstance(data, dict):
            return (records[0] if len(records) == 1 else records or None), problem
        return records, problem

    def _call_for(self, table: pa.Table, first: int) -> _Made:
        """Return what became of the rows of a table, which are numbered from `first` on."""
        records, problems = dicts_or_reasons(table)
        if not problems:
            return self._call_all(records, first)
        rows = [row for row in range(table.num_rows) if row not in problems]
        made = self._call_all([records[row] for row in rows])
        told = {first + row: reason for row, reason in problems.items()}
        told |= {first + rows[row]: reason for row, reason in made.problems.items()}
        return _Made(made.records, [first + rows[row] for row in made.rows], told)

    def _call_all(
        self, records: list[dict[str, Any]], first: int = 0, function: Callable[[Any], Any] | None = None
    ) -> _Made:
        """Return what became of records that are numbered from `first` on."""
        results: list[Any] = []  # of each record so far a dict, a list of dicts or None
        problems: dict[int, str] = {}
        function, take, rest = function or self._function, results.append, iter(records)
        runner = asyncio.Runner()
        try:
            while len(results) < len(records):
                try:
                    for record in rest:
                        result = function(record)
                        if type(result) is not dict and result is not None:
                            result = self._records(self._awaited(result, runner))
                        take(result)
                except _PASSED_ON:
                    raise
                except MemoryError as error:
                    raise self._out_of_memory(error) from error
                except _OF_USERS as error:
                    problems[first + len(results)] = self._reason(error)
                    take(None)
        finally:
            runner.close()
        return _made(results, first, problems)

    def _with_names_of_text(self, made: _Made) -> _Made:
        """Return it without the records that were made beside one with a key that is no text; those are problems."""
        bad = {name for name in set(chain.from_iterable(made.records)) if not is_text(name)}
        if not bad:
            return made
        for row, record in zip(made.rows, made.records, strict=True):
            for name in filter(bad.__contains__, record):
                told = f"{self._function_name()} returned a dict with the key {shown(name)}, expected text"
                made.problems.setdefault(row, self._reason(TypeError(told)))
        good = [number for number, row in enumerate(made.rows) if row not in made.problems]
        return _Made(
            [made.records[number] for number in good], [made.rows[number] for number in good], made.problems
        )

    def _call(self, argument: Any, runner: asyncio.Runner) -> Any:
        return self._awaited(self._function(argument), runner)

    def _awaited(self, result: Any, runner: asyncio.Runner) -> Any:
        return runner.run(_result_of(result)) if inspect.isawaitable(result) else result

    def _records(self, result: Any) -> list[dict[str, Any]]:
        if result is None:
            return []
        records = result if isinstance(result, list) else [result]
        for record in records:
            if not isinstance(record, dict):
                inside = " in a list" if isinstance(result, list) else ""
                raise TypeError(
                    f"{self._function_name()} returned {type(record).__name__}{inside}, "
                    "expected a dict, None or a list of dicts"
                )
        return [record if type(record) is dict else dict(record) for record in records]

    def _function_name(self) -> str:
        return str(getattr(self._function, "__name__", type(self._function).__name__))

    def _out_of_memory(self, error: MemoryError) -> FatalError:
        """Return what stops the flow: that is no record's fault, and another try would fare no better."""
        return FatalError(f"{self._function_name()} has run out of memory: {self._reason(error)}")

    def _reason(self, error: BaseException) -> str:
        """Say what was raised and at which line of the user's file."""
        if isinstance(error, DataError):
            return str(error)
        function = inspect.unwrap(getattr(self._function, "func", self._function))
        code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
        own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
        try:
            text = str(error).encode(errors="backslashreplace").decode()
        except Exception:  # noqa: BLE001  # the error may be of a class of users
            text = ""
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
        if own or frames:
            frame = (own or frames)[-1]
            return f"{reason}  ({Path(frame.filename).name}:{frame.lineno})"
        return (
            f"{reason}  ({Path(code.co_filename).name}:{code.co_firstlineno})" if code is not None else reason
        )


def _outcome(called: Called, _record: Any) -> Any:
    """Return what the function returned for the row that it was called for last, or raise what it raised."""
    if called.error is not None:
        raise called.error
    return called.result


def _with_columns(result: pa.Table, table: pa.Table, stays: set[str], rows: Sequence[int]) -> pa.Table:
    """Return what became of these rows of a table with the columns that stay as they were, each in its place."""
    columns = dict(zip(result.column_names, result.columns, strict=True))
    others = table.select([name for name in table.column_names if name in stays])
    if len(rows) < table.num_rows:
        numbers = pa.py_buffer(rows) if isinstance(rows, array) else pa.py_buffer(array("i", rows))
        others = others.take(pa.Array.from_buffers(pa.int32(), len(rows), [None, numbers]))
    columns |= dict(zip(others.column_names, others.columns, strict=True))
    return pa.table({name: columns[name] for name in [*table.column_names, *columns] if name in columns})


def _made(results: list[Any], first: int, problems: dict[int, str]) -> _Made:
    """Return the records that are among results of rows that are numbered from `first` on."""
    rows: Sequence[int] = range(first, first + len(results))
    kinds = set(map(type, results))
    if kinds - {dict, NoneType}:
        split = [[result] if isinstance(result, dict) else result or [] for result in results]
        rows = [row for row, found in zip(rows, split, strict=True) for _ in found]
        results = [record for found in split for record in found]
    elif NoneType in kinds:
        rows = [row for row, result in enumerate(results, first) if result is not None]
        results = [result for result in results if result is not None]
    return _Made(results, rows, problems)


async def _result_of(awaitable: Any) -> Any:
    return await awaitable


def _load(name: str) -> Callable[[Any], Any]:
    """Import `module:function`. Raises ConfigurationError that says what is missing, and what is near."""
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigurationError(
                f"function '{name}': the module '{module_name}' needs {error.name!r}"
            ) from error
        known = [module.name for module in pkgutil.iter_modules() if not module.name.startswith("_")]
        raise ConfigurationError(
            f"function '{name}': there is no module '{error.name}'{_near(error.name, known)}; "
            "it must lie beside the pipeline file, or be installed"
        ) from error
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigurationError(
            f"function '{name}': the module cannot be imported: {type(error).__name__}: {error}"
            f"  ({Path(place.filename).name}:{place.lineno})"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            known = [known for known in dir(found) if not known.startswith("_")]
            raise ConfigurationError(
                f"function '{name}': '{module_name}' has no '{path}'{_near(part, known)}"
            )
        found = getattr(found, part)
    return cast("Callable[[Any], Any]", found)


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f": did you mean '{near[0]}'?" if near else ""


COMPONENT = Python
