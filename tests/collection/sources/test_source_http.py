"""REST APIs: every way of paging, from every position; what is new; several endpoints; what is no answer."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from _rest_api import Api, rows
from aiohttp import web

from collectors.collection.sources.http import HttpConfig, HttpSource
from collectors.errors import ConfigurationError, FatalError, TransientError
from collectors.testing.source_contract import SourceContract

PAGED = {
    "page": {"records": "data.items", "paging": {"type": "page"}},
    "page total": {"at": "page", "records": "data.items", "paging": {"type": "page", "total": "pages"}},
    "offset": {"records": "items", "paging": {"type": "offset", "limit": 7}},
    "offset total": {"at": "offset", "records": "items", "paging": {"type": "offset", "limit": 7, "total": "total"}},
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
