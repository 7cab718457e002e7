"""What is left to do of a reading, and what is kept between two of them: together this is the position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct, field

from collectors.collection.sources._http_config import OffsetPaging, PagePaging
from collectors.collection.sources._http_endpoints import Endpoint, Parent
from collectors.collection.sources._http_json import Page
from collectors.collection.sources._http_marks import digest
from collectors.collection.sources._http_paging import Trail, next_page
from collectors.collection.sources._http_window import Mark, Window, finish, sift, start_param
from collectors.errors import FatalError
from collectors.http_client.answers import Answer, Call
from collectors.models import Position

__all__ = ["Frame", "Work"]

_NOT_MODIFIED = 304


class Frame(Struct, omit_defaults=True):
    """An endpoint that is being read: for which parents still, and from which page of the first of them on."""

    endpoint: str
    parents: list[Parent]
    state: str | int | None = None
    trail: Trail = field(default_factory=Trail)


class _Saved(Struct, omit_defaults=True):
    """A position: marks alone when nothing is under way."""

    marks: dict[str, Mark] = field(default_factory=dict)
    stack: list[Frame] = field(default_factory=list)
    windows: dict[str, Window] = field(default_factory=dict)
    began: int | None = None


class Work:
    """One reading of all endpoints, depth first: the children of a page come before the next page.

    With `conditional` the API may say that an endpoint has not changed; its records are not given then.

    The stack is all that is left to do, so that a position in the middle needs nothing read again.
    """

    def __init__(
        self,
        endpoints: list[Endpoint],
        since: Position | None,
        *,
        most_pages: int,
        unsigned: Callable[[str], str],
        tell: Callable[[str], None],
        conditional: bool = True,
    ) -> None:
        self._endpoints = {each.name: each for each in endpoints}
        self._most_pages = most_pages
        self._unsigned = unsigned
        self._tell = tell
        self._conditional = conditional
        self.unchanged = True
        """Whether the API has said of all that was asked so far that it is what it was."""
        self._saved = msgspec.convert(since or {}, _Saved)
        saved = self._saved
        gone = {frame.endpoint for frame in saved.stack} - set(self._endpoints)
        if gone:
            raise FatalError(
                f"endpoint '{min(gone)}' was being read and is not in the settings any more; put it back until the "
                "reading is over"
            )
        if not saved.stack:
            roots = [each for each in endpoints if each.parent is None]
            saved.stack = [Frame(each.name, [{}]) for each in reversed(roots)]

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return not self._saved.stack

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that is asked next."""
        return self._endpoints[self._saved.stack[-1].endpoint]

    def next_call(self) -> tuple[Call, dict[str, str]]:
        """Return the next request, and the headers that make it one for what has changed only."""
        frame, endpoint = self._saved.stack[-1], self.endpoint
        mark = self._saved.marks.get(endpoint.name, Mark())
        since = start_param(endpoint.incremental, mark) if endpoint.incremental is not None else {}
        call = endpoint.call(frame.parents[0], frame.state, since, self._place)
        conditions: dict[str, str] = {}
        if self._conditional and frame.state is None and mark.request == _name_of(call):
            conditions = {"If-None-Match": mark.etag, "If-Modified-Since": mark.modified}
        return call, {name: value for name, value in conditions.items() if value}

    def take(self, call: Call, answer: Answer, began: int) -> bytes:
        """Return the records of a page as NDJSON, and go on to what comes behind it."""
        self._saved.began = began if self._saved.began is None else self._saved.began
        if answer.status == _NOT_MODIFIED:
            self._behind(None)
            lines = b""
        else:
            self.unchanged = False
            lines = self._read(call, answer)
        if self.ended:
            self._finish()
        return lines

    def position(self) -> Position:
        """Return what is enough to go on from here."""
        return msgspec.json.decode(msgspec.json.encode(self._saved), type=dict[str, Any])

    @property
    def _place(self) -> str:
        """What stands in front of messages: the endpoint, where there are several."""
        endpoint = self.endpoint
        return f"{endpoint.home.host}{endpoint.home.path if len(self._endpoints) == 1 else ''}" + (
            f", endpoint '{endpoint.name}'" if len(self._endpoints) > 1 else ""
        )

    def _read(self, call: Call, answer: Answer) -> bytes:
        endpoint, place = self.endpoint, self._place
        frame = self._saved.stack[-1]
        parent = frame.parents[0]
        page = Page(answer.body, place)
        found = page.records(endpoint.records)
        following = next_page(endpoint.paging, frame.state, answer, page, found, place)
        following = self._unsigned(following) if isinstance(following, str) else following
        self._follow(frame, endpoint, following, found, place)
        self._note(call, answer, single=frame.state is None and following is None)
        new = self._sift(endpoint, found, place)
        self._behind(following)
        for child in reversed(endpoint.children):
            self._descend(child, *endpoint.parents(child, new, parent))
        return endpoint.lines(new, parent) if endpoint.selected else b""

    def _descend(self, child: Endpoint, parents: list[Parent], lacking: bool) -> None:
        if lacking:
            self._tell(
                f"{child.name}: there are records of '{child.parent}' without {' or '.join(child.needs)} that can stand in "
                "an address; nothing is read for them"
            )
        if parents:
            self._saved.stack.append(Frame(child.name, parents))

    def _follow(
        self, frame: Frame, endpoint: Endpoint, following: str | int | None, found: list[Any], place: str
    ) -> None:
        """Notice pages that go round in a circle, or never end."""
        if isinstance(endpoint.paging, (PagePaging, OffsetPaging)):
            if found:
                frame.trail.compare(b"\n".join(found), place, endpoint.paging.param)
            frame.trail.pages += 1
        elif following is not None:
            frame.trail.follow(following, place)
        if following is not None and frame.trail.pages >= self._most_pages:
            raise FatalError(
                f"{place}: there are more than {self._most_pages:,} pages; set `max_pages` if that can be"
            )

    def _sift(self, endpoint: Endpoint, found: list[Any], place: str) -> list[Any]:
        config, saved = endpoint.incremental, self._saved
        if config is None:
            return found
        mark = saved.marks.setdefault(endpoint.name, Mark())
        window = saved.windows.get(endpoint.name)
        if window is None:
            window = saved.windows[endpoint.name] = Window(left=mark.seen)
            mark.seen = []
        return sift(config, mark, window, found, saved.began or 0, place)

    def _note(self, call: Call, answer: Answer, *, single: bool) -> None:
        """Keep what makes the next request one for what has changed only: of an endpoint that had this one response.

        That the first of several pages has not changed says nothing of the others, nor of children.
        """
        marks, endpoint = self._saved.marks, self.endpoint
        mark = marks.get(endpoint.name, Mark())
        mark.etag = mark.modified = mark.request = ""
        if single and endpoint.parent is None and not endpoint.children and call.method == "GET":
            mark.etag = answer.headers.get("ETag", "")
            mark.modified = answer.headers.get("Last-Modified", "")
            mark.request = _name_of(call) if mark.etag or mark.modified else ""
        if mark != Mark():
            marks[endpoint.name] = mark

    def _behind(self, following: str | int | None) -> None:
        """Go on to the next page, else to the next parent, else to the endpoint before."""
        frame = self._saved.stack[-1]
        frame.state = following
        if following is None:
            frame.trail = Trail()
            frame.parents = frame.parents[1:]
        if not frame.parents:
            self._saved.stack.pop()

    def _finish(self) -> None:
        """All was read: note how far."""
        saved = self._saved
        for name, window in saved.windows.items():
            endpoint = self._endpoints.get(name)
            if endpoint is None or endpoint.incremental is None:
                continue
            mark = saved.marks[name]
            done = finish(endpoint.incremental, mark, window, saved.began or 0, name)
            mark.high, mark.seen = done.high, done.seen
            if window.old and endpoint.incremental.param is not None:
                self._tell(f"{name}: records were left out whose cursor lies before what was asked for")
            if window.dropped:
                self._tell(
                    f"{name}: the `lag` has more records than are remembered; some may be stored twice"
                )
        saved.windows, saved.began = {}, None
        saved.marks = {name: mark for name, mark in saved.marks.items() if mark != Mark()}


def _name_of(call: Call) -> str:
    return digest(f"{call.method} {call.url} {call.body!r}".encode())
