"""In which order objects are read, and what of them was read: the position of the object store source."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

from collectors.collection.sources._object_bucket import Bucket, Found
from collectors.errors import FatalError

__all__ = ["ByName", "ByTime", "Order", "Selection"]

PAGE = 25_000
"""Twice so many objects are in memory at most where a store does not list them in the order they are read in."""
REMEMBERED = 20_000
"""So many objects within `lag` are remembered one by one."""
_LOOKED_AT = 1000
"""After so many objects of a listing whoever waits for the next one may go."""
_TOKEN_LETTERS = 12
_BLOCK_LETTERS = 64 * _TOKEN_LETTERS
_SPANS = 60
"""The times in a block lie at most this part of `lag` apart."""
_SECOND = 1_000_000


class Selection:
    """The objects of a bucket whose keys match a pattern below its folder; empty ones hold nothing and are left out."""

    def __init__(self, bucket: Bucket, pattern: str) -> None:
        self.bucket = bucket
        place = bucket.place
        literal = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]
        self._folder = "/".join(part for part in (place.folder, literal) if part)
        self._matches = re.compile(_regex(pattern), re.DOTALL).fullmatch
        self._below = len(place.folder) + 1 if place.folder else 0

    def reach(self, *, matching: bool) -> bool:
        """Ask the store for the first object; return whether there is one (that matches)."""
        listed = self.behind() if matching else self.bucket.objects(self._folder, "")
        return any(found is not None for found in listed)

    def behind(self, key: str = "") -> Iterator[Found | None]:
        """Yield those whose keys sort behind one, in the order in which the store lists them; None every now and then."""
        for number, found in enumerate(self.bucket.objects(self._folder, key), 1):
            if number % _LOOKED_AT == 0:
                yield None
            if found.size and self._matches(found.key, self._below):
                yield found


def _regex(pattern: str) -> str:
    """Return a glob as a regular expression: `*`, `?` and `[…]` within a name, `**` across folders."""
    out: list[str] = []
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", pattern):
        if part == "**/":
            out.append("(?:.*/)?")
        elif part == "**":
            out.append(".*")
        elif part in {"*", "?"}:
            out.append("[^/]" + part.replace("?", ""))
        elif part.startswith("[") and part.endswith("]"):
            inside = part[1:-1].replace("\\", r"\\").replace("[", r"\[")
            out.append(f"[^/{inside[1:]}]" if inside.startswith("!") else f"[{inside}]")
        else:
            out.append(re.escape(part))
    return "".join(out)


class Order(Protocol):
    """Which objects come next, and which were finished."""

    at_once: bool
    """Whether an object that was replaced while it was being read is read again now; else it comes in its turn."""

    def new(self) -> Iterator[Found | None]:
        """Yield what is not finished, in order, and None while looking. Ends when there is nothing more now."""

    def finish(self, found: Found) -> None:
        """Note that an object was read to its end."""

    def state(self) -> dict[str, Any]:
        """Return what of a position says which objects were finished."""


class ByName:
    """In the order of names; all up to the last one were finished. `count` of them, to see that others came late."""

    at_once = True

    def __init__(self, selection: Selection, stored: dict[str, Any], tell: Callable[[str], None]) -> None:
        self._selection = selection
        self._after = str(stored.get("key", ""))
        self._count = int(stored.get("count", 0))
        self._tell = tell

    def new(self) -> Iterator[Found | None]:
        """Yield what sorts behind the last object that was finished."""
        return self._streamed() if self._selection.bucket.sorted else self._paged()

    def finish(self, found: Found) -> None:
        """Go on behind it."""
        self._after = found.key
        self._count += 1

    def state(self) -> dict[str, Any]:
        """Return how many were finished; the key beside it says which."""
        return {"count": self._count}

    def _streamed(self) -> Iterator[Found | None]:
        last = ""
        for found in self._selection.behind(self._after):
            if found is None:
                yield None
                continue
            if found.key <= last:
                place = self._selection.bucket.place
                raise FatalError(
                    f"{place.url(place.folder)}: the store lists '{found.key}' behind '{last}', so it does not list in "
                    "the order of names; set `order: time`"
                )
            last = found.key
            yield found

    def _paged(self) -> Iterator[Found | None]:
        after, listed = self._after, self._selection.behind()
        page = yield from _first(self._later(listed, after), _name)
        while page:
            yield from page
            after, listed = page[-1].key, self._selection.behind()
            rest = (found for found in listed if found is None or found.key > after)
            page = (yield from _first(rest, _name)) if len(page) == PAGE else []

    def _later(self, listed: Iterator[Found | None], after: str) -> Iterator[Found | None]:
        """Yield those that sort behind; tell when more sort before than were finished."""
        earlier = 0
        for found in listed:
            if found is None or found.key > after:
                yield found
            else:
                earlier += 1
        if earlier > self._count:
            self._tell(
                f"{earlier - self._count} objects have come with names before '{after}' and are not read; "
                "give new objects names that sort behind the old ones, or set `order: time`"
            )
            self._count = earlier


class ByTime:
    """In the order of the times at which objects were last written, then of names.

    All from more than `lag` before the newest one were finished, or came too late; of those since then each is known by
    a short hash. The hashes are kept in blocks, each with the latest time in it, that positions share.
    """

    at_once = False

    def __init__(
        self, selection: Selection, stored: dict[str, Any], lag: float, tell: Callable[[str], None]
    ) -> None:
        self._selection = selection
        self._lag = int(lag * _SECOND)
        self._count = int(stored.get("count", 0))
        self._newest: int | None = stored.get("newest")
        self._blocks: list[list[Any]] = list(stored.get("window", []))
        self._known = {
            tokens[place : place + _TOKEN_LETTERS]
            for _, tokens in self._blocks
            for place in range(0, len(tokens), _TOKEN_LETTERS)
        }
        self._tell = tell

    def new(self) -> Iterator[Found | None]:
        """Yield what is not known, a page of one listing at a time."""
        page = yield from _first(self._unknown(), _when)
        while page:
            yield from page
            # What is on its way is not finished yet, but lies before this.
            last = _when(page[-1])
            rest = (
                found
                for found in self._selection.behind()
                if found is None or (_when(found) > last and _token(found) not in self._known)
            )
            page = (yield from _first(rest, _when)) if len(page) == PAGE else []

    def finish(self, found: Found) -> None:
        """Remember it, and forget those that are older than the window."""
        self._count += 1
        self._newest = max(found.modified, self._newest or 0)
        token = _token(found)
        self._known.add(token)
        latest, tokens = self._blocks[-1] if self._blocks else (0, "")
        span = max(_SECOND, self._lag // _SPANS)
        if tokens and len(tokens) < _BLOCK_LETTERS and abs(found.modified - latest) < span:
            self._blocks[-1] = [max(latest, found.modified), tokens + token]
        else:
            self._blocks.append([found.modified, token])
        while self._blocks[0][0] < self._begin():
            _, tokens = self._blocks.pop(0)
            self._known -= {
                tokens[place : place + _TOKEN_LETTERS] for place in range(0, len(tokens), _TOKEN_LETTERS)
            }
        if len(self._known) > REMEMBERED:
            raise FatalError(
                f"more than {REMEMBERED:,} objects were written within `lag` ({self._lag / _SECOND:g} s), and each has "
                "to be remembered: lower `lag`, or set `order: name`"
            )

    def state(self) -> dict[str, Any]:
        """Return the newest time, and what was finished within `lag` before it."""
        return {"count": self._count, "newest": self._newest, "window": list(self._blocks)}

    def _begin(self) -> int:
        """Return the time before which all is taken for finished."""
        return 0 if self._newest is None else self._newest - self._lag

    def _unknown(self) -> Iterator[Found | None]:
        """Yield what is not known; tell when more is too old for the window than was finished."""
        begin, earlier = self._begin(), 0
        for found in self._selection.behind():
            if found is None:
                yield None
                continue
            if _token(found) in self._known:
                continue
            if found.modified < begin:
                earlier += 1
            else:
                yield found
        finished = self._count - len(self._known)
        if earlier > finished:
            self._tell(
                f"{earlier - finished} objects have come with a time more than `lag` ({self._lag / _SECOND:g} s) before "
                "the newest one and are not read; read them by a source of their own, and raise `lag`"
            )
            self._count += earlier - finished


def _first(
    listed: Iterator[Found | None], key: Callable[[Found], Any]
) -> Generator[Found | None, None, list[Found]]:
    """Return the first objects in the order of a key, up to a page of them."""
    page: list[Found] = []
    for found in listed:
        if found is None:
            yield None
            continue
        page.append(found)
        if len(page) == 2 * PAGE:
            page.sort(key=key)
            del page[PAGE:]
    page.sort(key=key)
    return page[:PAGE]


def _name(found: Found) -> str:
    return found.key


def _when(found: Found) -> tuple[int, str]:
    return found.modified, found.key


def _token(found: Found) -> str:
    """Return what an object is remembered by; one with another content is another."""
    text = f"{found.tag}\n{found.key}".encode("utf-8", "surrogatepass")
    return base64.b64encode(hashlib.blake2b(text, digest_size=9).digest()).decode()
