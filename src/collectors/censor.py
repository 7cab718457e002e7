"""Takes secrets out of what is told to people: as they are, and as JSON, Python, HTML or an address writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

__all__ = ["Censor"]

_SHORT = 3
"""Up to so many characters, a secret is taken out only where it stands alone: it may be part of any word."""
_BEFORE = r"(?:(?<![^\W_])|(?<=\\[a-z])|(?<=%[0-9A-Fa-f]{2}))"
_BEHIND = r"(?![^\W_])"
_LONG = 1024
"""Longer ones are looked for as the usual writers write them, not sign by sign."""


class Censor:
    """Replaces each of these secrets in a text by `***`, and what several of them cover together by one."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._texts: list[str] = []
        self._patterns: list[re.Pattern[str]] = []
        for secret in sorted(set(filter(None, secrets))):
            texts = list(dict.fromkeys(_texts(secret)))
            forms = ["".join(map(way, secret)) for way in _WAYS] if len(secret) <= _LONG else []
            if len(secret) > _SHORT:
                self._texts += texts
            else:
                forms += map(re.escape, texts)
            self._patterns += [_pattern(form, alone=len(secret) <= _SHORT) for form in forms]

    def __call__(self, text: str) -> str:
        """Return the text without them."""
        spans = [span for each in self._texts for span in _found(each, text)]
        spans += [found.span(1) for pattern in self._patterns for found in pattern.finditer(text)]
        told: list[str] = []
        end = 0
        for start, stop in sorted(spans):
            if start >= end:
                told += [text[end:start], "***"]
            end = max(end, stop)
        return "".join([*told, text[end:]])


def _texts(secret: str) -> Iterator[str]:
    """Yield a secret as it is, as HTML has it and, a long one, as the usual writers write it."""
    from html import escape  # 2 ms of every start, and mostly nobody asks

    yield secret
    yield escape(secret)
    if len(secret) > _LONG:
        yield json.dumps(secret)[1:-1]
        yield repr(secret)[1:-1]
        yield quote(secret, safe="", errors="replace")


def _found(secret: str, text: str) -> Iterator[tuple[int, int]]:
    start = text.find(secret)
    while start >= 0:
        yield start, start + len(secret)
        start = text.find(secret, start + 1)


def _pattern(form: str, *, alone: bool) -> re.Pattern[str]:
    # Looked for ahead, so that one is also found within what another has covered.
    return re.compile(f"(?=({_BEFORE + form + _BEHIND if alone else form}))")


def _escaped(sign: str) -> str:
    """Return how JSON or Python may write a sign within quotes; no two of them begin alike, so that looking is quick."""
    pairs = sign.encode("utf-16-be", "surrogatepass").hex()
    number = "".join(rf"\\u{pairs[place : place + 4]}" for place in range(0, len(pairs), 4))
    forms = [f"(?i:{number})"]
    if sign == "\\":
        forms.append(re.escape("\\\\"))
    elif sign in {"/", "'", '"'}:
        forms += [re.escape(sign), re.escape(f"\\{sign}")]
    else:
        forms += [re.escape(form[1:-1]) for form in (repr(sign), json.dumps(sign, ensure_ascii=False))]
    return f"(?:{'|'.join(dict.fromkeys(forms))})"


def _in_an_address(sign: str) -> str:
    """Return how an address may have a sign."""
    forms = [f"(?i:{''.join(f'%{byte:02x}' for byte in sign.encode(errors='replace'))})"]
    if sign == " ":
        forms.append(r"\+")
    elif sign != "%":
        forms.append(re.escape(sign))
    return f"(?:{'|'.join(forms)})"


_WAYS = (_escaped, _in_an_address)
