"""Responses: where the records are, cut out of the JSON as they are written, so that no number is changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from collectors.errors import FatalError, TransientError
from collectors.http_client.answers import plain

__all__ = ["Page", "field_of", "plain_value", "quoted_json", "spliced"]

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Raw])
_EXCERPT = 200
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TORN = "Input data was truncated"
_ON_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


class Page:
    """One response, read as far as is asked for. Raises FatalError when it is not what the settings say."""

    def __init__(self, body: bytes, place: str) -> None:
        self._body = body.removeprefix(_BYTE_ORDER_MARK).strip()
        self._place = place

    def records(self, path: str | None) -> list[Raw]:
        """Return the records at a path: a list there, or one object; null is an empty list."""
        if not self._body:
            return []
        found = self._find(path)
        first = bytes(memoryview(found)[:1])
        if first in {b"[", b"{"}:
            records: list[Raw] = self._decode(_LIST, found) if first == b"[" else self._decode(None, found)
            if b"\n" in self._body or b"\r" in self._body:  # between tokens only: a string cannot have one
                records = [Raw(bytes(each).translate(_ON_ONE_LINE)) for each in records]
            return records
        if bytes(found) == b"null" and not self._complaint():
            return []
        raise FatalError(
            f"{self._place}: {self._where(path)} is {plain(bytes(found), 40)}, expected a list of records"
            f"{self._complaint()}; set `records` to the path that leads to them"
        )

    def value(self, path: str) -> Any:
        """Return the value at a path, numbers as they are written; None when there is none."""
        return plain_value(field_of(self._body, path))

    def _find(self, path: str | None) -> bytes | Raw:
        found: bytes | Raw = self._body
        for name in path.split(".") if path else ():
            members = self._decode(_OBJECT, found) if bytes(memoryview(found)[:1]) == b"{" else None
            if members is None or name not in members:
                there = (
                    f"the object there has: {', '.join(members) or 'nothing'}" if members is not None else ""
                )
                raise FatalError(
                    f"{self._place}: there is no '{name}' on the path `records: {path}`; "
                    f"{there or f'found {plain(bytes(found), 40)}'}{self._complaint()}"
                )
            found = members[name]
        return found

    def _decode(self, decoder: msgspec.json.Decoder[Any] | None, raw: bytes | Raw) -> Any:
        try:
            if decoder is not None:
                return decoder.decode(raw)
            _OBJECT.decode(raw)
            return [Raw(bytes(raw))]
        except (msgspec.DecodeError, RecursionError) as error:
            if str(error) == _TORN:
                raise TransientError(f"{self._place}: the response ends in the middle of its JSON") from None
            raise FatalError(
                f"{self._place}: the response is not JSON ({error}): {plain(self._body, _EXCERPT)}"
            ) from None

    def _complaint(self) -> str:
        """Return the errors that a response with status 200 can have, as GraphQL's do."""
        errors = field_of(self._body, "errors")
        if errors is None or bytes(errors) in {b"null", b"[]", b"{}"}:
            return ""
        return f"; errors: {plain(bytes(errors), _EXCERPT)}"

    def _where(self, path: str | None) -> str:
        return f"'{path}'" if path else "the response"


def field_of(raw: bytes | Raw, path: str) -> Raw | None:
    """Return the JSON at a path in an object; None when there is none."""
    found: bytes | Raw = raw
    for name in path.split("."):
        try:
            members = _OBJECT.decode(found)
        except (msgspec.DecodeError, RecursionError):
            return None
        if name not in members:
            return None
        found = members[name]
    return found if isinstance(found, Raw) else None


def plain_value(raw: bytes | Raw | None) -> Any:
    """Return JSON as Python; a number stays the text that it is written as, unless that is a small integer."""
    if raw is None:
        return None
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    return bytes(raw).decode() if isinstance(value, float) else value


def spliced(records: Sequence[Raw], fields: Iterable[tuple[str, bytes]]) -> list[bytes]:
    """Return records with further members in front; what is no object stays as it is, and is refused later."""
    lead = b",".join(quoted_json(name) + b":" + value for name, value in fields)
    found = []
    for record in records:
        raw = bytes(record)
        if lead and raw[:1] == b"{":
            rest = raw[1:].lstrip()
            raw = b"{" + lead + (b"" if rest[:1] == b"}" else b",") + rest
        found.append(raw)
    return found


def quoted_json(text: str) -> bytes:
    """Return text as JSON."""
    return msgspec.json.encode(text)
