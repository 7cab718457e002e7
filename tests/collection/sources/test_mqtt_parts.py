"""The parts of the mqtt source that need no broker: packets, topics, lines, and the bookkeeping of exactly once."""

from __future__ import annotations

import asyncio
import json
import re
import struct
from datetime import UTC, datetime
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.codecs.ndjson import NdjsonCodec
from collectors.collection.sources import _mqtt_packets as wire
from collectors.collection.sources._mqtt_packets import BrokenPacketError, Properties, Splitter
from collectors.collection.sources._mqtt_records import Lines, PayloadError
from collectors.collection.sources._mqtt_session import Session
from collectors.collection.sources._mqtt_topics import parse_filter

# Packets


def packet(first, body):
    size, length = len(body), b""
    while True:
        size, low = size >> 7, size & 127
        length += bytes([low | 128 * bool(size)])
        if not size:
            return bytes([first]) + length + body


@settings(max_examples=150, deadline=None)
@given(
    bodies=st.lists(
        st.tuples(st.integers(0, 255), st.binary(max_size=400) | st.integers(0, 40_000).map(bytes)),
        max_size=8,
    ),
    cuts=st.lists(st.integers(1, 500), max_size=60),
    limit=st.integers(1, 20_000),
)
def test_packets_are_the_same_however_the_stream_is_cut(bodies, cuts, limit):
    data = b"".join(packet(first, body) for first, body in bodies)
    splitter, found = Splitter(limit), []
    for cut in [*cuts, len(data) or 1]:
        if data[:cut]:
            found += splitter.feed(data[:cut])
        data = data[cut:]
    if data:
        found += splitter.feed(data)
    assert found == [(first, body[:limit], len(body)) for first, body in bodies]


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(0, 255), st.booleans())
def test_whatever_comes_is_a_packet_or_is_refused(pieces, first, v5):
    splitter = Splitter(1000)
    try:
        for piece in pieces:
            for _, body, _ in splitter.feed(piece) if piece else ():
                topic, _, at = wire.read_publish(first, body, v5=v5)
                assert topic
                assert at <= len(body)
                wire.read_properties(body, 0)
    except BrokenPacketError:
        pass


def test_properties():
    text = struct.pack(">H", 2) + b"no"
    every = b"".join(
        [
            b"\x01\x01",
            b"\x13\x00\x0a",
            b"\x11\x00\x00\x00\x05",
            b"\x0b\x80\x01",
            b"\x1f" + text,
            b"\x26" + text + text,
            b"\x09" + text,
        ]
    )
    found = wire.read_properties(b"?" + bytes([len(every)]) + every, 1)
    assert (found.number(0x13, 0), found.number(0x11, 0), found.number(0x22, 7)) == (10, 5, 7)
    assert found.reason == "no"
    assert Properties().reason == ""


# Topics

LEVEL = st.text(alphabet="ab", max_size=2)


@settings(max_examples=150)
@given(
    levels=st.lists(LEVEL | st.just("+") | st.sampled_from(["{x}", "{y}", "{z}"]), min_size=1, max_size=4),
    tail=st.booleans(),
    topic=st.lists(LEVEL, min_size=1, max_size=5),
)
def test_names_of_levels_are_those_of_a_regular_expression(levels, tail, topic):
    names = [level for level in levels if level.startswith("{")]
    text = "/".join([*levels, *["#"] * tail])
    if len({*names}) < len(names) or text == "":
        return
    pattern = "/".join(
        "[^/]*"
        if level == "+"
        else f"(?P<{level[1:-1]}>[^/]*)"
        if level.startswith("{")
        else re.escape(level)
        for level in levels
    )
    match = re.fullmatch(f"{pattern}(/.*)?" if tail else pattern, "/".join(topic))
    found = parse_filter(text).named("/".join(topic))
    assert found == (match and match.groupdict())
    assert parse_filter(text).text == re.sub(r"\{.\}", "+", text)


# Lines

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NAMES = [parse_filter("a/{site}/#")]
FRONT = {"topic": "a/b/c", "site": "b"}


