r"""SQL expressions over the columns of a table, as `filter` and `set` take them.

    status <> 'fail' and temperature between -50 and 60
    round(temperature * 9 / 5 + 32, 1)

An expression is read and checked with the settings, checked again against the columns and types of a table before any
row is touched, and computed on whole columns. Only what stands here is allowed; the syntax is that of DuckDB.

| | |
|---|---|
| values | `'text'`, `12`, `1.5`, `true`, `false`, `null`, `date '2026-01-31'`, `timestamp '2026-01-31T12:00:00Z'` |
| columns | `status`, `"weird name"`, fields of objects: `place.city` or `place['city']`; upper and lower case differ |
| compare | `=` `<>` `<` `<=` `>` `>=` `between` `in (…)` `like` `ilike` `is null` `is true` `is distinct from`, each with `not` |
| logic | `and` `or` `not` `case when … then … else … end` `if(x, a, b)` |
| numbers | `+` `-` `*` `/` `%` `abs` `ceil` `exp` `floor` `ln` `log` `log10` `log2` `mod` `power` `round` `sign` `sqrt` |
| text | `\|\|` `concat` `contains` `ends_with` `length` `lower` `ltrim` `regexp_extract` `regexp_matches` `replace` `rtrim` `split_part` `starts_with` `substr` `suffix` `trim` `upper` |
| time | `date_trunc('hour', ts)` `epoch` `extract(year from ts)` `year` `quarter` `month` `week` `day` `hour` `minute` `second` `dayofweek` `isodow` `dayofyear` `strptime` `to_timestamp` |
| types | `cast(x as int)` `x::int` `try_cast(x as int)`: bool, int, float, string, binary, date, timestamp, decimal(12, 2) |
| nulls | `coalesce` `ifnull` `nullif` `greatest` `least` |

What they mean, where databases differ:

| | |
|---|---|
| null | three-valued logic: `null and false` is false, `null = null` is null; a filter keeps rows that are true |
| int | 64 bits; a result beyond sets the row aside, it never wraps |
| `/` | of floats, also for ints (`7 / 2` is 3.5); dividing by zero and `% 0` give null |
| `%` | has the sign of the first number |
| decimal | exact with ints and decimals; with a float column the result is a float |
| int and float | compared as the numbers they are: 9007199254740993 is not 9007199254740992.0 |
| float | IEEE 754: NaN equals nothing; `sqrt(-1)` and `ln(0)` are null |
| `cast` | without loss or not at all: `cast('abc' as int)` and `cast(1.5 as int)` set the row aside, `try_cast` gives null |
| time | in UTC; a text is read as ISO 8601 where it meets a timestamp; without a zone it is UTC |
| `round` | half away from zero; `ceil`, `floor`, `round` keep the type |
| `like` | case matters, `ilike` ignores it; no escape character unless given: `like '5!%' escape '!'` |
| `regexp_…` | RE2 (linear time), found anywhere in the text; `regexp_extract` gives null where nothing matches |
| `concat` | leaves nulls out, `\|\|` with a null is null; other types are joined as `cast` writes them |
| `greatest`, `least` | leave nulls out |
| branches | the right side of `and` and `or`, and branches of `case` and `coalesce`, fail only rows that need them |

Functions whose result would differ at a replay (`now()`, `random()`) do not exist: a replay must give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, BeforeValidator

from collectors.errors import ConfigurationError, DataError
from collectors.processing import _simple, casting
from collectors.processing._names import nearest
from collectors.processing._operators import arithmetic, compare, signed
from collectors.processing._terms import (
    Compile,
    Datum,
    Mismatch,
    Rows,
    Term,
    coerce,
    constant,
    meet,
    number,
    shared,
    shown,
    wrong,
)

__all__ = ["RULES", "Compiled", "Sql", "compile_expression"]

_YES, _NO = pa.scalar(value=True), pa.scalar(value=False)


class Compiled:
    """An expression that fits a schema."""

    def __init__(self, term: Term, columns: frozenset[str]) -> None:
        self.type: pa.DataType = term.type
        self.columns = columns
        self._term = term

    def evaluate(self, table: pa.Table) -> pa.ChunkedArray:
        """Return the value for every row, in order. Raises DataError that names every row that has none, and why."""
        columns = {name: casting.plain(table.column(name).combine_chunks()) for name in self.columns}
        rows = Rows(columns, table.num_rows)
        result = rows.spread(self._term.run(rows))
        if rows.failures:
            failures = dict(sorted(rows.failures.items()))
            raise DataError(next(iter(failures.values())), rows=failures)
        return pa.chunked_array([result], self.type)


@lru_cache(maxsize=512)
def compile_expression(text: str, schema: pa.Schema) -> Compiled:
    """Return the expression for tables of this schema; the same one for the same arguments.

    Raises ConfigurationError: a column that is not there (with the nearest name), or types that do not meet.
    """
    simple = _simple.parse(text)
    if simple is not None:
        try:
            return _compile(text, schema, simple)
        except ConfigurationError:
            pass  # where it stands is told below
    from collectors.processing._syntax import parse

    return _compile(text, schema, parse(text))


def _compile(text: str, schema: pa.Schema, tree: Any) -> Compiled:
    compiler = _Compiler(text, schema)
    try:
        compiled = Compiled(compiler.term(tree), frozenset(compiler.columns))
        compiled.evaluate(schema.empty_table())
    except Mismatch as error:
        compiler.refuse(error.node, str(error))
    except pa.ArrowException as error:
        compiler.refuse(None, f"this does not work with the types of its columns: {error}")
    return compiled


class _Compiler:
    """Walks a checked tree; knows the columns."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self.text = text
        self.schema = schema
        self.columns: set[str] = set()

    def term(self, node: Any) -> Term:
        if node.key in {"column", "dot", "bracket"}:
            return self._nested(node)
        if node.key in RULES:
            return RULES[node.key](node, self.term)
        from collectors.processing._functions import FUNCTIONS

        return FUNCTIONS[type(node)](node, self.term)

    def refuse(self, node: Any, message: str, hint: str = "") -> NoReturn:
        from collectors.processing._syntax import place, start_of

        line, column = place(self.text, start_of(node) if node is not None else 0)
        raise ConfigurationError(f"{message} (line {line}, column {column}){hint}")

    def _nested(self, node: Any) -> Term:
        if node.key == "column":
            parts = [node.args[name] for name in ("catalog", "db", "table", "this") if node.args.get(name)]
            term = self._column(parts[0])
            for part in parts[1:]:
                term = self._field(term, part.name, part)
            return term
        name = node.expression if node.key == "dot" else node.expressions[0]
        return self._field(self.term(node.this), name.name, node)

    def _column(self, part: Any) -> Term:
        name = part.name
        found = self.schema.get_all_field_indices(name)
        if len(found) > 1:
            self.refuse(part, f"there are {len(found)} columns named '{name}'")
        if not found:
            text = (
                f". If it is meant as text, write it in single quotes: '{name}'"
                if part.args.get("quoted")
                else ""
            )
            self.refuse(part, f"no column '{name}'", f"{nearest(name, self.schema.names)}{text}{_LATER}")
        self.columns.add(name)
        type_ = casting.plain_type(self.schema.field(name).type)
        return Term(type_, lambda rows: rows.columns[name], part)

    def _field(self, term: Term, name: str, node: Any) -> Term:
        if term.kind != "struct":
            self.refuse(node, f"{shown(term)} and has no field '{name}'")
        index = term.type.get_field_index(name)
        if index < 0:
            names = [field.name for field in term.type]
            self.refuse(node, f"{shown(term)} without a field '{name}'", nearest(name, names))

        def run(rows: Rows) -> Datum:
            return casting.plain(pc.struct_field(rows.spread(term.run(rows)), [index]))

        return Term(casting.plain_type(term.type.field(index).type), run, node)


