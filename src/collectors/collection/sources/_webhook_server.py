"""An HTTP server for requests with a body: how much one client may send, how slowly, and over how many connections."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from collectors.collection.sources._listening import Address
from collectors.errors import ConfigurationError

__all__ = ["PushServer", "Refused", "read_body"]

logger = logging.getLogger("collectors.webhook")

_RETRY_SECONDS = "2"
_GRACE_SECONDS = 5.0
_HANDSHAKE_SECONDS = 10.0
_SILENT = logging.Logger("aiohttp", logging.CRITICAL + 1)
"""What clients do wrong is answered; in a log, anyone could fill it."""

Handler = Callable[[web.BaseRequest], Awaitable[dict[str, Any] | str | None]]
"""Returns what is answered with 200: JSON, or text; None is answered with 204. Raises Refused."""


class Refused(Exception):  # noqa: N818  # an answer, not an error
    """The answer to a request that is not taken in."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers

    @classmethod
    def later(cls, reason: str) -> Refused:
        """Return the answer to a request that is welcome again in a moment."""
        return cls(503, reason, **{"Retry-After": _RETRY_SECONDS})


class PushServer:
    """Listens, and hands each request to the handler when its head is there. `refused` counts the other answers."""

    def __init__(self, handler: Handler, *, most_connections: int, timeout: float) -> None:
        self.refused: Counter[int] = Counter()
        self.addresses: list[Address] = []
        self._handler = handler
        self._most_connections = most_connections
        self._timeout = timeout
        self._stack = AsyncExitStack()

    async def start(self, address: Address, context: ssl.SSLContext | None) -> None:
        """Listen. Raises ConfigurationError when the address cannot be had."""
        # A head must be there within the timeout, from the connection or the last answer on.
        connections = _Connections(
            self._respond,
            self._most_connections,
            self.refused,
            keepalive_timeout=self._timeout,
            lingering_time=_GRACE_SECONDS,
            auto_decompress=False,  # signatures are over what was sent, and the limits are ours
            access_log=None,
            logger=_SILENT,
        )
        try:
            listener = await asyncio.get_running_loop().create_server(
                connections,
                address.host,
                address.port,
                ssl=context,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if context else None,
                backlog=1024,
            )
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {address}: {error.strerror or error}") from error
        self._stack.push_async_callback(connections.shutdown, _GRACE_SECONDS)
        self._stack.callback(connections.pre_shutdown)
        self._stack.callback(listener.close)
        self.addresses = [Address(*each.getsockname()[:2]) for each in listener.sockets]

    async def stop(self) -> None:
        """Accept nothing more, give the answers under way a moment, and close; safe at any time."""
        await self._stack.aclose()

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await self._response(request)
        response.headers["Server"] = "collectors"
        return response

    async def _response(self, request: web.BaseRequest) -> web.Response:
        try:
            answer = await self._handler(request)
        except Refused as refused:
            self.refused[refused.status] += 1
            return web.json_response(
                {"error": refused.reason}, status=refused.status, headers=refused.headers
            )
        except Exception:
            logger.exception("a request could not be answered")
            return web.Response(status=500)
        if answer is None:
            return web.Response(status=204)
        return web.Response(text=answer) if isinstance(answer, str) else web.json_response(answer)


class _Connections(web.Server):
    """Counts connections; one too many is told so and closed, whatever it wants."""

    def __init__(self, handler: Any, most: int, refused: Counter[int], **settings: Any) -> None:
        super().__init__(handler, **settings)
        self._most = most
        self._refused = refused

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self.connections) > self._most:
            transport.write(
                b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n"
                b"Retry-After: %s\r\n\r\n" % _RETRY_SECONDS.encode()
            )
            self._refused[503] += 1
            # Not at once: aiohttp has yet to begin with it.
            asyncio.get_running_loop().call_soon(handler.force_close)


async def read_body(
    request: web.BaseRequest,
    *,
    limit: int,
    seconds: float,
    charge: Callable[[int], None],
) -> bytes:
    """Return the body as it was sent; `charge` is told the size of each piece before the next is read.

    Raises Refused when it is larger than the limit, takes longer than so many seconds, or breaks off.
    """
    parts: list[bytes] = []
    size = 0
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    try:
        async with asyncio.timeout(seconds):
            while piece := await request.content.readany():
                size += len(piece)
                if size > limit:
                    raise Refused(413, f"a body may have {limit:,} bytes")
                charge(len(piece))
                parts.append(piece)
    except TimeoutError:
        raise Refused(408, f"the body took longer than {seconds:g} s", Connection="close") from None
    except web.RequestPayloadError as error:
        raise Refused(400, f"the body cannot be read: {error}", Connection="close") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)
