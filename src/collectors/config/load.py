"""From a pipeline file, or the same as Python values, to a pipeline that can run; all mistakes are told at once."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from collectors.config._document import Document, read_document
from collectors.config._parts import build_parts, is_name
from collectors.config._problems import InvalidPipelineError, Keys, hide_login
from collectors.config._values import Variables
from collectors.config._wording import findings
from collectors.config.model import Component, PipelineConfig, PipelineFile

__all__ = ["file_stamp", "from_mapping", "load"]


def load(path: str | Path) -> PipelineConfig:
    """Load a pipeline file; relative paths in it, and modules that it names, are looked for beside it.

    Opens and connects nothing. Raises ConfigurationError that lists every mistake with file, line and column, and
    has them as `problems`.
    """
    file = Path(path)
    stamp = file_stamp(file)  # before reading: what is written meanwhile is a change
    document = read_document(file)
    return _load(document, file.absolute(), stamp)


def file_stamp(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file does: its time, size and inode; None when it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def from_mapping(
    mapping: Mapping[str, Any], *, folder: str | Path | None = None, name: str | None = None
) -> PipelineConfig:
    """Load a pipeline from Python values with the keys of a pipeline file.

    Components may also be objects, which are used as they are, functions (the `python` source and processor) or
    "module:Class". Paths are relative to `folder`, by default the working directory. Raises as `load`.
    """
    data = {**mapping, "name": name} if name is not None else dict(mapping)
    document = Document(data, Variables(Path(folder or ".").absolute()))
    return _load(document, None)


def _load(document: Document, file: Path | None, stamp: tuple[int, ...] | None = None) -> PipelineConfig:
    folder = document.variables.folder
    data = document.resolve()
    settings = _top_level(document, data)
    with _importable(folder):
        parts = build_parts(document, data)
    _report_shadowed(document, data, ())
    name = settings.name if settings and settings.name else _default_name(document, file, data)
    if document.problems or settings is None:
        raise InvalidPipelineError(problems=document.problems)
    return PipelineConfig(
        name=name,
        memory=settings.memory,
        latency=settings.latency,
        spool=settings.spool,
        stop_above=settings.stop_above,
        state=Path(settings.state) if settings.state else folder / ".collectors" / name,
        folder=folder,
        file=file,
        stamp=stamp,
        sources=parts.sources,
        backends=parts.backends,
        routes=parts.routes,
        version=_version(document.data, parts.components()),
    )


def _top_level(document: Document, data: Any) -> PipelineFile | None:
    try:
        return PipelineFile.model_validate(data, context={"folder": str(document.variables.folder)})
    except ValidationError as error:
        for path, message, extra in findings(error, PipelineFile, data):
            document.report(path, message, **extra)
        return None


def _default_name(document: Document, file: Path | None, data: Any) -> str:
    """Return the file's name without its ending; from Python, where there is none, `pipeline`."""
    name = file.stem if file else "pipeline"
    if not is_name(name) and "name" not in data:
        hint = "give the pipeline one of letters, digits, '_', '-' and '.', as in `name: readings`"
        document.report(("name",), f"the file's name '{name}' cannot be the pipeline's name", hint=hint)
    return name


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules beside the pipeline file be imported; behind all others, so that none of them is shadowed."""
    entry = str(folder)
    if entry in sys.path:
        yield
        return
    sys.path.append(entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(entry)


def _report_shadowed(document: Document, value: Any, path: Keys) -> None:
    """Report a module beside the file when this process has another one of its name: that one would be used."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _report_shadowed(document, item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _report_shadowed(document, item, (*path, index))
    elif isinstance(value, str) and (match := re.fullmatch(r"(\w+)(\.\w+)*:\w+", value)):
        beside = document.variables.folder / f"{match[1]}.py"
        used = getattr(sys.modules.get(match[1]), "__file__", None)
        if used and beside.is_file() and not beside.samefile(used):
            message = f"the module '{match[1]}' in use is {used}, not {beside.name} beside this pipeline"
            document.report(path, message, hint="rename one of them")


def _version(written: Any, components: Iterable[Component]) -> str:
    """Return a short hash of the content. Variables go in as they are written; a secret in clear text is left out."""
    secrets = {secret for component in components for secret in _secrets(component.settings)}
    text = json.dumps(_without(written, secrets), ensure_ascii=False, default=_qualified_name)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secrets(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _secrets(item)


def _without(value: Any, secrets: set[str]) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without(item, secrets) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without(item, secrets) for item in value]
    if isinstance(value, str):
        return "***" if value in secrets else hide_login(value)
    return value


def _qualified_name(value: Any) -> str:
    """Return what names a function or an object of Python in the same way in every process."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
