"""Server-Sent Events: an HTTP response that does not end, read from the last event on after every break.

    source:
      type: sse
      url: https://stream.example.com/v2/changes
      events: [created, updated]
      add: {kind: event}

The data of an event is a record in `format`, JSON if not said; lines that belong together are joined. `events` are the
names of events that are wanted; one without a name is `message`. `add` puts more into columns of JSON records: the
name (`event`), the id (`id`) or the time of receipt (`time`).

A server that gives its events ids is asked, after every break and in every new process, to go on behind the last one
that is on disk here (`Last-Event-ID`). When a server ends the stream it is asked again after `retry`, or after what it
said itself, up to an hour; 204 ends the source. Comments keep a connection alive; when not even they come for
`silence`, it counts as broken. What cannot be a record, or is too long, is set aside.

As with `http`, only addresses of the public internet are asked, unless `allow_private` is set; at most five redirects
are followed, each checked, and another origin gets no credentials. A status of 408, 425, 429 or 5xx is tried again, when
`Retry-After` says; any other, and another content than `text/event-stream`, stops the source.

Delivery: exactly once, over kills of this process, restarts of the server and cut connections, from a server that gives
each event an id of its own and sends all behind the last one again. Events without an id that come behind one with an id
are stored again after a break. Without any ids, or where the server keeps fewer events than were missed, what it sends
while nobody is connected is lost; what has come is stored once from the spool on, on a stop what has arrived, too.
Position: none; the spool has the last event id with the events. A changed `url`, its query aside, begins anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from collectors.collection.base import ByteSourceConfig, Source
from collectors.collection.sources._arrived import receive_what_is_there
from collectors.collection.sources._broker_records import Add, Payload, check_add, groups, record_of
from collectors.collection.sources._sse_memory import Mark, Memory, name_of
from collectors.collection.sources._sse_parser import Event, Parser
from collectors.errors import CollectorsError, FatalError, TransientError
from collectors.http_client.settings import RemoteConfig
from collectors.models import CollectedData, Position
from collectors.settings import Duration, OneOrMore

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import AbstractResolver

    from collectors.http_client.answers import Answer
    from collectors.http_client.client import Client

__all__ = ["COMPONENT", "SseConfig", "SseSource"]

_OK, _NO_CONTENT = 200, 204
_STREAM = "text/event-stream"
_MAX_BODY = 2**20
"""So large may a response be that is no stream: a token."""
_RETRY_SECONDS = (0.1, 3600.0)
_SHOWN = 80


class SseConfig(ByteSourceConfig, RemoteConfig):
    """Settings of the sse source."""

    url: str
    """The address of the stream, http or https."""
    events: OneOrMore[str] = []
    """The names of the events that are wanted, all when left out; the others are skipped."""
    add: Add = {}
    """Columns for JSON records: name → `event`, `id` or `time`."""
    last_event_id: str | None = None
    """Begin behind this event, as long as no event with an id was stored."""
    retry: Annotated[Duration, Field(ge=0.1)] = 3.0
    """How long to wait when the server has ended the stream, unless it says how long."""
    silence: Duration = 300.0
    """Connect again when not even a comment comes for so long; 0: never."""
    timeout: Annotated[Duration, Field(gt=0)] = 30.0
    """Give up, and try again later, when connecting or the beginning of the response takes longer."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_add(self.add, ("event", "id", "time"), self.format)
        if self.last_event_id is not None and not self.last_event_id.isprintable():
            raise ValueError("last_event_id: expected a text without line breaks")
        return self


