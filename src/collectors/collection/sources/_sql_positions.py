"""Values of a cursor and its key in a position: JSON, and exactly the same when they come back."""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from collectors.errors import FatalError
from collectors.models import Position

__all__ = ["at", "position"]

_WHOLE = 2**53
"""Larger numbers are written as text: not every reader of JSON keeps their digits."""


def position(by: Sequence[str], values: Sequence[Any]) -> Position:
    """Return the position behind the row that has these values in the columns `by`."""
    return {"by": list(by), "at": [_encode(value) for value in values]}


def at(since: Position, by: Sequence[str]) -> list[Any]:
    """Return the values in a position. Raises FatalError when it is one of other columns."""
    if since.get("by") != list(by):
        raise FatalError(
            f"what is stored was read by {', '.join(map(str, since.get('by', [])))}; the settings `cursor` and `key` now say "
            f"{', '.join(by)}. Put them back, or give the source another `id` to begin anew"
        )
    return [_decode(value) for value in since["at"]]


def _encode(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": b64encode(value).decode()}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, int) and abs(value) > _WHOLE:
        return {"int": str(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _decode(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, text),) = value.items()
    return _DECODERS[kind](text)


_DECODERS: dict[str, Any] = {
    "base64": b64decode,
    "decimal": Decimal,
    "int": int,
    "float": float,
}
