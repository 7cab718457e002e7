"""What was asked and what came: requests, responses, and what a response wants."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp
from msgspec import Struct
from yarl import URL

from collectors.http_client.guard import shown

__all__ = ["EXCERPT", "Answer", "Call", "links_of", "phrase", "plain", "seconds_to_wait", "where_to"]

EXCERPT = 200
_LONGEST_WAIT = 3600.0
_A_DATE = 1e9


class Call(Struct, frozen=True):
    """One request."""

    method: str
    url: URL
    body: bytes | None = None


class Answer(Struct, frozen=True):
    """One response: from where it came in the end, and its body, decompressed; no `links` when they cannot be read."""

    status: int
    url: URL
    headers: Mapping[str, str]
    links: Mapping[str, URL] | None
    body: bytes


def links_of(response: aiohttp.ClientResponse) -> dict[str, URL] | None:
    """Return the `Link` headers by relation; None when they cannot be read."""
    try:
        return {
            rel: URL(str(link["url"]))
            for rels, link in response.links.items()
            for rel in str(rels).lower().split()
        }
    except ValueError:
        return None


def seconds_to_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return what `Retry-After` asks for, else `X-RateLimit-Reset` (a time, or seconds) where nothing remains.

    An hour at most; None when nothing is asked for.
    """
    after, reset = headers.get("Retry-After"), headers.get("X-RateLimit-Reset")
    try:
        if after is not None and after.strip().isdigit():
            seconds = float(after)
        elif after is not None:
            moment = parsedate_to_datetime(after)
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now.timestamp()
        elif reset is not None and headers.get("X-RateLimit-Remaining") == "0":
            seconds = float(reset) - (now.timestamp() if float(reset) > _A_DATE else 0.0)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return min(seconds, _LONGEST_WAIT) if seconds > 0 else None


def where_to(answer: Answer) -> str:
    """Return where a redirect leads, for a message; empty when it does not say."""
    try:
        return f" to {shown(answer.url.join(URL(answer.headers['Location'])))[:EXCERPT]}"
    except (KeyError, ValueError):
        return ""


def phrase(status: int) -> str:
    """Return what a status is called; empty for one that nobody knows."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def plain(raw: bytes, size: int) -> str:
    """Return the first bytes of something, for a message on one line."""
    text = " ".join(raw[: 4 * size].decode(errors="replace").split())
    return text if len(text) <= size else f"{text[:size]}…"
