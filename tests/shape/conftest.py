"""Reads the package's own source for the rules of its shape."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class File:
    """One source file: its path, its dotted module name, its text and its syntax tree."""

    path: Path
    module: str
    text: str
    tree: ast.Module

    def __str__(self):
        return str(self.path)


def read(path, module, text=None):
    text = path.read_text(encoding="utf-8") if text is None else text
    return File(path, module, text, ast.parse(text, str(path)))


@pytest.fixture(scope="session")
def sources():
    """All files of the package, except those that `collectors new` copies to users."""
    root = ROOT / "src"
    found = []
    for path in sorted((root / "collectors").rglob("*.py")):
        if "templates" in path.parts:
            continue
        parts = list(path.relative_to(root).with_suffix("").parts)
        found.append(read(path, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)))
    assert len(found) > 50
    return found


@pytest.fixture(scope="session")
def tests():
    """All test files."""
    return [read(path, path.stem) for path in sorted((ROOT / "tests").rglob("*.py"))]


@pytest.fixture
def fake():
    """Make a file that does not exist, to see that a rule is broken by it."""

    def make(module, text):
        return read(Path(f"{module.replace('.', '/')}.py"), module, text)

    return make
