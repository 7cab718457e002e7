"""From the settings of one component to the component: found, validated, made once to see that it can be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from collectors import registry
from collectors.codecs.base import Codec
from collectors.collection.base import ByteSourceConfig, Source
from collectors.config._document import Document
from collectors.config._problems import Keys, nearest, render_value
from collectors.config._wording import findings
from collectors.config.model import Component
from collectors.processing.base import Processor
from collectors.registry import Kind
from collectors.settings import Settings
from collectors.storage.base import Backend

__all__ = ["Builder"]

_BASES: dict[Kind, type[Any]] = {"source": Source, "processor": Processor, "backend": Backend, "codec": Codec}
_FUNCTION_KINDS: tuple[Kind, ...] = ("source", "processor")


class Builder:
    """Builds the components of one document; what is wrong with them is reported there."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def build(self, kind: Kind, item: Any, path: Keys) -> Component | None:
        """Return the component that `item` describes; None when something is wrong with it, which is reported then.

        An item is a mapping as in a file; from Python also an object of that kind, a function, or "module:Class".
        """
        if isinstance(item, _BASES[kind]):
            name = type(item).__module__.rpartition(".")[2]
            return Component(kind, name, type(item), item.config, self._document.where(path), item)
        if callable(item) and not isinstance(item, type) and kind in _FUNCTION_KINDS:
            item = {"type": "python", "function": item}
        elif isinstance(item, str):
            item = {"type": item}
        if not isinstance(item, Mapping):
            self._report_shape(kind, item, path)
            return None
        cls = self._class(kind, item, path)
        if inspect.isfunction(cls):
            item = {**item, "type": "python", "function": item["type"]}
            cls = self._class(kind, item, path)
        if cls is None:
            return None
        settings = self._settings(cls, {key: item[key] for key in item if key != "type"}, path)
        if settings is None:
            return None
        component = Component(kind, _leaf(cls, item["type"]), cls, settings, self._document.where(path))
        made = self._attempt(component.make, path)
        if made is None:
            return None
        if isinstance(settings, ByteSourceConfig):
            self._check_format(made, path)
        return component

    def place(self, backend: Component, source: str, path: Keys) -> str | None:
        """Return where a backend puts the rows of a source, in words that are the same for the same place."""
        place: str | None = self._attempt(lambda: backend.make().place(source), path)
        return place

    def reads_everything(self, source: Component, path: Keys) -> bool:
        """Return whether each reading of a source gives all that there is; a problem is reported at the path."""
        found: bool | None = self._attempt(lambda: source.make().reads_everything, path)
        return bool(found)

    def _report_shape(self, kind: Kind, item: Any, path: Keys) -> None:
        sentence = (
            f"expected a mapping with the {kind}'s type and settings, for example {{type: {_EXAMPLES[kind]}}}"
        )
        if isinstance(item, type) or callable(item):
            sentence = (
                f"{item!r} is not {_BASES[kind].__module__}.{_BASES[kind].__name__}, made with its settings"
            )
        self._document.report(path, sentence, shown=render_value(item))

    def _class(self, kind: Kind, item: Mapping[str, Any], path: Keys) -> Any:
        name = item.get("type")
        if name is None:
            hint = f"there are: {', '.join(registry.names(kind))}"
            self._document.report((*path, "type"), "is required", hint=hint)
            return None
        if not isinstance(name, str):
            self._document.report((*path, "type"), "expected the name of a type", shown=render_value(name))
            return None
        place = (*path, "type") if "type" in item else path
        cls = self._attempt(lambda: registry.find(kind, name), place)
        is_right = isinstance(cls, type) and issubclass(cls, _BASES[kind])
        if cls is None or is_right or (inspect.isfunction(cls) and kind in _FUNCTION_KINDS):
            return cls
        base = _BASES[kind]
        message = f"'{name}' is not a subclass of {base.__module__}.{base.__name__}"
        others = [other for other in _BASES if isinstance(cls, type) and issubclass(cls, _BASES[other])]
        self._document.report(place, message, hint=f"it is a {others[0]}" if others else None)
        return None

    def _attempt(self, action: Callable[[], Any], path: Keys) -> Any:
        """Return what the action returns; whatever a user's code raises becomes a problem at the path."""
        try:
            return action()
        except ValidationError as error:
            for _, message, _ in findings(error, Settings, {}):
                self._document.report(path, message)
        except Exception as error:  # noqa: BLE001  # a module or constructor of the user's: anything
            self._document.report(path, _describe(error))
        return None

    def _settings(self, cls: Any, values: Any, path: Keys) -> Settings | None:
        context = {"folder": str(self._document.variables.folder)}

        def validate() -> Settings | None:
            try:
                validated: Settings = cls.config_class.model_validate(values, context=context)
            except ValidationError as error:
                for below, message, extra in findings(error, cls.config_class, values):
                    self._document.report((*path, *below), message, **extra)
                return None
            return validated

        settings: Settings | None = self._attempt(validate, path)
        return settings

    def _check_format(self, source: Source[Any], path: Keys) -> None:
        """Report what is wrong with the format of a source of bytes, at its key."""
        spec = self._attempt(source.format, path)
        if spec is None:
            return
        place = (*path, "format")
        item = {"type": spec} if isinstance(spec, str) else dict(spec)
        is_short = isinstance(spec, str)
        if is_short and ":" not in spec and not registry.exists("codec", spec):
            hint = nearest(spec, registry.names("codec"))
            self._document.report(place, "there is no such format", hint=hint, shown=render_value(spec))
            return
        cls = self._class("codec", item, place)
        if cls is None:
            return
        settings = self._settings(cls, {key: item[key] for key in item if key != "type"}, place)
        if settings is not None:
            self._attempt(lambda: cls(settings), place)


_EXAMPLES: dict[Kind, str] = {
    "source": "file, path: data.ndjson",
    "processor": 'filter, where: "a > 1"',
    "backend": "sqlite, path: data.db",
    "codec": "ndjson",
}


def _leaf(cls: type[Any], name: str) -> str:
    """Return the type's name as ids are made of it: the name itself, or the module of a user's own class."""
    return name if ":" not in name else cls.__module__.rpartition(".")[2]


def _describe(error: Exception) -> str:
    """Return an error of a user's code; a ValueError is a message for people, as the interfaces promise."""
    if isinstance(error, ValueError) and str(error):
        return str(error)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
