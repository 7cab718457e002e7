"""Several endpoints of one API, and those that are read for each record of another."""

from __future__ import annotations

import asyncio
import json

import pytest
from _rest_api import Api, rows
from aiohttp import web

from collectors.collection.sources.http import HttpConfig, HttpSource
from collectors.config.load import from_mapping
from collectors.errors import FatalError

USERS = [{"id": f"u{n}", "name": f"N {n}", "team": {"no": n}} for n in range(5)]
ENDPOINTS = [
    {"name": "teams", "path": "teams"},
    {"name": "users", "path": "users", "paging": {"type": "page"}},
    {
        "name": "posts",
        "path": "users/{id}/posts",
        "parent": "users",
        "params": {"team": "{team.no}", "kind": "all"},
        "include": {"user": "name", "team": "team"},
        "paging": {"type": "cursor", "param": "after", "field": "next"},
        "records": "items",
    },
    {"name": "likes", "path": "posts/{n}/likes", "parent": "posts", "include": {"by": "user"}},
]


def serve(api):
    """Users in pages of two; each has as many posts as its number, in pages of two; each post has a like."""

    def users(request):
        page = int(request.query["page"])
        return web.json_response(USERS[2 * page - 2 : 2 * page])

    def posts(number):
        def answer(request):
            after = int(request.query.get("after", 0))
            items = [{"n": 100 * number + n} for n in range(number)][after : after + 2]
            return web.json_response({"items": items, "next": after + 2 if after + 2 < number else None})

        return answer

    api.answers["/v1/teams"] = lambda _: web.json_response([{"team": "blue"}])
    api.answers["/v1/users"] = users
    for number in range(5):
        api.answers[f"/v1/users/u{number}/posts"] = posts(number)
        for n in range(number):
            post = 100 * number + n
            api.answers[f"/v1/posts/{post}/likes"] = lambda _, post=post: web.json_response([{"like": post}])


def config_of(api, endpoints=ENDPOINTS, **more):
    return {"url": f"{api.url}/v1/", "allow_private": True, "endpoints": endpoints, **more}


def read(config, since=None):
    async def work():
        source = HttpSource(**config)
        told = []
        source.tell = told.append
        await source.connect()
        try:
            return [chunk async for chunk in source.stream(since)], told
        finally:
            await source.disconnect()

    return asyncio.run(work())


def lines(chunks):
    return [json.loads(line) for chunk in chunks for line in chunk.raw_data.splitlines()]


def test_children_have_what_they_need_of_their_parents():
    with Api() as api:
        serve(api)
        found = lines(read(config_of(api))[0])
        of = {
            name: [each for each in found if each["_endpoint"] == name]
            for name in ("teams", "users", "posts", "likes")
        }
        assert of["teams"] == [{"_endpoint": "teams", "team": "blue"}]
        assert [each["id"] for each in of["users"]] == ["u0", "u1", "u2", "u3", "u4"]
        assert [each["n"] for each in of["posts"]] == [100, 200, 201, 300, 301, 302, 400, 401, 402, 403]
        assert of["posts"][0] == {"_endpoint": "posts", "user": "N 1", "team": {"no": 1}, "n": 100}
        assert [each["like"] for each in of["likes"]] == [each["n"] for each in of["posts"]]
        assert of["likes"][-1] == {"_endpoint": "likes", "by": "N 4", "like": 403}
        asked = next(query for path, query, *_ in api.seen if path == "/v1/users/u3/posts")
        assert asked == {"team": "3", "kind": "all"}
        order = [each for each in api.paths() if each.startswith("/v1/users")]
        assert order.index("/v1/users/u1/posts") < len(order) - 1 - order[::-1].index("/v1/users")


def test_from_every_position():
    with Api() as api:
        serve(api)
        config = config_of(api)
        chunks, _ = read(config)
        everything = lines(chunks)
        for number, chunk in enumerate(chunks[:-1]):
            position = json.loads(json.dumps(chunk.position))
            asked = len(api.seen)
            assert lines(chunks[: number + 1]) + lines(read(config, position)[0]) == everything
            assert "/v1/teams" not in api.paths()[asked:]
        assert chunks[-1].position == {}


def test_a_parent_that_is_not_selected():
    with Api() as api:
        serve(api)
        endpoints = [{**ENDPOINTS[1], "selected": False}, ENDPOINTS[2]]
        found = lines(read(config_of(api, endpoints))[0])
        assert {each["_endpoint"] for each in found} == {"posts"}
        assert len(found) == 10


