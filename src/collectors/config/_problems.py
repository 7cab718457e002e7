"""What is wrong with a pipeline, all of it at once."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from collectors.errors import ConfigurationError

__all__ = [
    "InvalidPipelineError",
    "Keys",
    "Problem",
    "hide_login",
    "nearest",
    "render_path",
    "render_value",
    "similar",
]

Keys = tuple[str | int, ...]
"""Keys and list indexes from the top of a pipeline to a value."""


class Problem(Struct, frozen=True):
    """One mistake: where it stands, what stands there, what was expected, and a way out.

    `line` and `column` count from 1 and are None for a pipeline that came from Python. `value` is what the user
    wrote, as it may be shown: never a secret, never what a variable was replaced with.
    """

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    path: str = ""
    value: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        subject = self.path if self.value is None else f"{self.path} = {self.value}".removeprefix(" = ")
        text = f"{subject}: {self.message}" if subject else self.message
        if self.hint:
            text = f"{text.rstrip('.')}; {self.hint}"
        return f"{place}  {text}" if place else text


class InvalidPipelineError(ConfigurationError):
    """A pipeline that cannot be used; `problems` holds every mistake, the message is one line each."""

    def __init__(self, message: str = "", *, problems: Iterable[Problem] = ()) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0))
        super().__init__(message or "\n".join(str(problem) for problem in self.problems))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the hint that names the nearest of the known names, or else all of them."""
    names = sorted(known)
    return similar(name, names) or (f"there are: {', '.join(names)}" if names else None)


def similar(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the hint that names the nearest of the known names, if one is near."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)
    return f"did you mean '{near[0]}'?" if near else None


def render_path(path: Sequence[str | int]) -> str:
    """Return a path as people write it: `sources[0].columns["my column"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text


def hide_login(text: str) -> str:
    """Return the text with user and password of every address in it hidden."""
    return re.sub(r"://[^/@\s]*@", "://***@", text)


def render_value(value: Any) -> str | None:
    """Return a value on one short line, the user and password of an address hidden; None for lists and mappings."""
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if not isinstance(value, str):
        return None
    text = hide_login(value)
    return json.dumps(text if len(text) <= 60 else f"{text[:59]}…", ensure_ascii=False)
