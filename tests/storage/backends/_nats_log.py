"""What a stream has, read by a client of the library."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from typing import Any

from _nats_world import connected, shared_server


def make_stream(name: str, server: Any = None, **config: Any) -> None:
    """Make a stream from a thread of its own: the contract asks for settings inside of a loop, too."""

    async def make() -> None:
        async with connected((server or shared_server()).url) as client:
            await client.jetstream().add_stream(name=name, subjects=[f"{name}.>"], **config)

    thread = threading.Thread(target=lambda: asyncio.run(make()))
    thread.start()
    thread.join()


async def messages(js: Any, name: str) -> list[Any]:
    """Return all messages, as the stream has them."""
    state = (await js.stream_info(name)).state
    return [await js.get_msg(name, seq) for seq in range(state.first_seq or 1, state.last_seq + 1)]


def numbers(found: list[Any]) -> list[int]:
    """Return a column of messages, in their order."""
    return [json.loads(each.data)["n"] for each in found]


def count(server: Any, name: str) -> int:
    """Return how many messages there are."""

    async def ask() -> int:
        async with connected(server.url) as client:
            return int((await client.jetstream().stream_info(name)).state.messages)

    return asyncio.run(ask())


def counted(server: Any, name: str) -> Counter[int]:
    """Return how often each number is there, for streams with many messages."""

    async def read() -> Counter[int]:
        async with connected(server.url) as client:
            js = client.jetstream()
            left = (await js.stream_info(name)).state.messages
            reading = await js.pull_subscribe(f"{name}.>", stream=name)
            found: Counter[int] = Counter()
            while left > found.total():
                for message in await reading.fetch(1000, timeout=5):
                    found[json.loads(message.data)["n"]] += 1
                    await message.ack()
            await reading.unsubscribe()
            return found

    return asyncio.run(read())
