"""The storage `http`: what is sent and how, what answers mean, and what must not be asked or shown."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from _sink_api import Seen, SinkApi
from aiohttp import web
from aiohttp.abc import AbstractResolver
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collectors.chunks import Attempt, ChunkKey
from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError, DataError, FatalError, TransientError
from collectors.runtime.guarantee import guarantees
from collectors.settings import check_settings
from collectors.storage.backends import _http_requests
from collectors.storage.backends._http_requests import Part, cut
from collectors.storage.backends.http import HttpBackend
from collectors.testing.backend_contract import BackendContract
from collectors.testing.faults import Census, leaks

SECRET = "secret-canary"


class TestHttp(BackendContract):
    component = "http"
    can_query = False
    can_delete = False
    survives = False

    @pytest.fixture(autouse=True)
    def _served(self) -> Iterator[None]:
        with SinkApi() as api:
            type(self).api = api
            yield

    def settings(self, folder: Path) -> dict[str, Any]:
        return type(self).api.settings()


class TestHttpRecords(TestHttp):
    def settings(self, folder: Path) -> dict[str, Any]:
        return {**super().settings(folder), "body": "record", "concurrency": 4}


@pytest.fixture
def api() -> Iterator[SinkApi]:
    with SinkApi() as api:
        yield api


def key(seq: int = 1, flow: str = "p/numbers@http", epoch: int = 1) -> ChunkKey:
    return ChunkKey(flow, epoch, seq)


def numbers(first: int, last: int) -> pa.Table:
    return pa.table({"n": list(range(first, last))})


def run(
    scenario: Callable[[HttpBackend], Any], resolver: AbstractResolver | None = None, **settings: Any
) -> Any:
    """Run a scenario with a connected backend, and see that nothing stays."""

    async def main() -> Any:
        before = Census.take()
        backend = HttpBackend(check_settings(HttpBackend.config_class, settings))
        backend.resolver = resolver
        try:
            await backend.connect()
            result = await scenario(backend)
        finally:
            await backend.disconnect()
        assert await leaks(before) == []
        return result

    return asyncio.run(main())


def write(table: pa.Table, resolver: AbstractResolver | None = None, **settings: Any) -> int:
    """Write one table."""

    async def scenario(backend: HttpBackend) -> int:
        return await backend.write(table, key())

    return run(scenario, resolver, **settings)


def test_an_array_a_request(api: SinkApi) -> None:
    table = pa.table({"n": [1, 2, 3], "at": [datetime(2026, 1, 2, tzinfo=UTC)] * 3})
    assert write(table, **api.settings(max_rows=2)) == 3
    assert [seen.body for seen in api.seen] == [
        b'[{"n":1,"at":"2026-01-02T00:00:00Z"},{"n":2,"at":"2026-01-02T00:00:00Z"}]',
        b'[{"n":3,"at":"2026-01-02T00:00:00Z"}]',
    ]
    assert {(seen.method, seen.headers["Content-Type"]) for seen in api.seen} == {
        ("POST", "application/json")
    }
    assert len({seen.key for seen in api.seen}) == 2


def test_lines_and_compressed(api: SinkApi) -> None:
    api.before = lambda seen: web.Response(text=str(len(seen.rows)))
    write(numbers(1, 4), **api.settings(body="ndjson", compression="gzip", method="PUT"))
    (seen,) = api.seen
    assert seen.rows == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert (seen.method, seen.headers["Content-Type"]) == ("PUT", "application/x-ndjson")
    assert seen.headers["Content-Encoding"] == "gzip"
    assert int(seen.headers["Content-Length"]) == len(
        gzip.compress(b'{"n":1}\n{"n":2}\n{"n":3}\n', 6, mtime=0)
    )


def test_an_envelope_and_headers(api: SinkApi) -> None:
    envelope = {"source": "shop", "data": {"items": "{records}"}, "why": ["é", 1.5, None]}
    headers = {"content-type": "application/vnd.api+json", "X-Tenant": "t1"}
    api.before = lambda _: web.Response(status=204)
    write(numbers(1, 3), **api.settings(envelope=envelope, headers=headers, idempotency_header="X-Key"))
    (seen,) = api.seen
    assert json.loads(seen.body) == {**envelope, "data": {"items": [{"n": 1}, {"n": 2}]}}
    assert seen.headers["Content-Type"] == "application/vnd.api+json"
    assert seen.headers["X-Tenant"] == "t1"
    assert seen.key is None
    assert len(seen.headers["X-Key"]) == 36


def test_one_record_a_request_at_an_address_of_its_own(api: SinkApi) -> None:
    ids = ["a b/c?d#é", "%2e", "…", "x" * 300, "{n}", "a+b&c=d;e"]
    table = pa.table({"id": ids, "n": list(range(6)), "ok": [True] * 6})
    settings = api.settings(body="record", method="PUT", idempotency_header=None)
    settings["url"] = f"http://127.0.0.1:{api.port}/v1/{{ok}}/items/{{id}}/n-{{n}}?tenant=a%20b"
    write(table, **settings)
    expected = ["a%20b%2Fc%3Fd%23%C3%A9", "%252e", "%E2%80%A6", "x" * 300, "%7Bn%7D", "a%2Bb%26c%3Dd%3Be"]
    assert [seen.path for seen in api.seen] == [
        f"/v1/true/items/{name}/n-{n}" for n, name in enumerate(expected)
    ]
    assert {seen.query["tenant"] for seen in api.seen} == {"a b"}
    assert [seen.rows for seen in api.seen] == [[row] for row in table.to_pylist()]
    assert not any("Idempotency-Key" in seen.headers for seen in api.seen)


def test_rows_that_can_have_no_address_are_refused(api: SinkApi) -> None:
    settings = api.settings(body="record")
    settings["url"] += "/{id}"
    table = pa.table({"id": ["a", None, "", "..", ".", "b"], "n": list(range(6))})
    with pytest.raises(DataError) as refused:
        write(table, **settings)
    assert list(refused.value.rows) == [1, 2, 3, 4]
    assert set(refused.value.rows.values()) == {
        "column 'id': its value cannot stand in the path of the `url`"
    }
    assert api.kept.paths == ["/rows/a", "/rows/b"]
    with pytest.raises(DataError, match="there is no column 'id', which the `url` has"):
        write(numbers(0, 2), **settings)


def test_what_json_cannot_have_is_refused(api: SinkApi) -> None:
    with pytest.raises(DataError) as refused:
        write(pa.table({"n": [0, 1, 2], "x": [1.0, float("nan"), 2.0]}), **api.settings())
    assert list(refused.value.rows) == [1]
    assert api.kept.counted() == {0: 1, 2: 1}


texts = st.text("xé", max_size=30)


@hypothesis_settings(max_examples=200, deadline=None, database=None)
@given(
    values=st.lists(texts, min_size=1, max_size=60),
    more=st.lists(texts, max_size=30),
    ends=st.lists(st.integers(0, 100), max_size=4),
    bad=st.sets(st.integers(0, 90), max_size=10),
    most_rows=st.integers(1, 20),
    most_bytes=st.integers(1, 300),
    slice_rows=st.integers(1, 20),
)
def test_where_requests_end(
    values: list[str],
    more: list[str],
    ends: list[int],
    bad: set[int],
    most_rows: int,
    most_bytes: int,
    slice_rows: int,
) -> None:
    """All rows, in order, in requests that are full; and when more rows come behind, the first ones are cut the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_http_requests, "_SLICE_ROWS", slice_rows)

        def cut_up(texts: list[str], ends: list[int]) -> list[Part]:
            rows = [row for row in range(len(texts)) if row not in bad]
            table = pa.table({"t": pa.array([texts[row] for row in rows], pa.string())})
            return list(cut(table, rows, ends, most_rows=most_rows, most_bytes=most_bytes))

        ends = sorted({end for end in ends if end < len(values)})
        parts = cut_up(values, [*ends, len(values)])
        longer = cut_up(values + more, [*ends, len(values), len(values) + len(more)])
    assert [row for part in parts for row in part.rows] == [n for n in range(len(values)) if n not in bad]
    assert all(
        json.loads(line)["t"] == values[row]
        for part in parts
        for row, line in zip(part.rows, part.lines, strict=True)
    )
    for part, following in zip(parts, [*parts[1:], None], strict=False):
        size = sum(len(line) + 1 for line in part.lines)
        assert len(part.rows) <= most_rows
        assert size <= most_bytes or len(part.rows) == 1
        assert not [end for end in ends if part.rows[0] < end <= part.rows[-1]]
        if following is not None:
            full = len(part.rows) == most_rows or size + len(following.lines[0]) + 1 > most_bytes
            assert full or [end for end in ends if part.rows[-1] < end <= following.rows[0]]
    assert longer[: len(parts)] == parts


