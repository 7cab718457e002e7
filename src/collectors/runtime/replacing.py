"""SQL in the place of a Python function: offered only where both were run on the sample and gave the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
from msgspec import Struct

from collectors import registry
from collectors.errors import CollectorsError
from collectors.processing.base import Outcome
from collectors.processing.casting import kind
from collectors.processing.pipeline import Pipeline
from collectors.processing.processors.python import Python
from collectors.processing.translating import NotSimpleError, Step, divisors, translate
from collectors.runtime.measuring import typical_seconds

__all__ = ["Replacement", "replacement"]

EDGES: dict[str, list[Any]] = {
    "int": [None, 0, -7, 2**53 + 1, 2**63 - 1, 1 - 2**63],
    "float": [None, 0.0, -2.5],
    "string": [None, "", "\tStraße "],
    "bool": [None],
}
"""What a column of each kind is filled with, to see whether the two differ where the sample has no such value."""
EDGE_ROWS = 50
_FAILED, _LEFT_OUT, _KEPT = "set aside", "left out", "kept"


class Replacement(Struct, frozen=True):
    """Steps that did with the whole sample what the function does, `factor` times as fast.

    `differs` says for which other values they would not, in words.
    """

    steps: list[Step]
    factor: float
    differs: list[str]


def replacement(
    processor: Python, table: pa.Table, seconds: float, clock: Callable[[], float]
) -> Replacement:
    """Return what can stand in the place of a function that takes `seconds` for this table.

    Raises NotSimpleError, with the reason, when nothing plain does the same.
    """
    steps = translate(processor.function, table.schema)
    if not steps:
        raise NotSimpleError("it changes nothing")
    try:
        ours, pipeline = processor.apply(table), _pipeline_of(steps)
        theirs = _through(pipeline, table)
        if ours.rejected:
            raise NotSimpleError(f"it refuses records of the sample: {ours.rejected[0].reason}")
        if theirs.rejected or not _same(ours.table, theirs.table):
            raise NotSimpleError("SQL would make something else of records of the sample")
        if not ours.table.num_rows:
            raise NotSimpleError("it leaves out the whole sample, so nothing can be compared")
        differs = _differences(processor, pipeline, table)
    except (CollectorsError, pa.ArrowException) as error:
        raise NotSimpleError(f"SQL has nothing for it: {error}") from error
    return Replacement(steps, seconds / typical_seconds(partial(pipeline.apply, table), clock), differs)


def _pipeline_of(steps: list[Step]) -> Pipeline:
    """Return the steps as they would run. Raises ConfigurationError."""
    pipeline = Pipeline()
    for step in steps:
        settings = {name: value for name, value in step.items() if name != "type"}
        pipeline.append(registry.create("processor", step["type"], settings))
    return pipeline


def _through(pipeline: Pipeline, table: pa.Table) -> Outcome:
    applied = pipeline.apply(table)
    return Outcome(applied.table, [item for step in applied.steps for item in step.rejected])


def _differences(processor: Python, pipeline: Pipeline, table: pa.Table) -> list[str]:
    """Return for which values of which column something else becomes of the first records, and what."""
    told = [
        f"`{divisor}` = 0 (null, not {_FAILED})" for divisor in dict.fromkeys(divisors(processor.function))
    ]
    some = table.slice(0, EDGE_ROWS)
    for place, field in enumerate(some.schema):
        for edge in EDGES.get(kind(field.type), []):
            try:
                values = pa.array([edge] * some.num_rows, field.type)
            except pa.ArrowInvalid:
                continue  # a narrow int
            odd = some.set_column(place, field, values)
            ours, theirs = processor.apply(odd), _through(pipeline, odd)
            one, other = _fate(ours), _fate(theirs)
            if one == other and (one != _KEPT or _same(ours.table, theirs.table)):
                continue
            shown = "null" if edge is None else repr(edge)
            what = f"{other}, not {one}" if one != other else "another result"
            told.append(f"{field.name} = {shown} ({what})")
    return told


def _fate(outcome: Outcome) -> str:
    """Return what became of most records."""
    return _FAILED if outcome.rejected else _KEPT if outcome.table.num_rows else _LEFT_OUT


def _same(one: pa.Table, other: pa.Table) -> bool:
    """Return whether two tables have the same columns, types and values; a NaN is the same as itself."""
    if one.schema.names != other.schema.names or one.schema.types != other.schema.types:
        return False
    columns = zip(one.columns, other.columns, strict=True)
    return all(
        left.equals(right) or repr(left.to_pylist()) == repr(right.to_pylist()) for left, right in columns
    )
