"""Says exactly what is wrong with one line that ought to be a JSON object; slow, asked only about suspects.

The grammar is RFC 8259 and nothing beside it: no NaN, no duplicate keys, no lone surrogates. Nesting is limited,
since pyarrow and others crash the whole process on text that is nested deep enough.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from collectors.codecs._text_lines import not_utf8
from collectors.codecs._wording import quoted

__all__ = ["MAX_DEPTH", "has_twins", "is_too_deep", "problem"]

MAX_DEPTH = 100
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]')


class _RefusedError(ValueError):
    """What the grammar allows and we do not."""


def is_too_deep(raw: bytes) -> bool:
    """Return whether arrays and objects are nested deeper than MAX_DEPTH; brackets inside of strings do not count."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for match in _BRACKETS.finditer(raw):
        first = match[0][:1]
        depth += (first in b"[{") - (first in b"]}")
        if depth > MAX_DEPTH:
            return True
    return False


def problem(raw: bytes) -> str | None:
    """Return why the text is not one JSON object, None when it is one."""
    wrong = not_utf8(raw)
    if wrong:
        return wrong
    if is_too_deep(raw):
        return f"nested deeper than {MAX_DEPTH} levels"
    try:
        value = _DECODER.decode(raw.decode())
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at character {error.pos + 1}"
    except UnicodeEncodeError as error:
        return f"a lone surrogate (\\u{ord(error.object[error.start]):04x}) is half a character"
    except _RefusedError as error:
        return str(error)
    return None if isinstance(value, dict) else f"expected an object, got {quoted(value)}"


def has_twins(raw: bytes, value: dict[str, Any]) -> bool:
    """Return whether it looks as if an object had a key twice: more keys in the text than in what was read from it.

    A guess that saves asking `problem` about every line; pyarrow refuses the duplicates that it misses.
    """
    written = raw.count(b'":')
    return written != len(value) and written != _keys(value)


def _keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(_keys(item) for item in value.values() if isinstance(item, (dict, list)))
    return sum(_keys(item) for item in value if isinstance(item, (dict, list)))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twin = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _RefusedError(f"the key {json.dumps(twin)} is there twice")
    return value


def _number(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if abs(float(text)) == float("inf"):
            raise _RefusedError(f"{text[:80]} is too large for a number")
        return convert(text)

    return parse


def _integer(text: str) -> int | float:
    """Python refuses to read integers of thousands of digits, and shows why only in its own words."""
    return int(text) if len(text) < 20 else float(text)


def _constant(text: str) -> Any:
    raise _RefusedError(f"{text} is not JSON (RFC 8259): write null, or a string")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=_constant,
    parse_float=_number(float),
    parse_int=_number(_integer),
)
