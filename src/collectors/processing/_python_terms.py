"""Expressions of Python over the columns of a record, in SQL: only those that mean the same, null included.

A condition is written in one of two ways: `loosely` where a filter asks for it and null counts as false, or such that it is
true or false for every value, as Python's is.
"""

from __future__ import annotations

import ast
import re
from decimal import Decimal

from msgspec import Struct, field
from sqlglot import TokenType, tokenize

__all__ = ["NotSimpleError", "Terms", "Value", "not_simple"]

_OR, _AND, _COMPARED, _JOINED, _SUM, _PRODUCT, _SIGNED, _ATOM = range(8)
_NUMBERS = {"int", "float"}
_SIGNS: dict[type[ast.operator], tuple[str, int]] = {
    ast.Add: ("+", _SUM),
    ast.Sub: ("-", _SUM),
    ast.Mult: ("*", _PRODUCT),
    ast.Div: ("/", _PRODUCT),
}
_ORDERS: dict[type[ast.cmpop], str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_METHODS = {"upper": "upper", "lower": "lower", "strip": "trim"}
_LONGEST_NUMBER = 30


class NotSimpleError(ValueError):
    """A function that has no translation; the message says why."""


class Value(Struct, frozen=True):
    """An expression in SQL: what kind of value it has, from which columns, and how closely it holds together."""

    sql: str
    kind: str
    columns: frozenset[str] = frozenset()
    closeness: int = _ATOM

    def at_least(self, closeness: int) -> str:
        """Return the text as part of a larger expression."""
        return self.sql if self.closeness >= closeness else f"({self.sql})"


_NULL = Value("null", "null")


class Terms(Struct):
    """Translates expressions: `kinds` are the columns that the record has at the moment, `names` its local variables.

    `taken` are the names that the function's module gives a meaning of its own.
    """

    record: str
    kinds: dict[str, str]
    taken: set[str]
    names: dict[str, Value] = field(default_factory=dict)

    def value(self, node: ast.expr) -> Value:
        """Return an expression for its value. Raises NotSimpleError."""
        match node:
            case ast.Constant():
                return _constant(node)
            case ast.Name(id=name) if name in self.names:
                return self.names[name]
            case ast.Subscript() | ast.Call(func=ast.Attribute(attr="get")):
                return self.column(self.key(node))
            case ast.UnaryOp(op=ast.USub()):
                operand = self._number(node.operand)
                return Value(f"-{operand.at_least(_ATOM)}", operand.kind, operand.columns, _SIGNED)
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.IfExp():
                return self._choice(node)
            case ast.Call():
                return self._call(node)
            case ast.Compare() | ast.UnaryOp(op=ast.Not()):
                return self.condition(node)
            case ast.BoolOp() if all(_is_truth(part) for part in node.values):
                return self.condition(node)
        raise not_simple(node)

    def condition(self, node: ast.expr, *, wanted: bool = True, loosely: bool = False) -> Value:
        """Return what is true where Python takes the expression for true (`wanted`), or for false."""
        match node:
            case ast.UnaryOp(op=ast.Not()):
                return self.condition(node.operand, wanted=not wanted, loosely=loosely)
            case ast.BoolOp():
                parts = [self.condition(part, wanted=wanted, loosely=loosely) for part in node.values]
                return _joined(parts, every=isinstance(node.op, ast.And) == wanted)
            case ast.Compare():
                return self._comparison(node, wanted=wanted, loosely=loosely)
            case ast.Constant(value=bool(truth)):
                return Value(str(truth == wanted).lower(), "bool")
        flag = self.value(node)
        if flag.kind != "bool":
            raise not_simple(node)
        if wanted and loosely:
            return flag
        return Value(
            f"{flag.at_least(_JOINED)} is {'' if wanted else 'not '}true", "bool", flag.columns, _COMPARED
        )

    def key(self, node: ast.expr) -> str:
        """Return the name of the column that `record["x"]` or `record.get("x")` stands for, whether it is there or not."""
        match node:
            case ast.Subscript(value=ast.Name(id=self.record), slice=ast.Constant(value=str(name))):
                return name
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=self.record), attr="get"),
                args=[ast.Constant(value=str(name)), *rest],
                keywords=[],
            ) if len(rest) < 2:
                return name
        raise not_simple(node)

    def column(self, name: str) -> Value:
        """Return a column of the record."""
        if name not in self.kinds:
            raise NotSimpleError(f"the records of the sample have no '{name}'")
        return Value(_identifier(name), self.kinds[name], frozenset({name}))

    def _number(self, node: ast.expr) -> Value:
        return self._of(node, _NUMBERS)

    def _of(self, node: ast.expr, kinds: set[str]) -> Value:
        value = self.value(node)
        if value.kind not in kinds:
            raise NotSimpleError(f"`{ast.unparse(node)}` is {value.kind} there")
        return value

    def _arithmetic(self, node: ast.BinOp) -> Value:
        left, right = self.value(node.left), self.value(node.right)
        columns = left.columns | right.columns
        if isinstance(node.op, ast.Add) and {left.kind, right.kind} == {"string"}:
            return Value(f"{left.at_least(_JOINED)} || {right.at_least(_ATOM)}", "string", columns, _JOINED)
        if type(node.op) not in _SIGNS or not {left.kind, right.kind} <= _NUMBERS:
            raise not_simple(node)
        sign, closeness = _SIGNS[type(node.op)]
        whole = {left.kind, right.kind} == {"int"} and sign != "/"
        text = f"{left.at_least(closeness)} {sign} {right.at_least(closeness + 1)}"
        return Value(text, "int" if whole else "float", columns, closeness)

    def _choice(self, node: ast.IfExp) -> Value:
        return self.choice(self.condition(node.test), self.value(node.body), self.value(node.orelse), node)

    def choice(self, test: Value, yes: Value, no: Value, node: ast.AST) -> Value:
        """Return one of two values."""
        kinds = {yes.kind, no.kind} - {"null"}
        if len(kinds) != 1:
            raise not_simple(node)
        text = f"case when {test.sql} then {yes.sql} else {no.sql} end"
        return Value(text, kinds.pop(), test.columns | yes.columns | no.columns)

    def _built_in(self, name: str) -> bool:
        return name not in self.taken and name not in self.names

    def _call(self, node: ast.Call) -> Value:
        match node:
            case ast.Call(func=ast.Name(id="abs"), args=[argument], keywords=[]) if self._built_in("abs"):
                number = self._number(argument)
                return Value(f"abs({number.sql})", number.kind, number.columns)
            case ast.Call(func=ast.Name(id="len"), args=[argument], keywords=[]) if self._built_in("len"):
                text = self._of(argument, {"string"})
                return Value(f"length({text.sql})", "int", text.columns)
            case ast.Call(func=ast.Attribute(value=argument, attr=name), args=[], keywords=[]) if (
                name in _METHODS
            ):
                text = self._of(argument, {"string"})
                return Value(f"{_METHODS[name]}({text.sql})", "string", text.columns)
        raise not_simple(node)

    def _comparison(self, node: ast.Compare, *, wanted: bool, loosely: bool) -> Value:
        between = self._between(node, wanted=wanted)
        if between is not None:
            return between
        operands = [node.left, *node.comparators]
        parts = [
            self._pair(operands[place], sign, operands[place + 1], wanted=wanted, loosely=loosely)
            for place, sign in enumerate(node.ops)
        ]
        return _joined(parts, every=wanted)

    def _between(self, node: ast.Compare, *, wanted: bool) -> Value | None:
        """Return `low <= x <= high` with numbers written out as what SQL has for it."""
        if [type(sign) for sign in node.ops] != [ast.LtE, ast.LtE]:
            return None
        low, value, high = (self.value(part) for part in (node.left, *node.comparators))
        if low.columns or high.columns or not {low.kind, value.kind, high.kind} <= _NUMBERS:
            return None
        text = f"{value.at_least(_JOINED)} {'' if wanted else 'not '}between {low.sql} and {high.sql}"
        return Value(text, "bool", value.columns, _COMPARED)

    def _pair(
        self, first: ast.expr, sign: ast.cmpop, second: ast.expr, *, wanted: bool, loosely: bool
    ) -> Value:
        if isinstance(sign, (ast.NotEq, ast.IsNot, ast.NotIn)):
            wanted = not wanted
        if isinstance(sign, (ast.In, ast.NotIn)):
            return self._among(first, second, wanted=wanted, loosely=loosely)
        left, right = self.value(first), self.value(second)
        columns = left.columns | right.columns
        if _NULL in (left, right) and type(sign) not in _ORDERS:
            value = left if right == _NULL else right
            text = f"{value.at_least(_JOINED)} is {'' if wanted else 'not '}null"
            return Value(text, "bool", columns, _COMPARED)
        if not {left.kind, right.kind} <= _NUMBERS and left.kind != right.kind:
            raise NotSimpleError(f"it compares {left.kind} with {right.kind}")
        if type(sign) in _ORDERS and left.kind in {"int", "float", "string"}:
            text = f"{left.at_least(_JOINED)} {_ORDERS[type(sign)]} {right.at_least(_JOINED)}"
            # not turned round: a NaN is neither less than a number nor at least it
            return Value(text if wanted else f"not ({text})", "bool", columns, _COMPARED)
        if not isinstance(sign, (ast.Eq, ast.NotEq)) or left.kind not in {"int", "float", "string", "bool"}:
            raise not_simple(first)
        word = "is not distinct from" if wanted else "is distinct from"
        if wanted and loosely and not (left.columns and right.columns):
            word = "="
        return Value(f"{left.at_least(_JOINED)} {word} {right.at_least(_JOINED)}", "bool", columns, _COMPARED)

    def _among(self, first: ast.expr, second: ast.expr, *, wanted: bool, loosely: bool) -> Value:
        """Return `x in ("a", "b")` of texts or of ints."""
        value = self._of(first, {"string", "int"})
        if not isinstance(second, (ast.Tuple, ast.List, ast.Set)) or not second.elts:
            raise not_simple(second)
        items = [self.value(item) for item in second.elts]
        if any(item.columns or item.kind != value.kind for item in items):
            raise not_simple(second)
        name, listed = value.at_least(_JOINED), ", ".join(item.sql for item in items)
        if not wanted:
            return Value(f"{name} is null or {name} not in ({listed})", "bool", value.columns, _OR)
        text = f"{name} in ({listed})"
        return Value(text if loosely else f"coalesce({text}, false)", "bool", value.columns, _COMPARED)


