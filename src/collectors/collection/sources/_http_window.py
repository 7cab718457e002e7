"""How far an incremental endpoint was read, without losing records that appear late or while pages are read."""

from __future__ import annotations

from collections import Counter

from msgspec import Raw, Struct, field

from collectors.collection.sources._http_config import IncrementalConfig
from collectors.collection.sources._http_json import field_of, plain_value
from collectors.collection.sources._http_marks import digest, parse_cursor, write_cursor
from collectors.errors import FatalError
from collectors.http_client.answers import plain

__all__ = ["Mark", "Seen", "Window"]

Seen = list[tuple[int, str]]
"""The cursor of records that were handed on, and a digest of their bytes."""
MOST_SEEN = 5_000
_NO_CURSOR = 2**62
_LAG_SECONDS = 60.0


class Mark(Struct, omit_defaults=True):
    """What is known of an endpoint between two readings.

    `high` is the cursor up to which everything was there, `seen` what was handed on of the lag behind it, `etag`,
    `modified` and `request` are of the last response, where the endpoint had only that one.
    """

    high: int | None = None
    seen: Seen = field(default_factory=list)
    etag: str = ""
    modified: str = ""
    request: str = ""


class Window(Struct, omit_defaults=True):
    """The reading under way of an endpoint: the highest cursor, what it has of the lag, what is left of last time's."""

    top: int | None = None
    seen: Seen = field(default_factory=list)
    left: Seen = field(default_factory=list)
    records: int = 0
    old: bool = False
    dropped: int = 0


def lag_of(config: IncrementalConfig) -> int:
    """Return the lag in the unit of parsed cursors."""
    if config.type == "number":
        return int(config.lag or 0)
    return int((_LAG_SECONDS if config.lag is None else config.lag) * 1_000_000)


def first_of(config: IncrementalConfig, mark: Mark) -> int | None:
    """Return from which cursor on is asked for."""
    if mark.high is not None:
        return mark.high - lag_of(config)
    return parse_cursor(config.type, config.start) if config.start is not None else None


def start_param(config: IncrementalConfig, mark: Mark) -> dict[str, str]:
    """Return the parameter that says from where on."""
    first = first_of(config, mark)
    if config.param is None or first is None:
        return {}
    return {config.param: write_cursor(config.type, first, config.format)}


def sift(
    config: IncrementalConfig, mark: Mark, window: Window, records: list[Raw], began: int, place: str
) -> list[Raw]:
    """Return the records that are new. Of what is asked for again, as many as were handed on before are left out."""
    first, left, new = first_of(config, mark), Counter(each for _, each in window.left), []
    used: Counter[str] = Counter()
    for record in records:
        value = _cursor_of(config, record, place)
        found = digest(record)
        if value is None:
            value = _NO_CURSOR
        else:
            window.records += 1
            if first is not None and value < first:
                window.old = True
                continue
            window.top = value if window.top is None else max(window.top, value)
        window.seen.append((value, found))
        if left[found] > 0:
            left[found] -= 1
            used[found] += 1
        else:
            new.append(record)
    window.left = _without(window.left, used)
    _prune(config, window, began)
    return new


def finish(config: IncrementalConfig, mark: Mark, window: Window, began: int, place: str) -> Mark:
    """Return the mark behind a reading that has come to its end."""
    if not window.records and any(value == _NO_CURSOR for value, _ in window.seen):
        raise FatalError(f"{place}: no record has a field '{config.cursor}'; check `incremental.cursor`")
    high = mark.high
    if window.top is not None:
        reached = _reached(config, window.top, began)
        high = reached if high is None else max(high, reached)
    bound = -_NO_CURSOR if high is None else high - lag_of(config)
    seen = [each for each in (*window.left, *window.seen) if each[0] >= bound]
    window.dropped += max(0, len(seen) - MOST_SEEN)
    return Mark(high=high, seen=sorted(seen)[-MOST_SEEN:])


def _reached(config: IncrementalConfig, top: int, began: int) -> int:
    """Return up to where nothing can be missing: what came to be while pages were read may stand on one read before."""
    return top if config.type == "number" else min(top, began)


def _prune(config: IncrementalConfig, window: Window, began: int) -> None:
    """Forget what lies behind the lag whatever comes; of the rest the oldest when there is too much."""
    if window.top is None and len(window.seen) <= MOST_SEEN:
        return
    if window.top is not None:
        bound = _reached(config, window.top, began) - lag_of(config)
        window.seen = [each for each in window.seen if each[0] >= bound]
    if len(window.seen) > MOST_SEEN:
        window.dropped += len(window.seen) - MOST_SEEN
        window.seen = sorted(window.seen)[-MOST_SEEN:]


def _without(seen: Seen, used: Counter[str]) -> Seen:
    found: Seen = []
    for value, each in seen:
        if used[each] > 0:
            used[each] -= 1
        else:
            found.append((value, each))
    return found


def _cursor_of(config: IncrementalConfig, record: Raw, place: str) -> int | None:
    value = plain_value(field_of(record, config.cursor))
    if value is None:
        return None
    try:
        return parse_cursor(config.type, value)
    except ValueError as error:
        raise FatalError(
            f"{place}: `incremental.cursor: {config.cursor}`: {error}, in {plain(bytes(record), 100)}"
        ) from None
