"""What there is to know about one component, taken from its file: as Markdown, and as a dict."""

from __future__ import annotations

import collections.abc
import inspect
import json
import re
import sys
from collections.abc import Iterator
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import Struct
from msgspec.structs import asdict
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from collectors import registry
from collectors.registry import Kind
from collectors.settings import ByteSize, Duration, LocalPath, Name, descriptions

__all__ = [
    "Setting",
    "as_dict",
    "docstring_of",
    "example_of",
    "markdown",
    "paragraphs",
    "settings_of",
    "table_of",
]

_NAMED: list[tuple[Any, str]] = [
    (Duration, "duration"),
    (ByteSize, "size"),
    (LocalPath, "path"),
    (Name, "name"),
]
_PLAIN: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    bytes: "text",
    SecretStr: "secret",
    Any: "any value",
    type(None): "nothing",
}
_LABEL = re.compile(r"(Delivery|Position):")
_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


class Setting(Struct, frozen=True):
    """One setting for people; `default` is None for one that is required."""

    name: str
    type: str
    default: str | None
    description: str


def settings_of(model: type[BaseModel]) -> list[Setting]:
    """Return the settings of a class: its own first, then those that every component of the kind has.

    Settings within a setting that both have from one base are told once, as those of the class.
    """
    hints = get_type_hints(model, include_extras=True)
    own = [name for name in model.__annotations__ if name in model.model_fields]
    inherited = [name for name in model.model_fields if name not in own]
    settings, texts = [], descriptions(model)
    for name in [*own, *inherited]:
        field = model.model_fields[name]
        text = _type_text(hints[name], optional=field.default is None) + _bounds(field)
        description = " ".join((field.description or texts.get(name, "")).split())
        settings.append(Setting(field.alias or name, text, _default_text(field, hints[name]), description))
        for nested in _nested_models(hints[name]):
            shared = [base for base in nested.__mro__[1:] if base in model.__mro__ and base is not BaseModel]
            told = {each for base in shared for each in getattr(base, "model_fields", ())}
            settings += [
                Setting(f"{field.alias or name}.{inner.name}", inner.type, inner.default, inner.description)
                for inner in settings_of(nested)
                if inner.name.partition(".")[0] not in told
            ]
    return settings


def as_dict(kind: Kind, name: str) -> dict[str, Any]:
    """Return everything about a component for programs. Raises ConfigurationError when there is no such one."""
    cls = registry.find(kind, name)
    return {
        "kind": kind,
        "type": name,
        "description": docstring_of(cls),
        "settings": [asdict(setting) for setting in settings_of(cls.config_class)],
    }


def markdown(kind: Kind, name: str) -> str:
    """Return the reference page of a component. Raises ConfigurationError when there is no such one."""
    cls = registry.find(kind, name)
    lines = [f"# {name} ({kind})", "", *paragraphs(docstring_of(cls)), "## Settings", ""]
    return "\n".join([*lines, *table_of(cls.config_class)]) + "\n"


def table_of(model: type[BaseModel]) -> Iterator[str]:
    """Yield the settings of a class as a table of Markdown."""
    yield from ("| name | type | default | |", "|---|---|---|---|")
    for setting in settings_of(model):
        default = "required" if setting.default is None else setting.default and f"`{setting.default}`"
        cells = (f"`{setting.name}`", setting.type, default, setting.description)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def docstring_of(cls: Any) -> str:
    """Return what stands at the top of the component's file; of a class that has none there, its own."""
    module = sys.modules[cls.__module__]
    return inspect.cleandoc(module.__doc__ or cls.__doc__ or "")


def example_of(docstring: str) -> str:
    """Return the first indented block of a docstring, its YAML example; empty when there is none."""
    return next((text for is_code, text in _blocks(docstring) if is_code), "")


def paragraphs(docstring: str) -> Iterator[str]:
    """Yield a docstring as Markdown: indented blocks become code, `Delivery:` and the like become bold."""
    for is_code, text in _blocks(docstring):
        if is_code:
            yield from (f"```{_language(text)}", text, "```", "")
        else:
            yield from (_LABEL.sub(r"**\1:**", text, count=1) if _LABEL.match(text) else text, "")


def _language(code: str) -> str:
    if re.match(r"(async def|def|class|from|import) |@", code):
        return "python"
    return "yaml" if re.match(r"[\w-]+:(\s|$)|- |\{", code) else "text"


def _blocks(docstring: str) -> Iterator[tuple[bool, str]]:
    """Yield (is it indented, text) for each block; a line such as `Delivery: …` begins a block of its own."""
    block: list[str] = []
    for line in [*docstring.splitlines(), ""]:
        is_code = line.startswith(" ")
        was_code = bool(block) and block[0].startswith(" ")
        begins = (is_code != was_code and bool(line)) or (not was_code and (not line or _LABEL.match(line)))
        if block and begins:
            yield was_code, inspect.cleandoc("\n" + "\n".join(block))
            block = []
        if line or block:
            block.append(line)
    if block and any(block):
        yield block[0].startswith(" "), inspect.cleandoc("\n" + "\n".join(block))


def _type_text(hint: Any, *, optional: bool = False) -> str:
    """Return a type in words. `optional`: leave out that it can be nothing, which the default says."""
    for known, text in _NAMED:
        if hint == known:
            return text
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is Annotated:
        return _type_text(arguments[0], optional=optional)
    if origin is Literal:
        return " or ".join(f"`{argument}`" for argument in arguments)
    if origin in {Union, UnionType}:
        kept = [argument for argument in arguments if not (optional and argument is type(None))]
        return " or ".join(dict.fromkeys(_type_text(argument) for argument in kept))
    if origin in {list, tuple, set, frozenset}:
        return f"list of {_type_text(arguments[0])}" if arguments else "list"
    if origin in {dict, collections.abc.Mapping}:
        return "mapping" if arguments[1] is Any else f"mapping of name to {_type_text(arguments[1])}"
    if origin is collections.abc.Callable:
        return "function"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return "mapping"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " or ".join(f"`{member.value}`" for member in hint)
    return "mapping" if hint is dict else str(getattr(hint, "__name__", hint))


def _bounds(field: FieldInfo) -> str:
    found = [
        f"{words} {getattr(item, key):g}"
        for item in field.metadata
        for key, words in _BOUNDS.items()
        if getattr(item, key, None) is not None
    ]
    return f", {' and '.join(found)}" if found else ""


def _default_text(field: FieldInfo, hint: Any) -> str | None:
    """Return a default as YAML would have it; None for a required setting, "" for one that is nothing by default."""
    value = field.default if field.default_factory is None else field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return None
    if value is None:
        return ""
    if hint == ByteSize:
        return _size_text(value)
    if hint == Duration:
        return f"{value:g}s"
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, ensure_ascii=False, default=str) if not isinstance(value, str) else value or '""'


def _size_text(value: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value and value % size == 0:
            return f"{value // size} {unit}"
    return str(value)


def _nested_models(hint: Any) -> Iterator[type[BaseModel]]:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield hint
    for argument in get_args(hint):
        yield from _nested_models(argument)