def test_settings_of_the_source_are_the_defaults_of_its_endpoints():
    with Api(rows(range(1, 10))) as api:
        config = config_of(
            api,
            [
                {"name": "cursor", "path": "cursor"},
                {"name": "link", "path": "link", "paging": None, "records": None},
            ],
            url=api.url,
            records="items",
            params={"x": 1},
            paging={"type": "cursor", "param": "after", "field": "meta.next"},
            incremental={"cursor": "updated_at", "param": "since"},
        )
        chunks, _ = read(config)
        assert [each["id"] for each in lines(chunks)] == [*range(1, 10), *range(1, 8)]
        assert all(query["x"] == "1" for query in api.queries())
        assert set(chunks[-1].position["marks"]) == {"cursor", "link"}


@pytest.mark.parametrize("identity", ["a/b", "..%2f", "ü x", "?q=1#f", 12345678901234567890123, 'q"\\'])
def test_values_in_addresses_are_escaped(identity):
    with Api() as api:
        api.answers["/v1/users"] = lambda _: web.json_response([{"id": identity}])
        endpoints = [
            {"name": "users", "path": "users"},
            {"name": "one", "path": "users/{id}", "parent": "users"},
        ]
        api.answers["/v1/users/" + quoted(identity)] = lambda _: web.json_response({"found": True})
        assert lines(read(config_of(api, endpoints))[0])[-1] == {"_endpoint": "one", "found": True}


def quoted(identity):
    from urllib.parse import quote

    return quote(str(identity), safe="")


@pytest.mark.parametrize("identity", [None, "", ".", "..", {"a": 1}, [1]])
def test_values_that_no_address_can_have_are_told(identity):
    with Api() as api:
        api.answers["/v1/users"] = lambda _: web.json_response([{"id": identity}, {"id": "ok"}, {}])
        api.answers["/v1/users/ok"] = lambda _: web.json_response({"found": True})
        endpoints = [
            {"name": "users", "path": "users"},
            {"name": "one", "path": "users/{id}", "parent": "users"},
        ]
        chunks, told = read(config_of(api, endpoints))
        assert len(lines(chunks)) == 4
        assert told == [
            "one: there are records of 'users' without id that can stand in an address; nothing is read for them"
        ]


def test_names_of_fields_and_braces_elsewhere():
    with Api() as api:
        api.answers["/v1/users"] = lambda _: web.json_response([{"the id": 7, "in": {"ü": "x y"}}])
        api.answers["/v1/a%20b/7-x%20y"] = lambda _: web.json_response({"found": True})
        endpoints = [
            {"name": "users", "path": "users"},
            {
                "name": "one",
                "path": "a b/{the id}-{in.ü}",
                "parent": "users",
                "params": {"p": "{the id}/{in.ü}"},
            },
        ]
        assert lines(read(config_of(api, endpoints, params={"q": "{no}"}))[0])[-1]["found"] is True
        assert api.queries()[-1] == {"q": "{no}", "p": "7/x y"}


def test_children_of_parents_that_changed():
    """The parent is incremental: children are read for those of its records that are new."""
    with Api(rows([1, 2])) as api:
        for n in (1, 2, 3):
            api.answers[f"/things/{n}"] = lambda _, n=n: web.json_response({"n": n})
        endpoints = [
            {"name": "link", "path": "link", "incremental": {"cursor": "updated_at", "param": "since"}},
            {"name": "thing", "path": "things/{id}", "parent": "link"},
        ]
        chunks, _ = read(config_of(api, endpoints, url=api.url))
        assert [each.get("n") for each in lines(chunks)] == [None, None, 1, 2]
        api.records += rows([3])
        chunks, _ = read(config_of(api, endpoints, url=api.url), chunks[-1].position)
        assert [each.get("n") for each in lines(chunks)] == [None, 3]


def test_incremental_children_share_a_cursor_and_lose_nothing():
    """One that is changed for the first parent while the second is read comes next time."""
    with Api() as api:
        api.answers["/users"] = lambda _: web.json_response([{"id": 1}, {"id": 2}])
        posts = {1: [], 2: [{"n": 1, "at": "2026-01-01T00:00:00Z"}]}
        for n, found in posts.items():
            api.answers[f"/users/{n}"] = lambda _, found=found: web.json_response(found)
        endpoints = [
            {"name": "users", "path": "users"},
            {
                "name": "posts",
                "path": "users/{id}",
                "parent": "users",
                "incremental": {"cursor": "at", "param": "since"},
            },
        ]
        config = config_of(api, endpoints, url=api.url)
        chunks, _ = read(config)
        posts[1].append({"n": 2, "at": "2025-12-31T23:59:30Z"})
        chunks, _ = read(config, chunks[-1].position)
        assert [each["n"] for each in lines(chunks) if "n" in each] == [2]
        assert api.queries()[-1] == {"since": "2025-12-31T23:59:00Z"}