_LATER = ". A column that only later records have can be declared under 'columns' of the source's format"


def _truth(term: Term) -> Term:
    if term.kind == "null":
        return coerce(term, pa.bool_())
    if term.kind != "bool":
        wrong(term.node, f"{shown(term)}, and true or false is needed: compare it with something")
    return term


def _chain(kernel: Callable[[Datum, Datum], Datum], *, stops: bool) -> Any:
    """Return the rule of AND or OR; behind a part with the value that decides (`stops`) nothing fails the row."""

    def undecided(values: Datum) -> Datum:
        return pc.coalesce(pc.not_equal(values, pa.scalar(stops)), _YES)

    def rule(node: Any, compile_: Compile) -> Term:
        terms = [_truth(compile_(part)) for part in node.flatten(unnest=False)]

        def run(rows: Rows) -> Datum:
            result = terms[0].run(rows)
            for term in terms[1:]:
                result = kernel(result, term.run(rows.where(undecided, result)))
            return result

        return Term(pa.bool_(), run, node)

    return rule


def _not(node: Any, compile_: Compile) -> Term:
    term = _truth(compile_(node.this))
    return Term(pa.bool_(), lambda rows: pc.invert(term.run(rows)), node)


def _comparison(sign: str) -> Any:
    return lambda node, compile_: compare(sign, compile_(node.this), compile_(node.expression), node)


def _arithmetic(sign: str) -> Any:
    return lambda node, compile_: arithmetic(sign, compile_(node.this), compile_(node.expression), node)


def _distinct(*, same: bool) -> Any:
    """Return the rule of IS [NOT] DISTINCT FROM: two nulls are the same, a null and a value are not."""

    def rule(node: Any, compile_: Compile) -> Term:
        left, right = shared(compile_(node.this)), shared(compile_(node.expression))
        equal = compare("=", left, right, node)

        def run(rows: Rows) -> Datum:
            nulls = pc.and_(pc.is_null(left.run(rows)), pc.is_null(right.run(rows)))
            alike = pc.coalesce(equal.run(rows), nulls)
            return alike if same else pc.invert(alike)

        return Term(pa.bool_(), run, node)

    return rule


