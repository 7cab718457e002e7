"""Takes secrets out of what is told to people: as they are, and as JSON, Python or an address writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

__all__ = ["Censor"]

_SHORT = 3
"""Up to so many characters, a secret is taken out only where it stands alone: it may be part of any word."""


class Censor:
    """Replaces each of these secrets in a text by `***`."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if secret for form in _forms(secret)}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        found = [
            re.escape(form) if len(form) > _SHORT else rf"(?<!\w){re.escape(form)}(?!\w)"
            for form in longest_first
        ]
        self._pattern = re.compile("|".join(found) or r"(?!)")

    def __call__(self, text: str) -> str:
        """Return the text without them."""
        return self._pattern.sub("***", text)


def _forms(secret: str) -> Iterator[str]:
    """Yield how a secret may be written."""
    yield secret
    yield repr(secret)[1:-1]
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    for encoded in (
        quote(secret, safe="", errors="replace"),
        quote(secret, errors="replace"),
        quote_plus(secret, errors="replace"),
    ):
        yield encoded
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), encoded)
