"""Who is not meant to send does not; and nobody takes more memory, connections or time than is given to one."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import hashlib
import hmac
import resource
import socket
import zlib
from contextlib import ExitStack
from datetime import UTC, datetime

import psutil
import pyarrow as pa
import pytest
from _push_client import Client, head
from hypothesis import given, settings
from hypothesis import strategies as st
from test_source_webhook import driven

from collectors.collection.sources._webhook_bodies import BodyError, expand
from collectors.collection.sources._webhook_signatures import PRESETS, ForgedError, secret_bytes, verify

NOW = 1_800_000_000
BODY = b'{"id": 1}\n'


def mac(secret, *parts):
    return hmac.new(secret, b"".join(parts), hashlib.sha256)


def github(body=BODY, at=NOW, secret=b"s1", key="d-1"):
    return {"X-Hub-Signature-256": f"sha256={mac(secret, body).hexdigest()}", "X-GitHub-Delivery": key}


def stripe(body=BODY, at=NOW, secret=b"s1", key=""):
    return {"Stripe-Signature": f"t={at},v1={mac(secret, b'%d.' % at, body).hexdigest()},v0=abc"}


def slack(body=BODY, at=NOW, secret=b"s1", key=""):
    made = mac(secret, b"v0:%d:" % at, body).hexdigest()
    return {"X-Slack-Request-Timestamp": str(at), "X-Slack-Signature": f"v0={made}"}


def standard(body=BODY, at=NOW, secret=b"s1", key="msg-1"):
    made = base64.b64encode(mac(secret, b"%s.%d." % (key.encode(), at), body).digest()).decode()
    return {"webhook-id": key, "webhook-timestamp": str(at), "webhook-signature": f"v1a,xx v1,{made}"}


def generic(body=BODY, at=NOW, secret=b"s1", key=""):
    return {"X-Timestamp": str(at), "X-Signature": f"sha256={mac(secret, b'%d.' % at, body).hexdigest()}"}


SIGNERS = {
    "github": github,
    "stripe": stripe,
    "slack": slack,
    "standard": standard,
    "generic": generic,
}
TIMED = [name for name in SIGNERS if name != "github"]


def check(name, headers, body=BODY, secrets=(b"s1",), now=NOW):
    return verify(PRESETS[name], headers, body, secrets, now, 300)


def test_there_is_a_signer_for_each_preset():
    assert set(SIGNERS) == set(PRESETS)


def test_published_examples():
    """From GitHub's, Slack's and Standard Webhooks' own documentation."""
    headers = {
        "X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    }
    check("github", headers, b"Hello, World!", [b"It's a Secret to Everybody"])
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&"
        b"channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&"
        b"response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&"
        b"trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "X-Slack-Request-Timestamp": "1531420618",
        "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    check("slack", headers, body, [b"8f742231b10e8888abcd99yyyzzz85a5"], now=1531420618)
    secret = secret_bytes("standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    check("standard", headers, b'{"test": 2432232314}', [secret], now=1614265330)


@pytest.mark.parametrize("name", SIGNERS)
def test_signed_requests_are_taken_in_with_any_of_the_secrets(name):
    for secret in (b"old", b"new"):
        check(name, SIGNERS[name](secret=secret), secrets=[b"old", b"new"])


@pytest.mark.parametrize("name", SIGNERS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_forged_requests_are_not(name, data):
    """Another body, another secret, a changed or missing header: never taken in."""
    headers = SIGNERS[name]()
    what = data.draw(st.sampled_from(["body", "secret", "header", "missing"]))
    body, secrets = BODY, (b"s1",)
    if what == "body":
        body = data.draw(st.binary(max_size=20).filter(lambda value: value != BODY))
    elif what == "secret":
        secrets = (data.draw(st.binary(min_size=1, max_size=8).filter(lambda value: value != b"s1")),)
    else:
        signed = [each for each in headers if each != "X-GitHub-Delivery"]
        chosen = data.draw(st.sampled_from(signed))
        old = headers.pop(chosen)
        if what == "header":
            headers[chosen] = data.draw(
                st.one_of(
                    st.text(max_size=90),
                    st.integers(0, len(old) - 1).map(lambda place: old[:place] + old[place + 1 :]),
                ).filter(lambda value: value != old)
            )
    try:
        check(name, headers, body, secrets)
    except ForgedError:
        return
    # What is left are other ways to write the very same signature.
    assert what == "header"
    assert fits(name, headers, body)


def fits(name, headers, body):
    """Return whether the signature in changed headers is still that of the body: a prefix was left out."""
    original = SIGNERS[name]()
    text = " ".join(headers.values()).lower()
    made = mac(b"s1", body).hexdigest() if name == "github" else None
    if name == "standard":
        return original["webhook-signature"].partition("v1,")[2].rstrip("=")[:-1] in " ".join(
            headers.values()
        ) and ("v1," in text)
    parts = {"stripe": b"%d." % NOW, "slack": b"v0:%d:" % NOW, "generic": b"%d." % NOW}
    made = made or mac(b"s1", parts[name], body).hexdigest()
    return made in text.replace(" ", "")


@pytest.mark.parametrize("name", TIMED)
def test_requests_out_of_their_time_are_refused(name):
    for away in (-301, 301):
        with pytest.raises(ForgedError, match="300 s away"):
            check(name, SIGNERS[name](at=NOW + away))
    for away in (-299, 299):
        check(name, SIGNERS[name](at=NOW + away))


@pytest.mark.parametrize("timestamp", ["", "x", "-5", "1e9", "١٢٣", "9" * 400, "18000000.0"])
def test_timestamps_that_are_none_are_refused(timestamp):
    headers = generic() | {"X-Timestamp": timestamp}
    with pytest.raises(ForgedError, match="timestamp"):
        check("generic", headers)


def signed(name, **settings):
    return {"signature": {"preset": name, "secret": ["s1", "s2"]}, **settings}


def at_now(driver):
    driver.source.now = lambda: datetime.fromtimestamp(NOW, UTC)


async def connected(driver):
    at_now(driver)
    await driver.source.disconnect()
    await driver.source.connect()
    driver.port = driver.source.addresses[0].port


@pytest.mark.parametrize("name", SIGNERS)
def test_over_http_forged_requests_get_401_and_nothing_is_kept(name):
    async def check(driver):
        await connected(driver)
        for headers in ({}, SIGNERS[name](secret=b"no"), SIGNERS[name](body=b"other")):
            assert (await driver.request(BODY, **headers)).status == 401
        assert driver.chunks == []
        assert (await driver.request(BODY, **SIGNERS[name](secret=b"s2"))).status == 200
        assert driver.raw == BODY

    driven(check, **signed(name))


@pytest.mark.parametrize("name", TIMED)
def test_a_replayed_request_is_not_stored_again(name):
    async def check(driver):
        await connected(driver)
        headers = SIGNERS[name]()
        assert (await driver.request(BODY, **headers)).json["bytes"] == len(BODY)
        again = [headers, {**headers, "Idempotency-Key": "another"}]
        if name in {"slack", "generic"}:  # hexadecimal in capitals is the same signature
            last = list(headers)[-1]
            lead, _, digits = headers[last].partition("=")
            again.append({**headers, last: f"{lead}={digits.upper()}"})
        for each in again:
            assert (await driver.request(BODY, **each)).json == {"kept": True, "bytes": 0, "duplicate": True}
        assert driver.raw == BODY

    driven(check, **signed(name))


def test_a_request_that_was_turned_away_is_no_replay():
    async def check(driver):
        await connected(driver)
        driver.reason = "full"
        assert (await driver.request(BODY, **generic())).status == 503
        driver.reason = None
        assert (await driver.request(BODY, **generic())).json["bytes"] == len(BODY)

    driven(check, **signed("generic"))


def test_the_same_request_twice_at_the_same_time_is_one():
    async def check(driver):
        await connected(driver)
        driver.holding.clear()
        tasks = [asyncio.create_task(driver.request(BODY, Idempotency_Key="k")) for _ in range(4)]
        await driver.until(lambda: driver.source._desk.waiting == 4 * len(BODY))
        for _ in range(50):
            await asyncio.sleep(0)
        driver.holding.set()
        answers = await asyncio.gather(*tasks)
        assert [answer.status for answer in answers] == [200] * 4
        assert sorted(answer.json["bytes"] for answer in answers) == [0, 0, 0, len(BODY)]
        assert driver.raw == BODY
        other = await driver.request(b"[]", Idempotency_Key="k")
        assert (other.status, "another body" in other.json["error"]) == (422, True)

    driven(check)


def test_github_names_its_deliveries():
    async def check(driver):
        await connected(driver)
        for key, kept in (("d-1", len(BODY)), ("d-1", 0), ("d-2", len(BODY))):
            assert (await driver.request(BODY, **github(key=key))).json["bytes"] == kept

    driven(check, **signed("github"))


def test_slack_hears_its_challenge_once_it_has_signed():
    async def check(driver):
        await connected(driver)
        body = b'{"type": "url_verification", "token": "x", "challenge": "3eZbrw1a"}'
        assert (await driver.request(body, **slack(body=BODY))).status == 401
        answer = await driver.request(body, **slack(body=body))
        assert (answer.status, answer.body) == (200, b"3eZbrw1a")
        assert driver.chunks == []

    driven(check, **signed("slack"))


def test_a_signature_is_over_what_was_sent_and_checked_before_it_is_expanded(monkeypatch):
    def never(*_):
        raise AssertionError("a body of nobody was expanded")

    async def check(driver):
        await connected(driver)
        packed = gzip.compress(BODY)
        assert (await driver.request(packed, Content_Encoding="gzip", **generic(body=packed))).status == 200
        again = gzip.compress(BODY, 1) + gzip.compress(b"")  # re-encoded on the way
        monkeypatch.setattr("collectors.collection.sources._webhook_requests.expand", never)
        assert (await driver.request(again, Content_Encoding="gzip", **generic(body=packed))).status == 401
        assert driver.raw == BODY

    driven(check, **signed("generic"))


def test_tokens():
    async def check(driver):
        for header, status in [
            (None, 401),
            ("Bearer wrong", 401),
            ("Bearer tok", 401),
            ("Bearer token-1x", 401),
            ("Basic token-1", 401),
            ("token-1", 401),
            ("Bearer \xff", 401),
            ("Bearer token-1", 200),
            ("bearer  token-2", 200),
        ]:
            headers = {} if header is None else {"Authorization": header}
            answer = await driver.request(b"[]", **headers)
            assert answer.status == status, header
        assert len(driver.chunks) == 2

    driven(check, token=["token-1", "token-2"])


def test_without_a_token_the_body_is_not_even_read():
    async def check(driver):
        def only_the_head():
            with Client(driver.port) as client:
                client.write(head(Content_Length=1000))
                return client.answer()

        assert (await driver.elsewhere(only_the_head)).status == 401
        assert driver.source._desk.waiting == 0

    driven(check, token="token")


# how much


def bomb(encoding, size):
    if encoding == "zstd":
        return pa.Codec("zstd").compress(bytes(size), asbytes=True)
    packer = zlib.compressobj(9, wbits={"gzip": 31, "deflate": 15}[encoding])
    block = bytes(2**20)
    return b"".join([packer.compress(block) for _ in range(size // 2**20)] + [packer.flush()])


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_stopped_at_the_limit(encoding):
    packed = bomb(encoding, 64 * 2**20)
    with pytest.raises(BodyError, match="larger than 8,388,608 bytes") as error:
        expand(packed, encoding, 8 * 2**20)
    assert error.value.too_large
    with pytest.raises(BodyError, match="larger than 16,777,216 bytes"):
        expand(packed[:5000] if encoding == "zstd" else packed, encoding, 2**40)
    assert len(expand(bomb(encoding, 2**20), encoding, 2**20)) == 2**20


def test_bombs_over_http_leave_the_memory_alone():
    async def check(driver):
        packed = bomb("gzip", 1024 * 2**20)
        assert len(packed) < 2 * 2**20
        await driver.request(b"[]")
        before = psutil.Process().memory_info().rss
        peak = 0

        async def watch():
            nonlocal peak
            while True:
                peak = max(peak, psutil.Process().memory_info().rss)
                await asyncio.sleep(0.005)

        watching = asyncio.create_task(watch())
        answers = await asyncio.gather(*(driver.request(packed, Content_Encoding="gzip") for _ in range(6)))
        watching.cancel()
        assert {answer.status for answer in answers} <= {413, 503}
        assert 413 in {answer.status for answer in answers}
        assert peak - before < 64 * 2**20
        assert (await driver.request(b"[]")).status == 200

    driven(check)


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        b"POST /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(500)) + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GARBAGE\r\n\r\n",
    ],
    ids=lambda data: repr(data[:40]),
)
def test_heads_that_are_too_large_or_none_are_refused(data):
    async def check(driver):
        def work():
            with Client(driver.port) as client:
                client.write(data)
                return client.answer()

        answer = await driver.elsewhere(work)
        assert answer is None or answer.status == 400
        assert driver.raw in {b"", b"12345"[:0]}
        assert (await driver.request(b"[]")).status == 200
        assert driver.raw == b"[]"

    driven(check)


def test_200_slow_clients_do_not_keep_others_out_and_are_let_go():
    """Half of them never end their head, half never end their body."""

    async def check(driver):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2048)), hard))
        with ExitStack() as stack:
            slow = []
            for n in range(200):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", driver.port)))
                connection.sendall(
                    b"POST / HTTP/1.1\r\n"
                    if n % 2
                    else head(Content_Length=100) + b"x"  # one byte of the body
                )
                slow.append(connection)
            await driver.until(lambda: driver.source._desk.waiting == 100)
            assert (await driver.request(b"[1]")).status == 200
            assert driver.source._desk.waiting == 100, "the slow ones were let go first"

            def let_go(connection):
                connection.settimeout(30)
                try:
                    while connection.recv(4096):
                        pass
                except ConnectionResetError:
                    pass

            await asyncio.gather(*(driver.elsewhere(let_go, connection) for connection in slow))
        await driver.until(lambda: driver.source._desk.waiting == 0)
        assert driver.raw == b"[1]"

    driven(check, timeout=5.0)


def test_one_connection_too_many_is_told_so():
    problems = []

    async def check(driver):
        asyncio.get_running_loop().set_exception_handler(lambda _, about: problems.append(about))

        def work():
            with ExitStack() as stack:
                first = [stack.enter_context(Client(driver.port)) for _ in range(3)]
                statuses = [client.request(b"[]").status for client in first]
                with Client(driver.port) as client:
                    statuses.append(client.answer().status)
                return statuses

        assert await driver.elsewhere(work) == [200, 200, 200, 503]

        def again():
            with Client(driver.port) as client:
                return client.request(b"[]").status

        async with asyncio.timeout(20):
            while await driver.elsewhere(again) != 200:
                pass

    driven(check, max_connections=3)
    gc.collect()
    assert problems == [], "anybody could fill the log"


def test_a_driver_that_is_wrong_about_the_time_is_seen():
    async def check(driver):
        assert (await driver.request(BODY, **generic())).status == 401  # NOW is not now

    driven(check, **signed("generic"))
