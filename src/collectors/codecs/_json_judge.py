"""Reads lines of JSON one by one and decides which columns they need, and which lines do not fit in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa

from collectors.codecs._json_fit import Expected, column_of, expect, large_numbers
from collectors.codecs._json_text import has_twins, is_too_deep, problem
from collectors.codecs._json_types import Kind, Room, kind_of, resolve
from collectors.codecs._text_values import unreadable
from collectors.codecs._wording import quoted, unexpected

__all__ = ["Judge"]

_decode = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Judge:
    """Some lines of a chunk of `records`. `reasons` says why lines are refused; `numbers` are those still good."""

    def __init__(
        self,
        lines: list[bytes],
        numbers: Sequence[int],
        known: pa.Schema,
        as_text: frozenset[str],
        records: int | None = None,
    ) -> None:
        self.reasons: dict[int, str] = {}
        self.numbers: list[int] = []
        self._lines = lines
        self._known = known
        self._as_text = as_text
        self._records = len(lines) if records is None else records
        self._values: list[dict[str, Any]] = []
        for number in numbers:
            self._parse(number, lines[number])
        self._kinds: list[Kind] = [
            (dict, tuple(value), tuple(map(type, value.values()))) for value in self._values
        ]
        nested = {kind for kind in set(self._kinds) if dict in kind[2] or list in kind[2]}
        if nested:
            self._kinds = [
                kind_of(value) if kind in nested else kind
                for kind, value in zip(self._kinds, self._values, strict=True)
            ]

    def settle(self) -> pa.Schema:
        """Return the columns that the lines need, having refused those that do not fit in."""
        self._make_room()
        schema = self._fit(frozenset())
        at_risk = self._integers_at_risk(schema)
        return self._fit(at_risk) if at_risk else schema

    def look_closely(self, schema: pa.Schema) -> None:
        """Refuse lines whose numbers lose digits in their column, or whose text is not what the column holds."""
        expected = self._expected(schema)
        conflicts = (
            (self.numbers[place], expected.conflict(self._values[place]))
            for place in large_numbers(self._values)
        )
        self.refuse({number: reason for number, reason in conflicts if reason})
        self.refuse(self._unreadable_texts(schema))

    def texts(self) -> dict[int, bytes]:
        """Return what pyarrow is to read of each line; in columns declared as string, anything else gets quotes."""
        if not self._as_text:
            return {number: self._lines[number] for number in self.numbers}
        return {
            number: self._with_quotes(self._lines[number], value)
            for number, value in zip(self.numbers, self._values, strict=True)
        }

    def refuse(self, reasons: dict[int, str]) -> None:
        """Set lines aside, named by their number in the chunk."""
        if not reasons:
            return
        self.reasons |= reasons
        keep = [place for place, number in enumerate(self.numbers) if number not in reasons]
        self.numbers = [self.numbers[place] for place in keep]
        self._values = [self._values[place] for place in keep]
        self._kinds = [self._kinds[place] for place in keep]

    def _parse(self, number: int, raw: bytes) -> None:
        reason = None
        value = None
        try:
            value = None if is_too_deep(raw) else _decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            reason = problem(raw) or f"not JSON: {error}"
        if type(value) is not dict or has_twins(raw, value):
            reason = reason or problem(raw)
        if reason is None and type(value) is dict:
            self.numbers.append(number)
            self._values.append(value)
        else:
            self.reasons[number] = reason or "not JSON"

    def _fit(self, pinned: frozenset[str]) -> pa.Schema:
        """Return the columns, decided twice: what only a refused record asked for is not wanted."""
        schema = self._columns(pinned)
        expected = self._expected(schema)
        misfits = {kind for kind in set(self._kinds) if not expected.takes(kind)}
        if not misfits:
            return schema
        self.refuse(
            {
                number: expected.conflict(value) or "the record does not fit in the columns"
                for number, value, kind in zip(self.numbers, self._values, self._kinds, strict=True)
                if kind in misfits
            }
        )
        return self._columns(pinned)

    def _columns(self, pinned: frozenset[str]) -> pa.Schema:
        types = resolve(Counter(self._kinds), pa.struct(list(self._known)))
        fields = list(types) if pa.types.is_struct(types) else []
        return pa.schema([self._known.field(item.name) if item.name in pinned else item for item in fields])

    def _make_room(self) -> None:
        """Refuse records that would bring more columns than there is room for."""
        room = Room(self._known, self._records)
        excess = {kind: room.admit(_without(kind, self._as_text)) for kind in dict.fromkeys(self._kinds)}
        if any(excess.values()):
            self.refuse(
                {
                    number: _no_room(path, room.limit)
                    for number, kind in zip(self.numbers, self._kinds, strict=True)
                    if (path := excess[kind])
                }
            )

    def _expected(self, schema: pa.Schema) -> Expected:
        return expect(schema, self._as_text)

    def _integers_at_risk(self, schema: pa.Schema) -> frozenset[str]:
        """Return the integer columns that would become float although an integer here would lose digits by it."""
        expected = self._expected(schema)
        return frozenset(
            name
            for name in _widened(self._known, schema)
            if any(
                type(value.get(name)) is int and expected.members[name].conflict(value[name], name)
                for value in self._values
            )
        )

    def _with_quotes(self, raw: bytes, value: dict[str, Any]) -> bytes:
        names = [name for name in self._as_text if not isinstance(value.get(name), (str, type(None)))]
        if not names or problem(raw):
            return raw
        members = _decode_raw(raw)
        for name in names:
            members[name] = msgspec.Raw(msgspec.json.encode(bytes(members[name]).decode()))
        return msgspec.json.encode(members)

    def _unreadable_texts(self, schema: pa.Schema) -> dict[int, str]:
        """Return the lines whose text in a column such as a timestamp cannot be read as it."""
        reasons: dict[int, str] = {}
        for item in schema:
            if not (pa.types.is_temporal(item.type) or pa.types.is_binary(item.type)):
                continue
            texts = [value.get(item.name) for value in self._values]
            for place in unreadable(pa.array(texts, pa.string()), item.type):
                reasons[self.numbers[place]] = unexpected(item.name, item.type, quoted(texts[place]))
        return reasons


def _without(kind: Kind, names: frozenset[str]) -> Kind:
    """Return the kind of a record without what is in the columns that take anything."""
    if not names.intersection(kind[1]):
        return kind
    members = (type(None) if key in names else member for key, member in zip(kind[1], kind[2], strict=True))
    return (dict, kind[1], tuple(members))


def _no_room(path: str, limit: int) -> str:
    return (
        f"column '{path}' would be one too many: a chunk of so many records may have {limit}. If keys are data, declare "
        f"`columns: {{{column_of(path)}: string}}`, which keeps the text of the object, or change the source"
    )


def _widened(known: pa.Schema, schema: pa.Schema) -> list[str]:
    """Return the columns that were integer and are float now."""
    return [
        item.name
        for item in known
        if pa.types.is_integer(item.type) and pa.types.is_floating(schema.field(item.name).type)
    ]
