"""HTTP push: the answer comes behind the durable record, and says what has become of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pyarrow as pa
import pytest
from _push_client import Client, StubbornSender, free_port

from collectors.collection.base import Answers, Remembers
from collectors.collection.sources.webhook import WebhookSource
from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError
from collectors.testing.source_contract import SourceContract

NO_POSITION = "what was sent in another life of the process is in the spool, not in the source"


class TestWebhook(SourceContract):
    component = "webhook"
    endless = True
    count = 12
    waive = {"resume_from_every_position": NO_POSITION}

    @asynccontextmanager
    async def rig(self, ids):
        port = free_port()
        bodies = [b'{"id": %d}\n' % each for each in ids]
        with StubbornSender(port, bodies):
            yield {"listen": f"127.0.0.1:{port}", "chunk_size": 1}


class Driver:
    """Plays the runtime: reads, keeps and answers; `keep` may be changed."""

    def __init__(self, **settings):
        self.source = WebhookSource(listen="127.0.0.1:0", **settings)
        self.told = []
        self.source.tell = self.told.append
        self.chunks = []
        self.holding = asyncio.Event()
        self.holding.set()
        self.reason = None
        self.clients = ThreadPoolExecutor(32)

    async def __aenter__(self):
        await self.source.connect()
        self.port = self.source.addresses[0].port
        self.task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *error):
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.source.disconnect()
        await asyncio.to_thread(self.clients.shutdown)

    async def _run(self):
        async for chunk in self.source.stream(None):
            await self.holding.wait()
            if self.reason is not None:
                self.source.turn_away(chunk.position, self.reason)
                continue
            self.chunks.append(chunk)
            await self.source.commit(chunk.position)

    @property
    def raw(self):
        return b"".join(chunk.raw_data for chunk in self.chunks)

    async def request(self, body=b"", **about):
        def work():
            with Client(self.port) as client:
                return client.request(body, **about)

        return await self.elsewhere(work)

    async def elsewhere(self, work, *about):
        """Do it in a thread that is no one of those in which the product works."""
        return await asyncio.get_running_loop().run_in_executor(self.clients, work, *about)

    async def until(self, condition):
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0)


def driven(check, **settings):
    async def main():
        async with Driver(**settings) as driver:
            await check(driver)

    asyncio.run(main())


def test_it_answers_its_senders_and_remembers():
    source = WebhookSource(listen="127.0.0.1:0")
    assert isinstance(source, Answers)
    assert isinstance(source, Remembers)
    assert source.needs_spool()


def test_the_answer_comes_behind_the_commit():
    async def check(driver):
        driver.holding.clear()
        task = asyncio.create_task(driver.request(b'{"id": 1}'))
        await driver.until(lambda: driver.source._desk.waiting)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not task.done()
        driver.holding.set()
        answer = await task
        assert (answer.status, answer.json) == (200, {"kept": True, "bytes": 9})
        assert driver.raw == b'{"id": 1}'
        assert driver.source._desk.waiting == 0

    driven(check)


def test_bodies_that_wait_become_one_chunk_and_all_are_answered_by_one_commit():
    async def check(driver):
        driver.holding.clear()
        tasks = [asyncio.create_task(driver.request(b'{"id": %d}' % n)) for n in range(6)]
        await driver.until(lambda: driver.source._desk.waiting == 6 * 9)
        driver.holding.set()
        assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}
        assert len(driver.chunks) < 6
        assert sorted(driver.raw.splitlines()) == [b'{"id": %d}' % n for n in range(6)]
        assert sum(chunk.metadata["requests"] for chunk in driver.chunks) == 6

    driven(check)


def test_bodies_of_a_format_that_cannot_be_joined_stay_apart():
    async def check():
        config = from_mapping(
            {
                "sources": [{"type": "webhook", "listen": "127.0.0.1:0", "format": "csv"}],
                "storage": [{"type": "memory"}],
            }
        )
        from collectors.runtime.assembly import make_sources

        (source,) = make_sources(config).values()
        await source.connect()
        port = source.addresses[0].port
        with Client(port) as one, Client(port) as two:
            one.send(b"a,b\n1,2\n")
            two.send(b"b,a\n3,4\n")
            found = []
            async for chunk in source.stream(None):
                found.append(chunk.raw_data)
                if len(found) == 2:
                    break
        await source.disconnect()
        assert sorted(found) == [b"a,b\n1,2\n", b"b,a\n3,4\n"]

    asyncio.run(check())


def test_what_cannot_be_kept_is_turned_away_and_health_says_so():
    async def check(driver):
        driver.source.cannot_keep = lambda: driver.reason
        assert (await driver.request(method="GET", path="/health")).status == 204
        driver.reason = "the disk is full"
        answer = await driver.request(b"{}")
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert b"disk" not in answer.body, "what is wrong here is not the sender's to know"
        assert (await driver.request(method="GET", path="/health")).status == 503
        driver.reason = None
        assert (await driver.request(method="GET", path="/health")).status == 204
        assert (await driver.request(b"{}")).status == 200

    driven(check)


def test_when_too_much_waits_others_are_turned_away_before_their_body():
    async def check(driver):
        driver.holding.clear()
        first = asyncio.create_task(driver.request(b"x" * 900))
        await driver.until(lambda: driver.source._desk.waiting == 900)

        def only_the_head():
            with Client(driver.port) as client:
                client.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n")
                return client.answer()

        answer = await driver.elsewhere(only_the_head)
        assert (answer.status, int(answer.headers["retry-after"]) > 0) == (503, True)
        driver.holding.set()
        assert (await first).status == 200
        assert (await driver.request(b"x" * 500)).status == 200

    driven(check, max_waiting=1000, max_body=1000)


def test_a_stop_answers_what_is_durable_and_turns_the_rest_away():
    async def check():
        driver = Driver()
        async with driver:
            assert (await driver.request(b"{}")).status == 200
            driver.holding.clear()
            task = asyncio.create_task(driver.request(b"[]"))
            await driver.until(lambda: driver.source._desk.waiting)
        answer = await task
        assert (answer.status, answer.json) == (503, {"error": "the receiver is stopping"})
        with pytest.raises(OSError, match="refused"):
            Client(driver.port)

    asyncio.run(check())


@pytest.mark.parametrize(
    ("about", "status", "word"),
    [
        ({"path": "/other"}, 404, "records go to /events"),
        ({"method": "GET", "path": "/events"}, 405, "POST"),
        ({"method": "DELETE", "path": "/events"}, 405, "POST"),
        ({"path": "/events", "Content_Encoding": "br"}, 415, "gzip, zstd, deflate"),
        ({"path": "/events", "body": b"x" * 2000}, 413, "1,000 bytes"),
        ({"path": "/events", "Content_Encoding": "gzip"}, 400, "gzip"),
        ({"path": "/events", "Idempotency_Key": "x" * 300}, 400, "255 characters"),
        ({"path": "/events", "Origin": "https://example.com"}, 403, "web pages"),
    ],
)
def test_what_is_no_push_is_refused_in_words(about, status, word):
    async def check(driver):
        answer = await driver.request(**({"body": b"{}"} | about))
        assert answer.status == status
        assert word in answer.json["error"]
        assert driver.chunks == []

    driven(check, path="/events", max_body=1000)


def test_what_was_refused_is_told_at_the_end():
    async def check():
        async with Driver() as driver:
            for _ in range(3):
                await driver.request(path="/other")
        assert driver.told == ["requests that were refused: 3 with 404"]

    asyncio.run(check())


def test_a_record_that_is_too_long_is_refused_with_its_body():
    async def check(driver):
        answer = await driver.request(b'{"id": 1}\n' + b"x" * 200 + b"\n")
        assert (answer.status, "the longest one here has 200" in answer.json["error"]) == (413, True)
        assert (await driver.request(b'{"id": 1}\n' * 50)).status == 200
        assert driver.raw == b'{"id": 1}\n' * 50

    driven(check, max_record=100)


def test_an_empty_body_is_answered_and_nothing_is_kept():
    async def check(driver):
        assert (await driver.request()).json == {"kept": True, "bytes": 0}
        assert driver.chunks == []

    driven(check)


LINES = b'{"id": 1}\n{"id": 2}\n'
BARE = zlib.compressobj(wbits=-15)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(LINES)),
        ("x-gzip", gzip.compress(LINES[:10]) + gzip.compress(LINES[10:])),
        ("GZIP", gzip.compress(LINES)),
        ("deflate", zlib.compress(LINES)),
        ("deflate", BARE.compress(LINES) + BARE.flush()),
        ("zstd", pa.Codec("zstd").compress(LINES, asbytes=True)),
        ("identity", LINES),
    ],
    ids=["gzip", "two members", "upper case", "deflate", "bare deflate", "zstd", "identity"],
)
def test_compressed_bodies(encoding, body):
    async def check(driver):
        answer = await driver.request(body, Content_Encoding=encoding)
        assert (answer.status, answer.json["bytes"]) == (200, len(LINES))
        assert driver.raw == LINES

    driven(check)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_compressed_bodies_that_end_early_are_refused(encoding):
    whole = {
        "gzip": gzip.compress(LINES),
        "deflate": zlib.compress(LINES),
        "zstd": pa.Codec("zstd").compress(LINES, asbytes=True),
    }[encoding]

    async def check(driver):
        for size in (1, len(whole) // 2, len(whole) - 1):
            assert (await driver.request(whole[:size], Content_Encoding=encoding)).status == 400
        assert driver.chunks == []

    driven(check)


def test_chunked_bodies_and_those_that_wait_for_a_go_ahead():
    async def check(driver):
        def work():
            with Client(driver.port) as client:
                client.write(
                    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                    b"4\r\n[1]\n\r\n4\r\n[2]\n\r\n0\r\n\r\n"
                )
                chunked = client.answer()
                client.write(
                    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
                )
                go_ahead = client.answer()
                client.write(b"[3]")
                return chunked, go_ahead, client.answer()

        chunked, go_ahead, last = await driver.elsewhere(work)
        assert (chunked.status, go_ahead.status, last.status) == (200, 100, 200)
        assert driver.raw == b"[1]\n[2]\n[3]"

    driven(check)


def test_many_requests_over_one_connection_even_when_they_come_together():
    async def check(driver):
        def work():
            with Client(driver.port) as client:
                for n in range(20):
                    client.send(b"[%d]\n" % n)
                return [client.answer().status for _ in range(20)]

        assert await driver.elsewhere(work) == [200] * 20
        assert [json.loads(line) for line in driver.raw.splitlines()] == [[n] for n in range(20)]

    driven(check)


def test_https(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    try:
        subprocess.run(
            [*command.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("needs the program openssl to make a certificate")
    import ssl

    async def check(driver):
        def work(context):
            with Client(driver.port, context) as client:
                return client.request(b"[1]").status, client.socket.version()

        context = ssl.create_default_context(cafile=str(cert))
        status, version = await driver.elsewhere(work, context)
        assert (status, version) == (200, "TLSv1.3")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert await driver.elsewhere(work, context) == (200, "TLSv1.2")
        old = ssl.create_default_context(cafile=str(cert))
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await driver.elsewhere(work, old)
        plain = await driver.request(b"[2]")
        assert plain is None
        assert driver.raw.count(b"[1]") == 2

    driven(check, tls={"cert": str(cert), "key": str(key)})


def test_a_certificate_that_cannot_be_used_is_named(tmp_path):
    tls = {"cert": str(tmp_path / "no.pem"), "key": str(tmp_path / "no.key")}
    with pytest.raises(ConfigurationError, match=r"no\.pem.*No such file"):
        asyncio.run(WebhookSource(listen="127.0.0.1:0", tls=tls).connect())
    (tmp_path / "no.pem").write_text("nothing")
    (tmp_path / "no.key").write_text("nothing")
    with pytest.raises(ConfigurationError, match=r"cannot use the certificate"):
        asyncio.run(WebhookSource(listen="127.0.0.1:0", tls=tls).connect())


def test_an_address_that_is_taken_is_named():
    async def main():
        async with Driver() as driver:
            with pytest.raises(ConfigurationError, match="cannot listen on .*address already in use"):
                await WebhookSource(listen=f"127.0.0.1:{driver.port}").connect()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"listen": "0.0.0.0:80"}, "others can reach 0.0.0.0:80, so set `token` or `signature` and `tls`"),
        ({"listen": "[::]:80", "token": "x"}, "so set `tls`"),
        ({"listen": "events.example.com:80", "token": "x"}, "so set `tls`"),
        ({"listen": "10.1.2.3:80", "tls": {"cert": "c", "key": "k"}}, "so set `token` or `signature`, or"),
        ({"listen": "127.0.0.1"}, "expected host:port"),
        ({"listen": "::1:80"}, "expected host:port"),
        ({"listen": "127.0.0.1:99999"}, "expected host:port"),
        ({"listen": "127.0.0.1:80", "token": ""}, "token: expected one that is not empty"),
        ({"listen": "127.0.0.1:80", "token": []}, "token: expected one that is not empty"),
        ({"listen": "127.0.0.1:80", "signature": {"preset": "github", "secret": ""}}, "not empty"),
        ({"listen": "127.0.0.1:80", "signature": {"preset": "standard", "secret": "whsec_%"}}, "base64"),
        ({"listen": "127.0.0.1:80", "path": "events"}, "begins with a slash"),
        ({"listen": "127.0.0.1:80", "path": "/health"}, "another path"),
        ({"listen": "127.0.0.1:80", "max_body": "1 GiB"}, "max_body: expected at most max_waiting"),
    ],
)
def test_settings_that_are_not_safe_are_refused(settings, message):
    with pytest.raises(ValueError, match=".*") as error:
        WebhookSource(**settings)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"listen": "0.0.0.0:80", "insecure": True},
        {"listen": "0.0.0.0:80", "token": "x", "tls": {"cert": "c", "key": "k"}},
        {"listen": "[::1]:80"},
        {"listen": "localhost:80"},
        {"listen": "127.9.9.9:80"},
    ],
)
def test_settings_that_are_safe(settings):
    WebhookSource(**settings)


def test_secrets_are_not_shown():
    source = WebhookSource(
        listen="127.0.0.1:0",
        token=["canary-1", "canary-2"],
        signature={"preset": "github", "secret": "canary-3"},
    )
    assert "canary" not in repr(source.config)
    assert "canary" not in source.config.model_dump_json()
