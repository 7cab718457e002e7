"""A Singer catalog: which streams a tap is to give, and what types their columns have."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import msgspec

from collectors.errors import ConfigurationError

__all__ = ["Catalog"]

_TYPES = {"integer": "int", "number": "float", "boolean": "bool", "string": "string"}
_FORMATS = {"date-time": "timestamp", "date": "date"}
_TOP_LEVEL = {"replication-method": "replication_method", "replication-key": "replication_key"}


class Catalog:
    """The streams of a catalog, each an object with `tap_stream_id`, `schema` and `metadata`.

    Raises ConfigurationError for what is no catalog; `where` names it in messages.
    """

    def __init__(self, value: Any, where: str) -> None:
        streams = value.get("streams") if isinstance(value, Mapping) else None
        if not isinstance(streams, list) or not all(isinstance(stream, dict) for stream in streams):
            raise ConfigurationError(
                f"{where}: expected a Singer catalog, an object whose 'streams' are objects"
            )
        self._where = where
        self._streams: list[dict[str, Any]] = streams

    @classmethod
    def read(cls, text: bytes, where: str) -> Catalog:
        """Return the catalog in a JSON text."""
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigurationError(f"{where}: expected a Singer catalog in JSON: {error}") from None
        return cls(value, where)

    def select(self, wanted: Mapping[str, Mapping[str, Any]]) -> None:
        """Select these streams and no others (all, when there are none), with what is to be set in their metadata."""
        found = {name for stream in self._streams for name in _names(stream)}
        for name in wanted:
            if name not in found:
                near = difflib.get_close_matches(name, found, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(sorted(found)[:20])}"
                raise ConfigurationError(f"streams: {self._where} has no stream '{name}'; {hint}")
        for stream in self._streams:
            named = [wanted[name] for name in _names(stream) if name in wanted]
            root = _root(stream)
            root["selected"] = bool(named) or not wanted
            for about in named[:1]:
                root.update(about)
                stream.update({top: about[key] for key, top in _TOP_LEVEL.items() if key in about})
            for item in stream["metadata"]:
                field = item.setdefault("metadata", {})
                if item.get("breadcrumb") and field.get("inclusion") != "unsupported":
                    field.setdefault("selected", True)

    def names_of(self, wanted: Mapping[str, Any]) -> set[str]:
        """Return every name under which records of these streams may come."""
        return {
            name
            for stream in self._streams
            for name in _names(stream)
            if any(each in wanted for each in _names(stream))
        }

    def columns(self, name: str) -> dict[str, str]:
        """Return the types of a stream's columns, as `columns` of a codec has them, where its schema says so."""
        for stream in self._streams:
            schema = stream.get("schema")
            if name in _names(stream) and isinstance(schema, Mapping):
                properties = schema.get("properties")
                items = properties.items() if isinstance(properties, Mapping) else ()
                return {str(column): kind for column, about in items if (kind := _type(about))}
        return {}

    def encode(self) -> bytes:
        """Return it as JSON."""
        return msgspec.json.encode({"streams": self._streams})


def _names(stream: Mapping[str, Any]) -> list[str]:
    return [name for key in ("tap_stream_id", "stream") if isinstance(name := stream.get(key), str)]


def _root(stream: dict[str, Any]) -> dict[str, Any]:
    """Return what the metadata of a stream say of itself, made if need be."""
    if not isinstance(stream.get("metadata"), list):
        stream["metadata"] = []
    items: list[dict[str, Any]] = stream["metadata"]
    item = next((item for item in items if not item.get("breadcrumb")), None)
    if item is None:
        item = {"breadcrumb": [], "metadata": {}}
        items.append(item)
    about: dict[str, Any] = item.setdefault("metadata", {})
    return about


def _type(schema: Any) -> str | None:
    """Return the one type that the values of a property have beside null; None when there is none, or several."""
    if not isinstance(schema, Mapping):
        return None
    several = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(several, list):
        found = {
            _type(one) for one in several if not (isinstance(one, Mapping) and one.get("type") == "null")
        }
        return found.pop() if len(found) == 1 else None
    declared = schema.get("type")
    types = [declared] if isinstance(declared, str) else declared if isinstance(declared, list) else []
    kept = {str(each) for each in types} - {"null"}
    if kept == {"integer", "number"}:
        kept = {"number"}
    if len(kept) != 1:
        return None
    kind = _TYPES.get(kept.pop())
    return _FORMATS.get(str(schema.get("format")), kind) if kind == "string" else kind
