"""JSON from a REST API: page after page, several endpoints, and from then on what is new.

    source:
      type: http
      url: https://api.example.com/v1/orders
      auth: {type: bearer, token: "not this one"}
      records: data.items
      paging: {type: cursor, param: after, field: meta.next_cursor}
      incremental: {cursor: updated_at, param: since, lag: 5m}
      every: 1m

Records are handed on as the API writes them, no number is changed. `paging` is `page`, `offset`, `cursor`, `link` (the
header) or `next_url`; `auth` is `bearer`, `basic`, `api_key` or `oauth2` (client credentials). Without `incremental`
each reading is one of everything, and everything is stored again, except where the API has `ETag` or `Last-Modified` and
says that nothing changed.

Several endpoints of one API are read by one source; one with a `parent` for each of the parent's records:

    endpoints:
      - {name: users, path: users, paging: {type: link}}
      - {name: posts, path: "users/{id}/posts", parent: users, include: {user_id: id}}

With `incremental` the next reading begins at the highest cursor of the last one, not later than that one began, less the
`lag`. Of the records there as many as were stored before, byte for byte, are left out; those that have changed come
again. Up to 5,000 such records are remembered.

Only addresses of the public internet are asked, unless `allow_private` is set: names are resolved once for each
connection, each address is checked, and the connection goes there. At most five redirects are followed, each checked
the same way; another origin gets no credentials. Pages must be at the origin of `url`. A status of 408, 425, 429 or
5xx is tried again, when `Retry-After` says; any other stops the source.

Delivery: exactly once with a storage that keeps the position, as far as the API gives the same pages to the same
requests. Where pages move while they are read (numbers and offsets, when something is inserted) a record can be lost or
come twice; one that appears later than `lag` is lost. Of several storages one that is behind after a crash gets its page
again, as it is then.
Position: all that is left to do of the reading, with the place in the pages and the parents that are still to come, and
for each endpoint the cursor, what was read within the lag, and the `ETag`. A crash goes on behind the last stored page.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from collectors.collection.base import Source, SourceConfig
from collectors.collection.sources._http_config import EndpointConfig, RequestConfig
from collectors.collection.sources._http_marks import digest
from collectors.http_client.settings import RateLimitConfig, RemoteConfig
from collectors.models import CollectedData, Position
from collectors.settings import ByteSize, Duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.abc import AbstractResolver

    from collectors.collection.sources._http_work import Work
    from collectors.http_client.client import Client

__all__ = ["COMPONENT", "HttpConfig", "HttpSource"]

_CHUNK = "chunk"
"""Where a position has what stands for the records in front of it."""
_MARK = "reading"
"""Where a chunk and its position say where in a reading it stands, when somebody has to know that."""
_OURS = _CHUNK, _MARK
_LARGE = 2**18
"""Responses that are larger are read in a thread."""


class HttpConfig(SourceConfig, RequestConfig, RemoteConfig):
    """Settings of the http source."""

    url: str
    """The address, http or https; with `endpoints` the part that they have in common."""
    endpoints: list[EndpointConfig] = []
    """Several things to ask for. Each can have `method`, `params`, `body`, `records`, `paging` and `incremental` of its own;
    those beside are for all."""
    rate_limit: RateLimitConfig | None = None
    """How fast to ask."""
    timeout: Annotated[Duration, Field(gt=0)] = 60.0
    """Give up, and try again later, when the server says nothing for so long."""
    max_response: ByteSize = 64 * 2**20
    """Stop at a response that is larger, decompressed."""
    max_pages: Annotated[int, Field(ge=1)] = 100_000
    """Stop when an endpoint has more pages than this: they may have no end."""
    format: str | dict[str, Any] | None = None
    """The settings of the codec, for example `{type: ndjson, columns: {price: "decimal(12, 2)"}}`."""

    @field_validator("format")
    @classmethod
    def _check_format(cls, value: Any) -> Any:
        kind = value.get("type") if isinstance(value, dict) else value
        if value is not None and kind != "ndjson":
            raise ValueError("expected `{type: ndjson, …}`: records of an API are JSON")
        return value

    @model_validator(mode="after")
    def _check_endpoints(self) -> Self:
        above: list[str] = []
        for each in self.endpoints:
            if each.name in above:
                raise ValueError(f"endpoints: the name '{each.name}' is there twice")
            if each.parent is not None and each.parent not in above:
                raise ValueError(
                    f"endpoints: '{each.name}' has the parent '{each.parent}'; expected one that stands above it"
                    + (f": {', '.join(above)}" if above else "")
                )
            above.append(each.name)
        return self


class HttpSource(Source[HttpConfig]):
    """Asks for a page, hands its records on, and knows behind them all that is left to do."""

    def __init__(self, config: HttpConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self.resolver: AbstractResolver | None = None
        """Resolves names; that of the system when there is none."""
        self.reads_everything = all(
            each.incremental is None for each in (self.config, *self.config.endpoints)
        )
        self._told: set[str] = set()
        self._client: Client | None = None
        self._before: Client | None = None  # whose login and pace the next one goes on with

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the settings, else one JSON object a line."""
        return self.config.format or "ndjson"

    async def open(self) -> None:
        """Make the session; nothing is asked yet."""
        self._client = await self.enter(self._connected())

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        from collectors.http_client.connecting import connected

        config = self.config
        async with connected(
            config,
            resolver=self.resolver,
            now=self.now,
            patience=config.timeout,
            most=config.max_response,
            limit=config.rate_limit,
            before=self._before,
        ) as client:
            self._before = client
            yield client

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Yield the pages that are left of a reading, else those of a new one."""
        assert self._client is not None  # noqa: S101  # the source is open
        if self.marks_readings and _MARK not in (since or {}):
            since = None  # what was read, or had not changed, was stored without a place to be replaced in
        work = self._work(since)
        behind = {key: value for key, value in (since or {}).items() if key not in _OURS}
        begun = not self.marks_readings or (since or {}).get(_MARK) == "within"
        if self.marks_readings and begun and "stack" not in behind:  # all was read, and its end is not stored
            yield self.chunk(b"", {**behind, _MARK: "ends"}, reading="ends")
            return
        while not work.ended:
            name = work.endpoint.name
            lines = await self._page(self._client, work)
            if not begun and not work.unchanged:
                begun = True
                yield self.chunk(b"", {**behind, _MARK: "begins"}, reading="begins")
            if lines:
                behind = work.position()
                place = {**behind, _CHUNK: digest(lines), **self._within}
                yield self.chunk(lines, place, endpoint=name, **self._within)
        if self.marks_readings:
            if begun:
                yield self.chunk(b"", {**work.position(), _MARK: "ends"}, reading="ends")
        elif work.position() != behind:
            yield self.chunk(b"", work.position())

    @property
    def _within(self) -> dict[str, Any]:
        return {_MARK: "within"} if self.marks_readings else {}

    def replay(self, since: Position | None, until: Position) -> CollectedData:
        """Return the chunk that ended at `until` once more: its page is asked for again."""
        if until.get(_MARK) in {"begins", "ends"}:
            return self.chunk(b"", until, reading=until[_MARK])
        lines = asyncio.run(self._again(since)) if _CHUNK in until else b""
        if digest(lines) != until.get(_CHUNK, digest(b"")):
            self._tell_once(
                "the API has changed a page that one storage had before a crash, and another had not; that one gets it as "
                "it is now"
            )
        return self.chunk(lines, until, **self._within)

    async def _again(self, since: Position | None) -> bytes:
        async with self._connected() as client:
            work = self._work(since)
            while not work.ended:
                if lines := await self._page(client, work):
                    return lines
        return b""

    def _work(self, since: Position | None) -> Work:
        from collectors.collection.sources._http_endpoints import endpoints_of
        from collectors.collection.sources._http_work import Work

        return Work(
            endpoints_of(self.config),
            since,
            most_pages=self.config.max_pages,
            unsigned=self._unsigned,
            tell=self._tell_once,
            conditional=not (self.marks_readings and self.config.endpoints[1:]),
        )

    async def _page(self, client: Client, work: Work) -> bytes:
        """Ask for the next page, and return its records as lines."""
        call, conditions = work.next_call()
        asked = monotonic()
        answer = await client.ask(call, conditions)
        began = self._date(answer.headers) - int((monotonic() - asked) * 1_000_000)
        take = partial(work.take, call, answer, began)
        return take() if len(answer.body) < _LARGE else await asyncio.to_thread(take)

    def _unsigned(self, address: str) -> str:
        from yarl import URL

        return str(self._before.login.unsigned(URL(address))) if self._before is not None else address

    def _tell_once(self, what: str) -> None:
        """Tell what each reading would say again."""
        if what not in self._told:
            self._told.add(what)
            self.tell(what)

    def _date(self, headers: Mapping[str, str]) -> int:
        """Return the time of a response by the server's clock, else by ours, in microseconds."""
        try:
            moment = parsedate_to_datetime(headers["Date"])
        except (KeyError, ValueError):
            moment = self.now()
        return int(moment.timestamp()) * 1_000_000


COMPONENT = HttpSource
