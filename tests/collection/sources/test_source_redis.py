"""Redis streams: the contract against a real server, and what becomes of entries, streams and groups."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from _broker_reading import ids, read, read_on, records
from _redis_world import add, make, numbers, shared_server, stream_of

from collectors.collection.sources.redis import RedisSource
from collectors.errors import ConfigurationError, FatalError, TransientError
from collectors.testing.faults import Census, leaks
from collectors.testing.proxy import Proxy
from collectors.testing.redis_server import RedisServer
from collectors.testing.source_contract import SourceContract


class TestRedis(SourceContract):
    component = "redis"
    endless = True

    @asynccontextmanager
    async def rig(self, ids):
        async with stream_of({"id": each} for each in ids) as (_, name):
            yield {"url": shared_server().url, "stream": name, "chunk_size": 64}


def run(check):
    return asyncio.run(check())


def refused(chunks):
    return [chunk.metadata["reason"] for chunk in chunks if chunk.data_format == "rejected"]


# Records.


def test_many_entries_are_few_chunks():
    async def check():
        async with stream_of(numbers(3000)) as (_, name):
            chunks = await read(make(stream=name), until=3000)
            assert [int(each) for each in ids(chunks)] == [*range(3000)]
            assert len(chunks) < 30
            assert chunks[-1].position["read"] == 3000

    run(check)


def test_fields_are_columns_of_text():
    async def check():
        entries = [{"a": 'x"y\n', "b": "ü"}, {"": ""}, {"a": b"\xff"}]
        async with stream_of(entries) as (client, name):
            await client.execute_command("XADD", name, "*", "a", "1", "a", "2")
            chunks = await read(make(stream=name, add={"n": "id", "at": "time", "of": "stream"}), until=4)
            first, second = records(chunks)[:2]
            number = first.pop("n")
            at = datetime.fromisoformat(first.pop("at"))
            assert number.startswith(f"{at.timestamp() * 1000:.0f}-")
            assert abs(at - datetime.now(UTC)) < timedelta(minutes=1)
            assert first == {"of": name, "a": 'x"y\n', "b": "ü"}
            assert second[""] == ""
            assert refused(chunks)[0].endswith(
                "field 1 is not UTF-8; with `field` and `format` it can be read"
            )
            assert b'"a":"1","a":"2"' in chunks[-1].raw_data, "the codec says that a name is there twice"

    run(check)


def test_a_field_holds_the_record():
    async def check():
        entries = [
            {"payload": '{"id": 1}', "other": "x"},
            {"other": "x"},
            {"payload": ""},
            {"payload": '{\n"id": 2\n}'},
            {"payload": '{"id": "' + 100 * "x" + '"}'},
        ]
        async with stream_of(entries) as (client, name):
            await client.execute_command("XADD", name, "*", "payload", "1", "payload", "2")
            chunks = await read(
                make(stream=name, field="payload", max_record=100, add={"s": "stream"}), until=6
            )
            assert records(chunks) == [{"s": name, "id": 1}, {"s": name, "id": 2}]
            reasons = [each.partition(f"of stream '{name}' ")[2] for each in refused(chunks)]
            assert reasons == [
                "has no field 'payload'",
                "is empty",
                "has 110 bytes, more than max_record (100)",
                "has 2 fields 'payload'",
            ]
            assert json.loads(
                next(chunk for chunk in chunks if chunk.data_format == "rejected").raw_data
            ) == {"other": "x"}
        async with stream_of([{"p": "a,b\n1,2\n"}, {"p": "a,c\n1,2\n"}]) as (_, name):
            chunks = await read(make(stream=name, field="p", format="csv"), until=4)
            assert [chunk.raw_data for chunk in chunks] == [b"a,b\n1,2\n", b"a,c\n1,2\n"]

    run(check)


def test_large_entries_are_asked_for_in_small_numbers():
    async def check():
        async with stream_of({"text": "x" * 50_000} for _ in range(300)) as (_, name):
            source = make(stream=name, chunk_size="100 KiB")
            chunks = await read(source, until=300)
            assert max(len(chunk.raw_data) for chunk in chunks) <= 102_400
            assert len(chunks) >= 150

    run(check)


# Where reading begins, and what is gone.


def test_start():
    async def check():
        async with stream_of() as (client, name):
            added = await add(client, name, numbers(5))
            assert ids(await read(make(stream=name, start=added[3]))) == ["3", "4"]
            later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
            assert ids(await read(make(stream=name, start=later))) == []
            assert ids(await read(make(stream=name, start="2026-01-01T00:00:00Z"))) == [
                "0",
                "1",
                "2",
                "3",
                "4",
            ]
            assert ids(await read(make(stream=name, start="0"))) == ["0", "1", "2", "3", "4"]
            (chunk,) = await read(make(stream=name, start="new"))
            assert (chunk.raw_data, chunk.position) == (b"", {"id": added[-1], "read": 5})
            await add(client, name, numbers(5, 6))
            assert ids(await read(make(stream=name, start="new"), chunk.position)) == ["5"]

    run(check)


def test_a_stream_that_is_made_later_is_waited_for():
    async def check():
        async with stream_of() as (client, name):
            source = make(stream=name)
            await source.connect()
            reading = asyncio.ensure_future(read_on(source, until=2))
            await add(client, name, numbers(2))
            assert ids(await reading) == ["0", "1"]
            await source.disconnect()
            assert source.told == []

    run(check)


def test_removed_entries_are_counted():
    async def check():
        async with stream_of(numbers(10)) as (client, name):
            chunks = await read(make(stream=name, chunk_size=12), until=10)
            since = chunks[2].position
            await client.xtrim(name, maxlen=2, approximate=False)
            source = make(stream=name)
            assert ids(await read(source, since)) == ["8", "9"]
            assert source.lost == [5]
            assert "5 entries behind" in source.told[0]
            assert "were removed, trimmed or deleted, before they were read" in source.told[0]
            (chunk,) = await read(make(stream=name), since)
            assert chunk.position["read"] == 10
            await client.xtrim(name, maxlen=0, approximate=False)
            await add(client, name, numbers(10, 12))
            await client.xtrim(name, maxlen=0, approximate=False)
            source = make(stream=name)
            assert await read(source, chunk.position) == []
            assert source.lost == [2]
            late = make(stream=name)
            assert await read(late) == []
            assert late.lost == [], "what was removed before the first reading was never promised"

    run(check)


def test_entries_removed_in_front_of_the_reader_are_counted():
    async def check():
        async with stream_of({"id": n, "text": "x" * 1000} for n in range(100)) as (client, name):
            source = make(stream=name, chunk_size=2000)
            await source.connect()
            found = []
            stream = source.stream(None)
            found += records([await anext(stream)])
            await client.xtrim(name, maxlen=10, approximate=False)
            while not found or found[-1]["id"] != "99":
                found += records([await anext(stream)])
            await add(client, name, [{"id": 100}])
            found += records([await anext(stream)])
            await stream.aclose()
            await source.disconnect()
            assert len(found) + sum(source.lost) == 101
            assert sum(source.lost) > 0

    run(check)


def test_entries_deleted_between_others_are_counted_at_the_end():
    async def check():
        async with stream_of() as (client, name):
            added = await add(client, name, numbers(5))
            chunks = await read(make(stream=name, chunk_size=12), until=5)
            await client.xdel(name, added[2])
            source = make(stream=name)
            assert ids(await read(source, chunks[1].position)) == ["3", "4"]
            assert source.lost == [1]

    run(check)


def test_a_stream_that_was_made_anew():
    async def check():
        async with stream_of(numbers(5)) as (client, name):
            chunks = await read(make(stream=name))
            since = chunks[-1].position
            await client.delete(name)
            source = make(stream=name)
            await source.connect()
            reading = asyncio.ensure_future(read_on(source, since, until=1))
            async with asyncio.timeout(10):
                while not source.told:
                    await asyncio.sleep(0.01)
            await add(client, name, numbers(5, 6))
            chunks = await reading
            await source.disconnect()
            assert ids(chunks) == ["5"]
            assert (
                f"stream '{name}' is gone; entries behind {since['id']} that were in it are lost"
                in source.told[0]
            )
            await client.delete(name)
            await client.xadd(name, {"id": 1}, id="1-1")
            with pytest.raises(FatalError, match="ends at 1-1, but entry .* was read before.*new `id`"):
                await read(make(stream=name), chunks[-1].position)

    run(check)


# Settings, logging in, TLS.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"url": "localhost"}, "expected redis://host:port/database"),
        ({"url": "redis://h/x"}, "expected redis://host:port/database"),
        ({"url": "redis://me:SECRET@h"}, "expected no password in the address"),
        ({"stream": ""}, "at least 1 character"),
        ({"start": "yesterday"}, "expected all, new, an id such as"),
        ({"start": "2026-11-29T08:00:00"}, "expected all, new, an id such as"),
        ({"format": "csv"}, "csv needs `field`"),
        ({"consumer": "c"}, "consumer: only with `consumer_group`"),
        ({"claim_after": "1m"}, "claim_after: only with `consumer_group`"),
        ({"add": {"x": "subject"}}, "expected id, time, stream, got 'subject'"),
        ({"tls": {}}, "tls: only with rediss://"),
        ({"username": "me"}, "expected `password` as well"),
        ({"url": "redis://db.example", "password": "SECRET"}, "in clear text; use rediss://"),
    ],
)
def test_settings_that_do_not_fit(given, message):
    with pytest.raises(ValueError, match=message) as raised:
        RedisSource(**{"stream": "s", **given})
    assert "SECRET" not in str(raised.value).partition("input_value")[0]


def test_logging_in():
    async def check():
        with RedisServer("requirepass secret", "user reader on >other ~* -@all +xinfo") as server:
            for wrong in ({}, {"password": "WRONG"}, {"username": "nobody", "password": "WRONG"}):
                with pytest.raises(FatalError, match="look at `username`, `password`") as raised:
                    await make(url=server.url, stream="s", **wrong).connect()
                assert "WRONG" not in str(raised.value)
            assert await read(make(url=server.url, stream="s", password="secret")) == []
            with pytest.raises(FatalError, match="(?i)no permissions to run the 'xread' command"):
                await read(make(url=server.url, stream="s", username="reader", password="other"))

    run(check)


def test_a_key_that_is_no_stream():
    async def check():
        async with stream_of() as (client, name):
            await client.set(name, "x")
            for group in (None, "g"):
                with pytest.raises(FatalError, match=f"stream '{name}': WRONGTYPE"):
                    await make(stream=name, consumer_group=group).connect()

    run(check)


@asynccontextmanager
async def encrypted(folder):
    """TLS in front of the server, whose wheel has none; yields the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    links = []

    async def move(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", shared_server().port)
        links.append(asyncio.gather(move(reader, back), move(there, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*links)
        await server.wait_closed()


def test_tls(tmp_path):
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    try:
        subprocess.run(
            [*command.split(), "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("needs the program openssl to make a certificate")

    async def check():
        async with encrypted(tmp_path) as port:
            ours = {"tls": {"ca": f"{tmp_path}/cert.pem"}, "stream": "s"}
            assert await read(make(url=f"rediss://localhost:{port}", **ours)) == []
            with pytest.raises(FatalError, match="the certificate is not accepted"):
                await make(url=f"rediss://localhost:{port}", stream="s").connect()
            with pytest.raises(FatalError, match="the certificate is not accepted"):
                await make(url=f"rediss://127.0.0.1:{port}", **ours).connect()
            with pytest.raises(ConfigurationError, match="authorities in /nowhere: No such file"):
                await make(url="rediss://localhost", stream="s", tls={"ca": "/nowhere"}).connect()

    run(check)


# Servers that are away.


def test_nobody_there():
    async def check():
        before = Census.take()
        with pytest.raises(TransientError, match=r"127\.0\.0\.1:1: .*connecting to 127\.0\.0\.1:1"):
            await make(url="redis://127.0.0.1:1", stream="s").connect()
        assert await leaks(before) == []

    run(check)


def test_a_server_that_hangs_and_a_connection_that_breaks():
    async def check():
        async with stream_of(numbers(1)) as (client, name):
            before = Census.take()
            with Proxy("127.0.0.1", shared_server().port) as proxy:
                source = make(url=f"redis://127.0.0.1:{proxy.port}", stream=name, timeout=0.5)
                await source.connect()
                stream = source.stream(None)
                chunk = await anext(stream)
                proxy.hangs()
                with pytest.raises(TransientError, match="(?i)timeout"):
                    await anext(stream)
                await source.disconnect()
                proxy.passes()
                await source.connect()
                stream = source.stream(chunk.position)
                waiting = asyncio.ensure_future(anext(stream))
                await asyncio.sleep(0)
                seen = proxy.to_server
                async with asyncio.timeout(10):
                    while proxy.to_server == seen:
                        await asyncio.sleep(0.01)
                proxy.drops()
                with pytest.raises(TransientError):
                    await waiting
                await source.disconnect()
                await add(client, name, numbers(1, 2))
                assert ids(await read(source, chunk.position, until=1)) == ["1"]
            assert await leaks(before) == []

    run(check)
