"""The nats storage, against a real server."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from _nats_world import connected as client_of
from _nats_world import shared_server, stream_of
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec.structs import replace
from nats.js.api import DiscardPolicy, StreamSource

from collectors.chunks import Checkpoint, ChunkKey
from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError, DataError, FatalError, FencedError, TransientError
from collectors.runtime.guarantee import Level, guarantees
from collectors.storage.backends import _nats_positions, _nats_publishing
from collectors.storage.backends.nats import NatsBackend, _matches, _Stream
from collectors.testing.backend_contract import BackendContract
from collectors.testing.deliveries import delivery
from collectors.testing.nats_server import NatsServer
from collectors.testing.proxy import Proxy

from ._brokers import EXACT, FLOW, IN_JSON, beside, commit_what_is_taken, connected, deliver, tried, without
from ._nats_log import make_stream, messages, numbers


class TestNats(BackendContract):
    component = "nats"
    can_query = False
    can_delete = False

    @pytest.fixture(autouse=True)
    def _streams(self) -> None:
        self.made: dict[Path, str] = {}

    def settings(self, folder: Path) -> dict[str, Any]:
        if folder not in self.made:
            self.made[folder] = name = f"CONTRACT{next(NUMBERS)}"
            make_stream(name)
        name = self.made[folder]
        return {
            "servers": shared_server().url,
            "stream": name,
            "subject": f"{name}.rows",
            "positions": f"{name}-positions",
        }


NUMBERS = itertools.count(1)


def run(
    scenario: Callable[[Any, Any, str], Coroutine[Any, Any, None]],
    *,
    stream: dict[str, Any] | None = None,
    server: NatsServer | None = None,
    **settings: Any,
) -> list[Any]:
    """Run a scenario with a backend on a stream of its own; return the messages of the stream at its end."""

    async def main() -> list[Any]:
        async with stream_of(server=server, **(stream or {})) as (js, name):
            given = {
                "servers": (server or shared_server()).url,
                "stream": name,
                "subject": f"{name}.rows",
                "positions": f"{name}-positions",
            } | {
                key: value.replace("STREAM", name) if isinstance(value, str) else value
                for key, value in settings.items()
            }
            async with connected("nats", given) as backend:
                await scenario(backend, js, name)
            return await messages(js, name)

    return asyncio.run(main())


def stored(rows: Any, **settings: Any) -> list[Any]:
    async def scenario(backend: Any, *_: Any) -> None:
        await backend.store(rows)

    return run(scenario, **settings)


# What is sent.


def test_a_message_is_a_json_object_with_exact_values() -> None:
    (found,) = stored(EXACT)
    assert json.loads(found.data) == IN_JSON


def test_subjects_and_headers_are_columns() -> None:
    rows = [
        {"n": 0, "region": "eu", "trace": "1f x"},
        {"n": 1, "region": "us-1", "trace": None},
        {"n": 2, "region": "日本", "trace": ""},
    ]
    found = stored(
        rows, subject="STREAM.{region}.{n}", headers={"Trace": "trace", "N": "n"}, exclude=["trace"]
    )
    assert [each.subject.partition(".")[2] for each in found] == ["eu.0", "us-1.1", "日本.2"]
    own = [{name: each.headers[name] for name in ("Trace", "N") if name in each.headers} for each in found]
    assert own == [{"Trace": "1f x", "N": "0"}, {"N": "1"}, {"Trace": "", "N": "2"}]
    assert [json.loads(each.data) for each in found] == [
        {name: row[name] for name in ("n", "region")} for row in rows
    ]


def test_a_payload_may_be_a_column() -> None:
    table = pa.table({"v": [b"\x00\xff", b"", None]})
    assert [each.data or b"" for each in stored(table, value="v")] == [b"\x00\xff", b"", b""]
    with pytest.raises(DataError, match="2 rows cannot be sent.*value: there is no column 'v'"):
        stored([{"w": 1}, {"w": 2}], value="v")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "has no value"),
        ("", "has no value"),
        ("a b", "cannot be a part of a subject"),
        ("a.b", "cannot be a part of a subject"),
        ("*", "cannot be a part of a subject"),
        (">", "cannot be a part of a subject"),
        ("a*", "cannot be a part of a subject"),
        ("a\r\nPUB x 0\r\n", "cannot be a part of a subject"),
        ("a\0", "cannot be a part of a subject"),
        ("a\u2003", "cannot be a part of a subject"),
    ],
)
def test_what_cannot_be_a_part_of_a_subject_is_set_aside(value: str | None, why: str) -> None:
    async def scenario(backend: Any, *_: Any) -> None:
        with pytest.raises(DataError) as raised:
            await backend.store([{"n": 0, "part": "fine"}, {"n": 1, "part": value}])
        assert list(raised.value.rows) == [1]
        assert why in raised.value.rows[1]

    assert run(scenario, subject="STREAM.{part}.x") == []


def test_a_subject_that_is_a_column_may_have_dots_but_is_one_of_the_stream() -> None:
    """Not one of the server's own, by which a row would delete a stream."""

    async def scenario(backend: Any, _: Any, name: str) -> None:
        good = [{"n": 0, "to": f"{name}.a.b"}]
        for bad in (
            ["$JS.API.STREAM.PURGE.S", "$KV.b.k", "other.a", name],
            [f"{name}.a..b", f"{name}.>", f"{name}.*", f"{name}.", " "],
        ):
            with pytest.raises(DataError) as raised:
                await backend.store(good + [{"n": 1, "to": each} for each in bad])
            assert sorted(raised.value.rows) == list(range(1, len(bad) + 1))
        await backend.store(good)

    (found,) = run(scenario, subject="{to}")
    assert found.subject.endswith(".a.b")


