"""Comparisons and arithmetic that never lose a digit and never wrap around."""

from __future__ import annotations

import operator
from collections.abc import Callable
from decimal import Context, Decimal
from math import fmod
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from collectors.processing._terms import (
    DECIMAL_DIGITS,
    INT64,
    LONG_DECIMAL_DIGITS,
    Datum,
    Rows,
    Term,
    as_float,
    coerce,
    common_type,
    constant,
    decimal_type,
    digits,
    mismatch,
    number,
    shown,
    wrong,
)
from collectors.processing.casting import kind

__all__ = ["arithmetic", "compare", "signed", "without_zero"]

_EXACT_IN_A_FLOAT = 2**53
_NO = pa.scalar(value=False)
_KERNELS: dict[str, Callable[[Datum, Datum], Datum]] = {
    "=": pc.equal,
    "<>": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def compare(sign: str, left: Term, right: Term, node: Any) -> Term:
    """Return a comparison; an int and a float are compared as the numbers they are, never rounded to meet."""
    kinds = {left.kind, right.kind}
    if kinds == {"int", "float"}:
        if left.kind == "float":
            sign, left, right = _MIRRORED.get(sign, sign), right, left
        return _compare_int_float(sign, left, right, node)
    if kinds == {"decimal", "float"} and not any(isinstance(term.written, Decimal) for term in (left, right)):
        left, right = as_float(left), as_float(right)
    target = common_type(left, right)
    if target is None:
        mismatch(node, left, right)
    if kind(target) in {"struct", "list", "map"}:
        wrong(node, f"a {kind(target)} cannot be compared; compare one of its fields")
    if kind(target) == "null":
        return constant(node, None, pa.bool_())
    left, right, kernel = coerce(left, target), coerce(right, target), _KERNELS[sign]
    return Term(pa.bool_(), lambda rows: kernel(left.run(rows), right.run(rows)), node)


def _compare_int_float(sign: str, whole: Term, real: Term, node: Any) -> Term:
    kernel = _KERNELS[sign]
    if isinstance(real.written, Decimal) and real.written == int(real.written) and int(real.written) in INT64:
        target = number(real.node, int(real.written))
        return Term(pa.bool_(), lambda rows: kernel(whole.run(rows), target.run(rows)), node)

    def run(rows: Rows) -> Datum:
        exact, other = whole.run(rows), real.run(rows)
        near = pc.cast(exact, pa.float64(), safe=False)
        result = kernel(near, other)
        doubtful = pc.and_(pc.equal(near, other), pc.greater_equal(pc.abs(near), float(_EXACT_IN_A_FLOAT)))
        if not pc.any(rows.spread(doubtful)).as_py():
            return result
        twin = pc.if_else(doubtful, other, pa.scalar(None, pa.float64()))
        exactly = pa.decimal128(DECIMAL_DIGITS, 0)
        return pc.if_else(
            pc.coalesce(doubtful, _NO), kernel(pc.cast(exact, exactly), pc.cast(twin, exactly)), result
        )

    return Term(pa.bool_(), run, node)


_CHECKED = {"+": pc.add_checked, "-": pc.subtract_checked, "*": pc.multiply_checked}
_FLOATING = {"+": pc.add, "-": pc.subtract, "*": pc.multiply}
_EXACT: dict[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def arithmetic(sign: str, left: Term, right: Term, node: Any) -> Term:
    """Return a sum, difference, product, quotient or remainder, of the type that holds it exactly."""
    for term in (left, right):
        if term.kind not in {"int", "float", "decimal", "null"}:
            wrong(node, f"{shown(term)}, and '{sign}' needs numbers{_HINTS.get((sign, term.kind), '')}")
    if "null" in {left.kind, right.kind}:
        return constant(node, None, right.type if left.kind == "null" else left.type)
    if sign == "/":
        return _divide(as_float(left), as_float(right), node)
    kinds = {left.kind, right.kind}
    if kinds == {"int"}:
        return _remainder(left, right, node) if sign == "%" else _checked(sign, left, right, node)
    if "float" in kinds and not ("decimal" in kinds and common_type(left, right) != pa.float64()):
        left, right = as_float(left), as_float(right)
        if sign == "%":
            return _slow_remainder(left, right, pa.float64(), fmod, node)
        kernel = _FLOATING[sign]
        return Term(pa.float64(), lambda rows: kernel(left.run(rows), right.run(rows)), node)
    return _decimals(sign, left, right, node)


_HINTS = {
    ("+", "string"): "; texts are joined with ||",
    ("-", "timestamp"): "; epoch(…) gives the seconds of a timestamp",
    ("+", "timestamp"): "; epoch(…) gives the seconds of a timestamp, to_timestamp(…) makes one of them",
}


def _divide(left: Term, right: Term, node: Any) -> Term:
    def run(rows: Rows) -> Datum:
        return pc.divide(left.run(rows), without_zero(right.run(rows)))

    return Term(pa.float64(), run, node)


def without_zero(divisor: Datum) -> Datum:
    """Return the values with null in place of zero, so that dividing by them gives null."""
    return pc.if_else(pc.equal(divisor, pa.scalar(0, divisor.type)), pa.scalar(None, divisor.type), divisor)


def _checked(sign: str, left: Term, right: Term, node: Any) -> Term:
    kernel, exact = _CHECKED[sign], _EXACT[sign]

    def run(rows: Rows) -> Datum:
        first, second = left.run(rows), right.run(rows)
        try:
            return kernel(first, second)
        except pa.ArrowInvalid:
            pairs = list(zip(rows.spread(first).to_pylist(), rows.spread(second).to_pylist(), strict=True))
        values = [None if None in pair else exact(*pair) for pair in pairs]
        bad = [row for row, value in enumerate(values) if value is not None and value not in INT64]
        rows.fail(bad, lambda row: f"{pairs[row][0]} {sign} {pairs[row][1]} does not fit in 64 bits")
        return pa.array(
            [value if value is not None and value in INT64 else None for value in values], pa.int64()
        )

    return Term(pa.int64(), run, node)


def signed(exact: Callable[[Any], Any], kernel: Callable[[Datum], Datum], term: Term, node: Any) -> Term:
    """Return -x or abs(x); the smallest int has neither."""
    if term.kind not in {"int", "float", "decimal", "null"}:
        wrong(node, f"{shown(term)}, and a number is needed")
    if term.kind == "null":
        return term
    if isinstance(term.written, (int, Decimal)):
        return number(node, exact(term.written))

    def run(rows: Rows) -> Datum:
        values = term.run(rows)
        if term.kind == "int":
            smallest = pc.coalesce(pc.equal(values, INT64[0]), _NO)
            bad = pc.indices_nonzero(rows.spread(smallest)).to_pylist()
            rows.fail(bad, lambda _row: f"-({INT64[0]}) does not fit in 64 bits")
            values = pc.if_else(smallest, pa.scalar(None, term.type), values) if bad else values
        return kernel(values)

    return Term(term.type, run, node)


def _remainder(left: Term, right: Term, node: Any) -> Term:
    """Return x - trunc(x / y) * y, which has the sign of x; the remainder by -1 is taken as that by 1: no overflow."""

    def run(rows: Rows) -> Datum:
        first, second = left.run(rows), without_zero(right.run(rows))
        second = pc.if_else(pc.equal(second, -1), pa.scalar(1, pa.int64()), second)
        return pc.subtract(first, pc.multiply(pc.divide(first, second), second))

    return Term(pa.int64(), run, node)


def _slow_remainder(
    left: Term, right: Term, type_: pa.DataType, exact: Callable[[Any, Any], Any], node: Any
) -> Term:
    """Value by value: x - trunc(x / y) * y, the way of whole columns, is wrong in the last places."""

    def run(rows: Rows) -> Datum:
        pairs = zip(
            rows.spread(left.run(rows)).to_pylist(), rows.spread(right.run(rows)).to_pylist(), strict=True
        )
        return pa.array([None if x is None or not y else _finite(exact, x, y) for x, y in pairs], type_)

    return Term(type_, run, node)


def _finite(exact: Callable[[Any, Any], Any], first: Any, second: Any) -> Any:
    try:
        return exact(first, second)
    except ValueError:  # the remainder of an infinity
        return None


def _decimals(sign: str, left: Term, right: Term, node: Any) -> Term:
    (left_whole, left_scale), (right_whole, right_scale) = digits(left), digits(right)
    if sign == "*":
        precision, scale = left_whole + left_scale + right_whole + right_scale + 1, left_scale + right_scale
    else:
        scale = max(left_scale, right_scale)
        precision = max(left_whole, right_whole) + scale + 1
    if precision > LONG_DECIMAL_DIGITS or scale > DECIMAL_DIGITS:
        wrong(
            node,
            f"{shown(left)} and {shown(right)}: '{sign}' would need {precision} digits; cast one to float",
        )
    if sign == "%":
        target = decimal_type(left, right)
        rest = Context(prec=2 * LONG_DECIMAL_DIGITS).remainder
        return _slow_remainder(coerce(left, target), coerce(right, target), target, rest, node)
    wide = pa.decimal128 if precision <= DECIMAL_DIGITS else pa.decimal256
    first = coerce(left, wide(left_whole + left_scale, left_scale))
    second = coerce(right, wide(right_whole + right_scale, right_scale))
    kernel, result = _CHECKED[sign], wide(precision, scale)
    total = Term(result, lambda rows: kernel(first.run(rows), second.run(rows)), node)
    return coerce(total, pa.decimal128(min(precision, DECIMAL_DIGITS), scale))
