"""Mutants: a few words of our source are replaced, in memory, by what a peer's bug would be here.

A patch names one function and text in it that must be there exactly once, so that a mutant which no longer fits the
source is an error and not a test that proves nothing. The function gets the changed code in place: whoever has
imported it already runs the changed one too, which lets one warm process be forked for every mutant.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any


@dataclass(frozen=True)
class Patch:
    """`target` is `module:Class.function` below the package; `old` becomes `new`.

    Text that ends with a newline is whole lines, written without the indentation that they have in the function.
    """

    target: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """A peer's bug here, and the test that must notice: it has to fail, with `because` in its report."""

    name: str
    bug: str
    peer: str
    link: str
    caught_by: str
    because: str
    patches: tuple[Patch, ...]


def mutant(
    name: str, bug: str, peer: str, link: str, caught_by: str, because: str, *patches: Patch
) -> Mutant:
    """Return a mutant; in the order in which people read it."""
    return Mutant(name, bug, peer, link, caught_by, because, patches)


def apply(mutant: Mutant) -> None:
    """Change the running code."""
    sources: dict[Path, str] = {}
    for patch in mutant.patches:
        module_name, _, qualname = patch.target.partition(":")
        module = importlib.import_module(f"collectors.{module_name}")
        path = Path(inspect.getfile(module))
        sources[path] = _changed(sources.get(path) or path.read_text(encoding="utf-8"), qualname, patch)
        codes = _codes(compile(sources[path], str(path), "exec"))
        function = _function(module, qualname)
        function.__code__ = next(code for code in codes if code.co_qualname == qualname)


def _changed(source: str, qualname: str, patch: Patch) -> str:
    node: Any = ast.parse(source)
    for name in qualname.split("."):
        named = [item for item in node.body if getattr(item, "name", None) == name]
        if not named:
            raise AssertionError(f"{patch.target} is not there any more")
        node = named[0]
    lines = source.splitlines(keepends=True)
    start, end = node.body[0].lineno - 1, node.end_lineno
    body = "\n" + "".join(lines[start:end])
    indents = {len(line) - len(line.lstrip()) for line in lines[start:end] if line.strip()}
    for indent in sorted(indents) if patch.old.endswith("\n") else [None]:
        old, new = (
            text if indent is None else "\n" + textwrap.indent(text, " " * indent)
            for text in (patch.old, patch.new)
        )
        if body.count(old) == 1:
            return "".join(lines[:start]) + body.replace(old, new) + "".join(lines[end:])
    raise AssertionError(f"{patch.target} does not have this text exactly once:\n{patch.old}")


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _function(owner: Any, qualname: str) -> Any:
    for name in qualname.split("."):
        owner = inspect.getattr_static(owner, name)
    owner = getattr(owner, "fget", None) or getattr(owner, "__func__", owner)
    return inspect.unwrap(owner)
