"""What pydantic found, in a short sentence for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from collectors.config._problems import Keys, nearest, render_value, similar

__all__ = ["Finding", "findings"]

Finding = tuple[Keys, str, dict[str, Any]]
"""The path below the settings, a message, and what else `Document.report` takes."""

_SENTENCES = {
    "missing": "is required",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a whole number with fewer digits",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "string_type": "expected text",
    "bytes_type": "expected text",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "set_type": "expected a list",
    "dict_type": "expected a mapping (key: value)",
    "mapping_type": "expected a mapping (key: value)",
    "model_type": "expected a mapping (key: value)",
    "model_attributes_type": "expected a mapping (key: value)",
    "dataclass_type": "expected a mapping (key: value)",
    "literal_error": "expected {expected}",
    "enum": "expected {expected}",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "string_too_short": "expected at least {min_length} characters",
    "string_too_long": "expected at most {max_length} characters",
    "string_pattern_mismatch": "expected text that fits the pattern {pattern}",
    "too_short": "expected at least {min_length} of them",
    "too_long": "expected at most {max_length} of them",
    "none_required": "expected nothing here",
    "callable_type": "expected a function",
    "union_tag_invalid": "expected {discriminator} to be one of {expected_tags}, got '{tag}'",
    "union_tag_not_found": "expected {discriminator}, which says what kind it is",
}


def findings(error: ValidationError, model: type[BaseModel], data: Any) -> Iterator[Finding]:
    """Yield one finding for each place in the data; what several alternatives of a type say is joined with "or".

    Of a mapping in which something is wrong, that other alternatives are no mappings goes without saying.
    """
    merged: dict[Keys, list[tuple[str, dict[str, Any]]]] = {}
    errors = [
        (_path(found["loc"], data, missing=found["type"] == "missing"), found)
        for found in error.errors(include_url=False)
    ]
    inside = {path[:length] for path, _ in errors for length in range(len(path))}
    for path, found in errors:
        if found["type"] == "literal_error" and isinstance(found["input"], Mapping) and path in inside:
            continue
        merged.setdefault(path, []).append(_finding(found, path, model))
    for path, items in merged.items():
        message, extra = items[0]
        sentences = list(dict.fromkeys(text.removeprefix("expected ") for text, _ in items))
        if len(sentences) > 1:
            message = f"expected {' or '.join(sentences)}"
        yield path, message, extra


def _finding(found: Any, path: Keys, model: type[BaseModel]) -> tuple[str, dict[str, Any]]:
    kind, context, value = found["type"], found.get("ctx", {}), found["input"]
    extra: dict[str, Any] = {}
    if kind == "missing":
        return _SENTENCES[kind], extra
    parent = _model_at(model, path[:-1], found["loc"])
    if kind == "extra_forbidden":
        known = [field.alias or name for name, field in parent.model_fields.items()] if parent else []
        return "there is no such setting", {"hint": nearest(str(path[-1]), known), "at_key": True}
    if found["loc"][-1:] == ("[key]",):
        extra["at_key"] = True
    extra["shown"] = '"***"' if _is_secret(model, path) else render_value(value)
    if kind == "sql":
        extra["at"] = (context["line"], context["column"])
        return found["msg"], extra
    if kind in {"value_error", "assertion_error"}:
        return str(context.get("error", found["msg"])), extra
    if kind == "literal_error" and isinstance(value, str):
        extra["hint"] = _near_literal(value, context["expected"])
    if kind == "list_type" and value is not None:
        extra["hint"] = "one alone must be a list too: put it in [ ]"
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        extra["hint"] = "put it in quotes"
    sentence = _SENTENCES.get(kind)
    if sentence is None:
        message = str(found["msg"])
        return message[:1].lower() + message[1:], extra
    return sentence.format_map(context), extra


def _near_literal(value: str, expected: str) -> str | None:
    options = [option.strip("'") for option in expected.replace(" or ", ", ").split(", ")]
    return similar(value, options)


def _path(location: tuple[int | str, ...], data: Any, *, missing: bool) -> Keys:
    """Return pydantic's location without the names of types in it, which are no keys of the data."""
    path: list[int | str] = []
    here = data
    for number, part in enumerate(location):
        in_mapping = isinstance(here, Mapping) and part in here
        in_list = isinstance(here, (list, tuple)) and isinstance(part, int) and part < len(here)
        if in_mapping or in_list:
            here = here[part]
            path.append(part)
        elif missing and number == len(location) - 1:
            path.append(part)
    return tuple(path)


def _walk(model: type[BaseModel], path: Keys) -> tuple[list[Any], list[type[BaseModel]]]:
    """Return the types of the settings on the path, and the settings classes, several for a union, at its end.

    Indexes, and keys of free mappings, are no settings.
    """
    annotations: list[Any] = []
    here = [model]
    for part in path:
        fields = [(field.alias or name, field) for each in here for name, field in each.model_fields.items()]
        found = [field.annotation for name, field in fields if name == part]
        if found:
            annotations += found
            here = [each for annotation in found for each in _models_in(annotation)]
    return annotations, here


def _model_at(model: type[BaseModel], path: Keys, tags: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Return the settings class of the mapping at the path, of a union the one with the tag; None where it is free."""
    _, models = _walk(model, path)
    tagged = [each for each in models if "type" in each.model_fields and _tags(each) & set(tags)]
    return next(iter(tagged or models), None)


def _tags(model: type[BaseModel]) -> set[Any]:
    return set(get_args(model.model_fields["type"].annotation))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _is_secret(model: type[BaseModel], path: Keys) -> bool:
    """Return whether the setting, one that it lies in, or one that ought to lie in it, is declared as a secret."""
    annotations, models = _walk(model, path)
    inner = [field.annotation for each in models for field in each.model_fields.values()] if path else []
    return any("Secret" in repr(annotation) for annotation in [*annotations, *inner])
