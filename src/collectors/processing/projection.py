"""Which columns a Python function of a record looks at, so that the others need not become Python's values and back.

Told by its syntax tree, which is believed only where it compiles to the very code of the function. Whatever could see or
hand on the record as a whole (`print(record)`, `record.items()`, a nested function, `locals()`) makes it unknown.
"""

from __future__ import annotations
import __future__

import ast
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from msgspec import Struct

__all__ = ["Projection", "projection_of"]

_FUTURE = {name: getattr(__future__, name).compiler_flag for name in __future__.all_feature_names}
_LARGEST_SOURCE = 1 << 20
_SEES_ALL = {"_getframe", "breakpoint", "dir", "eval", "exec", "f_locals", "locals", "vars"}


class Projection(Struct, frozen=True):
    """The columns that a function looks at, and those among them that it may change, add or take out.

    `passes_on` says that all others are in what it returns, as they were; else they are not in it.
    """

    columns: frozenset[str]
    changed: frozenset[str]
    passes_on: bool


def projection_of(function: Callable[[Any], Any]) -> Projection | None:
    """Return what a function of one record does with columns; None where that cannot be told for certain.

    `processors/python.py` asks once for each function. Reads the file that the function is from, and runs nothing.
    """
    if not isinstance(function, FunctionType):
        return None
    tree = _tree(function.__code__)
    if tree is None:
        return None
    (argument, *_) = [*tree.args.posonlyargs, *tree.args.args]
    found = _Uses(argument.arg)
    if not found.all_of(tree.body) or (found.passes_on and found.makes_new):
        return None
    return Projection(frozenset(found.columns), frozenset(found.changed), found.passes_on)


def _tree(code: CodeType) -> ast.FunctionDef | None:
    """Return the syntax tree that this code was made of; None where it is not there, or would make other code."""
    try:
        path = Path(code.co_filename)
        if not code.co_argcount or path.stat().st_size > _LARGEST_SOURCE:
            return None
        whole = ast.parse(path.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    flags = sum(flag for flag in _FUTURE.values() if code.co_flags & flag)
    for node in ast.walk(whole):
        if (
            isinstance(node, ast.FunctionDef)
            and node.lineno == code.co_firstlineno
            and not node.decorator_list
        ):
            try:
                made = compile(ast.Module([node], []), code.co_filename, "exec", flags, dont_inherit=True)
            except SyntaxError:  # nonlocal, of a function in a function
                return None
            return node if code in made.co_consts else None
    return None


class _Uses:
    """Collects what is done with the record of this name; each method returns False where that cannot be told."""

    def __init__(self, record: str) -> None:
        self.columns: set[str] = set()
        self.changed: set[str] = set()
        self.passes_on = self.makes_new = False
        self._record = record

    def all_of(self, nodes: Iterable[ast.AST]) -> bool:
        return all(map(self._one, nodes))

    def _one(self, node: ast.AST) -> bool:
        match node:
            case ast.Return(value=value):
                return self._returned(value)
            case ast.Subscript(ast.Name(id=self._record), ast.Constant(str() as name), context):
                return self._column(name, changed=not isinstance(context, ast.Load))
            case ast.Call(
                ast.Attribute(ast.Name(id=self._record), "get" | "pop" | "setdefault" as method),
                [ast.Constant(str() as name), *others],
                [],
            ):
                return self._column(name, changed=method != "get") and self.all_of(others)
            case ast.Compare(
                ast.Constant(str() as name), [ast.In() | ast.NotIn()], [ast.Name(id=self._record)]
            ):
                return self._column(name)
            case ast.Name(id=name) | ast.Attribute(attr=name) if name == self._record or name in _SEES_ALL:
                return isinstance(node, ast.Attribute) and name not in _SEES_ALL and self._one(node.value)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Lambda():
                return False
            case ast.Yield() | ast.YieldFrom():
                return False
        bound = [getattr(node, field, None) for field in ("name", "asname", "rest")]
        if any(isinstance(name, str) and name.partition(".")[0] in {self._record, "*"} for name in bound):
            return False  # it is no longer the record
        return self.all_of(ast.iter_child_nodes(node))

    def _returned(self, value: ast.expr | None) -> bool:
        match value:
            case None | ast.Constant(value=None):
                return True
            case ast.IfExp(test=test, body=body, orelse=other):
                return self._one(test) and self._returned(body) and self._returned(other)
            case ast.Name(id=self._record):
                self.passes_on = True
                return True
            case ast.Dict(keys=[None, *keys], values=[ast.Name(id=self._record), *values]):
                self.passes_on = True
                names = [
                    key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
                ]
                self.columns.update(names)
                self.changed.update(names)
                return len(names) == len(keys) and self.all_of(values)
        self.makes_new = True
        return self._one(value)

    def _column(self, name: str, *, changed: bool = False) -> bool:
        self.columns.add(name)
        if changed:
            self.changed.add(name)
        return True
