"""Variables in the values of a pipeline: `${NAME}`, `${NAME:-default}`, `${file:path}`; `$${` is a literal `${`.

What a variable is replaced with is one value and stays one: it is never read as YAML. It counts as secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from collectors.censor import Censor
from collectors.config._problems import Keys, similar

__all__ = ["Interpolated", "Variables"]

MAX_FILE_BYTES = 64 * 1024

_VARIABLE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Interpolated(Struct):
    """Text with its variables replaced; `origins` has, for each character, its place in what was written."""

    written: str
    text: str
    origins: list[int]
    secrets: list[str]


class Variables(Struct):
    """Replaces variables in a tree of values; remembers where, and what could not be replaced."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    replaced: dict[Keys, Interpolated] = field(default_factory=dict)
    missing: dict[Keys, tuple[str, str | None]] = field(default_factory=dict)

    def resolve(self, data: Any, path: Keys = ()) -> Any:
        """Return the tree with every variable replaced; one that cannot be is in `missing` and left as written."""
        if isinstance(data, Mapping):
            return {key: self.resolve(value, (*path, key)) for key, value in data.items()}
        if isinstance(data, (list, tuple)):
            return [self.resolve(value, (*path, index)) for index, value in enumerate(data)]
        if not isinstance(data, str) or "${" not in data:
            return data
        try:
            done = self._replace(data)
        except _CannotReplaceError as error:
            self.missing[path] = (str(error), error.hint)
            return data
        self.replaced[path] = done
        return done.text

    def written(self, path: Keys) -> str | None:
        """Return what was written at the path, or around it, if variables in it were replaced."""
        places = (path[:length] for length in range(len(path), -1, -1))
        return next((self.replaced[place].written for place in places if place in self.replaced), None)

    def redact(self, text: str) -> str:
        """Return the text with everything that a variable was replaced with hidden."""
        return Censor(secret for done in self.replaced.values() for secret in done.secrets)(text)

    def _replace(self, written: str) -> Interpolated:
        text: list[str] = []
        origins: list[int] = []
        secrets: list[str] = []
        end = 0
        for match in _VARIABLE.finditer(written):
            text.append(written[end : match.start()])
            origins.extend(range(end, match.start()))
            if match[0] == "$${":
                text.append("${")
                origins += [match.start() + 1, match.start() + 2]
            else:
                value = self._value(match[1])
                secrets.append(value)
                text.append(value)
                origins += [match.start()] * len(value)
            end = match.end()
        if "${" in written[end:]:
            raise _CannotReplaceError(
                "a variable that begins with '${' has no '}'", "write '$${' for the text '${'"
            )
        text.append(written[end:])
        origins.extend(range(end, len(written)))
        return Interpolated(written, "".join(text), origins, secrets)

    def _value(self, expression: str) -> str:
        if expression.startswith("file:"):
            return self._file(expression[5:])
        name, has_default, default = expression.partition(":-")
        if not _NAME.fullmatch(name):
            raise _CannotReplaceError(
                f"'${{{expression}}}' is not a variable",
                "write ${NAME}, ${NAME:-default} or ${file:path}; '$${' for the text '${'",
            )
        value = self.environment.get(name)
        # As in a shell, `:-` also stands in for a variable that is set but empty.
        if value is None or (has_default and not value):
            if has_default:
                return default
            hint = similar(name, self.environment, 0.75) or f"set it, or write ${{{name}:-default}}"
            raise _CannotReplaceError(f"the environment variable {name} is not set", hint)
        return value

    def _file(self, name: str) -> str:
        path = self.folder / name
        try:
            path = self.folder / Path(name).expanduser()
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise _CannotReplaceError(f"cannot read the file '{path}': {reason}") from None
        if len(content) > MAX_FILE_BYTES:
            raise _CannotReplaceError(f"the file '{path}' is longer than {MAX_FILE_BYTES // 1024} KiB")
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise _CannotReplaceError(f"the file '{path}' is not UTF-8 text") from None
        return text.removesuffix("\n").removesuffix("\r")


class _CannotReplaceError(Exception):
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
