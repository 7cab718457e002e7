"""Server-Sent Events: the contract against a real server, where reading goes on, and what is no stream of events."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from _broker_reading import ids, read, records
from _rest_api import Api, certificate
from _stopping import stored_when_stopped
from _streams import Feed, FeedServer, event, in_turn, lines
from aiohttp import web
from test_http_security import Names

from collectors.collection.sources.sse import SseSource
from collectors.errors import FatalError, TransientError
from collectors.http_client import limits
from collectors.testing.source_contract import SourceContract

SECRET = "secret-canary"
NO_MORE = "there are no more events (204 No Content)"


class TestSse(SourceContract):
    component = "sse"
    endless = True

    @asynccontextmanager
    async def rig(self, ids):
        with FeedServer(Feed(len(ids))) as server:
            yield {"url": f"http://127.0.0.1:{server.port}/sse", "allow_private": True, "chunk_size": 64}


def make(api, **more):
    return SseSource(**{"url": f"{api.url}/x", "allow_private": True, **more})


def answers(*handlers):
    api = Api()
    api.answers["/x"] = in_turn(*handlers)
    return api


def asked(api):
    """Return the last event id of each request."""
    return [headers.get("Last-Event-ID") for _, _, headers, _ in api.seen]


def run(work):
    return asyncio.run(work)


STOP = lines(status=204)


def read_all(source, since=None):
    """Read to the end that a 204 is."""

    async def work():
        await source.connect()
        try:
            return [chunk async for chunk in source.stream(since)]
        finally:
            await source.disconnect()

    return asyncio.run(asyncio.wait_for(work(), 20))


@pytest.fixture
def pauses(monkeypatch):
    """Let no time pass between two streams, and tell how much would have."""
    found = []

    async def pause(seconds):
        found.append(seconds)

    monkeypatch.setattr(limits, "pause", pause)
    return found


# Where reading goes on.


def test_it_goes_on_behind_the_last_whole_event(pauses):
    """Not behind one that the stream broke off in; the id stays when an event has none."""
    with answers(
        lines(event(1), b"data: {}\n\n", b"id: 2\ndata: torn\n"), lines(event(2), b"id: 3\n\n"), STOP
    ) as api:
        assert records(read_all(make(api))) == [{"id": 1}, {}, {"id": 2}]
        assert asked(api) == [None, "1", "3"]


def test_an_id_with_nul_is_none_and_an_empty_one_forgets_the_last(pauses):
    with answers(
        lines(event(1), b"id: 2\0\ndata: {}\n\n"), lines(b"id\ndata: {}\n\n"), lines(b"data: {}\n\n"), STOP
    ) as api:
        read_all(make(api))
        assert asked(api) == [None, "1", None, None]


def test_an_id_may_be_any_text(pauses):
    with answers(lines("id: é ☃\ndata: {}\n\n".encode()), STOP) as api:
        read_all(make(api))
        assert asked(api)[1] == "é ☃"


def test_the_first_reading_can_begin_behind_an_event(pauses):
    with answers(lines(event(8)), STOP) as api:
        read_all(make(api, last_event_id="7"))
        assert asked(api) == ["7", "8"]


def test_events_that_are_not_wanted_are_skipped_and_not_asked_for_again(pauses):
    stream = [event(1, "a"), event(2, "b"), event(3, "c"), b'data: {"id": 4}\n\n', event(5, "c")]
    with answers(lines(*stream), STOP) as api:
        chunks = read_all(make(api, events=["b", "message"]))
        assert ids(chunks) == [2, 4]
        assert asked(api) == [None, "5"]
    with answers(lines(*stream), STOP) as api:
        assert ids(read_all(make(api, events="a"))) == [1]


@pytest.mark.parametrize("first", [None, "7"])
def test_events_that_are_not_wanted_are_not_asked_for_again_after_an_error(first):
    """Although there was no chunk yet that reading could go on behind."""
    skipped = lines(event(8, "a"), event(9, "a"), hold=True)
    with answers(skipped, lambda _: web.Response(status=503), STOP) as api:
        source = make(api, events="b", silence=0.3, last_event_id=first)
        for _ in range(2):
            with pytest.raises(TransientError):
                read_all(source)
        read_all(source)
        assert asked(api) == [first, "9", "9"]


def test_a_server_says_how_long_to_wait_within_bounds(pauses):
    streams = [
        lines(),
        lines(b"retry: 2500\n\n"),
        lines(),
        lines(b"retry: 1\n\n"),
        lines(b"retry: 99999999999\n\n"),
    ]
    with answers(*streams, STOP) as api:
        read_all(make(api, retry="7s"))
    assert pauses == [7, 2.5, 2.5, 0.1, 3600]


def test_after_an_error_it_waits_as_the_server_said():
    with answers(lines(b"retry: 1500\n\n" + event(1), hold=True)) as api:

        async def check():
            source = make(api)
            await source.connect()
            stream = source.stream(None)
            await anext(stream)
            await asyncio.to_thread(api.stop)
            with pytest.raises(TransientError) as caught:
                await anext(stream)
            assert caught.value.retry_after == 1.5
            await source.disconnect()

        run(check())


def test_204_is_the_end(pauses):
    told = []
    with answers(lines(event(1)), STOP) as api:
        source = make(api)
        source.tell = told.append
        assert ids(read_all(source)) == [1]
        assert source.poll_interval() is None
        assert told == [f"{api.url}/x: {NO_MORE}"]


def test_without_ids_it_says_what_is_lost(pauses):
    told = []
    with answers(lines(b"data: {}\n\n", b"data: {}\n\n"), STOP) as api:
        source = make(api)
        source.tell = told.append
        chunks = read_all(source)
        assert all("mark" not in chunk.metadata for chunk in chunks)
    assert told[0] == f"{api.url}/x: there are no ids; what is sent while nobody is connected is lost"
    assert len(told) == 2


def test_what_has_come_is_stored_when_it_stops(tmp_path):
    """Without ids nobody can be asked for it again: what was cut and not handed on, and what is in the buffers."""
    sent = threading.Event()
    stream = lines(
        *(b'data: {"id": %d, "text": "%s"}\n\n' % (n, 100 * b"x") for n in range(800)), hold=True, sent=sent
    )
    with answers(stream) as api:
        found = stored_when_stopped(make(api, chunk_size="8 KiB"), tmp_path, partial(sent.wait, 20))
    assert found == Counter(range(800))


def test_a_server_that_goes_on_does_not_hold_up_the_end():
    async def handle(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b": still here\n\n")
                await asyncio.sleep(0.001)
        return response

    with answers(handle) as api:

        async def check():
            source = make(api)
            await source.connect()
            stream = source.stream(None)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.2)
            assert [chunk async for chunk in source.rest()] == []
            await source.disconnect()

        run(asyncio.wait_for(check(), 5))


# What is known in a new process.


def recalled(folder, api, kept=(), **more):
    told = []
    source = make(api, **more)
    source.tell = told.append
    source.remember(folder, kept)
    read_all(source)
    return asked(api)[0], told


def test_a_new_process_goes_on_behind_what_is_in_the_spool(tmp_path, pauses):
    with answers(lines(event(1), event(2)), STOP) as api:
        chunks = read_all(make(api, chunk_size=8))
        api.answers["/x"] = api.answers["/y"] = STOP
        for kept, expected in ((chunks, "2"), (chunks[:1], "1"), ([], None)):
            folder = tmp_path / str(expected)
            folder.mkdir()
            api.seen.clear()
            assert recalled(folder, api, kept)[0] == expected
            api.seen.clear()
            assert recalled(folder, api)[0] == expected, "the spool may have been trimmed since"
            api.seen.clear()
            first, told = recalled(folder, api, url=f"{api.url}/y")
            assert first is None
            assert ("`url` has changed: the events of the new one are read from now on" in told) == bool(kept)
            api.seen.clear()
            assert recalled(folder, api, kept, url=f"{api.url}/y") == (None, [f"{api.url}/y: {NO_MORE}"])
            api.seen.clear()
            assert recalled(folder, api, url=f"{api.url}/y", last_event_id="9")[0] == "9"


def test_what_is_committed_is_noted_and_outlives_an_empty_spool(tmp_path, pauses):
    with Api() as api:
        api.answers["/x"] = in_turn(lines(event(1), event(2)), lines(b"id: 3\n\n"), STOP)

        async def check():
            source = make(api)
            source.remember(tmp_path, [])
            await source.connect()
            async for chunk in source.stream(None):
                await source.commit(chunk.position)
            await source.disconnect()

        run(check())
        assert json.loads((tmp_path / "last_event.json").read_text())["id"] == "3"
        api.seen.clear()
        assert recalled(tmp_path, api)[0] == "3"
        api.seen.clear()
        assert recalled(tmp_path, api, url=f"{api.url}/x?more=1")[0] == "3"


def test_events_that_are_not_wanted_are_not_asked_for_again_in_a_new_process(tmp_path, pauses):
    with answers(lines(event(1, "a"), event(2, "a")), STOP) as api:
        source = make(api, events="b")
        source.remember(tmp_path, [])
        read_all(source)
        api.seen.clear()
        assert recalled(tmp_path, api, events="b")[0] == "2"


def test_what_the_spool_knows_is_noted_before_it_can_be_trimmed(tmp_path, pauses):
    with answers(lines(event(1)), STOP) as api:
        chunks = read_all(make(api))
        make(api).remember(tmp_path, chunks)
        assert json.loads((tmp_path / "last_event.json").read_text())["id"] == "1"


def test_what_is_not_durable_is_not_noted(tmp_path, pauses):
    with answers(lines(event(1)), STOP) as api:
        source = make(api)
        source.remember(tmp_path, [])
        read_all(source)
        assert not (tmp_path / "last_event.json").exists()


def test_a_damaged_note_is_told(tmp_path, pauses):
    (tmp_path / "last_event.json").write_text("{broken")
    with answers(STOP) as api:
        first, told = recalled(tmp_path, api)
    assert first is None
    assert "last_event.json: JSON is malformed" in told[0]
    assert "the last event is known from the spool alone" in told[0]


# Records.


def test_columns_of_the_event(pauses):
    add = {"kind": "event", "n": "id", "at": "time"}
    with answers(
        lines(b'data: {"x": 1}\n\n', b'id: 5\nevent: "odd"\ndata: {\ndata: "x": 2}\n\n'), STOP
    ) as api:
        first, second = records(read_all(make(api, add=add)))
    assert abs(datetime.fromisoformat(first.pop("at")) - datetime.now(UTC)) < timedelta(minutes=1)
    del second["at"]
    assert first == {"kind": "message", "n": None, "x": 1}
    assert second == {"kind": '"odd"', "n": "5", "x": 2}


def test_what_cannot_be_a_record_is_refused(pauses):
    long = b'id: 2\ndata: {"id": "' + b"x" * 100 + b'"}\n\n'
    with answers(lines(event(1), long, b"id: 3\nevent: e\ndata:\n\n", event(4)), STOP) as api:
        chunks = read_all(make(api, max_record=50))
        refused = [chunk for chunk in chunks if chunk.data_format == "rejected"]
        assert ids(chunks) == [1, 4]
        assert [chunk.metadata["reason"] for chunk in refused] == [
            "the event has 110 bytes, more than max_record (50)",
            "the event 'e' with the id '3' is empty",
        ]
        assert [chunk.position["id"] for chunk in chunks] == ["1", "2", "3", "4"]
        assert asked(api)[-1] == "4"


def test_other_formats(pauses):
    with answers(lines(b"data: a\ndata: b\n\ndata: c\n\n"), STOP) as api:
        (chunk,) = read_all(make(api, format="lines"))
        assert (chunk.data_format, chunk.raw_data) == ("lines", b"a\nb\nc\n")


def test_events_that_come_together_are_one_chunk(pauses):
    with answers(lines(b"".join(map(event, range(500)))), STOP) as api:
        chunks = read_all(make(api))
        assert ids(chunks) == [*range(500)]
        assert len(chunks) < 5


# What is no stream of events.


@pytest.mark.parametrize(
    ("handler", "kind", "message"),
    [
        (lambda _: web.Response(status=503, headers={"Retry-After": "9"}), TransientError, "503 Service Unavailable"),
        (lambda _: web.Response(status=429, text="slow down"), TransientError, "429 Too Many Requests: slow down"),
        (lambda _: web.Response(status=401), FatalError, "401 Unauthorized; check `auth`"),
        (lambda _: web.Response(status=404), FatalError, "404 Not Found; check `url`"),
        (lambda _: web.json_response([]), FatalError, "expected text/event-stream, got 'application/json'; check `url`"),
        (lines(status=206), FatalError, "expected a stream of events, got status 206"),
        (lines(headers={"Content-Encoding": "gzip"}), FatalError, "the stream is compressed, which was not asked for"),
    ],
)  # fmt: skip
def test_answers_that_are_none(handler, kind, message):
    with answers(handler) as api:
        with pytest.raises(kind) as caught:
            read_all(make(api))
        assert str(caught.value).startswith(f"{api.url}/x: {message}")
        if "503" in message:
            assert caught.value.retry_after == 9
        (request,) = api.seen
        assert request[2]["Accept"] == "text/event-stream"
        assert request[2]["Accept-Encoding"] == "identity"


def test_silence_and_comments():
    async def comments(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(20):
            await response.write(b":\n")
            await asyncio.sleep(0.05)
        await response.write(event(1))
        await asyncio.wait_for(asyncio.Event().wait(), 60)

    with (
        answers(comments) as api,
        pytest.raises(TransientError, match=r"nothing came for 0\.5 s, not even a comment"),
    ):
        run(read(make(api, silence=0.5), until=2))
    with answers(comments) as api:
        assert ids(run(read(make(api, silence=0.5), until=1))) == [1]


def test_a_server_that_does_not_answer():
    async def nothing(request):
        await asyncio.wait_for(asyncio.Event().wait(), 60)

    with answers(nothing) as api, pytest.raises(TransientError, match=r"no response within 0\.2 s"):
        read_all(make(api, timeout=0.2))


def test_a_server_that_is_not_there():
    api = Api()
    with api:
        pass
    with pytest.raises(TransientError, match="Cannot connect"):
        read_all(make(api))


# Who may be asked, and who gets what.


def test_another_origin_gets_no_credentials_but_the_last_event(pauses):
    auth = {"type": "bearer", "token": SECRET}
    with answers(lines(event(8)), STOP) as other, Api() as api:
        api.answers["/x"] = lambda _: web.Response(status=307, headers={"Location": f"{other.url}/x"})
        source = make(api, auth=auth, headers={"X-Own": SECRET}, last_event_id="7")
        assert ids(read_all(source)) == [8]
        assert api.seen[0][2]["Authorization"] == f"Bearer {SECRET}"
        assert asked(other) == ["7", "8"]
        assert SECRET not in str(other.seen)


@pytest.mark.parametrize(
    "location", ["http://169.254.169.254/", "file:///etc/passwd", "http://me:you@127.0.0.1/"]
)
def test_redirects_that_are_not_followed(location):
    redirect = web.Response(status=302, headers={"Location": location})
    with answers(lambda _: redirect) as api, pytest.raises(FatalError, match="redirect is not followed"):
        read_all(make(api))


def test_names_that_lead_inside():
    source = SseSource(url="https://api.example/x")
    source.resolver = Names(api_example=[["10.0.0.1"]])
    with pytest.raises(
        FatalError, match=r"api\.example is 10\.0\.0\.1, a private address, which is not asked"
    ):
        read_all(source)


def test_tls(tmp_path, pauses):
    with Api(tls=certificate(tmp_path)) as api:
        api.answers["/x"] = in_turn(lines(event(1)), STOP)
        settings = {"url": f"https://localhost:{api.port}/x", "auth": {"type": "bearer", "token": SECRET}}
        with pytest.raises(FatalError, match="certificate verify failed"):
            read_all(make(api, **settings))
        assert api.seen == []
        assert ids(read_all(make(api, **settings, tls={"ca": str(tmp_path / "cert.pem")}))) == [1]


def test_no_message_has_a_secret_in_it():
    with answers(lambda request: web.Response(status=403, text=str(dict(request.headers)))) as api:
        source = make(api, url=f"{api.url}/x?key={SECRET}", auth={"type": "bearer", "token": SECRET})
        with pytest.raises(FatalError) as caught:
            read_all(source)
    assert SECRET not in str(caught.value)
    assert SECRET not in str(source.config.auth)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "ftp://x.example"}, "url: expected an http or https address"),
        ({"url": "http://127.0.0.1/"}, "url: 127.0.0.1 is this machine; set `allow_private: true` to ask it"),
        (
            {"url": "http://x.example", "auth": {"type": "bearer", "token": "t"}},
            "url: credentials need https",
        ),
        ({"url": "http://x.example", "tls": {}}, "tls: only with https://"),
        ({"add": {"a": "data"}}, "add: column 'a': expected event, id, time, got 'data'"),
        ({"add": {"a": "id"}, "format": "lines"}, "add: only records in format ndjson can get columns"),
        ({"last_event_id": "a\nb"}, "last_event_id: expected a text without line breaks"),
        ({"retry": 0}, "greater than or equal to 0.1"),
        ({"timeout": 0}, "greater than 0"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        SseSource(**{"url": "https://x.example/", **settings})
