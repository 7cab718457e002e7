"""The functions of the expression language over numbers, times and nulls; those over text stand beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from collectors.processing import casting
from collectors.processing._operators import compare, signed
from collectors.processing._syntax import arrow_type, whole_number
from collectors.processing._terms import (
    Compile,
    Datum,
    Rows,
    Term,
    as_float,
    cast_term,
    coerce,
    meet,
    shared,
    shown,
    wrong,
)
from collectors.processing._text_functions import TEXT_FUNCTIONS, text_of

__all__ = ["FUNCTIONS"]

_LAST_SECOND = 253_402_300_799
_FIRST_SECOND = -62_135_596_800
_NO = pa.scalar(value=False)


def _number_of(term: Term, node: Any) -> Term:
    if term.kind == "null":
        return coerce(term, pa.float64())
    if term.kind not in {"int", "float", "decimal"}:
        wrong(node, f"{shown(term)}, and a number is needed")
    return term


def _time_of(term: Term, node: Any) -> Term:
    """Return a part that must be a timestamp or date, timestamps in UTC."""
    if term.kind in {"null", "date"} or isinstance(term.written, str):
        return coerce(term, casting.UTC_TIMESTAMP)
    if term.kind != "timestamp":
        wrong(node, f"{shown(term)}, and a timestamp is needed: see to_timestamp and strptime")
    utc = pa.timestamp(term.type.unit, "UTC")
    return Term(utc, lambda rows: pc.cast(term.run(rows), utc), node)


def _rounded(kernel: Callable[..., Datum]) -> Any:
    """Return the rule of FLOOR or CEIL: ints stay as they are, floats and decimals keep their type."""

    def rule(node: Any, compile_: Compile) -> Term:
        term = _number_of(compile_(node.this), node)
        if term.kind == "int":
            return Term(term.type, term.run, node)
        return Term(term.type, lambda rows: pc.cast(kernel(term.run(rows)), term.type), node)

    return rule


def _round(node: Any, compile_: Compile) -> Term:
    digits = whole_number(node.args["decimals"]) if node.args.get("decimals") else 0
    term = _number_of(compile_(node.this), node)
    if term.kind == "int" and (digits or 0) >= 0:
        return Term(term.type, term.run, node)
    if term.kind == "int":
        wrong(node, "an int is rounded to places behind the point only; cast it to float first")
    mode = "half_towards_infinity"
    return Term(
        term.type,
        lambda rows: pc.cast(pc.round(term.run(rows), ndigits=digits, round_mode=mode), term.type),
        node,
    )


def _real(kernel: Callable[[Datum], Datum], domain: Callable[[Datum], Datum] | None = None) -> Any:
    """Return the rule of a function of floats: null outside of its domain, as for a division by zero."""

    def rule(node: Any, compile_: Compile) -> Term:
        return _real_term(as_float(_number_of(compile_(node.this), node)), kernel, domain, node)

    return rule


def _real_term(
    term: Term, kernel: Callable[[Datum], Datum], domain: Callable[[Datum], Datum] | None, node: Any
) -> Term:
    def run(rows: Rows) -> Datum:
        values = term.run(rows)
        if domain is not None:
            values = pc.if_else(domain(values), values, pa.scalar(None, pa.float64()))
        return kernel(values)

    return Term(pa.float64(), run, node)


def _positive(values: Datum) -> Datum:
    return pc.greater(values, 0.0)


def _log(node: Any, compile_: Compile) -> Term:
    base = float(node.this.this) if node.args.get("expression") else 10.0
    term = as_float(_number_of(compile_(node.args.get("expression") or node.this), node))
    kernel = {10.0: pc.log10, 2.0: pc.log2}.get(base, lambda values: pc.logb(values, base))
    return _real_term(term, kernel, _positive, node)


def _sign(node: Any, compile_: Compile) -> Term:
    term = _number_of(compile_(node.this), node)

    def run(rows: Rows) -> Datum:
        signs = pc.sign(term.run(rows))
        return pc.cast(_without_nan(signs) if term.kind == "float" else signs, pa.int64())

    return Term(pa.int64(), run, node)


def _without_nan(values: Datum) -> Datum:
    return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)


def _power(node: Any, compile_: Compile) -> Term:
    base, exponent = (as_float(_number_of(compile_(part), node)) for part in (node.this, node.expression))
    return Term(pa.float64(), lambda rows: _without_nan(pc.power(base.run(rows), exponent.run(rows))), node)


def _extreme(kernel: Callable[..., Datum]) -> Any:
    def rule(node: Any, compile_: Compile) -> Term:
        terms = meet(node, [compile_(part) for part in (node.this, *node.expressions)])
        if terms[0].kind in {"struct", "list", "map", "bool"}:
            wrong(node, f"{shown(terms[0])}, which has no order")
        return Term(terms[0].type, lambda rows: kernel(*(term.run(rows) for term in terms)), node)

    return rule


def _coalesce(node: Any, compile_: Compile) -> Term:
    terms = meet(node, [compile_(part) for part in (node.this, *node.expressions)])

    def run(rows: Rows) -> Datum:
        result = terms[0].run(rows)
        for term in terms[1:]:
            result = pc.coalesce(result, term.run(rows.where(pc.is_null, result)))
        return result

    return Term(terms[0].type, run, node)


def _nullif(node: Any, compile_: Compile) -> Term:
    term = shared(compile_(node.this))
    equal = compare("=", term, compile_(node.expression), node)

    def run(rows: Rows) -> Datum:
        hit = pc.coalesce(equal.run(rows), _NO)
        return pc.if_else(hit, pa.scalar(None, term.type), term.run(rows))

    return Term(term.type, run, node)


def _cast(node: Any, compile_: Compile) -> Term:
    strict = not isinstance(node, exp.TryCast)
    return cast_term(compile_(node.this), arrow_type(node.args["to"]), node, strict=strict)


_PARTS: dict[str, Callable[[Datum], Datum]] = {
    "year": pc.year,
    "quarter": pc.quarter,
    "month": pc.month,
    "week": pc.iso_week,
    "day": pc.day,
    "doy": pc.day_of_year,
    "dayofyear": pc.day_of_year,
    "dow": lambda values: pc.day_of_week(values, count_from_zero=True, week_start=7),
    "dayofweek": lambda values: pc.day_of_week(values, count_from_zero=True, week_start=7),
    "isodow": lambda values: pc.day_of_week(values, count_from_zero=False, week_start=1),
    "hour": pc.hour,
    "minute": pc.minute,
    "second": pc.second,
}


def _part(name: str) -> Any:
    return lambda node, compile_: _part_of(name, compile_(node.this), node)


def _part_of(name: str, term: Term, node: Any) -> Term:
    moment = _time_of(term, node)
    if name == "epoch":
        return _seconds(moment, node)
    return Term(pa.int64(), lambda rows: pc.cast(_PARTS[name](moment.run(rows)), pa.int64()), node)


def _extract(node: Any, compile_: Compile) -> Term:
    return _part_of(node.this.name.lower(), compile_(node.expression), node)


def _seconds(moment: Term, node: Any) -> Term:
    unit = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[moment.type.unit]

    def run(rows: Rows) -> Datum:
        ticks = pc.cast(pc.cast(moment.run(rows), pa.int64()), pa.float64(), safe=False)
        return pc.divide(ticks, unit)

    return Term(pa.float64(), run, node)


def _to_timestamp(node: Any, compile_: Compile) -> Term:
    term = _number_of(compile_(node.this), node)
    seconds = term if term.kind == "int" else as_float(term)
    scale: int | float = 10**6 if term.kind == "int" else 1e6

    def run(rows: Rows) -> Datum:
        values = rows.spread(seconds.run(rows))
        known = pc.and_(pc.greater_equal(values, _FIRST_SECOND), pc.less_equal(values, _LAST_SECOND))
        bad = pc.indices_nonzero(pc.invert(known)).to_pylist()
        rows.fail(bad, lambda row: f"{values[row].as_py()} seconds are not in the years 1 to 9999")
        ticks = pc.multiply(pc.if_else(known, values, pa.scalar(None, values.type)), scale)
        return pc.cast(pc.cast(pc.round(ticks), pa.int64()), casting.UTC_TIMESTAMP)

    return Term(casting.UTC_TIMESTAMP, run, node)


def _date_trunc(node: Any, compile_: Compile) -> Term:
    moment, unit = _time_of(compile_(node.this), node), node.args["unit"].name.lower()
    return Term(moment.type, lambda rows: pc.floor_temporal(moment.run(rows), unit=unit), node)


def _strptime(node: Any, compile_: Compile) -> Term:
    text, form = text_of(compile_(node.this), node), node.args["format"].name

    def run(rows: Rows) -> Datum:
        values = rows.spread(text.run(rows))
        result, bad = casting.parse_times(values, form)
        rows.fail(bad, lambda row: f"{values[row].as_py()!r} is not written as {form!r}")
        return result

    return Term(casting.UTC_TIMESTAMP, run, node)


FUNCTIONS: dict[type[Any], Callable[[Any, Compile], Term]] = {
    **TEXT_FUNCTIONS,
    exp.Abs: lambda node, compile_: signed(abs, pc.abs, compile_(node.this), node),
    exp.Cast: _cast,
    exp.Ceil: _rounded(pc.ceil),
    exp.Coalesce: _coalesce,
    exp.DateTrunc: _date_trunc,
    exp.Day: _part("day"),
    exp.DayOfWeek: _part("dow"),
    exp.DayOfWeekIso: _part("isodow"),
    exp.DayOfYear: _part("doy"),
    exp.Exp: _real(pc.exp),
    exp.Extract: _extract,
    exp.Floor: _rounded(pc.floor),
    exp.Greatest: _extreme(pc.max_element_wise),
    exp.Hour: _part("hour"),
    exp.Least: _extreme(pc.min_element_wise),
    exp.Ln: _real(pc.ln, _positive),
    exp.Log: _log,
    exp.Minute: _part("minute"),
    exp.Month: _part("month"),
    exp.Nullif: _nullif,
    exp.Pow: _power,
    exp.Quarter: _part("quarter"),
    exp.Round: _round,
    exp.Second: _part("second"),
    exp.Sign: _sign,
    exp.Sqrt: _real(pc.sqrt, lambda values: pc.greater_equal(values, 0.0)),
    exp.StrToTime: _strptime,
    exp.TimeToUnix: _part("epoch"),
    exp.TimestampTrunc: _date_trunc,
    exp.TryCast: _cast,
    exp.UnixToTime: _to_timestamp,
    exp.Week: _part("week"),
    exp.Year: _part("year"),
}
