"""WebSockets: the contract against a real server; handshakes, frames, limits, silence and how connections end."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import tracemalloc
import zlib
from collections import Counter
from contextlib import aclosing, asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from _broker_reading import ids, read, read_on, records
from _rest_api import Api, certificate
from _stopping import stored_when_stopped
from aiohttp import web
from test_http_security import Names

from collectors import registry
from collectors.collection.sources.websocket import WebsocketSource
from collectors.config.load import from_mapping
from collectors.errors import FatalError, TransientError
from collectors.runtime.engine import Engine
from collectors.storage.backends.sqlite import SqliteBackend
from collectors.testing.clock import ManualEnv
from collectors.testing.proxy import Proxy
from collectors.testing.source_contract import SourceContract

SECRET = "secret-canary"
ONCE = "the server sends each message once a connection, to whoever is there"


def address(api, path="/x"):
    return f"ws://127.0.0.1:{api.port}{path}"


def make(api, **more):
    return WebsocketSource(**{"url": address(api), "allow_private": True, **more})


def serves(talk, tls=None, **options):
    """Return a server that does this with every WebSocket."""

    async def handle(request):
        socket = web.WebSocketResponse(**options)
        await socket.prepare(request)
        with suppress(ConnectionError):
            await talk(socket)
        return socket

    api = Api(tls=tls)
    api.answers["/x"] = handle
    return api


def sends(*messages, **options):
    """Return a server that sends messages, text or bytes, and then waits for the end."""

    async def talk(socket):
        for each in messages:
            await (socket.send_str if isinstance(each, str) else socket.send_bytes)(each)
        async for _ in socket:
            pass

    return serves(talk, **options)


class TestWebsocket(SourceContract):
    component = "websocket"
    endless = True
    waive = dict.fromkeys(["resume_from_every_position", "read_again_from_earlier_position"], ONCE)

    @asynccontextmanager
    async def rig(self, ids):
        with sends(*(json.dumps({"id": each}) for each in ids)) as api:
            yield {"url": address(api), "allow_private": True, "chunk_size": 64}


def run(work):
    return asyncio.run(asyncio.wait_for(work, 30))


def broken(source):
    """Read until it breaks, and return how, with what came before."""

    async def work():
        chunks = []
        await source.connect()
        try:
            async with aclosing(source.stream(None)) as stream:
                async for chunk in stream:
                    chunks.append(chunk)
        except TransientError as error:
            return str(error), chunks
        finally:
            await source.disconnect()

    return run(work())


def read_records(api, until, **more):
    return records(run(read(make(api, **more), until=until)))


# What is sent, and what comes.


def test_it_subscribes_after_every_connect():
    got = []

    async def talk(socket):
        for _ in range(3):
            got.append((await socket.receive()).data)
        await socket.send_str('{"id": 1}')
        await socket.close()

    subscribe = [{"op": "subscribe", "channels": ["a", 'b"']}, f"key {SECRET}", {"é": 1}]
    with serves(talk) as api:
        source = make(api, subscribe=subscribe)
        assert SECRET not in repr(source.config)
        for _ in range(2):
            _, chunks = broken(source)
            assert ids(chunks) == [1]
    assert got == 2 * ['{"op":"subscribe","channels":["a","b\\""]}', f"key {SECRET}", '{"é":1}']


@pytest.mark.parametrize("subscribe", ["hello", {"op": "x"}])
def test_one_message_needs_no_list(subscribe):
    with Api() as api:
        assert len(make(api, subscribe=subscribe).config.subscribe) == 1


def test_headers_and_login():
    with sends('{"id": 1}') as api:
        auth = {"type": "basic", "username": "me", "password": SECRET}
        assert read_records(api, 1, auth=auth, headers={"X-Own": "o"}) == [{"id": 1}]
        headers = api.seen[0][2]
        assert (headers["Authorization"][:6], headers["X-Own"]) == ("Basic ", "o")


def test_a_token_is_fetched_first():
    with sends('{"id": 1}') as api:
        api.answers["/token"] = lambda _: web.json_response({"access_token": SECRET})
        auth = {
            "type": "oauth2",
            "token_url": f"{api.url}/token",
            "client_id": "me",
            "client_secret": "s",
        }
        assert read_records(api, 1, auth=auth) == [{"id": 1}]
        assert api.seen[-1][2]["Authorization"] == f"Bearer {SECRET}"


def test_subprotocols():
    with sends('{"id": 1}', protocols=["second", "third"]) as api:
        assert read_records(api, 1, subprotocols=["first", "second"]) == [{"id": 1}]
        assert api.seen[0][2]["Sec-WebSocket-Protocol"] == "first,second"
        with pytest.raises(FatalError, match="takes none of the subprotocols first, other"):
            run(read(make(api, subprotocols=["first", "other"])))


def test_text_and_binary_messages():
    messages = ['{"id": 1, "t": "é"}', b'{"id": 2}', '{\n"id": 3\n}', '{"id": 4}\n{"id": 5}']
    with sends(*messages) as api:
        found = read_records(api, 5)
        assert [each["id"] for each in found] == [1, 2, 3, 4, 5]
        assert found[0]["t"] == "é"


@pytest.mark.parametrize("compression", [True, False])
def test_compressed_messages(compression):
    with sends(*(json.dumps({"id": each, "text": 100 * "x"}) for each in range(200))) as api:
        found = read_records(api, 200, compression=compression)
        assert [each["id"] for each in found] == [*range(200)]
        assert ("Sec-WebSocket-Extensions" in api.seen[0][2]) == compression


def test_messages_in_many_frames():
    async def talk(socket):
        writer = socket._writer
        for part, opcode, fin in ((b'{"id"', 1, 0), (b": 1", 0, 0), (b"}", 0, 0x80)):
            writer.transport.write(bytes([fin | opcode, len(part)]) + part)
        async for _ in socket:
            pass

    with serves(talk, compress=False) as api:
        assert read_records(api, 1) == [{"id": 1}]


def test_what_cannot_be_a_record_is_refused():
    with sends('{"id": 1}', "", " \n", '{"id": 2}') as api:
        chunks = run(read(make(api)))
        refused = [chunk.metadata["reason"] for chunk in chunks if chunk.data_format == "rejected"]
        assert (ids(chunks), refused) == ([1, 2], ["the message is empty"] * 2)


def test_the_time_of_receipt_and_other_formats():
    with sends('{"id": 1}') as api:
        (found,) = read_records(api, 1, add={"at": "time"})
        assert abs(datetime.fromisoformat(found["at"]) - datetime.now(UTC)) < timedelta(minutes=1)
    with sends("a\nb", b"c") as api:
        chunks = run(read(make(api, format="lines")))
        assert b"".join(chunk.raw_data for chunk in chunks) == b"a\nb\nc\n"
    with sends('[{"id": 1}, {"id": 2}]', "[]") as api:
        source = make(api, format="json")
        source.framing = registry.create("codec", "json", {})
        chunks = run(read(source))
        assert [chunk.raw_data for chunk in chunks] == [b'[{"id": 1}, {"id": 2}]', b"[]"]


async def connected_behind(source, sent):
    """Connect, and wait until the server has sent everything."""
    await source.connect()
    await asyncio.to_thread(sent.wait, 20)


def sends_all(count):
    """Return a server that sends so many messages at once, and what is set when it has."""
    sent = threading.Event()

    async def talk(socket):
        for each in range(count):
            await socket.send_str(json.dumps({"id": each, "text": 100 * "x"}))
        sent.set()
        await socket.receive()

    return serves(talk), sent


def test_messages_that_come_together_are_few_chunks():
    server, sent = sends_all(2000)
    with server as api:

        async def check():
            source = make(api)
            await connected_behind(source, sent)
            chunks = await read_on(source, until=2000)
            await source.disconnect()
            assert ids(chunks) == [*range(2000)]
            assert len(chunks) < 20

        run(check())


# Limits.


@pytest.mark.parametrize("compression", [True, False])
def test_a_message_that_is_too_long_is_counted_and_told(compression):
    fits, long = json.dumps({"id": 1, "text": 979 * "x"}), json.dumps({"id": 2, "text": 981 * "x"})
    assert len(fits) == 1000
    with sends(fits, long, '{"id": 3}') as api:
        source, lost = make(api, max_record=1000, compression=compression), []
        source.count_lost = lost.append
        error, chunks = broken(source)
        assert ids(chunks) == [1]
        assert lost == [1]
        assert "sent a message of more than max_record (1,000 bytes), which is lost" in error


def test_a_bomb_is_not_expanded():
    """A thousand to one, 64 MiB, made beforehand: no more of it than max_record is ever there."""
    squeezed = zlib.compressobj(wbits=-15)
    zeros = 2**20 * b"\0"
    bomb = b"".join(squeezed.compress(zeros) for _ in range(64)) + squeezed.flush(zlib.Z_SYNC_FLUSH)
    frame = b"\xc2\x7f" + (len(bomb) - 4).to_bytes(8, "big") + bomb[:-4]

    async def talk(socket):
        socket._writer.transport.write(frame)
        async for _ in socket:
            pass

    with serves(talk) as api:
        source, lost = make(api), []
        source.count_lost = lost.append
        tracemalloc.start()
        error, chunks = broken(source)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (chunks, lost) == ([], [1])
        assert "max_record" in error
        assert peak < 32 * 2**20


def test_a_reader_that_is_slow_holds_the_server_back():
    sent = [0]

    async def talk(socket):
        while True:
            await socket.send_str(json.dumps({"id": sent[0], "text": 1000 * "x"}))
            sent[0] += 1

    with serves(talk, compress=False) as api:

        async def check():
            source = make(api, chunk_size="64 KiB", compression=False, ping=0.1)
            await source.connect()
            seen = -1
            while seen != sent[0]:  # until the server can send no more
                seen = sent[0]
                for _ in range(20):
                    await asyncio.sleep(0.02)
            assert sent[0] < 20_000
            chunks = await read_on(source, until=sent[0] + 1000)
            assert ids(chunks) == [*range(len(ids(chunks)))]
            await source.disconnect()

        run(check())


# Silence, and ends.


def test_a_server_that_is_gone_is_noticed():
    with sends('{"id": 1}') as api, Proxy("127.0.0.1", api.port) as proxy:

        async def check():
            source = make(proxy, ping=0.2)
            await source.connect()
            stream = source.stream(None)
            assert ids([await anext(stream)]) == [1]
            proxy.hangs()
            with pytest.raises(
                TransientError, match=r"nothing came for 0\.4 s, not even an answer to a ping"
            ):
                await anext(stream)
            await source.disconnect()

        run(check())


async def late(socket):
    """Answer pings, which a server does while it reads, and send something after a while."""
    reading = asyncio.ensure_future(socket.receive())
    for _ in range(60):
        await asyncio.sleep(0.02)
    await socket.send_str('{"id": 1}')
    await reading


def test_a_server_that_answers_pings_may_be_silent():
    with serves(late) as api:
        assert read_records(api, 1, ping=0.2) == [{"id": 1}]
        error, chunks = broken(make(api, ping=0.2, silence=0.7))
        assert chunks == []
        assert error == f"{address(api)}: no message came for 0.7 s"


def test_pings_of_the_server_are_answered():
    with serves(late, heartbeat=0.2) as api:
        assert read_records(api, 1, ping=0) == [{"id": 1}]


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        (1000, "", "has closed the connection: 1000 (normal closure)"),
        (1008, f"no {SECRET}", "has closed the connection: 1008 (policy violation): no ***"),
        (4001, "too slow", "has closed the connection: 4001: too slow"),
    ],
)
def test_close_codes_are_told(code, reason, message):
    async def talk(socket):
        await socket.send_str('{"id": 1}')
        await socket.close(code=code, message=reason.encode())

    with serves(talk) as api:
        error, chunks = broken(make(api, auth={"type": "bearer", "token": SECRET}))
        assert (error, ids(chunks)) == (f"{address(api)} {message}", [1])


def test_a_connection_that_breaks():
    async def talk(socket):
        await socket.send_str('{"id": 1}')
        socket._req.transport.abort()

    with serves(talk) as api:
        error, chunks = broken(make(api))
        assert error.startswith(f"{address(api)}: the connection broke")
        assert ids(chunks) == [1]


def test_what_is_no_websocket_message():
    async def talk(socket):
        await socket.send_str('{"id": 1}')
        socket._writer.transport.write(b"\xff\xff\xff\xff")
        async for _ in socket:
            pass

    with serves(talk) as api:
        error, chunks = broken(make(api))
        assert error.startswith(f"{address(api)}: the connection broke: ")
        assert ids(chunks) == [1]


def test_what_has_come_is_stored_when_it_stops(tmp_path):
    """What was cut and not handed on, what waits to be, and what is in the buffers of the library and the system."""
    server, sent = sends_all(800)
    with server as api:
        found = stored_when_stopped(make(api, chunk_size="8 KiB"), tmp_path, partial(sent.wait, 20))
    assert found == Counter(range(800))


@pytest.mark.parametrize("what", ["messages", "pings"])
def test_a_server_that_goes_on_does_not_hold_up_the_end(what):
    async def talk(socket):
        number = 0
        while True:
            await (socket.ping() if what == "pings" else socket.send_str(json.dumps({"id": number})))
            number += 1
            await asyncio.sleep(0.001)

    with serves(talk) as api:

        async def check():
            source = make(api)
            await source.connect()
            chunks = [chunk async for chunk in source.rest()]
            await source.disconnect()
            found = ids(chunks)
            assert found == [*range(len(found))]

        run(asyncio.wait_for(check(), 8))


def test_after_a_reconnect_it_subscribes_once_and_nothing_comes_twice(tmp_path):
    """Each connection sends what is asked for, and what it was asked for; the second one goes on until the stop."""
    asked = []

    async def talk(socket):
        asked.append([])
        first = len(asked) == 1
        async for message in socket:
            asked[-1].append(message.data)
            for number in range(10):
                await socket.send_str(json.dumps({"id": 10 * len(asked) + number}))
            if first:
                break

    with serves(talk) as api:
        source, store = make(api, subscribe=["go"]), SqliteBackend(path=str(tmp_path / "out.db"), table="t")
        config = from_mapping({"sources": [source], "storage": [store]}, folder=tmp_path, name="test")
        engine = Engine(config, env=ManualEnv(hurry=True))

        async def main():
            running = asyncio.ensure_future(engine.run())
            while engine.report.totals() == {} or engine.report.flows[0].read < 20:
                await asyncio.sleep(0.01)
            engine.stop()
            return await running

        assert run(main()).balanced
    assert asked == [["go"], ["go"]]
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        assert sorted(n for (n,) in database.execute("select id from t")) == [*range(10, 30)]


# Handshakes.


@pytest.mark.parametrize(
    ("handler", "kind", "message"),
    [
        (lambda _: web.Response(status=503, headers={"Retry-After": "9"}), TransientError, "503 Service Unavailable"),
        (lambda _: web.Response(status=429, text="slow down"), TransientError, "429 Too Many Requests: slow down"),
        (lambda _: web.Response(status=401), FatalError, "401 Unauthorized; check `auth`"),
        (lambda _: web.Response(text="hello"), FatalError, "200 OK in place of a WebSocket; check `url`"),
        (lambda _: web.Response(status=302, headers={"Location": "http://169.254.169.254/"}), FatalError,
         "its redirect is not followed"),
    ],
)  # fmt: skip
def test_answers_that_are_none(handler, kind, message):
    with Api() as api:
        api.answers["/x"] = handler
        with pytest.raises(kind) as caught:
            run(read(make(api, url=address(api, f"/x?key={SECRET}"))))
        assert message in str(caught.value)
        assert SECRET not in str(caught.value)
        if "503" in message:
            assert caught.value.retry_after == 9


def test_a_handshake_that_is_wrong():
    async def wrong(request):
        answer = (
            b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"
        )
        request.transport.write(answer)
        await asyncio.wait_for(asyncio.Event().wait(), 60)

    with Api() as api:
        api.answers["/x"] = wrong
        with pytest.raises(TransientError) as caught:
            run(read(make(api, url=address(api, f"/x?key={SECRET}"))))
        assert str(caught.value) == f"{api.url}/x: Invalid challenge response"


def test_redirects_and_who_gets_credentials():
    with sends('{"id": 1}') as other, Api() as api:
        api.answers["/x"] = lambda _: web.Response(status=307, headers={"Location": f"{other.url}/x"})
        auth = {"type": "api_key", "key": SECRET}
        assert read_records(api, 1, auth=auth, headers={"X-Own": SECRET}) == [{"id": 1}]
        assert api.seen[0][2]["X-API-Key"] == SECRET
        assert SECRET not in str(other.seen)
        with pytest.raises(FatalError, match="`subscribe` is not sent to another origin, http://127"):
            run(read(make(api, subscribe=SECRET)))


def test_names_that_lead_inside():
    source = WebsocketSource(url="wss://api.example/x")
    source.resolver = Names(api_example=[["10.0.0.1"]])
    with pytest.raises(
        FatalError, match=r"api\.example is 10\.0\.0\.1, a private address, which is not asked"
    ):
        run(read(source))


def test_tls(tmp_path):
    async def talk(socket):
        await socket.send_str('{"id": 1}')
        await socket.receive()

    with serves(talk, tls=certificate(tmp_path)) as api:
        settings = {
            "url": f"wss://localhost:{api.port}/x",
            "auth": {"type": "bearer", "token": SECRET},
        }
        with pytest.raises(FatalError, match="certificate verify failed"):
            run(read(make(api, **settings)))
        assert api.seen == []
        assert read_records(api, 1, **settings, tls={"ca": str(tmp_path / "cert.pem")}) == [{"id": 1}]


def test_a_server_that_does_not_answer():
    async def nothing(request):
        await asyncio.wait_for(asyncio.Event().wait(), 60)

    with Api() as api:
        api.answers["/x"] = nothing
        with pytest.raises(TransientError, match=r"no connection within 0\.2 s"):
            run(read(make(api, timeout=0.2)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://x.example"}, "url: expected a ws or wss address"),
        ({"url": "ws://127.0.0.1/"}, "url: 127.0.0.1 is this machine; set `allow_private: true` to ask it"),
        ({"url": "ws://x.example", "auth": {"type": "bearer", "token": "t"}}, "url: credentials need wss"),
        ({"url": "ws://x.example", "tls": {}}, "tls: only with wss://"),
        ({"add": {"a": "id"}}, "add: column 'a': expected time, got 'id'"),
        ({"subprotocols": ["a,b"]}, "expected a name such as graphql-transport-ws"),
        ({"subscribe": [1]}, "subscribe"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        WebsocketSource(**{"url": "wss://x.example/", **settings})
