"""An API on loopback, in a thread of its own, that takes rows: what it keeps, what it refuses, and how it answers."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

Say = Callable[["Seen"], web.Response | None]


@dataclass
class Seen:
    """A request: its rows, decoded, and everything else as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    rows: list[dict] = field(default_factory=list)

    @property
    def key(self) -> str | None:
        return self.headers.get("Idempotency-Key")


@dataclass
class Kept:
    """What outlives a server: the rows in order, the paths, and which keys are known, with what came under them."""

    rows: list[dict] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: dict[str, bytes] = field(default_factory=dict)
    repeated: int = 0

    def counted(self, name: str = "n") -> Counter:
        return Counter(row[name] for row in self.rows)


class SinkApi:
    """Keeps rows. With `honours`, a request whose key is known is answered and not kept again.

    `respond` answers on its own, if it is set; `refuses` says of a row whether it is bad: 400 for the whole request. `before` may answer in the place of all that;
    `behind` once the rows are kept.
    """

    def __init__(
        self,
        kept: Kept | None = None,
        *,
        port: int = 0,
        honours: bool = False,
        refuses: Callable[[dict], bool] = lambda _: False,
        records: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.kept = kept if kept is not None else Kept()
        self.seen: list[Seen] = []
        self.before: Say = lambda _: None
        self.behind: Say = lambda _: None
        self.port = port
        self.under_way = self.most_under_way = 0
        self.wait: Callable[[], Awaitable[None]] | None = None
        self.respond: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self._honours = honours
        self._refuses = refuses
        self._records = records
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/rows"

    def settings(self, **more) -> dict:
        return {"url": self.url, "allow_private": True, "timeout": "5s", **more}

    def __enter__(self) -> SinkApi:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End, with all connections; safe twice."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            body = await request.read()
            if self.wait is not None:
                await self.wait()
            if self.respond is not None:
                return await self.respond(request)
            return self._answer(request, body)
        finally:
            self.under_way -= 1

    def _answer(self, request: web.Request, body: bytes) -> web.StreamResponse:
        seen = Seen(
            request.method, request.rel_url.raw_path, dict(request.query), dict(request.headers), body
        )
        self.seen.append(seen)
        seen.rows = self._rows(seen)
        if (answer := self.before(seen)) is not None:
            return answer
        if any(map(self._refuses, seen.rows)):
            return web.json_response({"error": "a bad row"}, status=400)
        if self._honours and seen.key in self.kept.keys:
            assert self.kept.keys[seen.key] == body, "two requests with one key"
            self.kept.repeated += 1
        else:
            self.kept.keys[seen.key] = body
            self.kept.rows += seen.rows
            self.kept.paths += [seen.path] * len(seen.rows)
        return self.behind(seen) or web.json_response({"ok": True})

    def _rows(self, seen: Seen) -> list[dict]:
        if not seen.body or seen.path == "/token":
            return []
        if "ndjson" in seen.headers.get("Content-Type", ""):
            return [json.loads(line) for line in seen.body.splitlines()]
        found = json.loads(seen.body)
        found = found[self._records] if self._records else found
        return found if isinstance(found, list) else [found]