def lines(payload, kind="json", add=None, topic=b"a/b/c"):
    made = Lines(kind, {"topic": "topic"} if add is None else add, NAMES).make(topic, 0x32, payload)
    return [json.loads(line) for line in made.splitlines()]


def rows_of(value):
    values = (value or [None]) if isinstance(value, list) else [value]
    return [FRONT | (each if isinstance(each, dict) else {"value": each}) for each in values]


@settings(max_examples=200)
@given(JSON, st.sampled_from([None, 1]), st.sampled_from(["", "\n ", "\r\n\t"]))
def test_any_json_is_spliced_as_if_it_had_been_read(value, indent, around):
    if isinstance(value, dict) and value.keys() & FRONT.keys():
        return
    payload = around + json.dumps(value, indent=indent, ensure_ascii=False) + around
    assert lines(payload.encode()) == rows_of(value)


@settings(max_examples=150)
@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:1 \n\r\\ae', max_size=20).map(str.encode))
def test_a_payload_that_is_no_json_never_becomes_a_record(payload):
    """Nor does it become two: what is spliced in stays in front."""
    try:
        made = Lines("json", {"topic": "topic"}, NAMES).make(b"a/b/c", 0x32, payload)
    except PayloadError:
        return
    decoded = NdjsonCodec().decode(made)
    assert decoded.read == made.count(b"\n")
    text = payload.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")
    try:
        json.loads(text.decode() or "null")
    except ValueError:
        assert decoded.table.num_rows == 0


@pytest.mark.parametrize(
    ("kind", "payload", "rows"),
    [
        ("json", b"21.5", [{"value": 21.5}]),
        ("json", b"", [{"value": None}]),
        ("json", b" {} ", [{}]),
        ("json", b"[]", [{"value": None}]),
        ("json", b'[{"a": 1}, 2]', [{"a": 1}, {"value": 2}]),
        ("json", b'\xef\xbb\xbf{"a": 1}', [{"a": 1}]),
        ("ndjson", b'{"a": 1}\r\n\n{"a": 2}\n3', [{"a": 1}, {"a": 2}, {"value": 3}]),
        ("ndjson", b"\n", [{"value": None}]),
        ("lines", b'one\r\n\n"two"', [{"line": "one"}, {"line": '"two"'}]),
        ("lines", b"", [{"line": None}]),
    ],
)
def test_kinds_of_payload(kind, payload, rows):
    assert lines(payload, kind) == [FRONT | row for row in rows]


@pytest.mark.parametrize(
    ("kind", "payload", "topic", "text"),
    [
        ("json", b"up", b"a", "the payload is not JSON"),
        ("json", b'1,"topic":"x"', b"a", "the payload is not JSON"),
        ("json", b'{"a": "x\ny"}', b"a", "the payload is not JSON"),
        ("json", b"[1,", b"a", "the payload is not JSON"),
        ("json", b"[" * 100_000, b"a", "the payload is not JSON"),
        ("json", b"NaN", b"a", "the payload is not JSON"),
        ("lines", b"\xff", b"a", "not UTF-8 at byte 0"),
        ("json", b"1", b"\xff", "the topic is not UTF-8"),
    ],
)
def test_payloads_that_are_none(kind, payload, topic, text):
    with pytest.raises(PayloadError, match=text):
        lines(payload, kind, topic=topic)


def test_columns_about_the_message():
    made = Lines("json", {"q": "qos", "r": "retain", "t": "time", "where": "topic"}, NAMES)
    made.at(datetime(2026, 11, 29, 8, tzinfo=UTC))
    assert json.loads(made.make(b"a/b", 0x35, b"1")) == {
        "q": 2,
        "r": True,
        "t": "2026-11-29T08:00:00Z",
        "where": "a/b",
        "site": "b",
        "value": 1,
    }
    assert json.loads(made.make(b"x", 0x30, b"1"))["q"] == 0
    assert Lines("json", {}, []).make(b"a", 0x30, b'{"a":1}') == b'{"a":1}\n'


# Exactly once


