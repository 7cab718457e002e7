"""The kafka source, against a server that speaks Kafka (an imitation: see `collectors.testing.kafka_server`)."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone

import pytest
from _kafka_topics import Topics, connected, following, ids, lines, read, records
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import registry
from collectors.collection.sources import _kafka_feed
from collectors.errors import ConfigurationError, FatalError, TransientError
from collectors.testing.source_contract import SourceContract

BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)  # the server deletes what is a week old
START_AT = BEGIN + timedelta(seconds=5)


@pytest.fixture(scope="module")
def topics(kafka_server):
    return Topics(kafka_server.address)


class TestKafka(SourceContract):
    component = "kafka"

    @pytest.fixture(autouse=True)
    def _server(self, topics):
        self.topics = topics

    @asynccontextmanager
    async def rig(self, ids):
        topic = self.topics.make()
        self.topics.send(topic, [b'{"id": %d, "note": "%b"}' % (n, b"x" * 300) for n in ids])
        yield self.topics.settings(topic, chunk_size="1 KiB")


class TestKafkaFollowed(TestKafka):
    component = "kafka"
    endless = True
    quiet_seconds = 0.6

    @asynccontextmanager
    async def rig(self, ids):
        async with super().rig(ids) as settings:
            yield settings | {"follow": True}


def test_columns_beside_the_payload(topics):
    topic, at = topics.make(2), BEGIN + timedelta(microseconds=123_000)
    topics.send(
        topic,
        [b'{"id": 7}'],
        partition=1,
        key=b'a "key"',
        headers=[("trace", b"1f"), ("n", b"1"), ("n", b"\xff"), ("none", None)],
        timestamp=int(at.timestamp() * 1000),
    )
    (record,) = records(read(topics.settings(topic)))
    headers = {"trace": "1f", "n": ["1", {"base64": "/w=="}], "none": None}
    assert record == {
        "kafka_topic": topic,
        "kafka_partition": 1,
        "kafka_offset": 0,
        "kafka_timestamp": f"{at:%Y-%m-%d %H:%M:%S}.123Z",
        "kafka_key": 'a "key"',
        "kafka_headers": headers,
        "id": 7,
    }
    source = registry.create("source", "kafka", topics.settings(topic))
    codec = registry.create("codec", "ndjson", {"columns": source.format()["columns"]})
    (row,) = codec.decode(read(topics.settings(topic))[-1].raw_data).table.to_pylist()
    assert row["kafka_timestamp"] == at
    assert json.loads(row["kafka_headers"]) == headers


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"{}", {}),
        (b' { \n "id" : 1 }\n', {"id": 1}),
        (b'{"a":\n{"b":\n1}}', {"a": {"b": 1}}),
        (b"[1, 2]", {"value": [1, 2]}),
        (b"null", {"value": None}),
        (b'"text"', {"value": "text"}),
        (b"-1.5e3", {"value": -1500.0}),
        (None, {"kafka_tombstone": True}),
    ],
)
def test_json_of_every_kind(topics, payload, expected):
    topic = topics.make()
    topics.send(topic, [payload], key=b"k")
    (record,) = records(read(topics.settings(topic)))
    assert {
        name: value for name, value in record.items() if name[:6] != "kafka_" or name in expected
    } == expected
    assert record["kafka_key"] == "k"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"hello", "no JSON"),
        (b"", "no JSON"),
        (b'1,"kafka_offset":7', "no JSON"),
        (b"[1]]", "no JSON"),
        (b"\xff", "no JSON"),
        (b'"' + b"x" * 3000 + b'"', "3,002 bytes, more than max_record, 2,000"),
        (b'{"a":"' + b"x" * 3000 + b'"}', "3,008 bytes, more than max_record, 2,000"),
    ],
)
def test_what_is_no_record_is_refused_with_its_place(topics, payload, reason):
    """Its neighbours are not; and the chunk is the same when it is read again."""
    topic = topics.make(2)
    topics.send(topic, [b'{"id": 1}', payload, b'{"id": 2}'], partition=1)
    chunks = read(topics.settings(topic, max_record=2000))
    first, refused, last = [chunk for chunk in chunks if chunk.raw_data or chunk.data_format == "rejected"]
    assert (ids([first]), ids([last])) == ([1], [2])
    assert refused.data_format == "rejected"
    assert reason in refused.metadata["reason"]
    assert refused.raw_data == payload
    assert refused.metadata["path"] == f"{topic}[1]@1"
    assert refused.position == {topic: {"0": 0, "1": 2}}
    again = replayed(topics.settings(topic, max_record=2000), first.position, refused.position)
    assert (again.raw_data, again.data_format, again.metadata) == (payload, "rejected", refused.metadata)


@pytest.mark.parametrize(
    "payload", [b'{"a"', b'{"a":1}{"b":2}', b'{"kafka_offset":3}', b'{"a":"\xff"}', b'{,"a":1}']
)
def test_objects_that_are_none_are_for_the_codec(topics, payload):
    """They are set aside by it, each alone, in a line that says where it comes from."""
    topic = topics.make()
    topics.send(topic, [b'{"id": 1}', payload, b'{"id": 2}'])
    source = registry.create("source", "kafka", topics.settings(topic))
    codec = registry.create("codec", "ndjson", {"columns": source.format()["columns"]})
    (chunk,) = [chunk for chunk in read(topics.settings(topic)) if chunk.raw_data]
    decoded = codec.decode(chunk.raw_data)
    assert decoded.table["id"].to_pylist() == [1, 2]
    assert [rejected.record for rejected in decoded.rejected] == [1]
    assert b'"kafka_offset":1,' in decoded.rejected[0].raw


def test_keys_that_are_no_text(topics):
    topic = topics.make()
    topics.send(topic, [b'{"id": 1}'], key=b"\xff\x00")
    topics.send(topic, [b'{"id": 2}'], key="schlüssel\n\x7f".encode())
    topics.send(topic, [b'{"id": 3}'])
    first, second, third = records(read(topics.settings(topic)))
    assert (first["kafka_key"], first["kafka_key_base64"]) == (None, "/wA=")
    assert second["kafka_key"] == "schlüssel\n\x7f"
    assert (third["kafka_key"], "kafka_key_base64" in third) == (None, False)


NAMES = st.text(min_size=1).filter(lambda name: not name.startswith("kafka_"))
MESSAGES = st.lists(
    st.tuples(
        st.one_of(
            st.none(),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text()),
                lambda each: st.lists(each) | st.dictionaries(NAMES, each),
                max_leaves=5,
            ).map(lambda value: (json.dumps(value, ensure_ascii=False, indent=1), value)),
        ),
        st.none() | st.binary(max_size=5) | st.text(max_size=5).map(str.encode),
    ),
    min_size=1,
    max_size=8,
)


class _Message:
    def __init__(self, offset, value, key):
        self._all = offset, value, key

    def offset(self):
        return self._all[0]

    def value(self):
        return self._all[1]

    def key(self):
        return self._all[2]

    def headers(self):
        return None

    def timestamp(self):
        return (0, -1)


@settings(max_examples=300, deadline=None)
@given(MESSAGES)
def test_lines_say_what_messages_say(messages):
    """Whatever the JSON and the keys are: one line each, in order, with nothing lost and nothing made up."""
    from collectors.collection.sources._kafka_records import lines as lines_of

    texts = [None if value is None else value[0].encode("utf-8", "surrogatepass") for value, _ in messages]
    given = [_Message(n, text, key) for n, (text, (_, key)) in enumerate(zip(texts, messages, strict=True))]
    (made,) = lines_of("t", 3, given, "json", 2**20)
    found = [json.loads(line) for line in made.raw.split(b"\n")[:-1]]
    assert len(found) == len(messages)
    for offset, (record, (value, key)) in enumerate(zip(found, messages, strict=True)):
        assert record.pop("kafka_offset") == offset
        assert (record.pop("kafka_topic"), record.pop("kafka_partition")) == ("t", 3)
        assert (record.pop("kafka_timestamp"), record.pop("kafka_headers")) == (None, None)
        encoded, text = record.pop("kafka_key_base64", None), record.pop("kafka_key")
        assert encoded is not None or text == (None if key is None else key.decode())
        expected = {"kafka_tombstone": True} if value is None else value[1]
        assert record == (expected if isinstance(expected, dict) else {"value": expected})


def test_text_and_other_formats(topics):
    topic = topics.make()
    topics.send(topic, [b'one "quoted"\nand more', b"\xff", None])
    texts = read(topics.settings(topic, format="lines"))
    assert [record.get("line") for record in records(texts[1:2])] == ['one "quoted"\nand more']
    assert [chunk.metadata["reason"][:25] for chunk in texts if chunk.data_format == "rejected"] == [
        "the payload is no UTF-8: "
    ]
    assert records(texts)[-1]["kafka_tombstone"] is True

    other = topics.make()
    topics.send(other, [b"<34>Oct 11 22:14:15 here su: hello", b"<34>Oct 11 22:14:16 here su: more"])
    chunks = [chunk for chunk in read_framed(topics.settings(other, format="syslog")) if chunk.raw_data]
    assert [chunk.data_format for chunk in chunks] == ["syslog"]
    assert len(chunks[0].raw_data.splitlines()) == 2

    documents = topics.make()
    topics.send(documents, [b"a,b\n1,2\n3,4\n", b"a,b\n5,6\n", None], key=b"k")
    chunks = [
        chunk
        for chunk in read_framed(topics.settings(documents, format="csv"))
        if chunk.position and chunk.metadata
    ]
    assert [chunk.raw_data for chunk in chunks] == [b"a,b\n1,2\n3,4\n", b"a,b\n5,6\n", b"k"]
    assert [chunk.metadata["path"] for chunk in chunks] == [f"{documents}[0]@{n}" for n in range(3)]
    assert "tombstone" in chunks[-1].metadata["reason"]


def read_framed(settings):
    """Read with the codec of the format as framing, as a pipeline does."""

    async def run():
        source = TestKafka().make(settings)
        await source.connect()
        try:
            return [chunk async for chunk in source.stream(None)]
        finally:
            await source.disconnect()

    return asyncio.run(run())


def replayed(settings, since, until):
    async def run():
        async with connected(settings) as source:
            return await asyncio.to_thread(source.replay, since, until)

    return asyncio.run(run())


def test_every_chunk_can_be_replayed(topics):
    topic = topics.make(3)
    for partition in range(3):
        topics.send(topic, lines(range(partition * 100, partition * 100 + 50)), partition=partition)
    settings = topics.settings(topic, chunk_size=500)
    chunks = read(settings)
    assert len(chunks) > 3
    assert ids(chunks) != sorted(ids(chunks)) or len(ids(chunks)) == 150
    for before, chunk in zip([None, *chunks], chunks, strict=False):
        again = replayed(settings, before.position if before else None, chunk.position)
        assert (again.raw_data, again.position) == (chunk.raw_data, chunk.position)
    topics.delete_before(topic, 0, 40)
    with pytest.raises(FatalError, match="partition 0 once more: its records were deleted"):
        replayed(settings, chunks[0].position, chunks[-1].position)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("earliest", [*range(10), *range(100, 110)]),
        ("latest", []),
        (START_AT, [*range(5, 10), *range(105, 110)]),
        ((START_AT.astimezone(timezone(timedelta(hours=1)))).isoformat(), [*range(5, 10), *range(105, 110)]),
        ("2030-01-01T00:00:00Z", []),
        ({0: 8}, [8, 9, *range(100, 110)]),
        ({0: 10, 1: 9}, [109]),
    ],
    ids=["earliest", "latest", "time", "zone", "future", "one-offset", "two-offsets"],
)
def test_start(topics, start, expected):
    topic = topics.make(2)
    for n in range(10):
        at = int((BEGIN + timedelta(seconds=n)).timestamp() * 1000)
        topics.send(topic, lines([n]), timestamp=at)
        topics.send(topic, lines([100 + n]), partition=1, timestamp=at)
    settings = topics.settings(topic, start={topic: start} if isinstance(start, dict) else start)
    chunks = read(settings)
    assert sorted(ids(chunks)) == expected
    topics.send(topic, lines([50]))
    assert ids(read(settings, chunks[-1].position)) == [50], (
        "where it began is in the position, even with no record"
    )


def test_partitions_that_are_chosen_and_those_that_come_later(topics, monkeypatch):
    topic = topics.make(2)
    topics.send(topic, lines([1]))
    topics.send(topic, lines([2]), partition=1)
    assert ids(read(topics.settings(topic, partitions=[1]))) == [2]
    with pytest.raises(
        ConfigurationError, match=f"partitions: topic '{topic}' has no partition 7; it has 0, 1"
    ):
        read(topics.settings(topic, partitions=[1, 7]))
    monkeypatch.setattr(_kafka_feed, "LOOK_SECONDS", 0.1)

    async def follow():
        async with following(topics.settings(topic, start="latest")) as (_, stream):
            topics.grow(topic, 3)
            topics.send(topic, lines([3]), partition=2)
            chunks = []
            while not ids(chunks):
                chunks.append(await asyncio.wait_for(anext(stream), 10))
            return chunks

    chunks = asyncio.run(follow())
    assert ids(chunks) == [3], "a new partition is read from its beginning, whatever `start` is"
    assert chunks[-1].position == {topic: {"0": 1, "1": 1, "2": 1}}


def test_offsets_that_were_deleted(topics):
    topic = topics.make()
    topics.send(topic, lines(range(10)))
    topics.delete_before(topic, 0, 6)
    position = {topic: {"0": 2}}
    with pytest.raises(FatalError) as caught:
        read(topics.settings(topic), position)
    assert str(caught.value) == (
        f"topic '{topic}', partition 0: offset 2 is the next one, but the brokers have 6 to 10; 4 were deleted before "
        "they were read. To go on at the earliest that is there: `out_of_range: earliest`"
    )

    async def go_on(since):
        async with connected(topics.settings(topic, out_of_range="earliest")) as source:
            return [chunk async for chunk in source.stream(since)], source.told, source.lost

    chunks, told, lost = asyncio.run(go_on(position))
    assert (ids(chunks), lost) == ([6, 7, 8, 9], [4])
    assert "4 were deleted" in told[0]
    chunks, told, lost = asyncio.run(go_on({topic: {"0": 99}}))
    assert (ids(chunks), lost) == ([6, 7, 8, 9], [0])
    assert "made anew" in told[0]


def test_transactions(topics):
    """What was aborted is not read, unless the user says so; the marks of transactions are no records."""
    from confluent_kafka import Producer

    topic = topics.make()
    producer = Producer(topics.options | {"transactional.id": topic})
    producer.init_transactions(10)
    for number, end in (
        (1, producer.commit_transaction),
        (2, producer.abort_transaction),
        (3, producer.commit_transaction),
    ):
        producer.begin_transaction()
        producer.produce(topic, b'{"id": %d}' % number)
        producer.flush(10)
        end(10)
    settings = topics.settings(topic)
    assert ids(read(settings)) == [1, 3]
    assert ids(read(settings | {"options": {"isolation.level": "read_uncommitted"}})) == [1, 2, 3]


def test_group_follows_what_is_stored(topics, monkeypatch):
    """Nothing is committed before it is stored, and the group is not asked where to begin."""
    topic = topics.make(2)
    topics.send(topic, lines(range(5)))
    settings = topics.settings(topic, group_id=f"{topic}-lag")

    async def run(store):
        async with connected(settings) as source:
            chunks = [chunk async for chunk in source.stream(None)]
            if store:
                await source.commit(chunks[-1].position)
            return ids(chunks)

    assert asyncio.run(run(False)) == list(range(5))
    assert topics.committed(topic, 2, f"{topic}-lag") == [None, None]
    assert asyncio.run(run(True)) == list(range(5))
    assert topics.committed(topic, 2, f"{topic}-lag")[0] == 5
    monkeypatch.setattr(_kafka_feed, "COMMIT_SECONDS", 0.05)

    async def follow():
        async with following(settings, {topic: {"0": 5, "1": 0}}) as (source, stream):
            topics.send(topic, lines([5]))
            chunk = await asyncio.wait_for(anext(stream), 10)
            await source.commit(chunk.position)
            reading = asyncio.ensure_future(anext(stream))
            while (await asyncio.to_thread(topics.committed, topic, 2, f"{topic}-lag"))[0] != 6:
                await asyncio.sleep(0.02)
            reading.cancel()
            await asyncio.wait([reading])

    asyncio.run(asyncio.wait_for(follow(), 20))


def test_a_topic_that_is_not_there(topics):
    topic = topics.make(name="weather-reports")
    with pytest.raises(
        ConfigurationError, match="topics: there is no topic 'wether-reports', did you mean 'weather-reports'"
    ):
        read(topics.settings("wether-reports"))
    with pytest.raises(ConfigurationError, match="there is no topic 'zzz'; there are: "):
        read(topics.settings("zzz"))
    topics.send(topic, lines([1]))

    async def vanish():
        async with connected(topics.settings(topic, follow=True)) as source:
            await source.collect()
            topics.delete(topic)
            await source.disconnect()
            with pytest.raises(TransientError, match="it is not there at the moment"):
                await source.connect()

    asyncio.run(vanish())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"brokers": ["127.0.0.1:1"]},
            TransientError,
            "brokers 127.0.0.1:1: cannot be reached (.*Connection refused",
        ),
        ({"brokers": ["nowhere.invalid:1"]}, TransientError, "cannot be reached (.*Failed to resolve"),
        ({"tls": True}, TransientError, "cannot be reached (.*ssl://"),
        (
            {"username": "me", "password": "canary"},
            FatalError,
            "the login failed .*check username, password and mechanism",
        ),
        (
            {"options": {"fetch.min.bites": 1}},
            ConfigurationError,
            'options: No such configuration property: "fetch.min.bites"',
        ),
        (
            {"options": {"fetch.min.bytes": "canary"}},
            ConfigurationError,
            'options: Invalid value for .* "fetch.min.bytes"',
        ),
        ({"tls": {"ca": "nowhere.pem"}}, ConfigurationError, "tls.ca: there is no file 'nowhere.pem'"),
        ({"tls": {"ca": __file__}}, ConfigurationError, "tls: .*ssl.ca.location failed"),
    ],
)
def test_what_is_wrong_with_a_connection(topics, settings, error, message):
    """The stand-in has no real login; a broken one shows as a login that failed."""
    with pytest.raises(error, match=message.replace("(", "\\(")) as caught:
        read(topics.settings("any", timeout="2s") | settings)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"brokers": []}, "brokers"),
        ({"brokers": ["here"]}, "expected host:port, for example kafka.example:9092"),
        ({"brokers": ["here:99999"]}, "expected host:port"),
        ({"brokers": ["me:secret@here:1"]}, "expected host:port"),
        ({"topics": []}, "topics"),
        ({"topics": ["^every.*"]}, "topics"),
        ({"topics": ["a", "a"]}, "topics: each topic once"),
        ({"partitions": []}, "partitions"),
        ({"group_id": ""}, "group_id: expected a name"),
        ({"share": True}, "share: needs `group_id`"),
        ({"share": True, "group_id": "g", "partitions": [1]}, "take away `partitions`"),
        ({"share": True, "group_id": "g", "follow": False}, "take away `follow: false`"),
        ({"start": "2026-01-01T00:00:00"}, "start"),
        ({"start": {"b": {0: 1}}}, "start: 'b' is not one of `topics`"),
        ({"start": "now"}, "start"),
        ({"chunk_size": 0}, "more than 0 bytes"),
        ({"username": "me"}, "expected both or none"),
        ({"password": "canary"}, "expected both or none"),
        (
            {"username": "me", "password": "canary", "mechanism": "PLAIN"},
            "PLAIN sends the password as it is, so set `tls: true`",
        ),
        ({"options": {"group.id": "canary"}}, "'group.id' cannot be set; there is the setting `group_id`"),
        ({"options": {"enable.auto.commit": True}}, "'enable.auto.commit' cannot be set"),
        ({"options": {"error_cb": "x"}}, "'error_cb' cannot be set"),
        ({"options": {"plugin.library.paths": "evil.so"}}, "'plugin.library.paths' cannot be set"),
    ],
)
def test_settings_that_are_refused(settings, message):
    from collectors.config.load import from_mapping

    source = {"type": "kafka", "brokers": ["kafka.example:9092"], "topics": ["a"]} | settings
    with pytest.raises(ConfigurationError) as caught:
        from_mapping({"sources": [source], "storage": [{"type": "memory"}]})
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"mechanism": "PLAIN", "tls": True},
        {"mechanism": "PLAIN", "insecure": True},
        {"mechanism": "PLAIN", "brokers": ["127.0.0.1:1", "[::1]:2"]},
        {"mechanism": "SCRAM-SHA-256"},
        {"options": {"client.rack": "eu", "fetch.min.bytes": 10, "client.dns.lookup": "use_all_dns_ips"}},
    ],
)
def test_secrets_are_not_shown(settings):
    made = registry.create(
        "source",
        "kafka",
        {"brokers": ["kafka.example:1"], "topics": ["a"], "username": "me", "password": "canary"} | settings,
    )
    assert "canary" not in repr(made.config) + str(made.config) + made.config.model_dump_json()


def test_what_librdkafka_is_told(tmp_path):
    from collectors.collection.sources._kafka_options import client_options

    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text("")
    config = registry.create(
        "source",
        "kafka",
        {
            "brokers": ["a:1", "b:2"],
            "topics": ["t"],
            "group_id": "g",
            "share": True,
            "username": "me",
            "password": "pw",
            "tls": {
                "ca": str(tmp_path / "ca"),
                "certificate": str(tmp_path / "cert"),
                "key": str(tmp_path / "key"),
                "key_password": "kp",
            },
            "options": {"client.rack": "eu", "socket.keepalive.enable": True},
            "chunk_size": "1 MiB",
        },
    ).config
    told = client_options(config, "s")
    expected = {
        "bootstrap.servers": "a:1,b:2",
        "group.id": "g",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": "pw",
        "ssl.ca.location": str(tmp_path / "ca"),
        "ssl.key.password": "kp",
        "partition.assignment.strategy": "cooperative-sticky",
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "queued.max.messages.kbytes": 2048,
        "client.rack": "eu",
        "socket.keepalive.enable": "true",
    }
    assert {name: told[name] for name in expected} == expected


def test_login_by_oauth():
    from collectors.collection.sources._kafka_options import client_options

    options = {"sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.client.secret": "canary"}
    settings = {"brokers": ["a:1"], "topics": ["t"], "tls": True, "options": options}
    told = client_options(registry.create("source", "kafka", settings).config, "s")
    assert (told["security.protocol"], told["sasl.mechanism"]) == ("SASL_SSL", "OAUTHBEARER")
    assert told["sasl.oauthbearer.client.secret"] == "canary"


def test_logs_are_ours(topics, caplog):
    caplog.set_level("DEBUG", "collectors.kafka")
    with pytest.raises(TransientError):
        read(topics.settings("any", brokers=["127.0.0.1:1"], timeout="1s"))
    assert {record.levelname for record in caplog.records if record.name == "collectors.kafka"} <= {
        "DEBUG",
        "INFO",
    }


def test_small_messages_do_not_wait_and_large_ones_do_not_pile_up(topics):
    """A message is handed on as it comes; of large ones only so many are taken at once as make a chunk."""
    topic = topics.make()

    async def follow():
        async with following(topics.settings(topic, chunk_size="64 KiB")) as (_, stream):
            for number in range(3):
                topics.send(topic, lines([number]))
                chunk = await asyncio.wait_for(anext(stream), 5)
                assert ids([chunk]) == [number]
            topics.send(topic, [b'{"id": 1, "x": "%b"}' % (b"x" * 20_000)] * 100)
            sizes = []
            while sum(sizes) < 2_000_000:
                sizes.append(len((await asyncio.wait_for(anext(stream), 5)).raw_data))
            return sizes

    sizes = asyncio.run(follow())
    assert max(sizes) <= 64 * 1024 + 21_000


def test_stops_at_once(topics):
    """Waiting for messages, or while no broker answers any more."""
    topic = topics.make()

    async def stop():
        async with following(topics.settings(topic)) as (_, stream):
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting], timeout=2)
            assert waiting.done()

    asyncio.run(asyncio.wait_for(stop(), 5))


def test_the_library_is_named_when_it_is_missing(monkeypatch):
    import sys

    for name in list(sys.modules):
        if name == "confluent_kafka" or "kafka" in name.rpartition(".")[2]:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigurationError, match="pip install 'c"):
        registry.find("source", "kafka")
