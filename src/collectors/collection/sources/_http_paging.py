"""From one page to the next: where it is, and when there is none."""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct
from yarl import URL

from collectors.collection.sources._http_config import (
    CursorPaging,
    LinkPaging,
    NextUrlPaging,
    OffsetPaging,
    PagePaging,
    Paging,
)
from collectors.collection.sources._http_json import Page, field_of, plain_value
from collectors.collection.sources._http_marks import digest
from collectors.errors import FatalError
from collectors.http_client.answers import Answer
from collectors.http_client.guard import origin_of, shown

__all__ = ["Trail", "check_origin", "next_page", "page_params"]

State = str | int


class Trail(Struct):
    """Notices that pages go round in a circle, of whatever length, with two marks (Brent's algorithm)."""

    pages: int = 0
    mark: str = ""
    last: str = ""

    def follow(self, state: State, place: str) -> None:
        """Note the next page. Raises FatalError when it was asked for before."""
        found = digest(repr(state).encode())
        if found == self.mark:
            raise FatalError(
                f"{place}: page {self.pages + 1} is one that was read before (cursor {str(state)[:60]!r}): the pages go "
                "round in a circle; check `paging`"
            )
        self.pages += 1
        if self.pages & (self.pages - 1) == 0:
            self.mark = found

    def compare(self, body: bytes, place: str, param: str) -> None:
        """Note the content of a page. Raises FatalError when it is that of the one before."""
        found = digest(body)
        if found == self.last:
            raise FatalError(
                f"{place}: page {self.pages + 1} is the same as the one before; does the API know the parameter "
                f"'{param}'? Check `paging`"
            )
        self.last = found


def page_params(paging: Paging | None, state: State | None) -> dict[str, Any]:
    """Return the parameters that ask for a page; none for one that has an address of its own."""
    if isinstance(paging, PagePaging):
        return {paging.param: paging.start if state is None else state}
    if isinstance(paging, OffsetPaging):
        return {paging.param: paging.start if state is None else state, paging.limit_param: paging.limit}
    if isinstance(paging, CursorPaging) and state is not None:
        return {paging.param: state}
    return {}


def next_page(
    paging: Paging | None, state: State | None, answer: Answer, page: Page, records: list[Raw], place: str
) -> State | None:
    """Return where the next page is; None when this was the last one."""
    if isinstance(paging, PagePaging):
        number = paging.start if state is None else int(state)
        total = _number(page, paging.total, place)
        ended = not records or _is_last(page, paging.more, place)
        ended = ended or (total is not None and number - paging.start + 1 >= total)
        return None if ended else number + 1
    if isinstance(paging, OffsetPaging):
        behind = (paging.start if state is None else int(state)) + paging.limit
        total = _number(page, paging.total, place)
        ended = not records or _is_last(page, paging.more, place)
        ended = ended or (total is not None and behind - paging.start >= total)
        return None if ended else behind
    if isinstance(paging, CursorPaging):
        return None if _is_last(page, paging.more, place) else _cursor(paging, answer, page, records, place)
    if isinstance(paging, (LinkPaging, NextUrlPaging)):
        return _address(paging, answer, page, place)
    return None


def check_origin(home: URL, url: URL, place: str) -> URL:
    """Return the address of a page, https where the API is. Raises FatalError when another origin has it."""
    if home.scheme == "https" and url.scheme == "http" and url.host == home.host:
        url = url.with_scheme("https").with_port(home.explicit_port)
    if origin_of(url) != origin_of(home):
        raise FatalError(
            f"{place}: the next page is said to be at {shown(url)}, which is another origin than that of `url`; "
            "it is not asked"
        )
    return url


def _address(paging: LinkPaging | NextUrlPaging, answer: Answer, page: Page, place: str) -> str | None:
    if isinstance(paging, LinkPaging):
        if answer.links is None:
            raise FatalError(f"{place}: the header `Link` is none: {answer.headers.get('Link', '')[:100]!r}")
        found = answer.links.get(paging.rel.lower())
        return str(found) if found is not None else None
    value = page.value(paging.field)
    if value is None or value in {"", False}:
        return None
    if not isinstance(value, str):
        raise FatalError(
            f"{place}: expected the address of the next page at '{paging.field}', got {value!r:.60}"
        )
    try:
        return str(answer.url.join(URL(value)))
    except ValueError:
        raise FatalError(f"{place}: '{value[:60]}' at '{paging.field}' is no address") from None


def _cursor(paging: CursorPaging, answer: Answer, page: Page, records: list[Raw], place: str) -> State | None:
    if paging.header is not None:
        return answer.headers.get(paging.header) or None
    if paging.record is not None:
        if not records:
            return None
        value = plain_value(field_of(records[-1], paging.record))
        if value is None:
            raise FatalError(
                f"{place}: the last record of a page has no '{paging.record}' to go on with; check `paging.record`"
            )
    else:
        value = page.value(str(paging.field))
    if value is None or value == "" or value is False:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise FatalError(f"{place}: expected a cursor, text or a number, got {value!r:.60}; check `paging`")
    return value


def _is_last(page: Page, path: str | None, place: str) -> bool:
    if path is None:
        return False
    value = page.value(path)
    if not isinstance(value, bool):
        raise FatalError(
            f"{place}: expected true or false at '{path}', got {value!r:.60}; check `paging.more`"
        )
    return not value


def _number(page: Page, path: str | None, place: str) -> int | None:
    if path is None:
        return None
    value = page.value(path)
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise FatalError(f"{place}: expected a number at '{path}', got {value!r:.60}; check `paging.total`")
    return value
