"""From `type: http` to a class.

In this order: a name with a colon is the user's own `module:Class`; then the built-in file of that name; then an
entry point of the groups `collectors.sources`, `collectors.processors`, `collectors.backends`, `collectors.codecs`.
Built-ins come first, so no package can shadow them and none is scanned for them.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from collectors.errors import ConfigurationError

__all__ = ["Entry", "Kind", "create", "entries", "exists", "find", "names"]

Kind = Literal["source", "processor", "backend", "codec"]

_PACKAGES: dict[Kind, str] = {
    "source": "collectors.collection.sources",
    "processor": "collectors.processing.processors",
    "backend": "collectors.storage.backends",
    "codec": "collectors.codecs",
}
_NOT_A_COMPONENT = {"base"}


class Entry(Struct, frozen=True):
    """One component as `collectors list` shows it; `extra` is what to install for it, None when nothing."""

    kind: Kind
    name: str
    summary: str
    extra: str | None
    package: str


def find(kind: Kind, name: str) -> Any:
    """Return the component class. Raises ConfigurationError: unknown (with the nearest name), or a missing extra."""
    if ":" in name:
        return _load(kind, name, name)
    if _is_built_in(kind, name):
        return _load(kind, name, f"{_PACKAGES[kind]}.{name}:COMPONENT")
    for point in _entry_points(kind):
        if point.name == name:
            return _load(kind, name, point.value)
    known = names(kind)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known)}"
    raise ConfigurationError(f"unknown {kind} type '{name}': {hint}")


def names(kind: Kind) -> list[str]:
    """Return the names of all components of a kind, sorted; imports none of them."""
    return sorted({*_built_in(kind), *(point.name for point in _entry_points(kind))})


def exists(kind: Kind, name: str) -> bool:
    """Return whether there is a component of this name; imports none."""
    return _is_built_in(kind, name) or any(point.name == name for point in _entry_points(kind))


def entries(kind: Kind) -> Iterator[Entry]:
    """Yield what there is of a kind, sorted by name; built-in components are not imported for it."""
    extras = _extras()
    built_in = _built_in(kind)
    for name in sorted(built_in):
        source = Path(built_in[name]).read_text(encoding="utf-8")
        summary = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        yield Entry(kind, name, summary, name if name in extras else None, "collectors")
    for point in sorted(_entry_points(kind), key=lambda point: point.name):
        if point.name not in built_in:
            package = point.dist.name if point.dist else point.value.partition(":")[0]
            yield Entry(kind, point.name, f"from the package {package}", None, package)


def create(kind: Kind, name: str, settings: dict[str, Any]) -> Any:
    """Return a component made with these settings. Raises ConfigurationError as `find`, or for the settings."""
    return find(kind, name)(**settings)


def _is_built_in(kind: Kind, name: str) -> bool:
    """Return whether there is a file of this name; the folder is not listed for it."""
    possible = name.isidentifier() and not name.startswith("_") and name not in _NOT_A_COMPONENT
    return possible and importlib.util.find_spec(f"{_PACKAGES[kind]}.{name}") is not None


@functools.cache
def _built_in(kind: Kind) -> dict[str, str]:
    package = importlib.import_module(_PACKAGES[kind])
    return {
        module.name: str(Path(path) / f"{module.name}.py")
        for path in package.__path__
        for module in pkgutil.iter_modules([path])
        if not module.name.startswith("_") and module.name not in _NOT_A_COMPONENT
    }


def _entry_points(kind: Kind) -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=f"collectors.{kind}s")


def _extras() -> set[str]:
    try:
        metadata = importlib.metadata.metadata("collectors-io")
    except importlib.metadata.PackageNotFoundError:
        return set()
    # Names of extras are normalized by who builds the package (PEP 685); those of components have underscores.
    return {extra.replace("-", "_") for extra in metadata.get_all("Provides-Extra") or []}


def _load(kind: Kind, name: str, target: str) -> Any:
    module_name, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing == module_name or module_name.startswith(f"{missing}."):
            raise ConfigurationError(
                f"{kind} type '{name}': there is no module '{missing}' to import; "
                "it must be installed, or lie beside the pipeline file"
            ) from error
        install = f"collectors-io[{name}]" if name in _extras() else missing
        raise ConfigurationError(f"{kind} '{name}' needs '{missing}': pip install '{install}'") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ConfigurationError(
            f"{kind} type '{name}': the module '{module_name}' has no '{attribute}'"
        ) from None
