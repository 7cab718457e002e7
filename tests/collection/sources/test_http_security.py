"""Where requests may go, who gets credentials, what is shown, and how much is read."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import tracemalloc
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address

import pytest
from _rest_api import Api, certificate, rows
from aiohttp import web
from aiohttp.abc import AbstractResolver
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from collectors.collection.sources.http import HttpSource
from collectors.collection.sources.sse import SseSource
from collectors.collection.sources.websocket import WebsocketSource
from collectors.errors import FatalError, TransientError
from collectors.http_client.answers import seconds_to_wait
from collectors.http_client.client import Client
from collectors.http_client.guard import Guard
from collectors.http_client.limits import Pace
from collectors.http_client.settings import RateLimitConfig

SECRET = "secret-canary"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Names(AbstractResolver):
    """Resolves names to what a test says, one answer after the other, the last one again and again."""

    def __init__(self, **answers):
        self.answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.asked = []

    async def resolve(self, host, port=0, family=0):
        self.asked.append(host)
        answers = self.answers[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        kind = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [
            {
                "hostname": host,
                "host": each,
                "port": port,
                "family": kind[6 if ":" in each else 4],
                "proto": 0,
                "flags": 0,
            }
            for each in found
        ]

    async def close(self):
        pass


def collect(config, resolver=None):
    async def work():
        source = HttpSource(**config)
        source.resolver = resolver
        await source.connect()
        try:
            return [chunk async for chunk in source.stream(None)]
        finally:
            await source.disconnect()

    chunks = asyncio.run(work())
    return [json.loads(line) for chunk in chunks for line in chunk.raw_data.splitlines()]


FORBIDDEN = [
    "http://127.0.0.1/", "http://127.1/", "http://127.0.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/",
    "http://0177.0.0.1/", "http://017700000001/", "http://00000177.0.0.1/", "http://127.0.0.01/", "http://0/", "http://0.0.0.0/",
    "http://127.0.0.1./", "http://127.255.255.254/", "http://10.0.0.1/", "http://172.16.0.1/", "http://192.168.1.1/",
    "http://100.64.0.1/", "http://169.254.169.254/latest/meta-data/", "http://0xa9fea9fe/", "http://2852039166/",
    "http://224.0.0.1/", "http://240.0.0.1/", "http://255.255.255.255/", "http://192.0.2.1/", "http://198.18.0.1/",
    "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::ffff:a9fe:a9fe]/",
    "http://[::127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[64:ff9b::10.0.0.1]/", "http://[64:ff9b:1::a00:1]/",
    "http://[2002:7f00:1::]/", "http://[2001:0:0:0:0:0:80ff:fffe]/", "http://[fe80::1]/", "http://[fe80::1%25eth0]/",
    "http://[fc00::1]/", "http://[fd00:ec2::254]/", "http://[fec0::1]/", "http://[ff02::1]/", "http://[2001:db8::1]/",
    "http://\u2460\u2461\u2466.0.0.1/", "http://127\u30020\u30020\u30021/", "http://256.1.1.1/", "http://1.2.3.4.5/", "http://1.2.3/",
    "file:///etc/passwd", "ftp://example.com/", "gopher://example.com:70/", "data:text/plain,x", "javascript:alert(1)",
    "http://me@example.com/", "http://me:you@example.com/", "http://example.com@127.0.0.1/", "http:///x", "//", "http://",
]  # fmt: skip


@pytest.mark.parametrize("address", FORBIDDEN)
def test_addresses_that_are_not_asked(address):
    """Neither when they stand in the settings, nor when a redirect leads there."""
    try:
        found = URL(address)
    except ValueError:
        found = None
    if found is not None:
        with pytest.raises(FatalError):
            Guard(allow_private=False).check_url(found)
    with pytest.raises((ValueError, FatalError)):
        collect({"url": address})


@pytest.mark.parametrize("address", [each for each in FORBIDDEN if each != "//"])
def test_redirects_that_are_not_followed(address):
    client = Client(None, guard=Guard(False), pace=None, login=None, headers={}, most=1, now=lambda: NOW)
    with pytest.raises(FatalError, match=r"https://api\.example/x: its redirect is not followed: "):
        client._next_url(URL("https://api.example/x"), address)


NEVER = [
    "http://169.254.169.254/", "http://0xa9fea9fe/", "http://2130706433/", "http://0x7f.1/", "http://127.0.0.1./", "http://0/",
    "http://0.0.0.0/", "http://[::]/", "http://[::ffff:169.254.169.254]/", "http://[64:ff9b::169.254.169.254]/",
    "http://[fe80::1]/", "http://224.0.0.1/", "http://[ff02::1]/", "file:///etc/passwd", "ftp://127.0.0.1/",
    "http://me:you@127.0.0.1/", "http://[::bad",
]  # fmt: skip


@pytest.mark.parametrize("address", NEVER)
def test_redirects_that_are_never_followed(address):
    """Not even with `allow_private`; from a real server."""
    with Api() as api:
        api.answers["/x"] = lambda _: web.Response(status=302, headers={"Location": address})
        with pytest.raises(FatalError, match="its redirect is not followed"):
            collect({"url": f"{api.url}/x", "allow_private": True})
        assert len(api.seen) == 1


def test_a_redirect_from_https_to_http_is_not_followed():
    client = Client(None, guard=Guard(False), pace=None, login=None, headers={}, most=1, now=lambda: NOW)
    with pytest.raises(FatalError, match="from https to http is not followed"):
        client._next_url(URL("https://api.example/x"), "http://api.example/x")
    assert client._next_url(URL("http://api.example/x"), "https://api.example/x").scheme == "https"


@settings(max_examples=200)
@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_what_is_not_global_is_not_asked(address):
    host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    try:
        Guard(allow_private=False).check_url(URL(f"https://{host}/"))
    except FatalError:
        return
    assert address.is_global
    assert not address.is_multicast


@given(st.ip_addresses(v=4))
def test_version_4_inside_of_version_6_counts(inner):
    for form in (
        f"::ffff:{inner}",
        f"64:ff9b::{inner}",
        f"2002:{int(inner) >> 16:x}:{int(inner) & 0xFFFF:x}::1",
    ):
        outcomes = []
        for address in (str(inner), str(IPv6Address(form))):
            try:
                Guard(allow_private=False).check_address(address, "x")
            except FatalError:
                outcomes.append(False)
            else:
                outcomes.append(True)
        assert outcomes[0] or not outcomes[1]
    assert IPv4Address(int(inner)) == inner


@pytest.mark.parametrize(
    "answer",
    [["127.0.0.1"], ["93.184.215.14", "10.0.0.1"], ["::1"], ["::ffff:10.0.0.1"], ["169.254.169.254"]],
)
def test_names_that_lead_inside(answer):
    names = Names(api_example=[answer])
    with pytest.raises(FatalError, match=r"api\.example is .* address, which is not asked"):
        collect({"url": "https://api.example/x"}, names)


def test_metadata_is_not_asked_even_with_allow_private():
    with pytest.raises(FatalError, match=r"169\.254\.169\.254, a reserved address, which is not asked$"):
        collect(
            {"url": "http://api.example/x", "allow_private": True}, Names(api_example=[["169.254.169.254"]])
        )


def test_a_name_that_changes_its_answer_is_checked_each_time():
    """Resolved once a connection: what was checked is what is connected to; the next connection is checked again."""
    with Api(rows(range(1, 20))) as api:
        names = Names(api_example=[["127.0.0.1"], ["169.254.169.254"]])
        api.answers["/page"] = lambda r: web.json_response(
            [{"id": int(r.query["page"])}], headers={"Connection": "close"}
        )
        config = {
            "url": f"http://api.example:{api.port}/page",
            "allow_private": True,
            "paging": {"type": "page"},
        }
        with pytest.raises(FatalError, match=r"169\.254\.169\.254"):
            collect(config, names)
        assert (len(api.seen), names.asked) == (1, ["api.example", "api.example"])


def test_redirects():
    with Api(rows([1])) as api:
        for n in range(5):
            api.answers[f"/r{n}"] = lambda _, n=n: web.Response(
                status=(301, 302, 303, 307, 308)[n],
                headers={"Location": f"/r{n + 1}" if n < 4 else "/link?x=1"},
            )
        config = {"allow_private": True, "auth": {"type": "bearer", "token": SECRET}}
        assert [each["id"] for each in collect({"url": f"{api.url}/r0", **config})] == [1]
        assert all(headers["Authorization"] == f"Bearer {SECRET}" for _, _, headers, _ in api.seen)
        api.answers["/again"] = lambda _: web.Response(status=302, headers={"Location": "/r0"})
        with pytest.raises(FatalError, match="more than 5 redirects"):
            collect({"url": f"{api.url}/again", **config})


@pytest.mark.parametrize(
    "auth",
    [
        {"type": "bearer", "token": SECRET},
        {"type": "basic", "username": "me", "password": SECRET},
        {"type": "api_key", "key": SECRET},
        {"type": "api_key", "key": SECRET, "location": "query", "name": "k"},
        None,
    ],
)
def test_another_origin_gets_no_credentials(auth):
    """Neither the login nor headers of the settings; also not when it leads back to where they belong."""
    with Api(rows([1])) as api, Api() as other:
        api.answers["/x"] = lambda _: web.Response(status=307, headers={"Location": f"{other.url}/y"})
        other.answers["/y"] = lambda _: web.Response(status=302, headers={"Location": f"{api.url}/link"})
        headers = {"X-Key": SECRET, "Cookie": f"session={SECRET}"}
        config = {"url": f"{api.url}/x", "allow_private": True, "auth": auth, "headers": headers}
        assert [each["id"] for each in collect(config)] == [1]
        first, back = api.seen
        assert SECRET in str(first) or "Basic" in str(first)
        assert SECRET not in str(other.seen) + str(back)
        assert "Authorization" not in other.seen[0][2] | back[2]


def test_another_port_is_another_origin_and_a_post_stays():
    with Api() as api, Api() as other:
        api.answers["/x"] = lambda _: web.Response(status=308, headers={"Location": f"{other.url}/y"})
        with pytest.raises(FatalError, match="a POST is not redirected to another origin"):
            collect({"url": f"{api.url}/x", "allow_private": True, "body": {"a": 1}})
        assert other.seen == []
        api.answers["/x"] = lambda _: web.Response(status=308, headers={"Location": "/z"})
        api.answers["/z"] = lambda _: web.json_response([{"id": 1}])
        collect({"url": f"{api.url}/x", "allow_private": True, "body": {"a": 1}})
        assert api.seen[-1][3] == b'{"a":1}'


@pytest.mark.parametrize("kind", [HttpSource, SseSource, WebsocketSource])
def test_own_headers_replace_the_usual_ones_however_they_are_written(kind):
    """Two of a name would be joined by the server, or one of them taken, nobody knows which."""
    seen = []
    own = {"user-agent": "mine", "accept": "text/x-own", "ACCEPT-encoding": "br"}
    with Api() as api:
        api.answers["/x"] = lambda request: seen.append(request.headers) or web.Response(status=404)

        async def work():
            url = api.url.replace("http", "ws") if kind is WebsocketSource else api.url
            source = kind(url=f"{url}/x", allow_private=True, headers=own)
            try:
                await source.connect()
                await anext(source.stream(None))
            finally:
                await source.disconnect()

        with pytest.raises(FatalError, match="404 Not Found"):
            asyncio.run(work())
    (headers,) = seen
    assert {name: headers.getall(name) for name in own} == {name: [value] for name, value in own.items()}


def test_the_body_of_a_request_has_the_type_that_the_settings_say():
    with Api() as api:
        seen = []
        api.answers["/x"] = lambda request: seen.append(request.headers) or web.json_response([])
        for own in ({}, {"content-type": "application/vnd.api+json"}):
            collect({"url": f"{api.url}/x", "allow_private": True, "body": {"a": 1}, "headers": own})
    usual, said = (headers.getall("Content-Type") for headers in seen)
    assert (usual, said) == (["application/json"], ["application/vnd.api+json"])


def test_cookies_are_not_kept():
    with Api(rows(range(1, 9))) as api:
        api.answers["/link"] = lambda r: None
        api.answers["/page"] = lambda r: web.json_response(
            [{"id": r.query["page"]}] if r.query["page"] < "3" else [], headers={"Set-Cookie": "a=b"}
        )
        collect({"url": f"{api.url}/page", "allow_private": True, "paging": {"type": "page"}})
        assert all("Cookie" not in headers for _, _, headers, _ in api.seen)


def test_logins():
    with Api(rows([1])) as api:
        base = {"url": f"{api.url}/link", "allow_private": True}
        collect({**base, "auth": {"type": "basic", "username": "me", "password": "pä:ss"}})
        assert api.seen[-1][2]["Authorization"] == "Basic bWU6cMOkOnNz"
        collect({**base, "auth": {"type": "api_key", "key": "k"}})
        assert api.seen[-1][2]["X-API-Key"] == "k"
        collect({**base, "auth": {"type": "api_key", "key": "k&", "name": "key", "location": "query"}})
        assert api.seen[-1][1] == {"key": "k&"}


def test_a_key_in_the_query_is_in_no_position():
    with Api(rows(range(1, 20))) as api:
        auth = {"type": "api_key", "key": SECRET, "name": "key", "location": "query"}
        config = {"url": f"{api.url}/link", "allow_private": True, "auth": auth, "paging": {"type": "link"}}

        async def work():
            source = HttpSource(**config)
            await source.connect()
            chunks = [chunk async for chunk in source.stream(None)]
            await source.disconnect()
            return chunks

        chunks = asyncio.run(work())
        assert len(chunks) == 3
        assert all(query["key"] == SECRET for query in api.queries())
        assert SECRET not in str([(chunk.position, chunk.metadata) for chunk in chunks])


class Tokens:
    """Gives tokens, and knows the last one only."""

    def __init__(self, api, **about):
        self.given, self.about = 0, about
        api.answers["/token"] = self.give
        api.answers["/page"] = self.check

    def give(self, request):
        self.given += 1
        return web.json_response({"access_token": f"t{self.given}", "token_type": "Bearer", **self.about})

    def check(self, request):
        if request.headers.get("Authorization") != f"Bearer t{self.given}":
            return web.json_response({"error": "expired"}, status=401)
        return None


@pytest.mark.parametrize("credentials", ["header", "body"])
def test_oauth2(credentials):
    with Api(rows(range(1, 20))) as api:
        tokens = Tokens(api, expires_in=3600)
        auth = {
            "type": "oauth2", "token_url": f"{api.url}/token", "client_id": "me", "client_secret": SECRET, "scope": "a b",
            "params": {"audience": "x"}, "credentials": credentials,
        }  # fmt: skip
        config = {"url": f"{api.url}/page", "allow_private": True, "records": "data.items", "auth": auth}
        config["paging"] = {"type": "page"}
        assert len(collect(config)) == 19
        assert tokens.given == 1
        _, _, headers, body = api.seen[0]
        form = b"grant_type=client_credentials&audience=x&scope=a+b"
        if credentials == "header":
            assert headers["Authorization"].startswith("Basic ")
            assert body == form
        else:
            assert "Authorization" not in headers
            assert body == form + f"&client_id=me&client_secret={SECRET}".encode()


def test_a_token_that_is_refused_is_fetched_again_once():
    with Api(rows(range(1, 20))) as api:
        tokens = Tokens(api)
        auth = {"type": "oauth2", "token_url": f"{api.url}/token", "client_id": "me", "client_secret": SECRET}
        config = {"url": f"{api.url}/page", "allow_private": True, "records": "data.items", "auth": auth}

        async def work():
            source = HttpSource(**config, paging={"type": "page"})
            await source.connect()
            async for _ in source.stream(None):
                if tokens.given == 1:
                    tokens.given += 1  # somebody else has fetched one
            await source.disconnect()

        asyncio.run(work())
        assert tokens.given == 3
        api.answers["/page"] = lambda _: web.json_response({"error": f"{SECRET} t4 t5"}, status=401)
        with pytest.raises(FatalError, match=r"401 Unauthorized: .*\*\*\*.*; check `auth`") as caught:
            collect(config)
        assert SECRET not in str(caught.value)


def test_tokens_that_expire():
    with Api(rows(range(1, 20))) as api:
        tokens = Tokens(api, expires_in=0.000001)
        auth = {"type": "oauth2", "token_url": f"{api.url}/token", "client_id": "me", "client_secret": SECRET}
        config = {"url": f"{api.url}/page", "allow_private": True, "records": "data.items", "auth": auth}
        assert len(collect({**config, "paging": {"type": "page"}})) == 19
        assert tokens.given == 4


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"text": "no"}, "has no `access_token`"),
        ({"body": b"[]"}, "has no `access_token`"),
        ({"body": b'{"access_token": "a\\nb"}'}, "not text that a header can have"),
        ({"status": 400, "text": f"bad client {SECRET}"}, r"/token: 400 Bad Request: bad client \*\*\*"),
    ],
)
def test_no_token(answer, message):
    with Api() as api:
        api.answers["/token"] = lambda _: web.Response(**answer)
        auth = {"type": "oauth2", "token_url": f"{api.url}/token", "client_id": "me", "client_secret": SECRET}
        with pytest.raises(FatalError, match=message):
            collect({"url": f"{api.url}/page", "allow_private": True, "auth": auth})


@pytest.mark.parametrize(
    ("status", "headers", "kind", "message"),
    [
        (400, {}, FatalError, r"http://127.0.0.1:\d+/x: 400 Bad Request: what \*\*\* says$"),
        (401, {}, FatalError, r"401 Unauthorized: what \*\*\* says; check `auth`"),
        (403, {}, FatalError, "403 Forbidden.*check `auth`, and what it may see"),
        (404, {}, FatalError, "404 Not Found.*check `url` and `path`"),
        (410, {}, FatalError, "410 Gone"),
        (304, {}, FatalError, "304 Not Modified, which was not asked for"),
        (300, {}, FatalError, "300 Multiple Choices"),
        (302, {}, FatalError, "302 Found"),
        (799, {}, TransientError, "799"),
        (408, {}, TransientError, "408 Request Timeout"),
        (425, {}, TransientError, "425 Too Early"),
        (429, {"Retry-After": "7"}, TransientError, "429 Too Many Requests"),
        (500, {}, TransientError, "500 Internal Server Error"),
        (503, {"Retry-After": "7"}, TransientError, "503"),
        (403, {"X-RateLimit-Remaining": "0"}, TransientError, "403"),
        (403, {"Retry-After": "7"}, TransientError, "403"),
    ],
)
def test_statuses(status, headers, kind, message):
    with Api() as api:
        api.answers["/x"] = lambda _: web.Response(
            status=status, headers=headers, body=b"" if status == 304 else f"what {SECRET}\nsays".encode()
        )
        config = {
            "url": f"{api.url}/x",
            "allow_private": True,
            "params": {"q": "in-no-message"},
            "auth": {"type": "bearer", "token": SECRET},
        }
        with pytest.raises(kind, match=message) as caught:
            collect(config)
        assert SECRET not in str(caught.value)
        assert "in-no-message" not in str(caught.value)
        if "Retry-After" in headers:
            assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "0"}, None),
        ({"Retry-After": "999999999"}, 3600),
        ({"Retry-After": "9" * 5000}, 3600),
        ({"Retry-After": "Thu, 01 Jan 2026 00:01:00 GMT"}, 60),
        ({"Retry-After": "Thu, 01 Jan 2026 00:01:00 -0000"}, 60),
        ({"Retry-After": "Thu, 01 Jan 2020 00:01:00 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"X-RateLimit-Reset": str(int(NOW.timestamp()) + 30)}, None),
        ({"X-RateLimit-Reset": str(int(NOW.timestamp()) + 30), "X-RateLimit-Remaining": "0"}, 30),
        ({"X-RateLimit-Reset": "30", "X-RateLimit-Remaining": "0"}, 30),
        ({"X-RateLimit-Reset": "x", "X-RateLimit-Remaining": "0"}, None),
        ({"X-RateLimit-Reset": "nan", "X-RateLimit-Remaining": "0"}, None),
    ],
)
def test_when_to_try_again(headers, seconds):
    assert seconds_to_wait(headers, NOW) == seconds


def test_a_response_that_cannot_be_expanded():
    """The text of the library would have the address with its query in it."""
    with Api() as api:
        headers = {"Content-Encoding": "gzip"}
        api.answers["/x"] = lambda _: web.Response(body=b"none", headers=headers)
        config = {"url": f"{api.url}/x", "allow_private": True, "params": {"q": SECRET}}
        with pytest.raises(TransientError, match="/x: ") as caught:
            collect(config)
        assert SECRET not in str(caught.value)
        headers["Content-Encoding"] = "br"
        with pytest.raises(TransientError, match="/x: ") as caught:
            collect(config)
        assert SECRET not in str(caught.value)


def test_a_certificate_that_is_not_trusted(tmp_path):
    """TLS is verified: nothing is asked, and no credentials are sent; unless the authority is one of the settings."""
    with Api(tls=certificate(tmp_path)) as api:
        config = {
            "url": f"https://localhost:{api.port}/x",
            "allow_private": True,
            "auth": {"type": "bearer", "token": SECRET},
        }
        with pytest.raises(FatalError, match="certificate verify failed") as caught:
            collect(config)
        assert SECRET not in str(caught.value)
        assert api.seen == []
        with pytest.raises(TransientError):
            collect({"url": f"http://localhost:{api.port}/x", "allow_private": True})
        api.answers["/x"] = lambda _: web.json_response([{"id": 1}])
        assert collect({**config, "tls": {"ca": str(tmp_path / "cert.pem")}}) == [{"id": 1}]


def test_servers_that_are_away():
    config = {"url": "http://127.0.0.1:1/x", "allow_private": True}
    with pytest.raises(TransientError, match=r"http://127\.0\.0\.1:1/x: "):
        collect(config)
    with Api() as api:

        async def silence(request):
            await asyncio.Event().wait()

        api.answers["/x"] = silence
        with pytest.raises(TransientError, match="/x: .*imeout"):
            collect({"url": f"{api.url}/x", "allow_private": True, "timeout": 0.1})


def test_a_response_that_is_too_large():
    with Api() as api:
        api.answers["/x"] = lambda _: web.json_response([{"id": n} for n in range(10_000)])
        with pytest.raises(
            FatalError, match=r"the response is larger than 1,000 bytes; ask for smaller pages, or set"
        ):
            collect({"url": f"{api.url}/x", "allow_private": True, "max_response": 1000})
        assert len(collect({"url": f"{api.url}/x", "allow_private": True, "max_response": 200_000})) == 10_000


def test_a_bomb_does_not_fill_the_memory():
    bomb = gzip.compress(b"[" + b" " * 200_000_000 + b"]", 9)
    with Api() as api:
        api.answers["/x"] = lambda _: web.Response(body=bomb, headers={"Content-Encoding": "gzip"})
        config = {"url": f"{api.url}/x", "allow_private": True, "max_response": "1 MiB"}
        tracemalloc.start()
        try:
            with pytest.raises(FatalError, match="larger than"):
                collect(config)
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()


def test_pace():
    """Requests begin a second apart, and bytes are read no faster than allowed, by a clock that is not real."""
    now, waits = [0.0], []

    async def wait(seconds):
        waits.append(round(seconds, 6))
        now[0] += seconds

    async def work(limit, *steps):
        pace = Pace(limit, lambda: now[0], wait)
        for step in steps:
            await (pace.request() if step is None else pace.received(step))

    asyncio.run(work(RateLimitConfig(requests_per_second=2), None, None, 1000, None))
    assert waits == [0.5, 0.5]
    waits.clear()
    asyncio.run(work(RateLimitConfig(bytes_per_second=100), None, 50, 100, None))
    assert waits == [0.5, 1.0]
    waits.clear()
    asyncio.run(work(None, None, 10**9, None))
    assert waits == []


def test_rate_limit_of_a_source_lasts_over_connections():
    with Api(rows(range(1, 20))) as api:
        config = {"url": f"{api.url}/link", "allow_private": True, "paging": {"type": "link"}}
        source = HttpSource(**config, rate_limit={"requests_per_second": 1000, "bytes_per_second": 10**6})
        waits = []

        async def work():
            await source.connect()

            async def wait(seconds):
                waits.append(seconds)

            source._client.pace._wait = wait
            async for _ in source.stream(None):
                pass
            pace = source._client.pace
            await source.disconnect()
            await source.connect()
            assert source._client.pace is pace
            await source.disconnect()

        asyncio.run(work())
        assert len(waits) >= 3


@pytest.mark.parametrize(
    "auth",
    [
        {"type": "basic", "username": "me", "password": "s@cret/ canary+1"},
        {"type": "api_key", "key": "s@cret/ canary+1", "location": "query", "name": "k"},
        {"type": "oauth2", "client_id": "me", "client_secret": "s@cret/ canary+1"},
    ],
)
def test_what_a_server_repeats_of_a_request_is_hidden(auth):
    """As it was sent: an encoded pair of name and password, a key in an address."""
    sent = []

    def repeat(request):
        sent.append(f"{request.headers.get('Authorization')} for {request.raw_path}")
        return web.Response(status=401, text=sent[-1])

    with Api() as api:
        api.answers["/page"] = api.answers["/token"] = repeat
        more = {"token_url": f"{api.url}/token"} if auth["type"] == "oauth2" else {}
        with pytest.raises(FatalError) as caught:
            collect({"url": f"{api.url}/page", "allow_private": True, "auth": auth | more})
    secret = sent[0].split(" for ")[0].partition("Basic ")[2] or sent[0].partition("k=")[2]
    assert len(secret) > 8
    assert secret not in str(caught.value)
    assert "***" in str(caught.value)
