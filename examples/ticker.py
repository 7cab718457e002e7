"""The server that sse.yaml and websocket.yaml ask: prices, made up and always the same, as events and as messages.

Events have ids, and who comes back is sent what came behind the last one. Messages are for who is there and has
subscribed.
"""

from __future__ import annotations

import asyncio
import json
import sys

from aiohttp import web

SYMBOLS = ["ACME", "GLOBEX", "INITECH"]
COUNT = 60


def price(number: int) -> dict[str, object]:
    """Return the n-th price."""
    return {"symbol": SYMBOLS[number % 3], "price": 100 + number % 7, "at": f"2026-01-01T08:00:{number:02}Z"}


async def events(request: web.Request) -> web.StreamResponse:
    """Send prices as events, and in between that a market has opened; then comments, so that the connection stays."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"retry: 1000\n\n")
    for number in range(int(request.headers.get("Last-Event-ID", 0)), COUNT):
        kind = "opened" if number % 20 == 0 else "price"
        await response.write(
            f"id: {number + 1}\nevent: {kind}\ndata: {json.dumps(price(number))}\n\n".encode()
        )
    while True:
        await response.write(b": still here\n\n")
        await asyncio.sleep(1)


async def messages(request: web.Request) -> web.WebSocketResponse:
    """Send the prices of the symbols that are subscribed to."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        wanted = json.loads(message.data)["subscribe"]
        for number in range(COUNT):
            if price(number)["symbol"] in wanted:
                await socket.send_json(price(number))
    return socket


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/events", events)
    app.router.add_get("/feed", messages)
    port = int(sys.argv[1]) if sys.argv[1:] else 18095
    web.run_app(app, host="127.0.0.1", port=port, print=None)
