"""Simple Python functions of a record as steps in SQL: what `explain` offers in place of one that is slow.

Only what means the same in both languages is translated, from the function's syntax tree; nothing of it is run here. What
may differ: where Python fails (`None > 3`, a division by zero) and its record would be set aside, SQL has null; a result
beyond 64 bits on the way to a smaller one; letters whose upper or lower case is another number of letters; `strip` takes
white space, `trim` takes blanks.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any

import pyarrow as pa
from msgspec import Struct, field

from collectors.processing._python_terms import NotSimpleError, Terms, Value, not_simple
from collectors.processing.casting import kind

__all__ = ["NotSimpleError", "Step", "divisors", "translate"]

Step = dict[str, Any]
"""A processor as a pipeline file has it: its type and settings."""


def translate(function: Callable[[Any], Any], schema: pa.Schema) -> list[Step]:
    """Return steps that do to a table of this schema what the function does to each of its records.

    Raises NotSimpleError, with the reason, for all but the simplest functions.
    """
    tree = _tree(function)
    arguments = [*tree.args.posonlyargs, *tree.args.args]
    if len(arguments) != 1 or tree.args.vararg or tree.args.kwonlyargs or tree.args.kwarg:
        raise NotSimpleError("it has more than one argument")
    if len(set(schema.names)) < len(schema.names):
        raise NotSimpleError("two columns have the same name")
    kinds = {item.name: kind(item.type) for item in schema}
    terms = Terms(arguments[0].arg, kinds, set(getattr(function, "__globals__", {})))
    translation = _Translation(terms, schema.names)
    translation.statements(tree.body)
    return translation.steps


def divisors(function: Callable[[Any], Any]) -> Iterator[str]:
    """Yield what a function that can be translated divides by, as it is written, but for numbers other than zero."""
    for node in ast.walk(_tree(function)):
        match node:
            case ast.BinOp(op=ast.Div(), right=divisor) | ast.AugAssign(op=ast.Div(), value=divisor):
                if not _is_number_but_zero(divisor):
                    yield ast.unparse(divisor)


def _is_number_but_zero(node: ast.expr) -> bool:
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_number_but_zero(operand)
        case ast.Constant(value=int() | float() as number):
            return number != 0
    return False


def _tree(function: Callable[[Any], Any]) -> ast.FunctionDef:
    """Return the syntax tree of a function that is one, and nothing round it."""
    if not isinstance(function, FunctionType) or function.__name__ == "<lambda>":
        raise NotSimpleError("it is not written with def")
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        raise NotSimpleError("its source is not there") from None
    if not isinstance(tree, ast.FunctionDef) or tree.decorator_list or tree.name != function.__name__:
        raise NotSimpleError("it is decorated, or async")
    return tree


class _Translation(Struct):
    """Goes through the statements in order; `steps` are those so far."""

    terms: Terms
    known: Sequence[str]
    steps: list[Step] = field(default_factory=list)

    def statements(self, body: Sequence[ast.stmt]) -> None:
        """Translate statements up to the `return` that ends them."""
        for place, statement in enumerate(body):
            rest = body[place + 1 :]
            match statement:
                case ast.Pass() | ast.Expr(value=ast.Constant()):
                    continue
                case ast.Return():
                    self._return(statement)
                    return
                case ast.If(body=[ast.Return() as inner]):
                    following = [*statement.orelse, *rest]
                    if not _is_none(inner.value):
                        self._last_choice(statement, inner, following)
                        return
                    self._filter(statement.test, wanted=False)
                    if statement.orelse:
                        self.statements(following)
                        return
                case ast.If():
                    self._either(statement)
                case _:
                    self._change(statement)
        raise NotSimpleError("it ends without a return")

    def _last_choice(self, statement: ast.If, inner: ast.Return, following: list[ast.stmt]) -> None:
        """Translate a `return` that only some records get to, when the others are left out."""
        match following:
            case [ast.Return(value=value)] if _is_none(value):
                self._filter(statement.test, wanted=True)
                self._return(inner)
            case _:
                raise not_simple(statement)

    def _return(self, statement: ast.Return) -> None:
        match statement.value:
            case ast.Name(id=self.terms.record):
                return
            case ast.IfExp(test=test, body=body, orelse=other) if _is_none(other):
                self._filter(test, wanted=True)
                self._return(ast.Return(body))
            case ast.IfExp(test=test, body=body, orelse=other) if _is_none(body):
                self._filter(test, wanted=False)
                self._return(ast.Return(other))
            case ast.Dict(keys=[None, *keys], values=[ast.Name(id=self.terms.record), *values]):
                self._set(self._fields(keys, values))
            case ast.Dict(keys=[_, *_] as keys, values=values):
                fields = self._fields(keys, values)
                self._set(fields)
                names = [name for name in self.known if name in fields]
                self.steps.append({"type": "select", "columns": list(dict.fromkeys([*names, *fields]))})
            case _:
                raise not_simple(statement)

    def _fields(self, keys: Sequence[ast.expr | None], values: Sequence[ast.expr]) -> dict[str, Value]:
        fields: dict[str, Value] = {}
        for key, value in zip(keys, values, strict=True):
            if not isinstance(key, ast.Constant) or not isinstance(key.value, str) or key.value in fields:
                raise not_simple(value)
            fields[key.value] = self.terms.value(value)
        return fields

    def _change(self, statement: ast.stmt) -> None:
        """Translate a statement that changes the record, or gives a value a name."""
        terms = self.terms
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name != terms.record:
                terms.names[name] = terms.value(value)
            case ast.Assign(targets=[ast.Subscript() as target], value=value):
                self._set({terms.key(target): terms.value(value)})
            case ast.AugAssign(target=ast.Subscript() as target, op=op, value=value):
                self._set({terms.key(target): terms.value(ast.BinOp(target, op, value))})
            case ast.Delete(targets=targets):
                self._drop([terms.key(target) for target in targets])
            case ast.Expr(
                value=ast.Call(
                    func=ast.Attribute(value=ast.Name(id=terms.record), attr="pop"),
                    args=[ast.Constant(value=str(name)), *_],
                )
            ):
                self._drop([name])
            case _:
                raise not_simple(statement)

    def _either(self, statement: ast.If) -> None:
        """Translate an `if` that sets one column, with an `else` that sets the same one or without."""
        match statement:
            case ast.If(body=[ast.Assign(targets=[target], value=yes)], orelse=[]):
                no: ast.expr = target
            case ast.If(
                body=[ast.Assign(targets=[target], value=yes)],
                orelse=[ast.Assign(targets=[other], value=no)],
            ) if ast.dump(target) == ast.dump(other):
                pass
            case _:
                raise not_simple(statement)
        terms = self.terms
        test = terms.condition(statement.test)
        self._set({terms.key(target): terms.choice(test, terms.value(yes), terms.value(no), statement)})

    def _filter(self, test: ast.expr, *, wanted: bool) -> None:
        condition = self.terms.condition(test, wanted=wanted, loosely=True)
        self.steps.append({"type": "filter", "where": condition.sql})

    def _set(self, values: dict[str, Value]) -> None:
        """Add columns to the step before where that is a `set` whose results they do not need, else in a step of their own."""
        values = {
            name: value
            for name, value in values.items()
            if name not in self.terms.kinds or value != self.terms.column(name)
        }
        needed = set(values).union(*(value.columns for value in values.values()))
        last = self.steps[-1] if self.steps and self.steps[-1]["type"] == "set" else None
        if values and (last is None or needed & set(last["columns"])):
            last = {"type": "set", "columns": {}}
            self.steps.append(last)
        for name, value in values.items():
            if last is not None:
                last["columns"][name] = value.sql
            self.terms.kinds[name] = value.kind
        self._forget(set(values))

    def _drop(self, names: list[str]) -> None:
        for name in names:
            self.terms.column(name)
            del self.terms.kinds[name]
            last = self.steps[-1] if self.steps else {}
            if last.get("type") == "select" and "drop" in last:
                last["drop"].append(name)
            else:
                self.steps.append({"type": "select", "drop": [name]})
        self._forget(set(names))

    def _forget(self, changed: set[str]) -> None:
        """Forget local variables that were made from columns which are others now."""
        names = self.terms.names
        self.terms.names = {name: value for name, value in names.items() if not value.columns & changed}


def _is_none(node: ast.expr | None) -> bool:
    return node is None or (isinstance(node, ast.Constant) and node.value is None)
