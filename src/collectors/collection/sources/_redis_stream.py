"""A Redis stream: its entries, and whether it is still the one of the position."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from redis.exceptions import ResponseError

from collectors.collection.sources._redis_connection import Connection
from collectors.errors import FatalError

__all__ = [
    "Entry",
    "Id",
    "StreamState",
    "entries_of",
    "id_text",
    "last_delivered",
    "listed",
    "look",
    "parse_id",
]

Id = tuple[int, int]


class Entry(Struct):
    """An entry: its id, and names and values in turn; None when it was removed before it was read."""

    id: Id
    fields: list[bytes] | None


class StreamState(Struct, frozen=True):
    """A stream at the moment; `added` is how many entries it ever had, where the server counts them (since 7.0)."""

    length: int
    last: Id
    first: Id | None
    added: int | None

    def check(self, name: str, behind: Id) -> None:
        """Raise FatalError when the stream ends before what was read."""
        if self.last < behind:
            raise FatalError(
                f"stream '{name}' ends at {id_text(self.last)}, but entry {id_text(behind)} was read before: the server has "
                "lost entries, or the stream was made anew with smaller ids; give the source a new `id` to read it from "
                "`start` on"
            )


async def look(connection: Connection, name: str) -> StreamState | None:
    """Return the state of a stream, None when there is none. Raises FatalError when the key is something else."""
    try:
        answer = await connection.call("XINFO STREAM", name)
    except ResponseError as error:
        if "no such key" in str(error):
            return None
        raise FatalError(f"stream '{name}': {error}") from error
    found = _pairs(answer)
    first = found.get("first-entry")
    return StreamState(
        int(found["length"]),
        parse_id(found["last-generated-id"]),
        parse_id(first[0]) if first else None,
        int(found["entries-added"]) if "entries-added" in found else None,
    )


async def last_delivered(connection: Connection, name: str, group: str) -> Id | None:
    """Return how far a group of a stream has given entries to its members; None when there is no such group."""
    try:
        answer = await connection.call("XINFO GROUPS", name)
    except ResponseError as error:
        if "no such key" in str(error):
            return None
        raise FatalError(f"stream '{name}': {error}") from error
    found = (each for each in map(_pairs, answer) if _text(each["name"]) == group)
    return next((parse_id(each["last-delivered-id"]) for each in found), None)


def entries_of(answer: Any) -> list[Entry]:
    """Return the entries of the one stream in an answer to XREAD or XREADGROUP."""
    if not answer:
        return []
    (entries,) = answer.values() if isinstance(answer, dict) else [answer[0][1]]
    return listed(entries)


def listed(entries: Any) -> list[Entry]:
    """Return the entries of a list as commands have it."""
    return [Entry(parse_id(number), fields) for number, fields in entries]


def parse_id(text: bytes | str) -> Id:
    """Return an id as two numbers, which compare as ids do."""
    first, _, second = _text(text).partition("-")
    return int(first), int(second or 0)


def id_text(number: Id) -> str:
    """Return an id as Redis writes it."""
    return f"{number[0]}-{number[1]}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _pairs(answer: Any) -> dict[str, Any]:
    """Return names and values, whatever version of the protocol they came by."""
    pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=True)
    return {_text(name): value for name, value in pairs}
