"""What the tests of mqtt share: brokers, an independent client that publishes, a broker that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import functools

import pytest
from mqttium import MQTTProtocolVersion
from mqttium.api import AsyncClient

from collectors.collection.sources.mqtt import MqttSource
from collectors.testing.mqtt_server import Mosquitto, MqttServer, ServerUnavailableError


@contextlib.contextmanager
def broker(kind, *arguments, **settings):
    """A broker of its own; skips, and says why, where there is none."""
    try:
        with {"iotcore": MqttServer, "mosquitto": Mosquitto}[kind](*arguments, **settings) as server:
            yield server
    except ServerUnavailableError as error:
        pytest.skip(str(error))


@contextlib.asynccontextmanager
async def publisher(port, name="publisher", **settings):
    client = AsyncClient(name, **settings)
    await client.connect("127.0.0.1", port)
    try:
        yield client
    finally:
        await client.disconnect()


V5 = {"protocol": MQTTProtocolVersion.MQTTv5}


async def publish(port, messages, *, qos=1, retain=False):
    """Publish (topic, payload) pairs, each until the broker has it."""
    async with publisher(port) as client:
        receipts = [
            await client.publish(topic, payload, qos=qos, retain=retain) for topic, payload in messages
        ]
        for receipt in receipts:
            await receipt.wait()


class Driver:
    """Plays the runtime for one life of a source: reads, keeps, and acknowledges while `holding` is not set."""

    def __init__(self, folder, kept=(), **settings):
        self.source = MqttSource(**settings)
        self.told = []
        self.source.tell = self.told.append
        self.folder = folder
        self.kept = kept
        self.chunks = []
        self.commits = True
        self.error = None

    async def __aenter__(self):
        if self.folder is not None:
            self.folder.mkdir(exist_ok=True)
            self.source.remember(self.folder, self.kept)
        await self.source.connect()
        self.task = asyncio.create_task(self._run())
        await self.until(lambda: self.source._connection or self.error)
        if self.error is not None and self.source._connection is None:
            await self.source.disconnect()
            raise self.error
        return self

    async def __aexit__(self, *error):
        self.task.cancel()
        await asyncio.wait([self.task])
        async for chunk in self.source.rest():
            await self._keep(chunk)
        await self.source.disconnect()

    async def _run(self):
        try:
            async for chunk in self.source.stream(None):
                await self._keep(chunk)
        except Exception as error:
            self.error = error

    async def _keep(self, chunk):
        self.chunks.append(chunk)
        if self.commits:
            await self.source.commit(chunk.position)

    @property
    def lines(self):
        return b"".join(chunk.raw_data for chunk in self.chunks).splitlines()

    async def until(self, condition):
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_lines(self, count):
        await self.until(lambda: len(self.lines) >= count or self.error)
        assert self.error is None, self.error
        return self.lines


async def quiet(port, topic="quiet"):
    """Return when the broker has done what it had to do: a message has gone through it and back."""
    async with publisher(port, "quiet") as client:
        await client.subscribe(topic, qos=1)
        await client.publish(topic, b"x", qos=1)
        async with asyncio.timeout(10):
            await anext(client.messages())


def run(check):
    """Make a test of a coroutine function."""

    @functools.wraps(check)
    def test(*arguments, **named):
        asyncio.run(check(*arguments, **named))

    return test


class Scripted:
    """A broker that sends what a test says: `answers` are bytes for each packet it gets, None closes the connection."""

    def __init__(self, *answers, first=b""):
        self.answers = list(answers)
        self.got = []
        self.connections = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.writers = []
        return self

    async def __aexit__(self, *error):
        self.server.close()
        for writer in self.writers:
            writer.close()
        await self.server.wait_closed()

    async def _serve(self, reader, writer):
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(2)
                size, shift = head[1] & 127, 7
                while head[-1] & 128:
                    head += await reader.readexactly(1)
                    size |= (head[-1] & 127) << shift
                    shift += 7
                self.got.append(head[:1] + await reader.readexactly(size))
                answer = self.answers.pop(0) if self.answers else b""
                if answer is None:
                    break
                writer.write(answer)
        writer.close()