def _is(node: Any, compile_: Compile) -> Term:
    term = compile_(node.this)
    if node.expression.key == "null":
        return Term(pa.bool_(), lambda rows: pc.is_null(term.run(rows)), node)
    truth, wanted = _truth(term), pa.scalar(bool(node.expression.this))
    return Term(pa.bool_(), lambda rows: pc.coalesce(pc.equal(truth.run(rows), wanted), _NO), node)


def _between(node: Any, compile_: Compile) -> Term:
    term = shared(compile_(node.this))
    low = compare(">=", term, compile_(node.args["low"]), node)
    high = compare("<=", term, compile_(node.args["high"]), node)
    return Term(pa.bool_(), lambda rows: pc.and_kleene(low.run(rows), high.run(rows)), node)


def _in(node: Any, compile_: Compile) -> Term:
    """Look up at once the items written out in the value's own type; compare the others one by one."""
    term = shared(compile_(node.this))
    items = [compile_(item) for item in node.expressions]
    alike = [
        item for item in items if item.written is not None and item.type == term.type and item.kind != "float"
    ]
    others = [compare("=", term, item, node) for item in items if item not in alike]
    known = pa.array([item.written for item in alike], term.type) if alike else None

    def run(rows: Rows) -> Datum:
        result = _NO
        if known is not None:
            values = term.run(rows)
            found = pc.is_in(values, value_set=known)
            result = pc.if_else(pc.is_null(values), pa.scalar(None, pa.bool_()), found)
        for other in others:
            result = pc.or_kleene(result, other.run(rows))
        return result

    return Term(pa.bool_(), run, node)


def _as_is(values: Datum) -> Datum:
    return values


def _case(node: Any, compile_: Compile) -> Term:
    branches = node.args["ifs"] if node.key == "case" else [node]
    operand = shared(compile_(node.this)) if node.key == "case" and node.args.get("this") else None
    tests = [
        compare("=", operand, compile_(branch.this), branch) if operand else _truth(compile_(branch.this))
        for branch in branches
    ]
    otherwise = node.args.get("default") or node.args.get("false")
    values = [compile_(branch.args["true"]) for branch in branches]
    values = meet(node, [*values, compile_(otherwise) if otherwise else constant(node, None, pa.null())])

    def run(rows: Rows) -> Datum:
        open_: Datum = _YES
        chosen = []
        for test, value in zip(tests, values[:-1], strict=True):
            hit = pc.coalesce(test.run(rows.where(_as_is, open_)), _NO)
            here = pc.and_(open_, hit)
            chosen.append((hit, value.run(rows.where(_as_is, here))))
            open_ = pc.and_(open_, pc.invert(hit))
        result = values[-1].run(rows.where(_as_is, open_))
        for hit, value in reversed(chosen):
            result = pc.if_else(hit, value, result)
        return result

    return Term(values[0].type, run, node)


def _literal(node: Any, _compile: Compile) -> Term:
    if node.is_string:
        return constant(node, node.this, pa.string(), node.this)
    return number(node, int(node.this) if node.this.isdigit() else Decimal(node.this))


RULES: dict[str, Callable[[Any, Compile], Term]] = {
    "add": _arithmetic("+"),
    "and": _chain(pc.and_kleene, stops=False),
    "between": _between,
    "boolean": lambda node, _compile: constant(node, bool(node.this), pa.bool_()),
    "case": _case,
    "div": _arithmetic("/"),
    "eq": _comparison("="),
    "gt": _comparison(">"),
    "gte": _comparison(">="),
    "if": _case,
    "in": _in,
    "is": _is,
    "lt": _comparison("<"),
    "lte": _comparison("<="),
    "literal": _literal,
    "mod": _arithmetic("%"),
    "mul": _arithmetic("*"),
    "neq": _comparison("<>"),
    "neg": lambda node, compile_: signed(lambda value: -value, pc.negate, compile_(node.this), node),
    "not": _not,
    "null": lambda node, _compile: constant(node, None, pa.null()),
    "nullsafeeq": _distinct(same=True),
    "nullsafeneq": _distinct(same=False),
    "or": _chain(pc.or_kleene, stops=True),
    "paren": lambda node, compile_: compile_(node.this),
    "sub": _arithmetic("-"),
}
"""Kind of node → what it means; functions have theirs elsewhere, with what is seldom used."""


def _as_text(value: Any) -> Any:
    """YAML reads `version: 2` as a number; in an expression it is one as well."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, (int, float)) else value


def _checked(text: str) -> str:
    if _simple.parse(text) is None:
        from collectors.processing._syntax import parse

        parse(text)
    return text


Sql = Annotated[
    str, BeforeValidator(_as_text, json_schema_input_type=str | int | float | bool), AfterValidator(_checked)
]
"""One SQL expression over the columns of a row; checked when the settings are read."""