def test_line_breaks_in_headers_are_set_aside() -> None:
    async def scenario(backend: Any, *_: Any) -> None:
        with pytest.raises(DataError) as raised:
            await backend.store([{"n": 0, "h": "x\r\nNats-Rollup: all"}, {"n": 1, "h": "y"}])
        assert raised.value.rows == {0: "header 'H' has a line break"}

    assert run(scenario, headers={"H": "h"}) == []


def test_what_is_too_large_is_set_aside() -> None:
    """For the server, or for the stream; also where the stream's limit has become smaller meanwhile."""

    async def scenario(backend: Any, js: Any, name: str) -> None:
        rows = [{"n": n, "text": "x" * (2_000_000 if n == 1 else 3000 if n == 3 else 10)} for n in range(5)]
        await backend.call(backend.claim, FLOW)
        what = replace(delivery(1, 1, letters=0), table=pa.Table.from_pylist(rows))
        with pytest.raises(DataError) as raised:
            await backend.call(backend.commit, what)
        assert list(raised.value.rows) == [1]
        assert "the limit is 1,048,576" in raised.value.rows[1]
        del rows[1]
        config = (await js.stream_info(name)).config
        await js.update_stream(config, max_msg_size=1000)
        left = replace(what, table=pa.Table.from_pylist(rows))
        with pytest.raises(DataError) as raised:
            await backend.call(backend.commit, left)
        assert raised.value.rows == {2: "message size exceeds maximum allowed"}
        assert (await js.stream_info(name)).state.messages == 3
        left = replace(what, table=pa.Table.from_pylist(rows[:2] + rows[3:]))
        await backend.call(backend.commit, left)
        await backend.call(backend.commit, delivery(2, 2, letters=0))

    assert numbers(run(scenario)) == [0, 2, 4, 3, 4, 5]


def test_the_limit_of_the_server_may_change() -> None:
    async def scenario(backend: Any, *_: Any) -> None:
        await backend.call(backend.claim, FLOW)
        backend._link.connection.client._max_payload = 1000  # as the server tells when it is configured anew
        what = with_large(delivery(1, 1, letters=0), 1)
        with pytest.raises(DataError, match="the limit is 1,000") as raised:
            await backend.call(backend.commit, what)
        assert list(raised.value.rows) == [1]
        await commit_what_is_taken(backend, what)

    assert numbers(run(scenario)) == [0, 2]


