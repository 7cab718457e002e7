"""What stands in positions: cursors as whole numbers that can be compared, and digests of what was handed on."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from msgspec import Raw

__all__ = ["CursorType", "digest", "parse_cursor", "write_cursor"]

CursorType = Literal["time", "unix", "unix_ms", "number"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNITS = {"unix": 1_000_000, "unix_ms": 1_000}
_LARGEST = 2**62


def digest(data: bytes | Raw) -> str:
    """Return what stands for bytes in a position."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def parse_cursor(kind: CursorType, value: Any) -> int:
    """Return a cursor as microseconds since 1970, or as the number that it is. Raises ValueError."""
    if kind == "time":
        if isinstance(value, str):
            try:
                moment = datetime.fromisoformat(value.strip())
            except ValueError:
                pass
            else:
                moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
                return (moment - _EPOCH) // _MICROSECOND
        raise ValueError(f"expected a time as in ISO 8601, got {_shown(value)}")
    try:
        number = Decimal("x" if isinstance(value, bool) else str(value)) * _UNITS.get(kind, 1)
        if abs(number) <= _LARGEST and (kind != "number" or number == int(number)):
            return int(number.to_integral_value("ROUND_FLOOR"))
    except InvalidOperation:
        pass
    what = "a whole number" if kind == "number" else f"a time since 1970 ({kind})"
    raise ValueError(f"expected {what}, got {_shown(value)}")


def write_cursor(kind: CursorType, value: int, form: str | None) -> str:
    """Return a cursor as a request has it; a time is rounded down to what can be written."""
    if kind == "number":
        return str(value)
    if kind in _UNITS:
        return str(value // _UNITS[kind])
    moment = _EPOCH + timedelta(microseconds=value)
    return moment.strftime(form) if form is not None else moment.replace(tzinfo=None).isoformat() + "Z"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