def keys_of(
    api: SinkApi, attempt: Attempt | None, table: pa.Table, seq: int = 1, **settings: Any
) -> list[str]:
    async def scenario(backend: HttpBackend) -> None:
        if attempt is not None:
            backend.expect(key(seq), attempt)
        await backend.write(table, key(seq))

    api.seen.clear()
    run(scenario, **api.settings(max_rows=10, **settings))
    return [str(seen.key) for seen in api.seen]


def test_keys_are_the_same_for_the_same_rows_of_the_same_attempt_only(api: SinkApi) -> None:
    """Also when more rows come behind them, in a delivery that ends elsewhere."""
    token, other = "9f2b6e4e-4a43-4d39-8b30-5b9a0a0c4a11", "9f2b6e4e-4a43-4d39-8b30-5b9a0a0c4a12"
    first = keys_of(api, Attempt(token, [25]), numbers(0, 25))
    again = keys_of(api, Attempt(token, [25, 47]), numbers(0, 47), seq=9)
    assert len(first) == 3
    assert again[:3] == first
    assert len(set(again)) == 6
    assert not set(first) & set(keys_of(api, Attempt(other, [25]), numbers(0, 25)))
    assert not set(first) & set(keys_of(api, Attempt(token, [25]), numbers(1, 26)))
    repeated = pa.table({"n": [1] * 30})
    assert len(set(keys_of(api, Attempt(token, [30]), repeated))) == 3, "equal rows are different rows"


