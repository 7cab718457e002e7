"""REST APIs: every way of paging, from every position; what is new; several endpoints; what is no answer."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from _rest_api import Api, rows
from aiohttp import web
from yarl import URL

from collectors.collection.sources._http_paging import check_origin
from collectors.collection.sources.http import HttpSource
from collectors.errors import FatalError, TransientError
from collectors.testing.source_contract import SourceContract

PAGED = {
    "page": {"records": "data.items", "paging": {"type": "page"}},
    "page total": {"at": "page", "records": "data.items", "paging": {"type": "page", "total": "pages"}},
    "offset": {"records": "items", "paging": {"type": "offset", "limit": 7}},
    "offset total": {
        "at": "offset",
        "records": "items",
        "paging": {"type": "offset", "limit": 7, "total": "total"},
    },
    "cursor": {"records": "items", "paging": {"type": "cursor", "param": "after", "field": "meta.next"}},
    "header": {"paging": {"type": "cursor", "param": "after", "header": "X-Next"}},
    "last": {
        "records": "data",
        "paging": {"type": "cursor", "param": "starting_after", "record": "id", "more": "has_more"},
    },
    "link": {"paging": {"type": "link"}},
    "next": {"records": "results", "paging": {"type": "next_url"}},
}
INCREMENTAL = {"cursor": "updated_at", "param": "since"}
EVERYTHING = "without `incremental` a reading is one of everything; the API cannot be asked for what is new"


class HttpContract(SourceContract):
    component = "http"
    fashion = "cursor"
    more = {}

    @asynccontextmanager
    async def rig(self, ids):
        with Api(rows(ids)) as api:
            yield settings(api, self.fashion, **self.more)


class TestHttp(HttpContract):
    component = "http"
    more = {"incremental": INCREMENTAL}


class TestHttpPagesIncremental(HttpContract):
    component = "http"
    fashion = "page"
    more = {"incremental": INCREMENTAL}


class TestHttpLinkEverything(HttpContract):
    component = "http"
    fashion = "link"
    waive = dict.fromkeys(["resume_from_every_position", "nothing_twice_at_the_end"], EVERYTHING)


def settings(api, fashion, **more):
    about = {**PAGED[fashion], **more}
    return {"url": f"{api.url}/{about.pop('at', fashion)}", "allow_private": True, **about}


async def read(source, since=None, most=None):
    """Return the chunks of one reading."""
    await source.connect()
    try:
        chunks = []
        async for chunk in source.stream(since):
            chunks.append(chunk)
            if len(chunks) == most:
                break
        return chunks
    finally:
        await source.disconnect()


def collect(config, since=None):
    """Return the records of one reading, and the position behind it."""
    chunks = asyncio.run(read(HttpSource(**config), since))
    position = json.loads(json.dumps(chunks[-1].position)) if chunks else since
    return [json.loads(line) for chunk in chunks for line in chunk.raw_data.splitlines()], position


def ids(records):
    return [record["id"] for record in records]


@pytest.mark.parametrize("fashion", PAGED)
@pytest.mark.parametrize("count", [0, 1, 7, 14, 20])
def test_every_fashion_from_every_position(fashion, count):
    with Api(rows(range(1, count + 1))) as api:
        config = settings(api, fashion)
        chunks = asyncio.run(read(HttpSource(**config)))
        found = [json.loads(line) for chunk in chunks for line in chunk.raw_data.splitlines()]
        assert found == api.records
        for number, chunk in enumerate(chunks[:-1]):
            rest, _ = collect(config, json.loads(json.dumps(chunk.position)))
            before = sum(len(each.raw_data.splitlines()) for each in chunks[: number + 1])
            assert ids(rest) == list(range(before + 1, count + 1))


@pytest.mark.parametrize("fashion", ["page", "offset", "cursor"])
def test_with_a_body_paging_and_cursor_go_into_it(fashion):
    with Api(rows(range(1, 16))) as api:
        config = settings(api, fashion, body={"query": "all"}, params={"v": 2}, incremental=INCREMENTAL)
        found, position = collect(config)
        assert found == api.records
        assert collect(config, position)[0] == []
        assert {query.get("v") for query in api.queries()} == {"2"}
        bodies = [json.loads(body) for *_, body in api.seen]
        assert all(body["query"] == "all" for body in bodies)
        assert bodies[-1]["since"] == "2026-01-01T00:14:00Z"


def test_names_with_dots_lead_into_the_body():
    with Api() as api:
        api.answers["/graphql"] = lambda _: web.json_response({"data": {"users": {"nodes": [{"id": 1}]}}})
        paging = {
            "type": "offset",
            "param": "variables.page.offset",
            "limit_param": "variables.page.first",
            "limit": 5,
        }
        body = {"query": "…", "variables": {"page": {"x": 1}}}
        more = {"records": "data.users.nodes", "paging": {**paging, "total": "data.total"}, "body": body}
        with pytest.raises(
            FatalError, match=r"expected a number at 'data.total', got None; check `paging.total`"
        ):
            collect({"url": f"{api.url}/graphql", "allow_private": True, **more})
        assert json.loads(api.seen[0][3]) == {
            "query": "…",
            "variables": {"page": {"x": 1, "offset": 0, "first": 5}},
        }


def test_parameters_and_headers_are_sent():
    with Api(rows([1])) as api:
        params = {"a": 1, "b": True, "c": ["x", "y z"], "d": "ü&"}
        collect(
            settings(
                api, "link", params=params, headers={"X-Team": "sea", "Accept": "application/vnd.x+json"}
            )
        )
        _, query, headers, _ = api.seen[0]
        assert query == {"a": "1", "b": "true", "c": "x", "d": "ü&"}
        assert headers["X-Team"] == "sea"
        assert headers["Accept"] == "application/vnd.x+json"
        api.answers["/link"] = lambda request: web.json_response([{"id": len(request.query.getall("c"))}])
        assert collect(settings(api, "link", params=params))[0] == [{"id": 2}]


def test_values_stay_as_they_are_written():
    raw = b'{"id": 1, "big": 123456789012345678901234567890, "price": 1.10,\r\n  "e": 1E+2, "t": "a\\nb\\u00e9"}'
    with Api() as api:
        api.answers["/x"] = lambda _: web.Response(
            body=b'{"items": [\n' + raw + b"\n]}", content_type="text/plain"
        )
        (chunk,) = asyncio.run(read(HttpSource(url=f"{api.url}/x", allow_private=True, records="items")))
        assert chunk.raw_data == raw.replace(b"\r\n", b"  ") + b"\n"


@pytest.mark.parametrize(
    ("body", "records", "expected"),
    [
        (b'[{"id": 1}, 5]', None, b'{"id": 1}\n5\n'),
        (b'{"id": 1}', None, b'{"id": 1}\n'),
        (b'{"a": {"b": []}}', "a.b", b""),
        (b'{"a": {"b": null}}', "a.b", b""),
        (b'{"a": null, "errors": []}', "a", b""),
        (b"\xef\xbb\xbf [] ", None, b""),
    ],
)
def test_where_the_records_are(body, records, expected):
    with Api() as api:
        api.answers["/x"] = lambda _: web.Response(body=body)
        config = {"url": f"{api.url}/x", "allow_private": True, "records": records}
        assert b"".join(chunk.raw_data for chunk in asyncio.run(read(HttpSource(**config)))) == expected


@pytest.mark.parametrize(
    ("body", "records", "message"),
    [
        (b"<html>Not\nfound</html>", None, "the response is <html>Not found</html>, expected a list of records"),
        (b'[{"a": tru}]', None, r"the response is not JSON \(.*\): \[{\"a\": tru}\]"),
        (b'{"data": {"rows": [], "n": 0}}', "data.items", "there is no 'items' .*; the object there has: rows, n"),
        (b'{"data": 7}', "data.items", "there is no 'items' on the path `records: data.items`; found 7"),
        (b'{"data": 7}', "data", "'data' is 7, expected a list of records; set `records`"),
        (b'{"data": null, "errors": [{"message": "no"}]}', "data", r"'data' is null.*; errors: \[{\"message\": \"no\"}\]"),
        (b'{"data": null, "errors": ["no"]}', "data.x", r"found null; errors: \[\"no\"\]"),
        (b"[" * 5000 + b"]" * 5000, None, "not JSON"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_records(body, records, message):
    with Api() as api:
        api.answers["/x"] = lambda _: web.Response(body=body)
        with pytest.raises(FatalError, match=message):
            collect({"url": f"{api.url}/x", "allow_private": True, "records": records})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"body": b'{"items": [{"id": 1}, {"id"'}, "ends in the middle of its JSON"),
        ({"body": b'{"items": ['}, "ends in the middle of its JSON"),
        ({"body": b'{"ite'}, "ends in the middle of its JSON"),
        ({"body": b" \n"}, "200 with an empty response"),
        ({"body": b"x", "headers": {"Content-Encoding": "gzip"}}, "200 with an empty response"),
        ({"body": b"xyz" * 9, "headers": {"Content-Encoding": "gzip"}}, "gzip"),
    ],
)
def test_a_response_that_is_torn_is_asked_for_again(answer, message):
    """It is not taken for the last page."""
    with Api() as api:
        api.answers["/x"] = lambda _: web.Response(**answer)
        with pytest.raises(TransientError, match=message):
            collect({"url": f"{api.url}/x", "allow_private": True, "records": "items"})


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('<?at=2>; rel="next"', 2),
        ("<?at=2>; rel=next; title=x", 2),
        ('<?at=9>; rel="last", <?at=2>; rel="Next prefetch"', 2),
        ('<?at=9>; rel="last"', 1),
        ("garbage", 1),
    ],
)
def test_links(header, expected):
    with Api() as api:
        links = {"Link": header}
        api.answers["/x"] = lambda r: web.json_response([{"id": 1}], headers={} if r.query else links)
        assert (
            len(collect({"url": f"{api.url}/x", "allow_private": True, "paging": {"type": "link"}})[0])
            == expected
        )
        api.answers["/x"] = lambda _: web.json_response([], headers={"Link": '<http://[::bad>; rel="next"'})
        with pytest.raises(FatalError, match="the header `Link` is none"):
            collect({"url": f"{api.url}/x", "allow_private": True, "paging": {"type": "link"}})
        assert collect({"url": f"{api.url}/x", "allow_private": True})[0] == []


def test_a_large_response():
    with Api(rows(range(20_000)), size=20_000) as api:
        found, position = collect(settings(api, "cursor", incremental={**INCREMENTAL, "lag": "1d"}))
        assert found == api.records
        assert len(position["marks"]["records"]["seen"]) <= 5_000


def test_no_content_is_no_records():
    with Api() as api:
        api.answers["/x"] = lambda _: web.Response(status=204)
        assert collect({"url": f"{api.url}/x", "allow_private": True, "records": "items"}) == ([], None)


def test_nothing_in_a_response_becomes_a_dead_letter_silently():
    with Api() as api:
        api.answers["/x"] = lambda _: web.Response(body=b'[{"id": 1}, "two", {"id": 3, "id": 4}]')
        source = HttpSource(url=f"{api.url}/x", allow_private=True)
        (chunk,) = asyncio.run(read(source))
        assert chunk.raw_data.count(b"\n") == 3


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_pages_that_go_round_are_noticed(length):
    with Api() as api:

        def answer(request):
            n = int(request.query.get("after", 0))
            return web.json_response({"items": [{"id": n}], "next": (n + 1) % length})

        api.answers["/x"] = answer
        config = {"url": f"{api.url}/x", "allow_private": True, "records": "items"}
        with pytest.raises(FatalError, match="the pages go round in a circle; check `paging`"):
            collect({**config, "paging": {"type": "cursor", "param": "after", "field": "next"}})
        assert len(api.seen) <= 4 * length + 1


def test_an_api_that_ignores_the_page_is_noticed():
    with Api() as api:
        api.answers["/x"] = lambda _: web.json_response([{"id": 1}])
        config = {"url": f"{api.url}/x", "allow_private": True, "paging": {"type": "page", "param": "p"}}
        with pytest.raises(
            FatalError, match="page 2 is the same as the one before; does the API know the parameter 'p'"
        ):
            collect(config)


def test_too_many_pages():
    with Api(rows(range(1, 50))) as api:
        for fashion in ("page", "cursor", "link"):
            with pytest.raises(FatalError, match="there are more than 3 pages; set `max_pages`"):
                collect(settings(api, fashion, max_pages=3))
            assert len(collect(settings(api, fashion, max_pages=9))[0]) == 49


@pytest.mark.parametrize(
    ("paging", "body", "message"),
    [
        (
            {"type": "cursor", "param": "a", "field": "c"},
            {"c": {"x": 1}},
            "expected a cursor, text or a number",
        ),
        ({"type": "cursor", "param": "a", "record": "key"}, {}, "the last record of a page has no 'key'"),
        (
            {"type": "cursor", "param": "a", "field": "c", "more": "m"},
            {"c": 1},
            "expected true or false at 'm', got None",
        ),
        ({"type": "page", "total": "n"}, {"n": "many"}, "expected a number at 'n', got 'many'"),
        ({"type": "next_url"}, {"next": 5}, "expected the address of the next page at 'next', got 5"),
        ({"type": "next_url"}, {"next": "http://[::bad/"}, "is no address"),
        (
            {"type": "next_url"},
            {"next": "http://other.example/x"},
            "another origin than that of `url`; it is not asked",
        ),
        ({"type": "next_url"}, {"next": "//other.example/x"}, "another origin"),
        ({"type": "next_url"}, {"next": "file:///etc/passwd"}, "another origin"),
    ],
)
def test_no_way_to_the_next_page(paging, body, message):
    with Api() as api:
        api.answers["/x"] = lambda _: web.json_response({"items": [{"id": 1}], **body})
        with pytest.raises(FatalError, match=message):
            collect({"url": f"{api.url}/x", "allow_private": True, "records": "items", "paging": paging})


def test_conditional_requests():
    with Api() as api:
        state = {"etag": '"1"', "items": [{"id": 1}]}

        def answer(request):
            if request.headers.get("If-None-Match") == state["etag"]:
                return web.Response(status=304)
            return web.json_response(state["items"], headers={"ETag": state["etag"]})

        api.answers["/x"] = answer
        config = {"url": f"{api.url}/x", "allow_private": True}
        found, position = collect(config)
        assert (ids(found), position["marks"]["records"]["etag"]) == ([1], '"1"')
        assert asyncio.run(read(HttpSource(**config), position)) == []
        state.update(etag='"2"', items=[{"id": 1}, {"id": 2}])
        found, position = collect(config, position)
        assert ids(found) == [1, 2]
        collect({**config, "params": {"other": 1}}, position)
        assert "If-None-Match" not in api.seen[-1][2]


def test_last_modified_and_only_where_one_response_is_all():
    with Api(rows(range(1, 9))) as api:
        when = {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", "ETag": "W/x"}
        api.answers["/x"] = lambda _: web.json_response([{"id": 1}], headers=when)
        _, position = collect({"url": f"{api.url}/x", "allow_private": True})
        collect({"url": f"{api.url}/x", "allow_private": True}, position)
        assert api.seen[-1][2]["If-Modified-Since"] == when["Last-Modified"]
        pages = {"url": f"{api.url}/x", "allow_private": True, "paging": {"type": "page"}}
        api.answers["/x"] = lambda r: web.json_response(
            [{"id": 1}] if r.query["page"] == "1" else [], headers=when
        )
        _, position = collect(pages)
        assert position == {}
        _, position = collect(pages, position)
        assert "If-Modified-Since" not in api.seen[-2][2]


def test_links_to_http_of_an_api_behind_a_proxy():
    """Many give the addresses of pages as http although they are asked over https: these are asked over https."""
    home = URL("https://api.example/x")
    assert str(check_origin(home, URL("http://api.example/x?page=2"), "x")) == "https://api.example/x?page=2"
    assert str(check_origin(URL("https://a.b:8443/"), URL("http://a.b/y"), "x")) == "https://a.b:8443/y"
    with pytest.raises(FatalError, match="another origin"):
        check_origin(URL("http://api.example/x"), URL("https://api.example/x"), "x")


@pytest.mark.parametrize("fashion", ["page", "cursor", "link"])
def test_each_chunk_once_more(fashion):
    """For a storage that is behind another one after a crash; in a new process, that has not connected yet."""
    with Api(rows(range(1, 30))) as api:
        config = settings(api, fashion, incremental=INCREMENTAL)
        chunks = asyncio.run(read(HttpSource(**config)))
        since = None
        for chunk in chunks:
            again = HttpSource(**config).replay(since, chunk.position)
            assert (again.raw_data, again.position) == (chunk.raw_data, chunk.position)
            since = chunk.position


def test_a_page_that_has_changed_since():
    with Api(rows(range(1, 30))) as api:
        config = settings(api, "cursor")
        first, second, *_ = asyncio.run(read(HttpSource(**config)))
        api.records[9] = {"id": 10, "changed": True}
        source = HttpSource(**config)
        told = []
        source.tell = told.append
        again = source.replay(first.position, second.position)
        assert b'{"id": 10, "changed": true}\n' in again.raw_data
        assert again.position == second.position
        (message,) = told
        assert message.startswith("the API has changed a page that one storage had before a crash")
        api.records.clear()
        assert source.replay(first.position, second.position).raw_data == b""
