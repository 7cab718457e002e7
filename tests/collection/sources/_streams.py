"""Servers of event streams and WebSockets on loopback: what they send, what they were asked, and what became of it."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from contextlib import suppress

from _rest_api import Api
from aiohttp import web

FOREVER = 3600


def event(number, name="tick"):
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, name.encode(), json.dumps({"id": number}).encode())


class Feed:
    """Numbers from 1 on. As events: those behind the Last-Event-ID, then those that come. As messages: only those that come.

    `connections` has for each WebSocket the first and the last number that were sent, and whether it was closed orderly. Events come `size` at a time.
    """

    def __init__(self, count=0, size=20):
        self.count = count
        self.size = size
        self.asked = []
        self.connections = []
        self.ended = False
        self.active = 0

    async def sse(self, request):
        return await self._counted(self._sse(request))

    async def websocket(self, request):
        return await self._counted(self._websocket(request))

    async def _counted(self, talk):
        self.active += 1
        try:
            return await talk
        finally:
            self.active -= 1

    async def _sse(self, request):
        chance = random.Random(len(self.asked))
        last = int(request.headers.get("Last-Event-ID") or 0)
        self.asked.append(last)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        with suppress(ConnectionError):
            await response.prepare(request)
            while not self.ended:
                first, last = last + 1, min(self.count, last + self.size)
                piece = b"".join(map(event, range(first, last + 1)))
                cut = chance.randrange(len(piece) + 1)
                for part in (piece[:cut], piece[cut:]):
                    if part:
                        await response.write(part)
                await asyncio.sleep(0.002)
        return response

    async def _websocket(self, request):
        socket = web.WebSocketResponse(compress=True)
        await socket.prepare(request)
        reading = asyncio.ensure_future(self._wait_for_close(socket))
        last = self.count
        about = [last + 1, last, False]
        self.connections.append(about)
        with suppress(ConnectionError):
            while not (self.ended or reading.done()):
                while last < self.count and not reading.done():
                    last += 1
                    about[1] = last
                    await socket.send_bytes(json.dumps({"id": last}).encode())
                await asyncio.sleep(0.002)
            about[2] = self.ended and not reading.done()
            reading.cancel()
            await socket.close(code=1012, message=b"coming back")
        return socket

    async def _wait_for_close(self, socket):
        async for _ in socket:
            pass


class FeedServer:
    """Serves a feed, at /sse and /ws; may be stopped and started again at the same port."""

    def __init__(self, feed):
        self.feed = feed
        self.port = 0
        self._api = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        self.feed.ended = False
        self._api = Api(port=self.port)
        self._api.answers = {"/sse": self.feed.sse, "/ws": self.feed.websocket}
        self._api.__enter__()
        self.port = self._api.port

    def stop(self):
        """End orderly: what was written arrives, WebSockets are closed with a code."""
        self.feed.ended = True
        end = time.monotonic() + 10
        while self.feed.active and time.monotonic() < end:
            time.sleep(0.002)
        self._api.stop()

    def restart(self):
        self.stop()
        self.start()


class Load:
    """Lets a feed grow, until it is left."""

    def __init__(self, feed, pause=0.002):
        self._feed, self._pause = feed, pause
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stopping.wait(self._pause):
            self._feed.count += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join()


def lines(*parts, status=200, headers=None, hold=False, sent=None):
    """Return a handler that sends these parts of an event stream, and then ends it, or says nothing more; `sent` is set then."""

    async def handle(request):
        about = {"Content-Type": "text/event-stream; charset=utf-8", **(headers or {})}
        response = web.StreamResponse(status=status, headers=about)
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(0)
        if sent is not None:
            sent.set()
        if hold:
            with suppress(ConnectionError):
                await asyncio.wait_for(asyncio.Event().wait(), FOREVER)
        return response

    return handle


def in_turn(*handlers):
    """Return a handler that lets these answer, one request each, the last one all that follow."""
    left = list(handlers)

    async def handle(request):
        found = (left.pop(0) if len(left) > 1 else left[0])(request)
        return await found if asyncio.iscoroutine(found) else found

    return handle