def test_keys_stay_however_many_flows_there_are(api: SinkApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery that has to wait for its next try is not forgotten over those of others; what was sent stays sent."""
    monkeypatch.setattr("collectors.storage.backends.http._MOST_FLOWS", 2)
    token = "9f2b6e4e-4a43-4d39-8b30-5b9a0a0c4a11"

    async def scenario(backend: HttpBackend) -> None:
        backend.expect(key(), Attempt(token, [25]))
        api.before = lambda _: web.Response(status=503) if len(api.seen) == 2 else None
        with pytest.raises(TransientError):
            await backend.write(numbers(0, 25), key())
        for number in range(5):
            backend.expect(key(flow=f"p/{number}@http"), Attempt(token, [1]))
            await backend.write(pa.table({"m": [1]}), key(flow=f"p/{number}@http"))
        for _ in range(5):
            await backend.store({"m": 1})
        assert await backend.write(numbers(0, 25), key()) == 25
        assert await backend.write(numbers(0, 25), key()) == 0
        assert len(backend._stores) == 2

    run(scenario, **api.settings(max_rows=10))
    sent = [seen for seen in api.seen if "n" in seen.rows[0]]
    assert [len(seen.rows) for seen in sent] == [10, 10, 10, 5]
    assert sent[1].key == sent[2].key


AGAIN = [
    (408, {}, None),
    (425, {}, None),
    (429, {"Retry-After": "7"}, 7.0),
    (409, {"Retry-After": "2"}, 2.0),
    (500, {}, None),
    (503, {"Retry-After": "3"}, 3.0),
    (529, {}, None),
    (403, {"Retry-After": "4"}, 4.0),
]


@pytest.mark.parametrize(("status", "headers", "wait"), AGAIN)
def test_answers_after_which_it_is_sent_again(
    api: SinkApi, status: int, headers: dict[str, str], wait: float | None
) -> None:
    """Under the same key; what was sent already is not sent once more."""
    answers = iter([None, web.Response(status=status, headers=headers, text=f"no {SECRET}"), None, None])
    api.before = lambda _: next(answers)

    async def scenario(backend: HttpBackend) -> None:
        with pytest.raises(TransientError) as failure:
            await backend.write(numbers(0, 25), key())
        assert failure.value.retry_after == wait
        assert f"127.0.0.1:{api.port}/rows: {status} " in str(failure.value)
        assert SECRET not in str(failure.value)
        assert await backend.write(numbers(0, 25), key()) == 25

    run(scenario, **api.settings(max_rows=10, headers={"X-Token": SECRET}))
    assert [row["n"] for row in api.kept.rows] == list(range(25))
    assert [len(seen.rows) for seen in api.seen] == [10, 10, 10, 5]
    assert api.seen[1].key == api.seen[2].key


STOPS = [
    (401, "check `auth`"),
    (403, "check `auth`, and what it may see"),
    (404, "check `url` and `path`"),
    (405, "check `method`"),
    (410, "410 Gone"),
    (301, "to http://elsewhere.example/x: a redirect is not followed; set `url` to where it leads"),
    (307, "a redirect is not followed"),
    (304, "a redirect is not followed"),
    (207, "which of the rows it took is not looked into; set `body: record`"),
]


@pytest.mark.parametrize(("status", "says"), STOPS)
def test_answers_that_stop_the_flow(api: SinkApi, status: int, says: str) -> None:
    location = {"Location": "http://elsewhere.example/x?token=secret-canary"}
    api.before = lambda _: web.Response(status=status, headers=location, text="why")
    with pytest.raises(FatalError) as failure:
        write(numbers(0, 5), **api.settings())
    assert says in str(failure.value)
    assert SECRET not in str(failure.value)
    assert len(api.seen) == 1


def test_a_conflict_stops_the_flow_where_no_keys_are_sent(api: SinkApi) -> None:
    api.before = lambda _: web.Response(status=409)
    with pytest.raises(FatalError, match="409 Conflict"):
        write(numbers(0, 5), **api.settings(idempotency_header=None))


def refused_rows(settings: dict[str, Any], table: pa.Table) -> dict[int, str]:
    """Return the rows that are refused; all others are stored, and none is sent again when the delivery is repeated."""

    async def scenario(backend: HttpBackend) -> dict[int, str]:
        with pytest.raises(DataError) as refused:
            await backend.write(table, key())
        keep = [row for row in range(table.num_rows) if row not in refused.value.rows]
        assert await backend.write(table.take(pa.array(keep, pa.int64())), key()) == 0
        return refused.value.rows

    return run(scenario, **settings)


@hypothesis_settings(max_examples=100, deadline=None, database=None)
@given(bad=st.sets(st.integers(0, 39), min_size=1, max_size=6), concurrency=st.integers(1, 3))
def test_bad_rows_are_found_and_all_others_stored_once(bad: set[int], concurrency: int) -> None:
    with SinkApi(refuses=lambda row: row["n"] in bad) as api:
        found = refused_rows(api.settings(max_rows=15, concurrency=concurrency), numbers(0, 40))
        assert set(found) == bad
        assert set(found.values()) == {
            f'http://127.0.0.1:{api.port}/rows: 400 Bad Request: {{"error": "a bad row"}}'
        }
        assert sorted(row["n"] for row in api.kept.rows) == [n for n in range(40) if n not in bad]
        if concurrency == 1:
            assert [row["n"] for row in api.kept.rows] == sorted(row["n"] for row in api.kept.rows)


def test_a_body_that_is_too_large_is_halved(api: SinkApi) -> None:
    """And a row that is too large by itself is refused."""
    api.before = lambda seen: web.Response(status=413) if len(seen.body) > 100 else None
    table = pa.table({"n": list(range(60)), "pad": ["x" * 200 if n == 7 else "" for n in range(60)]})
    found = refused_rows(api.settings(), table)
    assert list(found) == [7]
    assert sorted(row["n"] for row in api.kept.rows) == [n for n in range(60) if n != 7]


def test_when_everything_is_refused_it_is_hardly_the_data() -> None:
    with SinkApi(refuses=lambda _: True) as api:
        with pytest.raises(FatalError, match="too many of 1,000 rows are refused to find out which"):
            write(numbers(0, 3000), **api.settings())
        assert len(api.seen) < 1100


def test_other_statuses_can_mean_bad_rows(api: SinkApi) -> None:
    api.before = lambda seen: web.Response(status=404) if seen.path.endswith("/3") else None
    settings = api.settings(body="record", refused=[404])
    settings["url"] += "/{n}"
    assert list(refused_rows(settings, numbers(0, 5))) == [3]


def test_no_more_requests_at_a_time_than_allowed(api: SinkApi) -> None:
    first = asyncio.Event()

    async def wait() -> None:
        if api.under_way >= 3:
            first.set()
        await first.wait()

    api.wait = wait
    write(numbers(0, 100), **api.settings(max_rows=5, concurrency=3))
    assert api.most_under_way == 3
    assert api.kept.counted() == dict.fromkeys(range(100), 1)


def test_what_is_under_way_beside_a_failure_is_waited_for(api: SinkApi) -> None:
    """So it is known to be stored, and is not sent again."""
    failed = asyncio.Event()

    async def wait() -> None:
        if len(api.seen) >= 1:
            await failed.wait()

    def before(seen: Seen) -> web.Response | None:
        if len(api.seen) == 1:
            failed.set()
            return web.Response(status=503)
        return None

    api.wait, api.before = wait, before

    async def scenario(backend: HttpBackend) -> None:
        with pytest.raises(TransientError):
            await backend.write(numbers(0, 40), key())
        await backend.write(numbers(0, 40), key())

    run(scenario, **api.settings(max_rows=10, concurrency=3))
    assert sorted(row["n"] for row in api.kept.rows) == list(range(40))


def test_answers_are_read_up_to_a_limit(api: SinkApi) -> None:
    """One without end does not hold up anything: the connection is given up."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65_536)
                sizes.append(65_536)
        except (ConnectionError, asyncio.CancelledError):
            pass
        return response

    sizes: list[int] = []
    api.respond = endless
    assert write(numbers(0, 30), **api.settings(max_rows=10)) == 30
    assert sum(sizes) < 200 * 65_536


def test_a_token_that_is_refused_is_fetched_anew(api: SinkApi) -> None:
    tokens = iter(["old", "new"])

    def before(seen: Seen) -> web.Response | None:
        if seen.path == "/token":
            return web.json_response({"access_token": next(tokens)})
        return None if seen.headers["Authorization"] == "Bearer new" else web.Response(status=401)

    api.before = before
    auth = {
        "type": "oauth2",
        "token_url": f"http://127.0.0.1:{api.port}/token",
        "client_id": "me",
        "client_secret": SECRET,
    }
    write(numbers(0, 3), **api.settings(auth=auth))
    assert api.kept.counted() == {0: 1, 1: 1, 2: 1}


def test_a_key_in_the_query_is_not_shown(api: SinkApi) -> None:
    api.before = lambda seen: web.Response(status=500, text=f"you sent {seen.query}")
    auth = {"type": "api_key", "name": "k", "key": SECRET, "location": "query"}
    with pytest.raises(TransientError) as failure:
        write(numbers(0, 3), **api.settings(auth=auth))
    assert api.seen[0].query == {"k": SECRET}
    assert SECRET not in str(failure.value)
    config = check_settings(HttpBackend.config_class, api.settings(auth=auth, headers={"X": SECRET}))
    assert SECRET not in repr(config)


@pytest.mark.parametrize("place", range(185, 201, 5))
def test_not_even_the_beginning_of_a_secret_is_shown_where_an_answer_is_cut(api: SinkApi, place: int) -> None:
    api.before = lambda _: web.Response(status=500, text="x" * place + SECRET)
    with pytest.raises(TransientError) as failure:
        write(numbers(0, 3), **api.settings(headers={"X-Token": SECRET}))
    assert "xs" not in str(failure.value)


class Names(AbstractResolver):
    """Resolves every name to the next one of some addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[Any]:
        address = self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]
        return [{"hostname": host, "host": address, "port": port, "family": 2, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"])
def test_only_the_public_internet_is_asked(address: str) -> None:
    with pytest.raises(FatalError, match="which is not asked"):
        write(numbers(0, 3), Names(address), url="http://api.example/rows")


def test_addresses_of_a_network_can_be_allowed_but_never_all() -> None:
    with pytest.raises(FatalError, match=r"169\.254\.169\.254, a reserved address"):
        write(numbers(0, 3), Names("169.254.169.254"), url="http://api.example/rows", allow_private=True)


def test_tls_is_verified(tmp_path: Path) -> None:
    """A certificate that nobody vouches for gets nothing; one from the authorities of the settings is fine."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    try:
        files = ["-keyout", "key.pem", "-out", "cert.pem"]
        subprocess.run([*command.split(), *files], cwd=tmp_path, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the program openssl to make a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with SinkApi(tls=context) as api:
        settings = api.settings(auth={"type": "bearer", "token": SECRET})
        settings["url"] = f"https://localhost:{api.port}/rows"
        with pytest.raises(FatalError, match="certificate verify failed") as failure:
            write(numbers(0, 3), **settings)
        assert SECRET not in str(failure.value)
        assert api.seen == []
        write(numbers(0, 3), **settings, tls={"ca": str(tmp_path / "cert.pem")})
        assert api.seen[0].headers["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"url": "ftp://x.example"}, "url: expected an http or https address"),
        ({"url": "https://me:pw@x.example"}, "put the login into `auth"),
        ({"url": "http://127.0.0.1/x"}, "is this machine; set `allow_private: true`"),
        (
            {"url": "https://x.example/{id}"},
            r"url: \{id\} is another address for each row; set `body: record`",
        ),
        ({"url": "https://{host}/x", "body": "record"}, "in the path only"),
        ({"url": "https://x.example/?id={id}", "body": "record"}, "in the path only"),
        ({"url": "https://x.example/{id", "body": "record"}, "expected a column in braces"),
        ({"envelope": {"a": "b"}}, 'expected the text "{records}" once'),
        ({"envelope": {"{records}": "{records}"}}, 'expected the text "{records}" once'),
        ({"envelope": {"a": "{records}"}, "body": "ndjson"}, "lines have none"),
        ({"max_rows": 10, "body": "record"}, "a request has one row"),
        ({"refused": [429]}, "429: expected statuses from 400 to 499 that are about the rows"),
        ({"refused": [500]}, "500: expected statuses"),
        ({"headers": {"idempotency-key": "x"}}, "has another value for each request"),
        ({"headers": {"X": "a\nb"}}, "a header without line breaks"),
        ({"idempotency_header": "a b"}, "expected the name of a header"),
        ({"concurrency": 0}, "concurrency"),
        ({"method": "GET"}, "method"),
        ({"auth": {"type": "bearer", "token": "x"}, "url": "http://x.example/"}, "credentials need https"),
        ({"tls": {}, "url": "http://x.example/"}, "tls: only with https://"),
    ],
)
def test_settings_that_do_not_fit(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        check_settings(HttpBackend.config_class, {"url": "https://x.example/rows", **given})


def test_check_shows_what_would_be_sent() -> None:
    backend = HttpBackend(url="https://x.example/v1/{id}?token=secret-canary", body="record", method="PUT")
    assert backend.preview(numbers(0, 1), "p/numbers") == [
        "+ PUT https://x.example/v1/{id}",
        "n: int64",
        "! id: rows have no such column, and the `url` has it",
    ]
    assert backend.describe() == "https://x.example/v1/{id}"


def test_what_is_promised(tmp_path: Path) -> None:
    (tmp_path / "x.ndjson").write_text("{}\n")
    source = {"type": "file", "id": "s", "path": "x.ndjson"}
    storage = {"type": "http", "url": "https://x.example/rows"}
    config = from_mapping({"name": "p", "sources": [source], "storage": [storage]}, folder=tmp_path)
    (edge,) = guarantees(config)
    assert edge.promise == (
        "at least once (a crash between rows and position sends the rows of one commit again, with the same keys)"
    )
