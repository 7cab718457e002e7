"""Requests: guarded, no faster than allowed, redirects followed by hand, responses read up to a limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from collectors.censor import Censor
from collectors.errors import CollectorsError, FatalError, TransientError
from collectors.http_client.answers import (
    EXCERPT,
    Answer,
    Call,
    links_of,
    phrase,
    plain,
    seconds_to_wait,
    where_to,
)
from collectors.http_client.guard import Guard, origin_of, shown
from collectors.http_client.limits import Pace
from collectors.http_client.login import Login

__all__ = ["Client", "WebSocket", "only_upgraded"]

WebSocket = aiohttp.ClientWebSocketResponse[Literal[False]]
"""A connection that gives text as bytes."""

_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_EMPTY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
_AGAIN = {408, 425, 429}
_PIECE = 2**16
_CLOSE_SECONDS = 2.0
_HINTS = {
    401: "check `auth`",
    403: "check `auth`, and what it may see",
    404: "check `url` and `path`",
    405: "check `method`",
}


_Send = Callable[[str, URL, Mapping[str, str], bytes | None], Awaitable[Answer]]
"""Sends one request: method, address, headers, body."""


class _NotUpgradedError(Exception):
    """A server has answered to the handshake of a WebSocket as to any request."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


async def only_upgraded(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Let only answers to handshakes pass that make a WebSocket; the library itself would follow redirects."""
    response = await handler(request)
    if response.status == HTTPStatus.SWITCHING_PROTOCOLS or "Upgrade" not in request.headers:
        return response
    async with response:
        raw = await response.content.read(EXCERPT)
    raise _NotUpgradedError(Answer(response.status, response.url, response.headers, None, raw))


async def _close(socket: WebSocket) -> None:
    """Say goodbye, and wait a moment for the answer: the library waits as long as anything comes."""
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await socket.close()


class Client:
    """Asks, and says what an answer that is none means: try again, and when, or stop. Made by `connected`.

    `login` and `pace` are for the client after it, when it connects again.
    """

    def __init__(
        self,
        made: aiohttp.ClientSession,
        *,
        guard: Guard,
        pace: Pace,
        login: Login,
        headers: Mapping[str, str],
        most: int,
        now: Callable[[], datetime],
    ) -> None:
        self._session = made
        self._guard = guard
        self.pace = pace
        self.login = login
        self._own = dict(headers)
        self._most = most
        self._now = now
        self._common = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "User-Agent": "collectors",
        }

    async def ask(self, call: Call, conditions: Mapping[str, str]) -> Answer:
        """Return the answer, 2xx or 304. Raises TransientError and FatalError."""
        answer = await self._answer(call, self._common, conditions, self._once)
        if answer.status == HTTPStatus.NOT_MODIFIED and not conditions:
            raise FatalError(f"{shown(answer.url)}: 304 Not Modified, which was not asked for")
        if not answer.body.strip() and answer.status not in _EMPTY:
            raise TransientError(f"{shown(answer.url)}: {answer.status} with an empty response")
        return answer

    @asynccontextmanager
    async def stream(
        self, call: Call, headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[Answer, aiohttp.StreamReader]]:
        """Yield the answer, 2xx or 304, and its body, which is for who asks to read. Raises TransientError and FatalError."""
        async with AsyncExitStack() as stack:
            bodies: list[aiohttp.StreamReader] = []

            async def begin(method: str, url: URL, headers: Mapping[str, str], body: bytes | None) -> Answer:
                await self._may_ask(url)
                with self.errors_of(url):
                    response = await stack.enter_async_context(
                        self._session.request(method, url, headers=headers, data=body, allow_redirects=False)
                    )
                    raw = (
                        b""
                        if response.status < HTTPStatus.MULTIPLE_CHOICES
                        else await self._read(response, whole=True)
                    )
                    bodies.append(response.content)
                    return Answer(response.status, response.url, response.headers, None, raw)

            yield await self._answer(call, {**self._common, **headers}, {}, begin), bodies[-1]

    @asynccontextmanager
    async def websocket(self, url: URL, **options: Any) -> AsyncIterator[tuple[WebSocket, URL]]:
        """Yield a connection, and with whom. Raises TransientError and FatalError."""
        async with AsyncExitStack() as stack:
            made: list[WebSocket] = []

            async def begin(method: str, url: URL, headers: Mapping[str, str], body: bytes | None) -> Answer:
                await self._may_ask(url)
                try:
                    with self.errors_of(url):
                        socket = await self._session.ws_connect(
                            url, headers=headers, decode_text=False, **options
                        )
                    stack.push_async_callback(_close, socket)
                    made.append(socket)
                except _NotUpgradedError as refused:
                    return refused.answer
                return Answer(HTTPStatus.SWITCHING_PROTOCOLS, url, {}, None, b"")

            agent = {"User-Agent": self._common["User-Agent"]}
            answer = await self._answer(Call("GET", url), agent, {}, begin)
            if not made:
                raise FatalError(
                    f"{shown(answer.url)}: {answer.status} {phrase(answer.status)} in place of a WebSocket; check `url`"
                )
            yield made[-1], answer.url

    async def send(self, call: Call, headers: Mapping[str, str], passing: Container[int]) -> Answer:
        """Return the answer to what is sent, 2xx or a status in `passing`, with the beginning of its body.

        No redirect is followed: another address, or another method, is not what was meant. Raises TransientError and
        FatalError.
        """
        answer = await self._sent(call, headers)
        if answer.status == HTTPStatus.UNAUTHORIZED and self.login.forget():
            answer = await self._sent(call, headers)
        if answer.status in passing:
            return answer
        if HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST:
            raise FatalError(
                f"{shown(answer.url)}: {answer.status} {phrase(answer.status)}{where_to(answer)}: a redirect is not "
                "followed; set `url` to where it leads"
            )
        self._check(answer)
        return answer

    async def _sent(self, call: Call, headers: Mapping[str, str]) -> Answer:
        every = CIMultiDict(self._common)
        for more in (headers, self._own, await self.login.headers(self._token)):
            every.update(more)
        return await self._once(call.method, self.login.signed(call.url), every, call.body, whole=False)

    async def _answer(
        self, call: Call, common: Mapping[str, str], conditions: Mapping[str, str], send: _Send
    ) -> Answer:
        answer = await self._follow(call, common, conditions, send)
        if answer.status == HTTPStatus.UNAUTHORIZED and self.login.forget():
            answer = await self._follow(call, common, conditions, send)
        self._check(answer)
        return answer

    async def _follow(
        self, call: Call, common: Mapping[str, str], conditions: Mapping[str, str], send: _Send
    ) -> Answer:
        """Follow redirects. Once they lead to another origin, that gets no credentials and no body, to the end."""
        url, method, body, own = call.url, call.method, call.body, True
        for _ in range(_MAX_REDIRECTS + 1):
            own = own and origin_of(url) == origin_of(call.url)
            kind = {} if body is None else {"Content-Type": "application/json"}
            headers, target = CIMultiDict({**common, **kind}), url
            if own:
                for more in (conditions, self._own, await self.login.headers(self._token)):
                    headers.update(more)
                target = self.login.signed(url)
            answer = await send(method, target, headers, body)
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or location is None:
                return answer
            url = self._next_url(url, location)
            if answer.status == HTTPStatus.SEE_OTHER or (
                answer.status in {HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND} and method == "POST"
            ):
                method, body = "GET", None
            if method != "GET" and origin_of(url) != origin_of(call.url):
                raise FatalError(
                    f"{shown(call.url)}: a POST is not redirected to another origin, {shown(url)}"
                )
        raise FatalError(f"{shown(call.url)}: more than {_MAX_REDIRECTS} redirects")

    def _next_url(self, url: URL, location: str) -> URL:
        try:
            found = url.join(URL(location))
            self._guard.check_url(found)
        except (ValueError, FatalError) as error:
            raise FatalError(f"{shown(url)}: its redirect is not followed: {error}") from None
        if url.scheme == "https" and found.scheme == "http":
            raise FatalError(f"{shown(url)}: its redirect from https to http is not followed")
        return found

    async def _token(self, url: URL, headers: dict[str, str], body: bytes) -> bytes:
        answer = await self._once("POST", url, {**self._common, **headers}, body)
        self._check(answer)
        return answer.body

    async def _may_ask(self, url: URL) -> None:
        await self.pace.request()
        self._guard.check_url(url)

    async def _once(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None, *, whole: bool = True
    ) -> Answer:
        await self._may_ask(url)
        with self.errors_of(url):
            async with self._session.request(
                method, url, headers=headers, data=body, allow_redirects=False
            ) as response:
                raw = await self._read(response, whole=whole)
                return Answer(response.status, response.url, response.headers, links_of(response), raw)

    @contextmanager
    def errors_of(self, url: URL) -> Iterator[None]:
        """Raise TransientError or FatalError in place of what the library raises."""
        try:
            yield
        except CollectorsError:
            raise
        except aiohttp.ClientConnectorCertificateError as error:
            raise FatalError(f"{shown(url)}: {self.clean(str(error))}") from None
        except aiohttp.ClientResponseError as error:  # its text has the address with the query
            raise TransientError(f"{shown(url)}: {self.clean(error.message)}") from None
        except (aiohttp.InvalidURL, ValueError) as error:
            raise FatalError(f"{shown(url)}: {self.clean(str(error))}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = self.clean(str(error)) or type(error).__name__
            raise TransientError(f"{shown(url)}: {what}") from None

    async def _read(self, response: aiohttp.ClientResponse, *, whole: bool) -> bytes:
        """Read a body that is not larger than allowed; of one that says what is wrong, its beginning.

        Unless the `whole` is wanted, of any its beginning: then the connection is given up where it is not the end.
        """
        wanted = whole and response.status < HTTPStatus.MULTIPLE_CHOICES
        enough = EXCERPT if whole else _PIECE
        pieces: list[bytes] = []
        size = 0
        while piece := await response.content.read(_PIECE):
            size += len(piece)
            pieces.append(piece)
            await self.pace.received(len(piece))
            if not wanted and size >= enough:
                break
            if wanted and size > self._most:
                raise FatalError(
                    f"{shown(response.url)}: the response is larger than {self._most:,} bytes; ask for smaller pages, "
                    "or set `max_response`"
                )
        return b"".join(pieces)

    def _check(self, answer: Answer) -> None:
        status = answer.status
        if status < HTTPStatus.MULTIPLE_CHOICES or status == HTTPStatus.NOT_MODIFIED:
            return
        what = self.told(answer)
        limited = status == HTTPStatus.FORBIDDEN and (
            "Retry-After" in answer.headers or answer.headers.get("X-RateLimit-Remaining") == "0"
        )
        if status in _AGAIN or status >= HTTPStatus.INTERNAL_SERVER_ERROR or limited:
            raise TransientError(what, retry_after=seconds_to_wait(answer.headers, self._now()))
        hint = _HINTS.get(status)
        raise FatalError(what + (f"; {hint}" if hint else ""))

    def told(self, answer: Answer) -> str:
        """Return what a server said to a request, on one line and without secrets."""
        # Secrets are taken out before anything is cut off: a part of one is not known for one.
        whole = self.clean(answer.body.decode(errors="replace"))
        said = plain(whole.encode(), EXCERPT)
        return f"{shown(answer.url)}: {answer.status} {phrase(answer.status)}" + (f": {said}" if said else "")

    def clean(self, text: str) -> str:
        """Return text without the secrets that a server or a library may repeat."""
        return Censor([*self.login.secrets(), *self._own.values()])(text)
