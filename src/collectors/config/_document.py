"""What the user wrote, whether as a file or as Python values: its data, and where each value stands."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from collectors.config import _yaml
from collectors.config._places import character_place
from collectors.config._problems import InvalidPipelineError, Keys, Problem, render_path, render_value
from collectors.config._values import Variables

__all__ = ["Document", "read_document"]

MAX_BYTES = 2**20


class Document(Struct):
    """A pipeline as written, its variables, and the problems found so far.

    `label` is the file as the user named it; None when the pipeline came from Python, where nothing has a line.
    """

    data: Any
    variables: Variables
    label: str | None = None
    source: str = ""
    root: _yaml.Node | None = None
    problems: list[Problem] = field(default_factory=list)

    def resolve(self) -> Any:
        """Return the data with its variables replaced; one that cannot be becomes a problem."""
        data = self.variables.resolve(self.data)
        for path, (message, hint) in self.variables.missing.items():
            line, column = self.place(path)
            self.problems.append(Problem(message, self.label, line, column, render_path(path), hint=hint))
        return data

    def report(
        self,
        path: Keys,
        message: str,
        *,
        hint: str | None = None,
        shown: str | None = None,
        at_key: bool = False,
        at: tuple[int, int] | None = None,
    ) -> None:
        """Add a problem about the value at the path; not when a variable in it was missing, which is the cause then.

        `shown` is the value for people; one with variables is shown as it was written. `at_key` points at the key
        instead. `at` is a line and a column, from 1, inside of a text.
        """
        if any(path[: len(missing)] == missing for missing in self.variables.missing):
            return
        line, column = self.place(path, at_key=at_key, at=at)
        written = self.variables.written(path)
        problem = Problem(
            message=self.variables.redact(message),
            file=self.label,
            line=line,
            column=column,
            path=render_path(path),
            value=render_value(written) if written and shown else shown,
            hint=hint and self.variables.redact(hint),
        )
        if problem not in self.problems:
            self.problems.append(problem)

    def place(
        self, path: Keys, *, at_key: bool = False, at: tuple[int, int] | None = None
    ) -> tuple[int | None, int | None]:
        """Return line and column of the deepest value on the path that is there; None, None without a file."""
        node = self.root
        if node is None:
            return (1, 1) if self.label else (None, None)
        place = (node.line, node.column)
        for number, part in enumerate(path):
            if isinstance(node, _yaml.Mapping) and part in node.entries:
                key, node = node.entries[str(part)]
                is_last = number == len(path) - 1
                place = (key.line, key.column) if at_key and is_last else (node.line, node.column)
            elif isinstance(node, _yaml.Sequence) and isinstance(part, int) and part < len(node.items):
                node = node.items[part]
                place = (node.line, node.column)
            else:
                break
        if at is not None and isinstance(node, _yaml.Scalar):
            return self._inside(path, node, at)
        return place

    def where(self, path: Keys) -> str:
        """Return a place for messages at run time: `pipeline.yaml:7`, or `sources[0]` without a file."""
        line, _ = self.place(path)
        return f"{self.label}:{line}" if self.label else render_path(path)

    def finish(self) -> None:
        """Raise InvalidPipelineError with everything that was reported, if anything was."""
        if self.problems:
            raise InvalidPipelineError(problems=self.problems)

    def _inside(self, path: Keys, node: _yaml.Scalar, at: tuple[int, int]) -> tuple[int, int]:
        replaced = self.variables.replaced.get(path)
        text = replaced.text if replaced else node.text
        offset = _offset(text, at)
        if replaced:
            offset = replaced.origins[offset] if offset < len(replaced.origins) else len(replaced.written)
        return character_place(self.source, node, offset)


def _offset(text: str, at: tuple[int, int]) -> int:
    """Return the index of a line and column, both from 1, in a text."""
    line, column = at
    before = text.split("\n")[: line - 1]
    return min(sum(len(part) + 1 for part in before) + column - 1, len(text))


def read_document(file: Path) -> Document:
    """Read and parse a pipeline file. Raises InvalidPipelineError when there is nothing to look at further."""
    label = str(file)
    folder = file.absolute().parent
    text = _read(file, label)
    try:
        root, errors = _yaml.parse(text)
    except _yaml.YamlError as error:
        raise InvalidPipelineError(problems=[_problem(error, label)]) from None
    if root is None or (isinstance(root, _yaml.Scalar) and root.value is None):
        raise _refuse(label, "the file is empty", "collectors new writes one to begin with")
    if not isinstance(root, _yaml.Mapping):
        found = "a list" if isinstance(root, _yaml.Sequence) else "plain text"
        message = f"expected a mapping with the keys sources and storage, found {found}"
        raise InvalidPipelineError(problems=[Problem(message, label, root.line, root.column)])
    document = Document(_yaml.plain(root), Variables(folder), label, text, root)
    document.problems += [_problem(error, label) for error in errors]
    return document


def _read(file: Path, label: str) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise _refuse(label, "this is a folder, not a pipeline file", _files_in(file)) from None
    except FileNotFoundError:
        raise _refuse(label, "there is no such file", _nearest_file(file)) from None
    except (OSError, ValueError) as error:
        raise _refuse(label, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > MAX_BYTES:
        raise _refuse(label, f"longer than {MAX_BYTES // 2**20} MiB, which no pipeline file is")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        message = f"the byte 0x{content[error.start]:02X} here is not UTF-8 text"
        hint = "save the file as UTF-8"
        raise InvalidPipelineError(problems=[Problem(message, label, line, column, hint=hint)]) from None


def _refuse(label: str, message: str, hint: str | None = None) -> InvalidPipelineError:
    return InvalidPipelineError(problems=[Problem(message, label, hint=hint)])


def _problem(error: _yaml.YamlError, label: str) -> Problem:
    return Problem(error.message, label, error.line, error.column, hint=error.hint)


def _nearest_file(file: Path) -> str | None:
    folder = file.parent
    if not folder.is_dir():
        return f"there is no folder '{folder}' either"
    names = _pipeline_names(folder)
    near = [name for name in names if _is_near(file, Path(name))]
    return f"did you mean '{folder / near[0]}'?" if near else _listing(names, folder)


def _is_near(file: Path, other: Path) -> bool:
    """Return whether one may have been meant for the other; the ending, which all have, does not count."""
    return difflib.SequenceMatcher(None, file.stem, other.stem).ratio() >= 0.6


def _files_in(folder: Path) -> str | None:
    return _listing(_pipeline_names(folder), folder)


def _pipeline_names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix in {".yaml", ".yml"})
    except OSError:
        return []


def _listing(names: Sequence[str], folder: Path) -> str | None:
    if not names:
        return f"there is no .yaml file in '{folder}'"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"in that folder there are: {', '.join(names[:5])}{more}"
