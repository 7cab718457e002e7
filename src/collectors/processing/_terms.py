"""Parts of a compiled expression, and how their types meet.

A part is computed column by column with `pyarrow.compute`. What fails for some rows (an overflow, a cast) gives null
there and names those rows in `Rows.failures`, so that one evaluation finds every bad row of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import time
from decimal import Decimal
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from collectors.processing import casting
from collectors.processing.casting import a_type, kind, type_name
from collectors.rows import python_value

__all__ = [
    "INT64",
    "Compile",
    "Datum",
    "Mismatch",
    "Rows",
    "Term",
    "as_float",
    "cast_term",
    "coerce",
    "common_type",
    "constant",
    "decimal_type",
    "digits",
    "meet",
    "mismatch",
    "number",
    "shared",
    "shown",
    "wrong",
]

Datum = Any
"""A pyarrow Array with one value a row, or a Scalar that stands for all rows."""

INT64 = range(-(2**63), 2**63)
DECIMAL_DIGITS, LONG_DECIMAL_DIGITS = 38, 76
_FINER = ["s", "ms", "us", "ns"]


class Rows:
    """The rows at hand while an expression is computed, and which of them have failed so far.

    `where` narrows to the rows for which a branch counts: a cast in a CASE branch only fails rows of that branch.
    """

    def __init__(
        self,
        columns: Mapping[str, pa.Array],
        size: int,
        failures: dict[int, str] | None = None,
        guards: tuple[tuple[Callable[[Datum], Datum], Datum], ...] = (),
    ) -> None:
        self.columns = columns
        self.size = size
        self.failures: dict[int, str] = {} if failures is None else failures
        self.computed: dict[int, Datum] = {}
        self._guards = guards

    def where(self, counts: Callable[[Datum], Datum], values: Datum) -> Rows:
        """Return the same rows, of which only those count for whose value `counts` gives true; asked on failure only."""
        return Rows(self.columns, self.size, self.failures, (*self._guards, (counts, values)))

    def fail(self, rows: Iterable[int], reason: Callable[[int], str]) -> None:
        """Name rows as failed, unless a guard says that their value does not matter; the first reason stays."""
        counting = set(rows)
        for counts, values in self._guards:
            alive = self.spread(counts(values)).to_pylist()
            counting = {row for row in counting if alive[row]}
        for row in counting:
            self.failures.setdefault(row, reason(row))

    def spread(self, datum: Datum) -> pa.Array:
        """Return a value for every row."""
        return pa.repeat(datum, self.size) if isinstance(datum, pa.Scalar) else datum


class Term(Struct, frozen=True):
    """A compiled part. `written` is the value of a number or text that stands in the expression itself."""

    type: pa.DataType
    run: Callable[[Rows], Datum]
    node: Any
    written: int | Decimal | str | None = None

    @property
    def kind(self) -> str:
        """The family of the type, as `casting.kind` says it."""
        return kind(self.type)


Compile = Callable[[Any], Term]
"""Compiles a part of the node at hand."""


class Mismatch(Exception):  # noqa: N818 - it never leaves the compiler
    """Two types do not meet; the compiler knows the text and makes the message."""

    def __init__(self, node: Any, message: str) -> None:
        super().__init__(message)
        self.node = node


def wrong(node: Any, message: str) -> NoReturn:
    """Refuse a part of an expression for its types."""
    raise Mismatch(node, message)


def constant(node: Any, value: Any, type_: pa.DataType, written: int | Decimal | str | None = None) -> Term:
    """Return a part that is the same for every row."""
    scalar = pa.scalar(value, type_)
    return Term(type_, lambda _rows: scalar, node, written)


def shared(term: Term) -> Term:
    """Return a part that is computed once for the same rows, however often it is asked for."""

    def run(rows: Rows) -> Datum:
        if id(term) not in rows.computed:
            rows.computed[id(term)] = term.run(rows)
        return rows.computed[id(term)]

    return Term(term.type, run, term.node, term.written)


def number(node: Any, value: int | Decimal) -> Term:
    """Return a number written out: whole ones are ints, or decimals beyond 64 bits; others are floats."""
    if isinstance(value, Decimal):
        return constant(node, float(value), pa.float64(), value)
    if value in INT64:
        return constant(node, value, pa.int64(), value)
    return constant(node, Decimal(value), pa.decimal128(DECIMAL_DIGITS, 0), value)


def shown(term: Term) -> str:
    """Return how a part is written, and its type, for a message."""
    return f"{term.node.sql(dialect='duckdb')} is {a_type(term.type)}"


def mismatch(node: Any, left: Term, right: Term) -> NoReturn:
    """Refuse two parts whose types do not meet, and say which cast would help."""
    hint = ""
    for one, other in ((left, right), (right, left)):
        if one.written is None and casting.can_cast(one.type, other.type):
            target = type_name(other.type)
            hint = f"; cast one of them, for example: cast({one.node.sql(dialect='duckdb')} as {target})"
            break
    wrong(node, f"the types do not meet: {shown(left)} and {shown(right)}{hint}")


def common_type(left: Term, right: Term) -> pa.DataType | None:
    """Return the type in which both can be held without loss, None if there is none."""
    if left.type == right.type or right.kind == "null":
        return left.type
    kinds = {left.kind, right.kind}
    if left.kind == "null":
        return right.type
    if kinds <= {"int", "decimal", "float"}:
        floats = [term for term in (left, right) if term.kind == "float"]
        if "decimal" not in kinds or not all(isinstance(term.written, Decimal) for term in floats):
            return pa.float64() if floats else decimal_type(left, right)
        return decimal_type(left, right)
    if "timestamp" in kinds and kinds <= {"date", "timestamp"}:
        times = [term.type for term in (left, right) if term.kind == "timestamp"]
        unit = max((stamp.unit for stamp in times), key=_FINER.index)
        return pa.timestamp(unit, "UTC" if any(stamp.tz for stamp in times) else None)
    for text, other in ((left, right), (right, left)):
        if isinstance(text.written, str) and other.kind in {"date", "timestamp", "time"}:
            return _type_of_text(text.written, other.type)
    return None


def decimal_type(left: Term, right: Term) -> pa.DataType | None:
    """Return the decimal that holds two numbers, None when there is none so long."""
    (left_whole, left_scale), (right_whole, right_scale) = digits(left), digits(right)
    scale = max(left_scale, right_scale)
    return _decimal(max(left_whole, right_whole) + scale, scale)


def _decimal(precision: int, scale: int) -> pa.DataType | None:
    if precision <= DECIMAL_DIGITS:
        return pa.decimal128(precision, scale)
    return pa.decimal256(precision, scale) if precision <= LONG_DECIMAL_DIGITS else None


def digits(term: Term) -> tuple[int, int]:
    """Return how many digits a part has in front of the point and behind it."""
    if isinstance(term.written, (int, Decimal)):
        _, figures, exponent = Decimal(term.written).as_tuple()
        scale = max(-int(exponent), 0)
        return max(len(figures) + int(exponent), 1), scale
    return (term.type.precision - term.type.scale, term.type.scale) if term.kind == "decimal" else (19, 0)


def _type_of_text(text: str, target: pa.DataType) -> pa.DataType:
    """Return the target, in a finer unit if the text has more digits of a second than it."""
    if kind(target) != "timestamp":
        return target
    finer = [pa.timestamp(unit, target.tz) for unit in _FINER[_FINER.index(target.unit) :]]
    return next((type_ for type_ in finer if not casting.cast(pa.array([text]), type_)[1]), target)


def coerce(term: Term, target: pa.DataType) -> Term:
    """Return a part in the type that `common_type` found; what would lose digits fails its row."""
    if term.type == target:
        return term
    if term.kind == "null":
        return constant(term.node, None, target)
    if isinstance(term.written, str):
        return _text_as(term, target)
    if isinstance(term.written, (int, Decimal)):
        value = float(term.written) if pa.types.is_floating(target) else Decimal(term.written)
        if isinstance(value, float) and isinstance(term.written, int) and value != term.written:
            wrong(term.node, casting.refusal(term.written, target))
        return constant(term.node, value, target, term.written)
    return cast_term(term, target, term.node, strict=True)


def _text_as(term: Term, target: pa.DataType) -> Term:
    if kind(target) == "time":
        try:
            return constant(term.node, time.fromisoformat(str(term.written)), target)
        except ValueError:
            wrong(term.node, f"'{term.written}' is not a time: write it as '12:30:00'")
    values, bad = casting.cast(pa.array([term.written]), target)
    if bad:
        form = "2026-01-31" if kind(target) == "date" else "2026-01-31T12:30:00Z"
        wrong(term.node, f"'{term.written}' is not {a_type(target)}: write it as '{form}'")
    return constant(term.node, values[0].as_py() if kind(target) == "date" else values[0], target)


def cast_term(term: Term, target: pa.DataType, node: Any, *, strict: bool) -> Term:
    """Return a part as another type: a value that cannot be it fails its row if strict, or is null."""
    if term.kind == "null":
        return constant(node, None, target)
    if not casting.can_cast(term.type, target):
        hints = {("timestamp", "int"), ("timestamp", "float"), ("int", "timestamp"), ("float", "timestamp")}
        hint = (
            "; see epoch(timestamp) and to_timestamp(seconds)" if (term.kind, kind(target)) in hints else ""
        )
        wrong(node, f"{shown(term)} and cannot become {a_type(target)}{hint}")
    if strict and isinstance(term.written, str) and casting.cast(pa.array([term.written]), target)[1]:
        wrong(node, casting.refusal(term.written, target))

    def run(rows: Rows) -> Datum:
        values = rows.spread(term.run(rows))
        result, bad = casting.cast(values, target)
        if strict:
            rows.fail(bad, lambda row: casting.refusal(python_value(values[row]), target))
        return result

    return Term(target, run, node)


def meet(node: Any, terms: list[Term]) -> list[Term]:
    """Return all parts in one type, for results that come from one of them."""
    merged = terms[0]
    for term in terms[1:]:
        target = common_type(merged, term)
        if target is None:
            mismatch(node, merged, term)
        merged = merged if merged.type == target else Term(target, merged.run, merged.node)
    return [coerce(term, merged.type) for term in terms]


def as_float(term: Term) -> Term:
    """Return a number as the nearest float, as division and mixed arithmetic take it."""
    if term.kind == "float":
        return term
    if isinstance(term.written, (int, Decimal)):
        return constant(term.node, float(term.written), pa.float64(), term.written)
    if term.kind == "decimal":
        return Term(
            pa.float64(), lambda rows: casting.decimal_to_float(rows.spread(term.run(rows))), term.node
        )
    return Term(pa.float64(), lambda rows: pc.cast(term.run(rows), pa.float64(), safe=False), term.node)
