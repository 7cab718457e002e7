"""What is new since the last reading: nothing is lost, nothing comes twice, whatever changes while pages are read."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC

import msgspec
import pytest
from _rest_api import Api, rows
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.collection.sources import _http_window
from collectors.collection.sources._http_endpoints import endpoints_of
from collectors.collection.sources._http_marks import parse_cursor, write_cursor
from collectors.collection.sources._http_work import Work
from collectors.collection.sources.http import HttpConfig, HttpSource
from collectors.errors import FatalError
from collectors.http_client.answers import Answer

BASE = {"records": "items", "paging": {"type": "cursor", "param": "after", "field": "meta.next"}}


def config_of(api, **incremental):
    about = {"cursor": "updated_at", "param": "since", **incremental}
    return {"url": f"{api.url}/cursor", "allow_private": True, **BASE, "incremental": about}


def collect(config, since=None):
    """Return the ids of one reading, the position behind it, and what was told."""

    async def work():
        source = HttpSource(**config)
        told = []
        source.tell = told.append
        await source.connect()
        try:
            return [chunk async for chunk in source.stream(since)], told
        finally:
            await source.disconnect()

    chunks, told = asyncio.run(work())
    position = json.loads(json.dumps(chunks[-1].position)) if chunks else since
    return (
        [json.loads(line)["id"] for chunk in chunks for line in chunk.raw_data.splitlines()],
        position,
        told,
    )


def test_only_what_is_new():
    with Api(rows(range(1, 16))) as api:
        config = config_of(api)
        found, position, _ = collect(config)
        assert found == list(range(1, 16))
        assert collect(config, position)[0] == []
        api.records += rows([16, 17])
        api.records[14] = {**api.records[14], "changed": True}
        found, position, _ = collect(config, position)
        assert found == [15, 16, 17]
        assert api.queries()[-1]["since"] == "2026-01-01T00:14:00Z"
        assert collect(config, position)[0] == []


def test_records_with_the_same_cursor_and_late_ones():
    with Api(rows([1, 2])) as api:
        config = config_of(api, lag="10m")
        _, position, _ = collect(config)
        twin = {**api.records[1], "id": 3}
        late = {"id": 4, "updated_at": "2025-12-31T23:55:00Z"}
        api.records += [twin, late, dict(twin), {"id": 5, "updated_at": "2025-12-31T23:00:00Z"}]
        found, position, _ = collect(config, position)
        assert found == [3, 4, 3]
        assert collect(config, position)[0] == []


def test_records_that_are_alike_on_two_pages():
    with Api(rows([1, 2]), size=1) as api:
        config = config_of(api)
        _, position, _ = collect(config)
        api.records += [dict(api.records[1]), dict(api.records[1])]
        found, position, _ = collect(config, position)
        assert found == [2, 2]
        assert collect(config, position)[0] == []


def test_a_record_that_is_away_for_a_reading():
    """As where one of several servers is behind the others."""
    with Api(rows([1, 2, 3])) as api:
        config = config_of(api, lag="1h")
        _, position, _ = collect(config)
        away = api.records.pop(1)
        api.records += rows([4])
        found, position, _ = collect(config, position)
        assert found == [4]
        api.records.append(away)
        assert collect(config, position)[0] == []


def test_without_a_parameter_what_is_older_is_left_out():
    with Api(rows(range(1, 10))) as api:
        config = config_of(api, param=None, lag="2m", start="2026-01-01T00:03:00Z")
        found, position, told = collect(config)
        assert found == list(range(3, 10))
        assert told == []
        api.records += rows([10])
        assert collect(config, position)[0] == [10]


def test_an_api_that_gives_more_than_was_asked_for():
    with Api(rows(range(1, 10))) as api:
        api.answers["/cursor"] = lambda _: web.json_response({"items": api.records})
        config = config_of(api, lag="2m")
        _, position, _ = collect(config)
        found, _, told = collect(config, position)
        assert found == []
        assert told == ["records: records were left out whose cursor lies before what was asked for"]


def test_start_and_format():
    with Api(rows([])) as api:
        collect(config_of(api, start="2026-02-03T04:05:06+01:00", format="%Y/%m/%d"))
        assert api.queries()[-1]["since"] == "2026/02/03"
        collect(config_of(api, start=1000, type="number"))
        assert api.queries()[-1]["since"] == "1000"
        collect(config_of(api, start=1767225600, type="unix"))
        assert api.queries()[-1]["since"] == "1767225600"


@pytest.mark.parametrize("kind", ["number", "unix", "unix_ms"])
def test_numbers(kind):
    scale = {"number": 1, "unix": 60, "unix_ms": 60_000}[kind]
    with Api([{"id": n, "updated_at": n * scale} for n in range(1, 9)]) as api:
        config = config_of(api, type=kind, param=None)
        found, position, _ = collect(config)
        assert found == list(range(1, 9))
        api.records.append({"id": 9, "updated_at": 9 * scale})
        assert collect(config, position)[0] == [9]


def test_a_cursor_that_is_ahead_does_not_hide_what_comes_between():
    """A record of the future is stored, and does not become the place to go on from."""
    with Api([*rows([1]), {"id": 2, "updated_at": "2999-01-01T00:00:00Z"}]) as api:
        config = config_of(api)
        found, position, _ = collect(config)
        assert found == [1, 2]
        assert position["marks"]["records"]["high"] < parse_cursor("time", "2998-01-01")
        api.records.append({"id": 3, "updated_at": "2998-01-01T00:00:00Z"})
        found, position, _ = collect(config, position)
        assert found == [3]
        assert collect(config, position)[0] == []


def test_records_without_a_cursor_come_once():
    with Api(rows([1, 2])) as api:
        api.answers["/cursor"] = lambda _: web.json_response(
            {"items": [*api.records, {"id": 9, "updated_at": None}]}
        )
        found, position, _ = collect(config_of(api))
        assert found == [1, 2, 9]
        assert collect(config_of(api), position)[0] == []


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"id": 1}], "no record has a field 'updated_at'; check `incremental.cursor`"),
        ([{"id": 1, "updated_at": "today"}], "expected a time as in ISO 8601, got 'today', in .*\"today\""),
        ([{"id": 1, "updated_at": 7}], "expected a time as in ISO 8601, got 7"),
    ],
)
def test_a_cursor_that_is_none(records, message):
    with Api(records) as api, pytest.raises(FatalError, match=message):
        collect(config_of(api))


def test_more_in_the_lag_than_is_remembered(monkeypatch):
    monkeypatch.setattr(_http_window, "MOST_SEEN", 3)
    with Api(rows(range(1, 10))) as api:
        found, position, told = collect(config_of(api, lag="1h"))
        assert found == list(range(1, 10))
        assert told == ["records: the `lag` has more records than are remembered; some may be stored twice"]
        assert len(position["marks"]["records"]["seen"]) == 3


@pytest.mark.parametrize(
    ("kind", "value"),
    [("time", "x"), ("time", 5), ("time", True), ("number", "1.5"), ("number", True), ("number", "nan"), ("unix", "1e99"),
     ("unix_ms", None), ("number", 2**63)],
)  # fmt: skip
def test_values_that_are_no_cursor(kind, value):
    with pytest.raises(ValueError, match="expected a"):
        parse_cursor(kind, value)


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_written_as_they_were_read(moment):
    written = write_cursor("time", parse_cursor("time", moment.isoformat()), None)
    assert parse_cursor("time", written) == parse_cursor("time", moment.isoformat())


class Changing:
    """An API whose records change between any two requests; pages of three, by id; a write may appear `lag` late."""

    LAG = 60

    def __init__(self):
        self.now = 1_000_000
        self.current = {}
        self.versions = 0

    def write(self, key, late):
        self.now += 1
        self.versions += 1
        self.current[key] = {"id": key, "version": self.versions, "at": self.now - late}

    def get(self, url):
        self.now += 1
        since, after = int(url.query.get("since", 0)), int(url.query.get("after", -1))
        found = sorted(
            (r for r in self.current.values() if r["at"] >= since and r["id"] > after), key=lambda r: r["id"]
        )
        body = {"items": found[:3], "next": found[2]["id"] if len(found) > 3 else None}
        return Answer(200, url, {}, {}, json.dumps(body).encode())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 12), st.integers(0, Changing.LAG)),
        st.just(("step",)),
        st.just(("crash",)),
        st.tuples(st.just("pass time"), st.integers(1, 300)),
    ),
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_each_version_once_and_none_missing(steps):
    """Against a model: whatever is written while pages are read, and wherever the process dies."""
    api, stored = Changing(), []
    config = HttpConfig(
        url="https://api.example/x",
        records="items",
        paging={"type": "cursor", "param": "after", "field": "next"},
        incremental={"cursor": "at", "param": "since", "type": "unix", "lag": Changing.LAG},
    )
    position = None

    def begin():
        return Work(endpoints_of(config), position, most_pages=10**6, unsigned=str, tell=lambda _: None)

    work = begin()

    def step():
        nonlocal work, position
        if work.ended:
            work = begin()
        call, _ = work.next_call()
        asked = api.now
        lines = work.take(call, api.get(call.url), asked * 1_000_000)
        stored.extend(json.loads(line) for line in lines.splitlines())
        position = msgspec.json.decode(msgspec.json.encode(work.position()))

    for what, *about in steps:
        if what == "write":
            api.write(*about)
        elif what == "step":
            step()
        elif what == "pass time":
            api.now += about[0]
        else:
            work = begin()
    for _ in range(3):
        step()
        while not work.ended:
            step()
    versions = [record["version"] for record in stored]
    assert len(versions) == len(set(versions))
    assert {record["version"] for record in api.current.values()} <= set(versions)
