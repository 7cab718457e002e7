"""What is asked for: the endpoints of the settings with their defaults filled in, and their requests."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct, field
from yarl import URL

from collectors.collection.sources._http_config import (
    EndpointConfig,
    IncrementalConfig,
    LinkPaging,
    NextUrlPaging,
    Paging,
)
from collectors.collection.sources._http_json import field_of, quoted_json, spliced
from collectors.collection.sources._http_paging import check_origin, page_params
from collectors.http_client.answers import Call

if TYPE_CHECKING:
    from collectors.collection.sources.http import HttpConfig

__all__ = ["Endpoint", "Parent", "endpoints_of"]

Parent = dict[str, str]
"""What a child needs of one of its parent's records: path to JSON."""
ALONE = "records"
_BRACES = re.compile(r"\{([^{}]+)\}")
_IN_PATHS = "/%:@!$&'()*+,;=~"
_NO_NAME = {"n", "{", "[", '""', '"."', '".."'}
"""What no part of an address can be made of: null, objects, lists, and text that would lead elsewhere."""


class Endpoint(Struct):
    """One endpoint; its children are read for each of its records."""

    name: str
    home: URL
    path: str
    method: str
    params: dict[str, Any]
    body: dict[str, Any] | None
    records: str | None
    paging: Paging | None
    incremental: IncrementalConfig | None
    needs: list[str] = field(default_factory=list)
    include: dict[str, str] = field(default_factory=dict)
    parent: str | None = None
    selected: bool = True
    children: list[Endpoint] = field(default_factory=list)

    def call(self, parent: Parent, state: str | int | None, since: Mapping[str, str], place: str) -> Call:
        """Return the request for a page."""
        asked = {**since, **page_params(self.paging, state)}
        if state is not None and isinstance(self.paging, (LinkPaging, NextUrlPaging)):
            url = check_origin(self.home, URL(str(state)), place)
            asked = {}
        else:
            params = {name: _filled(value, parent) for name, value in self.params.items()}
            query = params if self.body is not None else params | asked
            url = self._address(parent).update_query(
                [(name, _text(each)) for name, value in query.items() for each in _listed(value)]
            )
        return Call(self.method, url, self._sent(asked))

    def parents(self, child: Endpoint, records: list[Raw], parent: Parent) -> tuple[list[Parent], bool]:
        """Return what a child needs of each record, and whether there are records of which it cannot be had."""
        found, lacking = [], False
        for record in records:
            needed = {path: self._field(record, path, parent) for path in child.needs}
            included = {path: self._field(record, path, parent) for path in child.include.values()}
            if any(value[:1] in _NO_NAME or value in _NO_NAME for value in needed.values()):
                lacking = True
            else:
                found.append(included | needed)
        return found, lacking

    def lines(self, records: list[Raw], parent: Parent) -> bytes:
        """Return the records as NDJSON, with what they get from their parent, and their endpoint where there are several."""
        if not records:
            return b""
        fields = [(name, parent[path].encode()) for name, path in self.include.items()]
        if self.name != ALONE or self.parent is not None:
            fields.insert(0, ("_endpoint", quoted_json(self.name)))
        return b"\n".join(spliced(records, fields) if fields else records) + b"\n"

    def _field(self, record: Raw, path: str, parent: Parent) -> str:
        """Return a field as JSON; what a record has from its own parent is a field as well."""
        raw = field_of(record, path)
        if raw is None and path in self.include:
            return parent[self.include[path]]
        return bytes(raw).decode(errors="replace") if raw is not None else "null"

    def _address(self, parent: Parent) -> URL:
        parts = _BRACES.split(self.path)
        parts[::2] = [quote(each, safe=_IN_PATHS) for each in parts[::2]]
        parts[1::2] = [quote(str(_plain(parent[each])), safe="") for each in parts[1::2]]
        path = "".join(parts)
        whole = f"{self.home.raw_path.rstrip('/')}/{path.lstrip('/')}" if path else self.home.raw_path
        return self.home.with_path(whole, encoded=True).with_query(self.home.query)

    def _sent(self, asked: Mapping[str, Any]) -> bytes | None:
        if self.body is None:
            return None
        body = copy.deepcopy(self.body)
        for name, value in asked.items():
            *lead, last = name.split(".")
            inner = body
            for step in lead:
                inner = inner.setdefault(step, {})
            inner[last] = value
        return msgspec.json.encode(body)


def endpoints_of(config: HttpConfig) -> list[Endpoint]:
    """Return all endpoints; a parent stands in front of its children."""
    home = URL(config.url)
    if not config.endpoints:
        return [_endpoint(config, home, EndpointConfig(name=ALONE, path=""))]
    found: dict[str, Endpoint] = {}
    for each in config.endpoints:
        found[each.name] = _endpoint(config, home, each)
        if each.parent is not None:
            found[each.parent].children.append(found[each.name])
    return list(found.values())


def _endpoint(config: HttpConfig, home: URL, own: EndpointConfig) -> Endpoint:
    def setting(name: str) -> Any:
        return getattr(own if name in own.model_fields_set else config, name)

    body, method = setting("body"), setting("method")
    return Endpoint(
        name=own.name,
        home=home,
        path=own.path,
        method=method or ("POST" if body is not None else "GET"),
        params={**config.params, **own.params},
        body=body if method != "GET" else None,
        records=setting("records"),
        paging=setting("paging"),
        incremental=setting("incremental"),
        needs=own.fields if own.parent is not None else [],
        include=own.include,
        parent=own.parent,
        selected=own.selected,
    )


def _filled(value: Any, parent: Parent) -> Any:
    if not parent or not isinstance(value, str):
        return value
    return re.sub(_BRACES, lambda match: str(_plain(parent.get(match[1], match[0]))), value)


def _plain(text: str) -> Any:
    """Return a value that stands in a position as JSON: text without its quotes, numbers as they are written."""
    return msgspec.json.decode(text) if text[:1] == '"' else text


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
