"""Connections to NATS: who may log in, TLS, servers that are away; and core subjects, which keep nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
from contextlib import ExitStack, aclosing, contextmanager, suppress

import pytest
from _broker_reading import ids, read, records
from _nats_world import connected, make, publish, shared_server, stream_of

from collectors.collection.sources import _nats_pull
from collectors.collection.sources.nats import NatsSource
from collectors.errors import ConfigurationError, FatalError, TransientError
from collectors.testing.faults import Census, leaks
from collectors.testing.nats_server import NatsServer
from collectors.testing.proxy import Proxy


def run(check):
    return asyncio.run(check())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "expected `stream` .JetStream., or `subject`"),
        ({"stream": "a.b"}, "expected a name without spaces"),
        ({"subject": "a..b"}, "expected a subject such as"),
        ({"subject": "a.>.b"}, "expected a subject such as"),
        ({"subject": "a b"}, "expected a subject such as"),
        ({"subject": "a.b*"}, "expected a subject such as"),
        ({"subject": "a\r\nPUB b 0"}, "expected a subject such as"),
        ({"subject": "a", "durable": "d"}, "durable: only with `stream`"),
        ({"subject": "a", "start": "new"}, "start: only with `stream`"),
        ({"stream": "S", "start": "2026-11-29T08:00:00"}, "such as 2026-11-29T08:00:00Z"),
        ({"stream": "S", "start": 0}, "expected all, new, a sequence from 1 on"),
        ({"stream": "S", "queue": "q"}, "processes share a stream by `durable`"),
        ({"stream": "S", "servers": []}, "expected at least one"),
        ({"stream": "S", "servers": "localhost"}, "expected nats://host:port"),
        ({"stream": "S", "servers": "ws://h"}, "expected nats://host:port"),
        ({"stream": "S", "servers": "nats://me:SECRET@h"}, "expected no password in the address"),
        ({"stream": "S", "user": "me"}, "expected `user` and `password` together"),
        ({"stream": "S", "token": "SECRET", "nkey": "SECRET"}, "expected one way to log in"),
        ({"stream": "S", "token": "SECRET", "servers": "nats://db.example"}, "in clear text; use tls://"),
        (
            {"stream": "S", "add": {"x": "reply"}},
            "expected subject, time, headers, sequence, header:NAME, got 'reply'",
        ),
        ({"subject": "s", "add": {"x": "sequence"}}, "got 'sequence'"),
        ({"stream": "S", "add": {"x": "subject"}, "format": "csv"}, "only records in format ndjson"),
        ({"stream": "S", "tls": {"cert": "x"}}, "expected `cert` and `key` together"),
    ],
)
def test_settings_that_do_not_fit(given, message):
    with pytest.raises(ValueError, match=message) as raised:
        NatsSource(**given)
    assert "SECRET" not in str(raised.value).partition("input_value")[0]


def test_settings_that_fit():
    for given in [
        {"token": "x", "servers": "tls://db.example"},
        {"token": "x", "servers": "nats://db.example", "tls": {}},
        {"token": "x", "servers": "nats://db.example", "insecure": True},
        {"nkey": "SUA", "servers": ["nats://db.example", "nats://[::1]:4223"]},
        {"start": 7},
        {"start": "2026-11-29T08:00:00+01:00"},
    ]:
        make(**{"servers": "nats://127.0.0.1:1", "stream": "S", **given})


# Logging in.


@contextmanager
def server(text):
    with NatsServer(text) as started:
        yield started


@pytest.mark.parametrize(
    ("text", "right", "wrong"),
    [
        ('authorization { token: "open sesame" }', {"token": "open sesame"}, {"token": "other"}),
        (
            "authorization { user: me, password: secret }",
            {"user": "me", "password": "secret"},
            {"user": "me", "password": "x"},
        ),
        ("authorization { user: me, password: secret }", {"user": "me", "password": "secret"}, {}),
    ],
)
def test_logging_in(text, right, wrong):
    async def check():
        with server(text) as started:
            async with connected(started.url, **right) as client:
                js = client.jetstream()
                await js.add_stream(name="S", subjects=["s.>"])
                await publish(js, "s.x", [{"id": 1}])
            assert ids(await read(make(servers=started.url, stream="S", **right))) == [1]
            before = Census.take()
            source = make(servers=started.url, stream="S", **wrong)
            with pytest.raises(FatalError, match="(?i)authorization violation; look at token") as raised:
                await source.connect()
            assert not any(secret in str(raised.value) for secret in wrong.values() if secret != "me")
            assert await leaks(before) == []

    run(check)


def test_nkeys():
    nkeys = pytest.importorskip("nkeys")
    pair = nkeys.from_seed(bytearray(_SEED.encode()))
    public = pair.public_key.decode()

    async def check():
        with server(f"authorization {{ users: [ {{ nkey: {public} }} ] }}") as started:
            source = make(servers=started.url, subject="s", nkey=_SEED)
            await source.connect()
            await source.disconnect()
            with pytest.raises(FatalError, match="Authorization Violation"):
                await make(servers=started.url, subject="s").connect()

    run(check)


_SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
"""An example from the documentation of NATS (https://docs.nats.io/using-nats/developer/connecting/nkey)."""


def test_without_permission():
    async def check():
        users = 'authorization { users: [ { user: me, password: x, permissions: { publish: "nothing", subscribe: "_INBOX.>" } } ] }'
        with server(users) as started:
            source = make(servers=started.url, stream="S", user="me", password="x", timeout=1)
            with pytest.raises(FatalError, match="(?i)permissions violation for publish"):
                await source.connect()

    run(check)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    try:
        subprocess.run(
            [*command.split(), "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("needs the program openssl to make a certificate")
    return folder


def test_tls(certificates):
    async def check():
        text = f'tls {{ cert_file: "{certificates}/cert.pem", key_file: "{certificates}/key.pem" }}'
        with server(text) as started:
            ours = {"tls": {"ca": f"{certificates}/cert.pem"}, "subject": "s"}
            source = make(servers=f"tls://localhost:{started.port}", **ours)
            await source.connect()
            await source.disconnect()
            with pytest.raises(FatalError, match="the certificate is not accepted"):
                await make(servers=f"tls://localhost:{started.port}", subject="s").connect()
            with pytest.raises(FatalError, match="the certificate is not accepted"):
                await make(servers=f"tls://127.0.0.1:{started.port}", **ours).connect()

    run(check)


def test_a_server_that_offers_no_tls_gets_no_secret():
    async def check():
        seen = []

        async def pretend(reader, writer):
            writer.write(
                b'INFO {"server_id":"x","version":"2.10.0","max_payload":1000000,"auth_required":true}\r\n'
            )
            await writer.drain()
            seen.append(await reader.read(1000))
            writer.close()

        listener = await asyncio.start_server(pretend, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        for secret in ({"token": "SECRET"}, {"user": "me", "password": "SECRET"}):
            source = make(servers=f"tls://127.0.0.1:{port}", subject="s", timeout=2, **secret)
            with pytest.raises(FatalError, match="does not offer TLS"):
                await source.connect()
        listener.close()
        await listener.wait_closed()
        assert not any(b"SECRET" in each for each in seen)

    run(check)


def test_files_that_cannot_be_used_are_named():
    for tls, message in [
        ({"ca": "/nowhere"}, "authorities in /nowhere"),
        ({"cert": "/a", "key": "/b"}, "certificate /a"),
    ]:
        source = make(servers="tls://127.0.0.1:1", subject="s", tls=tls)
        with pytest.raises(ConfigurationError, match=f"cannot use the {message}.*No such file"):
            run(source.connect)


# Servers that are away.


def test_nobody_there():
    async def check():
        url = shared_server().url
        before = Census.take()
        source = make(servers="nats://127.0.0.1:1", subject="s")
        with pytest.raises(TransientError, match=r"nats://127\.0\.0\.1:1: .*Connect call failed"):
            await source.connect()
        source = make(servers=["nats://127.0.0.1:1", url], subject="s")
        await source.connect()
        await source.disconnect()
        assert await leaks(before) == []

    run(check)


def test_a_server_that_hangs(monkeypatch):
    monkeypatch.setattr(_nats_pull, "_SILENCE_SECONDS", 0.5)

    async def check():
        async with stream_of([{"id": 1}]) as (_, name):
            before = Census.take()
            with Proxy("127.0.0.1", shared_server().port) as proxy:
                source = make(servers=f"nats://127.0.0.1:{proxy.port}", stream=name, timeout=1)
                await source.connect()
                async with aclosing(source.stream(None)) as stream:
                    assert ids([await anext(stream)]) == [1]
                    proxy.hangs()
                    with pytest.raises(TransientError, match="not even a heartbeat"):
                        await anext(stream)
                await source.disconnect()
                with pytest.raises(TransientError, match="no answer within 1 s"):
                    await source.connect()
            assert await leaks(before) == []

    run(check)


def test_a_connection_that_breaks():
    async def check():
        async with stream_of([{"id": 1}]) as (js, name):
            with Proxy("127.0.0.1", shared_server().port) as proxy:
                source = make(servers=f"nats://127.0.0.1:{proxy.port}", stream=name)
                await source.connect()
                async with aclosing(source.stream(None)) as stream:
                    chunk = await anext(stream)
                    proxy.drops()
                    with pytest.raises(TransientError, match=f"nats://127.0.0.1:{proxy.port}: "):
                        await anext(stream)
                await source.disconnect()
                await publish(js, f"{name}.x", [{"id": 2}])
                assert ids(await read(source, chunk.position, until=1)) == [2]

    run(check)


def test_without_jetstream():
    async def check():
        with ExitStack() as stack:
            started = stack.enter_context(NatsServer(jetstream=False))
            with pytest.raises(TransientError, match="JetStream does not answer: it is not enabled"):
                await make(servers=started.url, stream="S").connect()

    run(check)


# Core subjects.


async def published(source, payloads, subject, *, client):
    await source.connect()
    for each in payloads:
        await client.publish(
            subject, each if isinstance(each, bytes) else json.dumps(each).encode(), headers={"h": "v"}
        )
    await flush(client)
    chunks = []
    async with aclosing(source.stream(None)) as stream:
        with suppress(TimeoutError):
            while True:
                chunks.append(await asyncio.wait_for(anext(stream), 0.4))
    chunks += [chunk async for chunk in source.rest()]
    await source.disconnect()
    return chunks


def test_core_subjects():
    async def check():
        async with connected() as client:
            source = make(subject=["core.a", "core.b.*"], add={"s": "subject", "h": "header:h", "t": "time"})
            assert source.needs_spool()
            chunks = await published(source, [{"id": n} for n in range(500)], "core.a", client=client)
            assert ids(chunks) == [*range(500)]
            first = records(chunks)[0]
            assert first.pop("t")
            assert first == {"s": "core.a", "h": "v", "id": 0}
            assert all(chunk.position is None for chunk in chunks)
            (chunk,) = await published(source, [b""], "core.b.x", client=client)
            assert chunk.metadata["reason"] == "message of subject 'core.b.x' is empty"

    run(check)


def test_what_has_come_and_was_not_handed_on_is_given_when_it_stops():
    async def check():
        async with connected() as client:
            source = make(subject="core.rest", chunk_size="1 KiB")
            await source.connect()
            await publish_core(client, "core.rest", 500)
            async with aclosing(source.stream(None)) as stream:
                chunks = [await anext(stream)]
            chunks += [chunk async for chunk in source.rest()]
            await source.disconnect()
            assert ids(chunks) == [*range(500)]

    run(check)


def test_members_of_a_queue_get_each_message_once():
    async def check():
        async with connected() as client:
            sources = [make(subject="shared", queue="q") for _ in range(2)]
            for each in sources:
                await each.connect()
            await publish_core(client, "shared", 200)
            shares = [ids([chunk async for chunk in each.rest()]) for each in sources]
            assert sorted(shares[0] + shares[1]) == [*range(200)]
            for each in sources:
                await each.disconnect()

    run(check)


async def publish_core(client, subject, count, text=""):
    for n in range(count):
        await client.publish(subject, json.dumps({"id": n, "text": text}).encode())
    await flush(client)


async def flush(client):
    """Wait until the server has what was published: the first ping of this library may overtake that."""
    await client.flush()
    await client.flush()


def test_what_a_stop_finds_is_handed_on():
    async def check():
        async with connected() as client:
            source = make(subject="stop", chunk_size=64)
            await source.connect()
            await publish_core(client, "stop", 100)
            assert ids([chunk async for chunk in source.rest()]) == [*range(100)]
            await source.disconnect()

    run(check)


def test_what_does_not_fit_is_counted(monkeypatch):
    monkeypatch.setattr("collectors.collection.sources._nats_subject._BUFFER_MESSAGES", 50)

    async def check():
        async with connected() as client:
            source = make(subject="burst", chunk_size=64)
            await source.connect()
            await publish_core(client, "burst", 300)
            found = ids([chunk async for chunk in source.rest()])
            await source.disconnect()
            assert found == sorted(found)
            assert len(found) + sum(source.lost) == 300
            assert sum(source.lost) > 0

    run(check)


def test_a_lost_connection_is_told():
    async def check():
        with Proxy("127.0.0.1", shared_server().port) as proxy:
            source = make(servers=f"nats://127.0.0.1:{proxy.port}", subject="s")
            await source.connect()
            async with aclosing(source.stream(None)) as stream:
                waiting = asyncio.ensure_future(anext(stream))
                await asyncio.sleep(0)
                proxy.drops()
                with pytest.raises(TransientError):
                    await waiting
            await source.disconnect()
            assert "until it is there again is lost" in source.told[0]

    run(check)
