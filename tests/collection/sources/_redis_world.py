"""A Redis world for tests: one server a process, streams and entries in it."""

from __future__ import annotations

import atexit
import functools
import itertools
from contextlib import ExitStack, asynccontextmanager

import pytest
import redis.asyncio

from collectors import registry
from collectors.testing.redis_server import RedisServer, ServerUnavailableError

_numbers = itertools.count(1)


@functools.cache
def shared_server():
    """Return the server of this process; skip where there is none to start."""
    stack = ExitStack()
    try:
        server = stack.enter_context(RedisServer())
    except ServerUnavailableError as error:
        pytest.skip(f"needs a Redis server: {error}")
    atexit.register(stack.close)
    return server


@asynccontextmanager
async def connected(url=None):
    """A client of the library, for what tests do to a server."""
    client = redis.asyncio.Redis.from_url(url or shared_server().url)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def stream_of(entries=()):
    """A stream of its own name with these entries; yields a client and the name."""
    name = f"s{next(_numbers)}"
    async with connected() as client:
        await add(client, name, entries)
        yield client, name


async def add(client, name, entries):
    """Add entries, and return their ids."""
    pipe = client.pipeline(transaction=False)
    for each in entries:
        pipe.xadd(name, each)
    return [number.decode() for number in await pipe.execute()]


def numbers(*span):
    """Return entries with an id each."""
    return ({"id": each} for each in range(*span))


def make(**settings):
    """Return a source with the codec of its format as its framing, and what it tells in `told` and `lost`."""
    source = registry.create(
        "source", "redis", {"url": settings.pop("url", None) or shared_server().url, **settings}
    )
    spec = source.format()
    options = {"type": spec} if isinstance(spec, str) else dict(spec)
    source.framing = registry.create("codec", options.pop("type"), options)
    source.told, source.lost = [], []
    source.tell, source.count_lost = source.told.append, source.lost.append
    return source