def test_a_position_that_is_too_large_is_told() -> None:
    """Its schema has very many columns; to try again would never help."""

    async def scenario(backend: Any, *_: Any) -> None:
        await backend.call(backend.claim, FLOW)
        what = replace(delivery(1, 1, letters=0), schema=b"x" * 2_000_000)
        with pytest.raises(FatalError, match="bytes are more than the server takes, which is 1,048,576"):
            await backend.call(backend.commit, what)

    run(scenario)


def test_what_is_too_large_in_subject_or_headers_is_set_aside() -> None:
    """The server ends the connection for such a subject, each time again; for such headers it refuses the message."""

    async def scenario(backend: Any, *_: Any) -> None:
        await backend.call(backend.claim, FLOW)
        rows = [
            {"n": n, "part": "x" * (5000 if n == 1 else 3000), "h": "x" * (70_000 if n == 3 else 10)}
            for n in range(5)
        ]
        what = replace(delivery(1, 1, letters=0), table=pa.Table.from_pylist(rows))
        with pytest.raises(
            DataError, match=r"row 1: subject 'S.*x…' is longer than the 3,900 bytes"
        ) as raised:
            await backend.call(backend.commit, what)
        assert list(raised.value.rows) == [1]
        await commit_what_is_taken(backend, what)

    found = run(scenario, subject="STREAM.{part}", headers={"H": "h"})
    assert sorted(numbers(found)) == [0, 2, 4]


def test_a_stream_that_gets_subjects_later_is_looked_at_again() -> None:
    async def scenario(backend: Any, js: Any, name: str) -> None:
        with pytest.raises(DataError, match="subject 'later' is none of the stream's"):
            await backend.store({"to": "later"})
        config = (await js.stream_info(name)).config
        await js.update_stream(config, subjects=[f"{name}.>", "later"])
        await backend.store({"to": "later"})

    assert [each.subject for each in run(scenario, subject="{to}")] == ["later"]


_TOKENS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4)


@hypothesis_settings(max_examples=300, deadline=None, database=None)
@given(_TOKENS, st.lists(st.sampled_from(["a", "b", "*", ">"]), min_size=1, max_size=4))
def test_subjects_match_as_the_server_has_it(subject: list[str], pattern: list[str]) -> None:
    """Against the definition, written as a regular expression."""
    if ">" in pattern[:-1]:
        pattern = [part for part in pattern if part != ">"] or ["a"]
    parts = ["[^.]+" if part == "*" else r".+" if part == ">" else part for part in pattern]
    assert _matches(pattern, subject) == bool(re.fullmatch(r"\.".join(parts), ".".join(subject)))
    assert _Stream((tuple(pattern),), 0, 1).takes(".".join(subject)) == _matches(pattern, subject)