def test_an_endpoint_that_is_gone_while_it_is_read():
    with Api() as api:
        serve(api)
        chunks, _ = read(config_of(api))
        with pytest.raises(
            FatalError, match="endpoint 'likes' was being read and is not in the settings any more"
        ):
            read(
                config_of(api, ENDPOINTS[:3]),
                next(c.position for c in chunks if "likes" in json.dumps(c.position)),
            )


URL = "https://api.example/"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endpoints": [{"name": "a", "path": "a"}] * 2}, "the name 'a' is there twice"),
        ({"endpoints": [{"name": "a", "path": "{id}", "parent": "b"}]}, "'a' has the parent 'b'; expected one that stands above"),
        ({"endpoints": [{"name": "a", "path": "x/{id}"}]}, r"\{id\} is a field of a parent; set `parent`"),
        ({"endpoints": [{"name": "a", "path": "x", "include": {"b": "c"}}]}, "include: set `parent`"),
        ({"endpoints": [{"name": "a", "path": "a"}, {"name": "b", "path": "b", "parent": "a"}]}, "expected a field of 'a' in braces"),
        ({"endpoints": [{"name": "a", "path": "https://evil.example/"}]}, "expected a path below `url`"),
        ({"endpoints": [{"name": "a", "path": "../x"}]}, "expected a path below `url`"),
        ({"endpoints": [{"name": "a", "path": "x?y=1"}]}, "a query goes to `params`"),
        ({"endpoints": [{"name": "a", "path": "a"}, {"name": "b", "path": "{x}", "parent": "a",
          "incremental": {"cursor": "n", "type": "number"}}]}, "with a `parent` the cursor must be a time"),
        ({"url": "ftp://x/"}, "url: expected an http or https address"),
        ({"url": "x"}, "url: expected an http or https address"),
        ({"url": "https://"}, "url: expected an http or https address"),
        ({"url": "https://me:secret-1@x/"}, "put the login into `auth: {type: basic"),
        ({"url": "http://localhost:1/"}, "localhost is this machine; set `allow_private: true`"),
        ({"url": "http://x/", "auth": {"type": "bearer", "token": "secret-1"}}, "credentials need https"),
        ({"auth": {"type": "oauth2", "token_url": "http://x/", "client_id": "i", "client_secret": "secret-1"}},
         "auth.token_url: credentials need https"),
        ({"auth": {"type": "digest"}}, "bearer"),
        ({"paging": {"type": "page", "size": 3}}, "size"),
        ({"paging": {"type": "cursor", "param": "a"}}, "expected one of `field`, `header` and `record`"),
        ({"paging": {"type": "cursor", "param": "a", "field": "a", "record": "b"}}, "expected one of `field`"),
        ({"paging": {"type": "offset", "limit": 0}}, "expected at least 1"),
        ({"incremental": {"cursor": "a", "start": "yesterday"}}, "start: expected a time as in ISO 8601, got 'yesterday'"),
        ({"incremental": {"cursor": "a", "type": "number", "format": "%Y"}}, "format: is for `type: time`"),
        ({"body": {}, "method": "GET"}, "body: set `method: POST`"),
        ({"format": "csv"}, r"expected `\{type: ndjson"),
        ({"headers": {"X": "a\r\nY: b"}}, "expected a header without line breaks"),
        ({"headers": {"X: y": "a"}}, "expected a header without line breaks"),
        ({"rate_limit": {"requests_per_second": 0}}, "expected more than 0"),
        ({"max_pages": 0}, "expected at least 1"),
        ({"timeout": 0}, "expected more than 0"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit(settings, message):
    mapping = {"sources": [{"type": "http", "url": URL, **settings}], "storage": [{"type": "memory"}]}
    with pytest.raises(ValueError, match=message) as caught:
        from_mapping(mapping)
    assert "secret-1" not in str(caught.value)


def test_the_settings_show_no_secret():
    config = HttpConfig(url=URL, headers={"X": "secret-1"}, auth={"type": "api_key", "key": "secret-2"})
    assert "secret-" not in repr(config)