class SseSource(Source[SseConfig]):
    """Hands on what came together as one chunk, with the last id in it."""

    endless = True
    lost_before_spool = "what the server does not send again behind the last event id (events without an id, or more than it keeps) is lost"

    def __init__(self, config: SseConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        spec = self.format()
        self.data_format = spec if isinstance(spec, str) else str(spec.get("type"))
        self.resolver: AbstractResolver | None = None
        """Resolves names; that of the system when there is none."""
        self._wanted = {*self.config.events}
        self._memory = Memory(name_of(self.config.url))
        self._saving = asyncio.Lock()
        self._first = self._mark = self._kept = Mark(0, self.config.last_event_id or "")
        self._asked: float | None = None
        self._over = self._told = False
        self._client: Client | None = None
        self._response = AsyncExitStack()
        self._coming: tuple[aiohttp.StreamReader, Parser] | None = None
        self._ready: deque[CollectedData] = deque()

    def needs_spool(self) -> bool:
        """Return True: not every server can be asked again, and none for ever."""
        return True

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the settings, else one JSON object an event."""
        return self.config.format or "ndjson"

    def remember(self, folder: Path, kept: Iterable[CollectedData]) -> None:
        """Learn the last event that is kept."""
        mark, problems = self._memory.recall(folder, kept)
        for problem in problems:
            self.tell(problem)
        self._first = self._mark = self._kept = Mark(mark.number, mark.id or self._first.id)

    async def open(self) -> None:
        """Make the session; nothing is asked yet."""
        from collectors.http_client.connecting import connected

        config = self.config
        connecting = connected(
            config,
            resolver=self.resolver,
            now=self.now,
            patience=config.timeout,
            most=_MAX_BODY,
            silence=config.silence,
            before=self._client,
        )
        self._client = await self.enter(connecting)
        self._response = await self.enter(AsyncExitStack())

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Yield events as they come, over streams that end, until the server says that there are no more."""
        from collectors.http_client.limits import pause

        assert self._client is not None  # noqa: S101  # the source is open
        behind = self._first if since is None else Mark(since["event"], since["id"])
        if behind.number != self._mark.number:  # else events that made no record may have come since
            self._mark = behind
            self._ready.clear()
        self._over = False
        try:
            while not self._over:
                self._coming = await self._begin(self._client)
                size: int | None = None
                while self._coming is not None:
                    while self._ready:
                        yield self._ready.popleft()
                    await self.linger(size)
                    size = await self._receive()
                if not self._over:
                    await pause(self._asked or self.config.retry)
        except TransientError as error:
            error.retry_after = error.retry_after or self._asked
            raise
        finally:
            if self._kept.number == self._mark.number:  # the ids of events that made no record
                with suppress(TransientError):
                    await self._save(self._mark)

    async def rest(self) -> AsyncIterator[CollectedData]:
        """Yield what was received and not handed on."""
        with suppress(CollectorsError):
            await receive_what_is_there(self._receive)
        while self._ready:
            yield self._ready.popleft()

    async def commit(self, position: Position) -> None:
        """Know everything up to the position again in another process."""
        self._kept = Mark(position["event"], position["id"])
        await self._save(self._kept)

    async def _save(self, mark: Mark) -> None:
        if self._memory.is_stale(mark):
            async with self._saving:
                await asyncio.to_thread(self._memory.save, mark)

    async def _begin(self, client: Client) -> tuple[aiohttp.StreamReader, Parser] | None:
        """Ask for the stream; return what comes of it, None when it is over for good."""
        self._coming = None
        await self._response.aclose()
        answer, body = await self._ask(client)
        if answer.status == _NO_CONTENT:
            self._over = True
            self.tell(f"{self.config.shown()}: there are no more events (204 No Content)")
            return None
        self._check(answer)
        return body, Parser(self.config.max_record, self._mark.id)

    async def _receive(self) -> int | None:
        """Take over what has come, waiting for it; return its size, None when the stream has ended."""
        if self._coming is None:
            return None
        body, parser = self._coming
        if not (piece := await self._piece(body)):
            self._coming = None
            return None
        self._ready += self._chunks(parser.feed(piece))
        self._mark = Mark(self._mark.number, parser.last_id)
        if parser.retry is not None:
            least, most = _RETRY_SECONDS
            self._asked = min(max(parser.retry / 1000, least), most)
        return len(piece)

    async def _ask(self, client: Client) -> tuple[Answer, aiohttp.StreamReader]:
        from yarl import URL

        from collectors.http_client.answers import Call

        headers = {"Accept": _STREAM, "Accept-Encoding": "identity", "Cache-Control": "no-store"}
        if self._mark.id:
            headers["Last-Event-ID"] = self._mark.id
        try:
            async with asyncio.timeout(self.config.timeout):
                return await self._response.enter_async_context(
                    client.stream(Call("GET", URL(self.config.url)), headers)
                )
        except TimeoutError:
            raise TransientError(
                f"{self.config.shown()}: no response within {self.config.timeout:g} s"
            ) from None

    def _check(self, answer: Answer) -> None:
        if answer.status != _OK:
            raise FatalError(
                f"{self.config.shown()}: expected a stream of events, got status {answer.status}"
            )
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != _STREAM:
            raise FatalError(f"{self.config.shown()}: expected {_STREAM}, got '{kind[:_SHOWN]}'; check `url`")
        if answer.headers.get("Content-Encoding", "identity").strip().lower() not in {"", "identity"}:
            raise FatalError(f"{self.config.shown()}: the stream is compressed, which was not asked for")

    async def _piece(self, body: aiohttp.StreamReader) -> bytes:
        """Return what has come, waiting for it; nothing when the stream has ended."""
        import aiohttp
        from yarl import URL

        assert self._client is not None  # noqa: S101  # it gave the body
        with self._client.errors_of(URL(self.config.url)):
            try:
                return await body.readany()
            except aiohttp.SocketTimeoutError:
                raise TransientError(
                    f"{self.config.shown()}: nothing came for {self.config.silence:g} s, not even a comment"
                ) from None

    def _chunks(self, events: list[Event]) -> Iterator[CollectedData]:
        """Yield events as few chunks."""
        joinable = bool(getattr(self.framing, "joinable", True))
        payloads = [self._payload(each) for each in events if not self._wanted or each.name in self._wanted]
        for group in groups(payloads, self.config.chunk_size, joinable=joinable):
            before, self._mark = self._mark, Mark(self._mark.number + 1, group.origins[-1].id)
            position = {"event": self._mark.number, "id": self._mark.id}
            about = self._memory.about(self._mark) if self._mark.id or before.id else {}
            if group.reason is not None:
                yield self.refuse(group.raw, position, group.reason, **about)
            else:
                yield self.chunk(group.raw, position, **about)

    def _payload(self, event: Event) -> Payload[Event]:
        if not event.id and not self._told:
            self._told = True
            self.tell(
                f"{self.config.shown()}: there are no ids; what is sent while nobody is connected is lost"
            )
        if event.reason is not None:
            return Payload(event.data, event, event.reason)
        raw, reason = record_of(
            event.data,
            f"the event '{event.name[:_SHOWN]}'"
            + (f" with the id '{event.id[:_SHOWN]}'" if event.id else ""),
            self.config.max_record,
            json=self.data_format == "ndjson",
            extra=self._columns(event) if self.config.add else {},
        )
        return Payload(raw, event, reason)

    def _columns(self, event: Event) -> dict[str, Any]:
        known = {"event": event.name, "id": event.id or None, "time": self.now()}
        return {column: known[what] for column, what in self.config.add.items()}


COMPONENT = SseSource
