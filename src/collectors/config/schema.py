"""The JSON Schema of pipeline files, from the settings of the components that are installed; for editors."""

from __future__ import annotations

from typing import Any

from collectors import registry
from collectors.collection.base import ByteSourceConfig
from collectors.config.model import PipelineFile
from collectors.errors import ConfigurationError
from collectors.registry import Kind

__all__ = ["json_schema"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_VARIABLE = {"type": "string", "pattern": r"\$\{.+\}"}
_NO_TEXT = {"integer", "number", "boolean"}


def json_schema() -> dict[str, Any]:
    """Return the schema, dialect 2020-12, of a whole pipeline file."""
    definitions: dict[str, Any] = {}
    schema = _model_schema(PipelineFile, "", definitions)
    kinds: tuple[Kind, ...] = ("source", "processor", "backend", "codec")
    definitions |= {kind: _union(kind, definitions) for kind in kinds}
    properties = schema["properties"]
    properties["sources"]["items"] = _reference("source")
    properties["storage"]["items"] = _reference("backend")
    properties["processors"]["items"] = _reference("processor")
    _set_items(definitions["RouteSettings"]["properties"]["processors"], _reference("processor"))
    return {
        "$schema": _DIALECT,
        "title": "collectors pipeline",
        **schema,
        "$defs": dict(sorted(definitions.items())),
    }


def _union(kind: Kind, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the choice between all types of a kind, and put the schema of each into the definitions."""
    own = {
        "type": "object",
        "properties": {
            "type": {"type": "string", "pattern": ":", "description": "A class of your own, module:Class."}
        },
        "required": ["type"],
    }
    choices: list[Any] = []
    for entry in registry.entries(kind):
        name = f"{kind}.{entry.name}"
        definitions[name] = _component(kind, entry, definitions)
        choices.append(_reference(name))
    return {"oneOf": [*choices, own]}


def _component(kind: Kind, entry: registry.Entry, definitions: dict[str, Any]) -> dict[str, Any]:
    chosen = {"const": entry.name, "description": entry.summary}
    try:
        model = registry.find(kind, entry.name).config_class
    except ConfigurationError as error:
        # Its driver is not installed, so its settings are not known; the file may still be for another machine.
        return {
            "type": "object",
            "description": str(error),
            "properties": {"type": chosen},
            "required": ["type"],
        }
    schema = _model_schema(model, f"{kind}.{entry.name}.", definitions)
    if issubclass(model, ByteSourceConfig) and "format" in schema["properties"]:
        described = {key: schema["properties"]["format"][key] for key in ("description", "default")}
        formats = {"enum": registry.names("codec")}
        schema["properties"]["format"] = {
            "anyOf": [formats, _VARIABLE, _reference("codec"), {"type": "null"}],
            **described,
        }
    schema["description"] = entry.summary
    schema["properties"] = {"type": chosen, **schema["properties"]}
    schema["required"] = ["type", *schema.get("required", [])]
    return schema


def _model_schema(model: Any, prefix: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a settings class as a schema; what it refers to goes into the definitions, under a name of its own."""
    schema: dict[str, Any] = model.model_json_schema(
        mode="validation", ref_template=f"#/$defs/{prefix}{{model}}"
    )
    for name, nested in schema.pop("$defs", {}).items():
        definitions[f"{prefix}{name}"] = _with_variables(nested)
    result: dict[str, Any] = _with_variables(schema)
    return result


def _with_variables(schema: Any) -> Any:
    """Return the schema with `${NAME}` allowed wherever a value is expected that is not just any text."""
    if isinstance(schema, list):
        return [_with_variables(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    done: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            done[key] = {name: _with_variables(property_schema) for name, property_schema in value.items()}
        elif key != "title":
            done[key] = value if key in {"default", "enum", "const"} else _with_variables(value)
    if schema.get("type") in _NO_TEXT or "enum" in schema or "const" in schema:
        about = {key: done.pop(key) for key in ("description", "default") if key in done}
        return {"anyOf": [done, _VARIABLE], **about}
    return done


def _set_items(schema: dict[str, Any], items: dict[str, Any]) -> None:
    for choice in schema["anyOf"]:
        if choice.get("type") == "array":
            choice["items"] = items


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}