class World:
    """A broker with one session, a disk, and one process after another; whatever is sent can be lost with a connection."""

    def __init__(self, folder):
        self.folder = folder
        self.waiting = {}  # packet identifier → message, PUBLISH was sent or is to be
        self.released = {}  # packet identifier → message: PUBREC has come
        self.unused = [3, 2, 1]
        self.messages = 0
        self.spool = []  # chunks that are durable
        self.ready = []  # handed on, not durable
        self.committed = 0
        self.stored = []
        self.process()

    def process(self):
        """A process dies, another begins; what is in the spool is stored."""
        self.stored += [message for chunk in self.spool for message in chunk.message]
        self.spool, kept = [], self.spool
        self.ready = []
        self.session = Session("broker", "me", "", lambda line: None)
        self.session.remember(self.folder, kept)
        self.connection = None

    async def connect(self):
        self.sent = []
        self.connection = SimpleNamespace(
            send=lambda data: self.sent.append(data) or True, broker=SimpleNamespace(v5=True)
        )
        have = self.session._memory.topics
        welcome = SimpleNamespace(present=True)
        await self.session.begin(self.connection, welcome, have)
        for mid, message in [*self.waiting.items()]:
            await self.deliver(mid, message)
        for mid in [*self.released]:
            await self.session.over([mid])

    async def deliver(self, mid, message):
        again = []
        exchange = self.session.exchanges.take(mid, 2, 7, again)  # all messages look alike
        if exchange is not None:
            about = {"session": self.session.name, "exchanges": [(exchange.number, mid, 7)]}
            self.ready.append(SimpleNamespace(metadata=about, number=exchange.number, message=[message]))
        if again:
            await self.session.answer(again)

    async def publish(self):
        if self.unused:
            mid = self.unused.pop()
            self.waiting[mid] = self.messages
            self.messages += 1
            if self.connection is not None:
                await self.deliver(mid, self.waiting[mid])

    async def keep(self):
        """The spool makes durable what is ready; the commit may come or not."""
        self.spool += self.ready
        self.ready = []

    async def commit(self):
        await self.keep()
        if self.spool:
            self.committed = self.spool[-1].number
            await self.session.answer(self.session.exchanges.settle(self.committed))

    async def trim(self):
        """The spool forgets what is stored and was committed."""
        gone = [chunk for chunk in self.spool if chunk.number <= self.committed]
        self.stored += [message for chunk in gone for message in chunk.message]
        self.spool = [chunk for chunk in self.spool if chunk not in gone]

    async def hear(self):
        """The broker gets what was sent, and answers."""
        sent, self.sent = b"".join(self.sent) if self.connection else b"", []
        for at in range(0, len(sent), 4):
            kind, mid = sent[at] >> 4, int.from_bytes(sent[at + 2 : at + 4], "big")
            if kind == wire.PUBREC and mid in self.waiting:
                self.released[mid] = self.waiting.pop(mid)
                await self.session.over([mid])
            elif kind == wire.PUBCOMP and mid in self.released:
                del self.released[mid]
                self.unused.append(mid)

    async def cut(self):
        """The connection breaks; what was not heard is gone."""
        await self.session.end()
        self.connection, self.sent = None, []
        await self.connect()

    async def die(self):
        self.process()
        await self.connect()

    async def finish(self):
        for _ in range(6):
            await self.commit()
            await self.hear()
        await self.die()


ACTIONS = ["publish", "keep", "commit", "trim", "hear", "cut", "die"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(ACTIONS), max_size=40))
def test_with_qos_2_each_message_is_stored_once(tmp_path_factory, actions):
    """Alike messages under three identifiers, over deaths and cuts at any moment: none is lost, none is doubled."""

    async def main():
        world = World(tmp_path_factory.mktemp("world"))
        await world.connect()
        for action in actions:
            await getattr(world, action)()
        await world.finish()
        assert sorted(world.stored) == list(range(world.messages))
        assert world.session.exchanges.known() == []

    with mock.patch("os.fsync"):  # the disk does not fail here
        asyncio.run(main())