def not_simple(node: ast.AST) -> NotSimpleError:
    """Return the refusal of a part of the function."""
    text = ast.unparse(node).split("\n")[0]
    return NotSimpleError(f"there is no plain SQL for `{text}`")


def _is_truth(node: ast.expr) -> bool:
    """Return whether the value is true or false itself, not one of its parts as with Python's `and` and `or`."""
    if isinstance(node, ast.BoolOp):
        return all(_is_truth(part) for part in node.values)
    return isinstance(node, ast.Compare) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))


def _joined(parts: list[Value], *, every: bool) -> Value:
    """Return whether every part is true, or any."""
    if len(parts) == 1:
        return parts[0]
    word, closeness = ("and", _AND) if every else ("or", _OR)
    columns = frozenset().union(*(part.columns for part in parts))
    return Value(f" {word} ".join(part.at_least(closeness + 1) for part in parts), "bool", columns, closeness)


def _constant(node: ast.Constant) -> Value:
    value = node.value
    if value is None:
        return _NULL
    if isinstance(value, bool):
        return Value(str(value).lower(), "bool")
    if isinstance(value, str):
        return Value("'" + value.replace("'", "''") + "'", "string")
    if isinstance(value, int) and value < 2**63:
        return Value(str(value), "int")
    if isinstance(value, float) and len(text := f"{Decimal(repr(value)):f}") <= _LONGEST_NUMBER:
        return Value(text if "." in text else f"{text}.0", "float")
    raise not_simple(node)


def _identifier(name: str) -> str:
    """Return a column's name as expressions write it, in quotes where it would be read as something else."""
    plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name) is not None
    if plain and [token.token_type for token in tokenize(name, read="duckdb")] == [TokenType.VAR]:
        return name
    return '"' + name.replace('"', '""') + '"'
