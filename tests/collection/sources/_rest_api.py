"""A REST API on loopback, in a thread of its own: pages in every fashion, and answers that a test says."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

Handler = Callable[[web.Request], web.StreamResponse]


def certificate(folder: Path) -> ssl.SSLContext:
    """Make a certificate of localhost, cert.pem in the folder, and return what a server uses it by."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    try:
        files = ["-keyout", "key.pem", "-out", "cert.pem"]
        subprocess.run([*command.split(), *files], cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the program openssl to make a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


class Api:
    """Serves `records`, `size` a page, at /page, /offset, /cursor, /last, /header, /link and /next.

    `answers[path]` is asked first, and may be async; what it returns None for is served as usual. `seen` has all requests:
    path, query, headers, body.
    """

    def __init__(
        self, records: Iterable[dict] = (), size: int = 7, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.records = list(records)
        self.size = size
        self.answers: dict[str, Handler] = {}
        self.seen: list[tuple[str, dict[str, str], dict[str, str], bytes]] = []
        self.port = port
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Api:
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

    def paths(self) -> list[str]:
        return [path for path, *_ in self.seen]

    def queries(self) -> list[dict[str, str]]:
        return [query for _, query, *_ in self.seen]

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        path = request.rel_url.raw_path
        self.seen.append((path, dict(request.query), dict(request.headers), body))
        answer = self.answers.get(path)
        if answer is not None:
            found = answer(request)
            found = await found if asyncio.iscoroutine(found) else found
            if found is not None:
                return found
        paged = getattr(self, f"_{path.strip('/')}", None) if "/" not in path.strip("/") else None
        if paged is None:
            return web.json_response({"error": "no such path"}, status=404)
        return paged(request, {**dict(request.query), **(json.loads(body) if body else {})})

    def _cut(self, start: int, asked: dict[str, str]) -> tuple[list[dict], bool]:
        records = self.records
        if "since" in asked:
            records = [each for each in records if str(each["updated_at"]) >= str(asked["since"])]
        return records[start : start + self.size], start + self.size < len(records)

    def _page(self, request, asked):
        records, _ = self._cut((int(asked.get("page", 1)) - 1) * self.size, asked)
        return web.json_response({"data": {"items": records}, "pages": -(-len(self.records) // self.size)})

    def _offset(self, request, asked):
        records, _ = self._cut(int(asked.get("offset", 0)), asked)
        return web.json_response({"items": records, "total": len(self.records)})

    def _cursor(self, request, asked):
        start = int(str(asked.get("after", "c0"))[1:])
        records, more = self._cut(start, asked)
        return web.json_response(
            {"items": records, "meta": {"next": f"c{start + self.size}" if more else None}}
        )

    def _header(self, request, asked):
        start = int(asked.get("after", 0))
        records, more = self._cut(start, asked)
        return web.json_response(records, headers={"X-Next": str(start + self.size)} if more else {})

    def _last(self, request, asked):
        after = int(asked.get("starting_after", 0))
        records = [each for each in self.records if each["id"] > after]
        return web.json_response({"data": records[: self.size], "has_more": len(records) > self.size})

    def _link(self, request, asked):
        start = int(asked.get("at", 0))
        records, more = self._cut(start, asked)
        following = request.url.update_query(at=start + self.size)
        links = {"Link": f'<{following}>; rel="next", <{request.url}>; rel="self"'} if more else {}
        return web.json_response(records, headers=links)

    def _next(self, request, asked):
        start = int(asked.get("at", 0))
        records, more = self._cut(start, asked)
        following = str(request.rel_url.update_query(at=start + self.size)) if more else None
        return web.json_response({"results": records, "next": following})


def rows(ids: Iterable[int]) -> list[dict]:
    """Return records with an id and a time of change, a minute apart."""
    begin = datetime(2026, 1, 1)
    return [{"id": n, "updated_at": (begin + timedelta(minutes=n)).isoformat() + "Z"} for n in ids]