# Settings, and what is checked before anything is sent.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"subject": "a b"}, "expected a subject such as orders.new"),
        ({"subject": "a.>"}, "expected a subject such as orders.new"),
        ({"subject": "a.*.{b}"}, "expected a subject such as orders.new"),
        ({"subject": "a..b"}, "expected a subject such as orders.new"),
        ({"subject": "a.{b"}, "expected columns in braces"),
        ({"stream": "a.b"}, "expected a name without spaces"),
        ({"positions": "a b"}, "expected a name of letters"),
        ({"headers": {"Nats-Rollup": "x"}}, "not Nats-"),
        ({"headers": {"nats-msg-id": "x"}}, "not Nats-"),
        ({"headers": {"a:b": "x"}}, "headers: 'a:b': expected a name"),
        ({"headers": {"": "x"}}, "headers: '': expected a name"),
        ({"value": "v", "exclude": ["w"]}, "exclude: means nothing with `value`"),
        ({"token": "SECRET", "servers": "nats://db.example"}, "in clear text; use tls://"),
        ({"servers": "ws://h"}, "expected nats://host:port"),
    ],
)
def test_settings_that_do_not_fit(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        NatsBackend(**{"stream": "S", "subject": "s"} | given)
    assert "SECRET" not in str(raised.value).partition("input_value")[0]


def test_a_stream_that_is_not_there_is_told_at_the_start() -> None:
    async def scenario(backend: Any, js: Any, name: str) -> None:
        await js.add_stream(name=f"{name}M", mirror=StreamSource(name=name))
        await js.add_stream(name=f"{name}N", subjects=[f"{name}N"], no_ack=True)
        for stream, message in (
            (f"{name}X", f"stream: there is no stream '{name}X', did you mean '{name}"),
            (f"{name}M", f"stream: '{name}M' is a mirror, or sealed"),
            (f"{name}N", f"stream: '{name}N' acknowledges nothing; set its no_ack to false"),
        ):
            other = NatsBackend(servers=shared_server().url, stream=stream, subject="s")
            with pytest.raises(ConfigurationError, match=message):
                await other.connect()

    run(scenario)


def test_a_server_that_is_away_may_come_back() -> None:
    backend = NatsBackend(servers="nats://127.0.0.1:1", stream="S", subject="s", timeout="1s")
    with pytest.raises(TransientError, match=r"nats://127\.0\.0\.1:1"):
        asyncio.run(backend.connect())


@pytest.mark.parametrize("seed", ["SECRET", "SUSECRET"])
def test_what_is_no_seed_is_told_without_it(seed: str) -> None:
    backend = NatsBackend(servers=shared_server().url, stream="S", subject="s", nkey=seed)
    with pytest.raises(ConfigurationError, match="expected the seed of an NKey") as raised:
        asyncio.run(backend.connect())
    assert seed not in str(raised.value)


def test_a_server_without_jetstream_is_told() -> None:
    with NatsServer(jetstream=False) as server:
        backend = NatsBackend(servers=server.url, stream="S", subject="s", timeout="1s")
        with pytest.raises(TransientError, match="JetStream does not answer: it is not enabled"):
            asyncio.run(backend.connect())


def test_what_is_said_of_it() -> None:
    settings = {"servers": ["nats://b:2", "nats://a:1"], "stream": "S", "subject": "s.{x}"}
    backend = NatsBackend(**settings, token="canary", insecure=True)
    assert backend.describe() == "subject s.{x} of stream S at nats://b:2, nats://a:1"
    assert backend.place("source") == "nats nats://a:1,nats://b:2 S s.{x}"
    assert "canary" not in repr(backend.config) + backend.describe()
    assert backend.preview(pa.table({"n": [1]}), FLOW) == [
        "~ there is no column 'x', which `subject` names",
        "n: int64",
    ]


def test_what_is_guaranteed() -> None:
    pipeline = {
        "sources": [{"type": "file", "path": "x.ndjson"}],
        "storage": [{"type": "nats", "stream": "S", "subject": "s"}],
    }
    (found,) = guarantees(from_mapping(pipeline))
    assert found.level is Level.AT_LEAST_ONCE
    assert "duplicate window" in found.promise
    assert "knows rows again that it was given just before" in found.why[-1]
    assert "nats" not in (found.better or "").partition(": ")[2].split(", ")
    assert "elsewhere: it takes over" in found.second_process


def test_a_login_that_is_not_enough_is_told() -> None:
    permissions = """
    authorization { users = [
        {user: admin, password: secret},
        {user: me, password: secret, permissions: {publish: {deny: "*.rows"}}},
    ] }
    """
    with NatsServer(permissions) as server:

        async def main() -> None:
            async with client_of(server.url, user="admin", password="secret") as client:
                await client.jetstream().add_stream(name="S", subjects=["S.>"])
            settings = {"servers": server.url, "stream": "S", "subject": "S.rows", "timeout": "1s"}
            backend = NatsBackend(**settings, user="me", password="secret")
            await backend.connect()
            try:
                with pytest.raises(FatalError, match=r"(?i)permissions violation for publish to \"S.rows\""):
                    await backend.store({"n": 1})
            finally:
                await backend.disconnect()
            with pytest.raises(FatalError, match="look at token, user and password"):
                await NatsBackend(**settings, user="me", password="wrong").connect()

        asyncio.run(main())


# Positions, and what comes twice.


def ids(found: list[Any]) -> list[str]:
    return [each.headers["Nats-Msg-Id"] for each in found]


@contextmanager
def dying_before_the_position() -> Iterator[None]:
    """Have what is committed here published, and no position noted behind it."""

    async def dies(*_: Any) -> None:
        raise TransientError("killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_nats_positions.Positions, "write", dies)
        with pytest.raises(TransientError, match="killed"):
            yield


def with_large(what: Any, *bad: int) -> Any:
    """Return a delivery in which the rows with these numbers are too large for a stream that takes 1000 bytes."""
    texts = ["x" * (2000 if n in bad else 10) for n in what.table["n"].to_pylist()]
    return replace(what, table=pa.table({"n": what.table["n"], "text": texts}))


async def limit(js: Any, name: str) -> None:
    """Have the stream take no more than 1000 bytes; a backend that is connected does not know yet."""
    await js.update_stream((await js.stream_info(name)).config, max_msg_size=1000)


@pytest.mark.parametrize("bad", [[5], [0, 2], [3, 4, 5], [2, 5, 8]])
def test_rows_beside_refused_ones_keep_their_ids_however_they_are_grouped(bad: list[int]) -> None:
    """A delivery ends with rows that are refused; after a crash, another one has its end there."""

    async def scenario(backend: Any, js: Any, name: str) -> None:
        await backend.call(backend.claim, FLOW)
        await limit(js, name)
        with dying_before_the_position():
            await commit_what_is_taken(backend, with_large(delivery(1, 3, letters=0), *bad))
        await backend.call(backend.claim, FLOW)
        for first, last in ((1, 2), (3, 3), (4, 4)):
            await commit_what_is_taken(backend, with_large(delivery(first, last, 2, letters=0), *bad))

    found = run(scenario)
    assert sorted(numbers(found)) == [n for n in range(12) if n not in bad]


def test_rows_beside_refused_ones_keep_their_ids_when_the_connection_breaks() -> None:
    """Refused, tried again without, not acknowledged, and tried again: the numbers are still those of the first try."""

    async def scenario(backend: Any, js: Any, name: str) -> None:
        await backend.call(backend.claim, FLOW)
        await limit(js, name)
        what = with_large(delivery(1, 2, letters=0), 1)
        with dying_before_the_position():
            await commit_what_is_taken(backend, what)
        left = replace(what, table=without(what.table, {1}))
        await backend.call(backend.commit, left)

    assert sorted(numbers(run(scenario))) == [0, 2, 3, 4, 5]


def test_rows_beside_refused_ones_keep_their_ids_under_the_key_of_a_write() -> None:
    async def scenario(backend: Any, js: Any, name: str) -> None:
        await limit(js, name)
        table, key = with_large(delivery(1, 2, letters=0), 1).table, ChunkKey(FLOW, 1, 1)
        with pytest.raises(DataError) as raised:
            await backend.call(backend.write, table, key)
        assert list(raised.value.rows) == [1]
        assert await backend.call(backend.write, without(table, {1}), key) == 5

    assert sorted(numbers(run(scenario))) == [0, 2, 3, 4, 5]


def test_rows_that_come_again_are_dropped_however_they_are_grouped() -> None:
    """As after a crash behind the rows and before the position: the deliveries of the next life have other ends."""

    async def scenario(backend: Any, js: Any, name: str) -> None:
        await backend.call(backend.claim, FLOW)
        await backend.call(backend.commit, delivery(1, 2, letters=0))
        with dying_before_the_position():
            await backend.call(backend.commit, delivery(3, 6, letters=0))
        assert (await js.stream_info(name)).state.messages == 18
        assert await backend.call(backend.claim, FLOW) == Checkpoint(2, 2, {"offset": 200}, b"\x00schema\xff")
        for first, last in ((3, 3), (4, 5), (6, 7)):
            await backend.call(backend.commit, delivery(first, last, 2, letters=0))

    found = run(scenario)
    assert numbers(found) == list(range(21))
    assert len(set(ids(found))) == 21


def test_equal_rows_are_all_there() -> None:
    async def scenario(backend: Any, *_: Any) -> None:
        await backend.call(backend.claim, FLOW)
        same = pa.table({"n": [7, 7, 7]})
        for seq in (1, 2):
            await backend.call(backend.commit, replace(delivery(seq, seq, letters=0), table=same))

    assert numbers(run(scenario)) == [7] * 6


def test_rows_in_another_order_are_there_twice_but_none_is_lost() -> None:
    async def scenario(backend: Any, *_: Any) -> None:
        await backend.call(backend.claim, FLOW)
        with dying_before_the_position():
            await backend.call(
                backend.commit, replace(delivery(1, 1, letters=0), table=pa.table({"n": [1, 2, 3]}))
            )
        await backend.call(
            backend.commit, replace(delivery(1, 1, letters=0), table=pa.table({"n": [2, 1, 3]}))
        )

    assert numbers(run(scenario)) == [1, 2, 3, 2, 1]


def test_a_flow_that_begins_anew_publishes_anew() -> None:
    """Its position was deleted: what it publishes within the window is not taken for what it published before."""

    async def scenario(backend: Any, js: Any, name: str) -> None:
        for _ in range(2):
            assert await backend.call(backend.claim, FLOW) == Checkpoint(1)
            await backend.call(backend.commit, delivery(1, 1, letters=0))
            bucket = await js.key_value(f"{name}-positions")
            assert await bucket.keys() == [f"{name}.{name}=2erows.{FLOW}"]
            await bucket.delete(f"{name}.{name}=2erows.{FLOW}")
            assert await backend.call(backend.flows, FLOW) == []

    assert numbers(run(scenario)) == [0, 1, 2] * 2


def test_a_bucket_that_forgets_is_refused() -> None:
    async def scenario(backend: Any, js: Any, name: str) -> None:
        await js.create_key_value(bucket=f"{name}-positions", ttl=5)
        with pytest.raises(ConfigurationError, match="expected no time to live, it has 5 s"):
            await backend.call(backend.claim, FLOW)

    run(scenario)


@pytest.mark.parametrize("value", [b"x", b"{}", b'{"life":"x","epoch":1,"position":3}', b"\xff"])
def test_what_is_no_position_is_told(value: bytes) -> None:
    """And keys that are no flow's are nobody's."""

    async def scenario(backend: Any, js: Any, name: str) -> None:
        await backend.call(backend.claim, FLOW)
        await backend.call(backend.commit, delivery(1, 1, letters=0))
        bucket = await js.key_value(f"{name}-positions")
        (key,) = await bucket.keys()
        for other in ("=zz", "=c3", "=4", "=41"):
            await bucket.put(f"{key.removesuffix(FLOW)}{FLOW}{other}", value)
        assert await backend.call(backend.flows, FLOW) == [FLOW]
        await bucket.put(key, value)
        for ask in (backend.stored, backend.claim):
            with pytest.raises(
                FatalError, match=f"as the position of {FLOW} is none .*delete the key '{key}'"
            ):
                await backend.call(ask, FLOW)

    run(scenario)


def test_a_flow_has_a_position_for_each_subject() -> None:
    """Two storages of a pipeline, which keep their positions in one bucket, know nothing of each other."""

    async def scenario(first: Any, js: Any, name: str) -> None:
        async with beside(first, subject=f"{name}.others") as second:
            for backend, last in ((first, 2), (second, 1)):
                assert await backend.call(backend.claim, FLOW) == Checkpoint(1)
                for seq in range(1, last + 1):
                    await backend.call(backend.commit, delivery(seq, seq, letters=0))
            for backend, last in ((first, 2), (second, 1)):
                assert (await backend.call(backend.stored, FLOW)).seq == last
                assert await backend.call(backend.flows, FLOW) == [FLOW]

    assert numbers(run(scenario)) == [*range(6), *range(3)]


@pytest.mark.parametrize("flow", ["p/s", "p/s/#replay", "é/日 本=", "a.b/c", "=/%"])
def test_any_name_of_a_flow_is_a_key(flow: str) -> None:
    assert _nats_positions._text(_nats_positions._token(flow)) == flow

    async def scenario(backend: Any, *_: Any) -> None:
        await backend.call(backend.claim, flow)
        await backend.call(backend.commit, delivery(1, 1, flow=flow, letters=0))
        assert (await backend.call(backend.stored, flow)).seq == 1
        assert await backend.call(backend.flows, flow) == [flow]

    run(scenario)


def test_a_position_that_arrived_although_the_answer_is_lost_is_found() -> None:
    async def scenario(backend: Any, *_: Any) -> None:
        await backend.call(backend.claim, FLOW)
        positions = backend._link.positions
        place = backend._places[FLOW]
        await positions.write(FLOW, place, Checkpoint(1, 1, {"offset": 100}), 3)  # late, of the try before
        assert await backend.call(backend.commit, delivery(1, 1, letters=0)) == 1
        await backend.call(backend.commit, delivery(2, 2, letters=0))

    assert numbers(run(scenario)) == list(range(6))


def test_owners_that_do_not_know_of_another() -> None:
    """The first one publishes before it learns that it is fenced; the second one's rows are the same: dropped."""

    async def scenario(first: Any, js: Any, name: str) -> None:
        await first.call(first.claim, FLOW)
        await first.call(first.commit, delivery(1, 1, letters=0))
        async with beside(first) as second:
            assert (await second.call(second.claim, FLOW)).epoch == 2
            with pytest.raises(FencedError, match="epoch 2, ours is 1"):
                await first.call(first.commit, delivery(2, 2, letters=0))
            await second.call(second.commit, delivery(2, 3, 2, letters=0))

    assert numbers(run(scenario)) == list(range(9))


# Connections.


@pytest.mark.parametrize("moment", ["before", "with", "answered"])
def test_a_connection_that_is_cut_at_any_message_loses_and_doubles_nothing(moment: Any) -> None:
    server = shared_server()
    with Proxy("127.0.0.1", server.port) as proxy:

        async def scenario(backend: Any, *_: Any) -> None:
            proxy.cuts(b"HPUB ", moment, [2, 5, 9, 13])
            checkpoint = await tried(lambda: backend.call(backend.claim, FLOW))
            for seq in range(1, 6):
                await deliver(backend, delivery(seq, seq, checkpoint.epoch, letters=0))
            assert proxy.cut > 2

        found = run(scenario, servers=f"nats://127.0.0.1:{proxy.port}", timeout="2s")
    assert numbers(found) == list(range(15))


def test_a_server_that_hangs_is_given_up_and_what_is_under_way_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_nats_publishing, "MOST_MESSAGES", 10)
    server = shared_server()
    with Proxy("127.0.0.1", server.port) as proxy:

        async def scenario(backend: Any, *_: Any) -> None:
            await backend.call(backend.claim, FLOW)
            proxy.hangs()
            what = delivery(1, 100, letters=0)
            with pytest.raises(TransientError, match="no answer within 0.5 s"):
                await backend.call(backend.commit, what)
            assert backend._link.publisher._count == 10
            proxy.passes()
            await deliver(backend, what)

        found = run(scenario, servers=f"nats://127.0.0.1:{proxy.port}", timeout="0.5s")
    assert sorted(numbers(found)) == list(range(300))


def test_a_stream_that_is_full_is_waited_for() -> None:
    async def scenario(backend: Any, js: Any, name: str) -> None:
        await backend.call(backend.claim, FLOW)
        with pytest.raises(TransientError, match="maximum messages exceeded"):
            await backend.call(backend.commit, delivery(1, 2, letters=0))
        await js.update_stream((await js.stream_info(name)).config, max_msgs=100)
        await deliver(backend, delivery(1, 2, letters=0))

    found = run(scenario, stream={"max_msgs": 4, "discard": DiscardPolicy.NEW})
    assert numbers(found) == list(range(6))


def test_a_stream_that_was_deleted_is_waited_for() -> None:
    async def scenario(backend: Any, js: Any, name: str) -> None:
        await backend.call(backend.claim, FLOW)
        await js.delete_stream(name)
        with pytest.raises(TransientError, match="no stream takes it at the moment"):
            await backend.call(backend.commit, delivery(1, 1, letters=0))
        await js.add_stream(name=name, subjects=[f"{name}.>"])
        await deliver(backend, delivery(1, 1, letters=0))

    assert numbers(run(scenario)) == [0, 1, 2]
