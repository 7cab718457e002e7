"""A NATS world for tests: one server a process, streams and messages in it, and a driver that reads a source."""

from __future__ import annotations

import atexit
import functools
import itertools
import json
from contextlib import ExitStack, asynccontextmanager

import nats
import pytest

from collectors import registry
from collectors.testing.nats_server import NatsServer, ServerUnavailableError

_numbers = itertools.count(1)


@functools.cache
def shared_server():
    """Return the server of this process; skip where there is none to start."""
    stack = ExitStack()
    try:
        server = stack.enter_context(NatsServer())
    except ServerUnavailableError as error:
        pytest.skip(f"needs a NATS server: {error}")
    atexit.register(stack.close)
    return server


@asynccontextmanager
async def connected(url=None, **options):
    """A client of the library, for what tests do to a server."""
    client = await nats.connect(url or shared_server().url, **options)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def stream_of(payloads=(), *, server=None, subjects=None, publish_to=None, **config):
    """A stream of its own name with these payloads; yields a JetStream context and the name."""
    name = f"S{next(_numbers)}"
    async with connected((server or shared_server()).url) as client:
        js = client.jetstream()
        await js.add_stream(name=name, subjects=subjects or [f"{name}.>"], **config)
        await publish(js, publish_to or f"{name}.x", payloads)
        yield js, name


async def publish(js, subject, payloads, **options):
    """Publish and wait until the server has all of them."""
    for each in payloads:
        await js.publish(subject, each if isinstance(each, bytes) else json.dumps(each).encode(), **options)


def make(**settings):
    """Return a source with the codec of its format as its framing, and what it tells in `told` and `lost`."""
    source = registry.create(
        "source", "nats", {"servers": settings.pop("servers", None) or shared_server().url, **settings}
    )
    spec = source.format()
    options = {"type": spec} if isinstance(spec, str) else dict(spec)
    source.framing = registry.create("codec", options.pop("type"), options)
    source.told, source.lost = [], []
    source.tell, source.count_lost = source.told.append, source.lost.append
    return source
