"""One folder of an object store: its objects listed, looked at, and read by ranges, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import obstore
from msgspec import Struct
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError

from collectors.collection.sources._handle import ReplacedError
from collectors.errors import CollectorsError, ConfigurationError, FatalError, TransientError
from collectors.object_stores import MAY_PASS, Place, StoreSettings, open_store, said, status_of

__all__ = ["Bucket", "Found", "GoneError"]

_LISTED_AT_ONCE = 1000
_MADE = "~"
"""How a tag begins that the store did not give."""
_LASTING = ("invalid path", "(os error 13)", "configured region")
"""What is in errors without a status that will be the same again."""


class GoneError(Exception):
    """There is no such object, or not any more."""


class Found(Struct, frozen=True):
    """One object as it is now; `modified` is in microseconds since 1970, `tag` is another when its content is."""

    key: str
    size: int
    modified: int
    tag: str

    @classmethod
    def of(cls, meta: Any) -> Found:
        """Return the object of which the store says this; listings and answers write the same tag differently."""
        modified: datetime = meta["last_modified"]
        seconds = int(modified.timestamp())
        tag = (meta["e_tag"] or "").strip('"') or f"{_MADE}{meta['size']}-{seconds}"
        return cls(meta["path"], meta["size"], seconds * 1_000_000 + modified.microsecond, tag)


class Bucket:
    """The objects of a place. Each method blocks, and may be called from any thread.

    Raises GoneError, ReplacedError, TransientError; FatalError for what the store will refuse again.
    """

    def __init__(self, place: Place, settings: StoreSettings) -> None:
        self.place = place
        self.sorted = place.scheme != "file"
        """Whether objects are listed in the order of their names."""
        try:
            self._store: Any = open_store(place, settings)
        except (BaseError, ValueError, OSError) as error:
            raise ConfigurationError(f"cannot open {place.url(place.folder)}: {said(error)}") from error

    def objects(self, folder: str, after: str) -> Iterator[Found]:
        """Yield the objects of a folder whose names sort behind `after`; a thousand are in memory."""
        what = self.place.url(folder)
        pages = iter(
            obstore.list(self._store, folder or None, offset=after or None, chunk_size=_LISTED_AT_ONCE)
        )
        while True:
            with _told(what):
                page = next(pages, None)
            if page is None:
                return
            yield from (found for found in map(Found.of, page) if found.key > after)

    def head(self, key: str) -> Found:
        """Return an object as it is now."""
        with _told(self.place.url(key)):
            return Found.of(obstore.head(self._store, key))

    def get(self, found: Found, start: int, end: int) -> Any:
        """Return the bytes of a range, as a buffer, if the object is still the same."""
        options: dict[str, Any] = {"range": (start, end)}
        if not found.tag.startswith(("W/", _MADE)):  # a weak one never matches (RFC 9110, 13.1.1)
            options["if_match"] = f'"{found.tag}"'
        with _told(self.place.url(found.key)):
            result = obstore.get(self._store, found.key, options=options)  # type: ignore[arg-type]
            # Not every store that calls itself compatible looks at If-Match.
            if Found.of(result.meta).tag != found.tag:
                raise ReplacedError(found.key)
            data = result.bytes()
        if len(data) != end - start or result.range != (start, end):
            raise TransientError(
                f"{self.place.url(found.key)}: asked for bytes {start} to {end}, got {len(data)}"
            )
        return data


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Raise what a store's error means for what was asked for."""
    try:
        yield
    except (CollectorsError, ReplacedError):
        raise
    except FileNotFoundError as error:
        raise GoneError(what) from error
    except PreconditionError as error:
        raise ReplacedError(what) from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise FatalError(
            f"cannot read {what}: {said(error)}; these credentials may not list the folder and read its objects"
        ) from error
    except (BaseError, ValueError, OSError) as error:
        raise _failure(what, error) from error


def _failure(what: str, error: Exception) -> Exception:
    reason, text, status = said(error), str(error), status_of(error)
    if status == 416:  # shorter than it was
        return ReplacedError(what)
    if status is not None and 300 <= status < 500 and status not in MAY_PASS:
        return FatalError(f"cannot read {what}: {reason}")
    if "builder error" in text:
        return FatalError(f"cannot read {what}: an address without TLS, http://, has to be set as `endpoint`")
    if isinstance(error, ValueError) or any(lasting in text for lasting in _LASTING):
        return FatalError(f"cannot read {what}: {reason}")
    return TransientError(f"cannot read {what} now: {reason}")
