"""The kafka storage, against a server that speaks Kafka (an imitation: see `collectors.testing.kafka_server`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from _kafka_topics import Topics
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType
from msgspec.structs import replace

from collectors import registry
from collectors.chunks import Checkpoint, ChunkKey
from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError, DataError, FatalError, FencedError, TransientError
from collectors.kafka_client import Watch
from collectors.runtime.engine import Engine
from collectors.storage.backends import _kafka_positions, _kafka_sending, kafka
from collectors.storage.backends.kafka import KafkaBackend
from collectors.storage.base import KeepsPosition
from collectors.testing.backend_contract import BackendContract
from collectors.testing.deliveries import delivery

from ._brokers import EXACT, FLOW, IN_JSON, beside, connected, without
from ._kafka_log import in_log, numbers


@pytest.fixture(scope="module")
def topics(kafka_server: Any) -> Topics:
    return Topics(kafka_server.address)


class TestKafka(BackendContract):
    component = "kafka"
    can_query = False
    can_delete = False
    survives = False

    @pytest.fixture(autouse=True)
    def _server(self, kafka_server: Any) -> None:
        self.address = kafka_server.address
        self.made: dict[Path, str] = {}

    def settings(self, folder: Path) -> dict[str, Any]:
        if folder not in self.made:  # by clients that end at once: their connections are not the backend's
            self.made[folder] = Topics(self.address).make()
        return {"brokers": [self.address], "topic": self.made[folder], "timeout": "10s"}


class TestKafkaTransactions(TestKafka):
    component = "kafka"
    survives = True

    def settings(self, folder: Path) -> dict[str, Any]:
        settings = super().settings(folder)
        return settings | {"positions": f"{settings['topic']}-positions"}


def run(
    server: Topics, topic: str, scenario: Callable[[Any], Coroutine[Any, Any, None]], **settings: Any
) -> None:
    async def main() -> None:
        given = {"brokers": [server.address], "topic": topic, "timeout": "10s"} | settings
        async with connected("kafka", given) as backend:
            await scenario(backend)

    asyncio.run(main())


def sent(topics: Topics, rows: Any, **settings: Any) -> list[Any]:
    topic = topics.make()

    async def scenario(backend: Any) -> None:
        await backend.store(rows)

    run(topics, topic, scenario, **settings)
    return in_log(topics.options, topic)


# What is sent.


def test_a_message_is_a_json_object_with_exact_values(topics: Topics) -> None:
    ((key, value, headers, _),) = sent(topics, EXACT, compression="zstd")
    assert (key, headers) == (None, {})
    assert b"\n" not in value
    assert json.loads(value) == IN_JSON


def test_keys_and_headers_are_columns(topics: Topics) -> None:
    rows = [
        {"id": 7, "trace": "1f", "at": datetime(2026, 1, 2, tzinfo=UTC), "ok": True, "x": 1.5},
        {"id": None, "trace": None, "at": None, "ok": None, "x": None},
    ]
    found = sent(
        topics,
        rows,
        key="id",
        headers={"trace": "trace", "At": "at", "ok": "ok", "x": "x", "gone": "no such column"},
        exclude=["trace", "at", "ok", "x", "never there"],
    )
    assert [(key, json.loads(value), headers) for key, value, headers, _ in found] == [
        (b"7", {"id": 7}, {"trace": b"1f", "At": b"2026-01-02T00:00:00Z", "ok": b"true", "x": b"1.5"}),
        (None, {"id": None}, {}),
    ]
    assert [value for _, value, _, _ in sent(topics, rows, exclude=list(rows[0]))] == [b"{}", b"{}"]


def test_a_payload_may_be_a_column_and_without_it_a_tombstone(topics: Topics) -> None:
    table = pa.table({"k": [b"\xff", b"b", b"c"], "v": [b"\x00", b"", None]})
    found = sent(topics, table, key="k", value="v")
    assert [(key, value) for key, value, _, _ in found] == [(b"\xff", b"\x00"), (b"b", b""), (b"c", None)]
    assert [value for _, value, _, _ in sent(topics, {"v": "é"}, value="v")] == ["é".encode()]
    assert [value for _, value, _, _ in sent(topics, {"v": 1.5}, value="v")] == [b"1.5"]
    assert [value for _, value, _, _ in sent(topics, {"v": {"a": 1}}, value="v")] == [b'{"a":1}']
    for table, message in (
        (pa.table({"v": ["x", None]}), "1 rows cannot be sent.*row 1: column 'v' has no value.*tombstone"),
        (pa.table({"w": ["x", "y"]}), "2 rows cannot be sent.*value: there is no column 'v'"),
    ):
        with pytest.raises(DataError, match=message):
            sent(topics, table, value="v")


def test_the_same_key_goes_where_clients_of_kafka_send_it(topics: Topics) -> None:
    """By murmur2, as `org.apache.kafka.common.utils.Utils` has it: these are of its own tests, for 8 partitions."""
    topic = topics.make(8)
    hashes = {
        "21": -973932308,
        "foobar": -790332482,
        "a-little-bit-long-string": -985981536,
        "a-little-bit-longer-string": -1486304829,
    }

    async def scenario(backend: Any) -> None:
        await backend.store([{"k": key} for key in hashes])

    run(topics, topic, scenario, key="k")
    found = {(key or b"").decode(): partition for key, _, _, partition in in_log(topics.options, topic)}
    assert found == {key: (value & 0x7FFFFFFF) % 8 for key, value in hashes.items()}


def test_topics_from_a_column_are_those_that_are_allowed(topics: Topics) -> None:
    for name in ("orders-eu", "orders-us"):
        topics.make(name=name)
    rows = [{"n": number, "region": region} for number, region in enumerate(["eu", "us", "eu"])]
    bad = [{"n": 7, "region": "asia"}, {"n": 8, "region": None}, {"n": 9, "region": ""}]

    async def scenario(backend: Any) -> None:
        await backend.store(rows)
        with pytest.raises(DataError) as raised:
            await backend.store(rows + bad)
        assert raised.value.rows == {
            3: "topic 'orders-asia' is not one of `topics`",
            4: "column 'region', which is a part of 'orders-{region}', has no value",
            5: "column 'region', which is a part of 'orders-{region}', has no value",
        }

    run(topics, "orders-{region}", scenario, topics=["orders-eu", "orders-us"])
    assert numbers(topics.options, "orders-eu") == [0, 2]
    assert numbers(topics.options, "orders-us") == [1]


# Settings, and what is checked before anything is sent.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"topic": "a-{b"}, "expected columns in braces, as in orders"),
        ({"topic": "a-{}"}, "expected columns in braces"),
        ({"topic": "{a}"}, "topics: expected all topics that '{a}' may stand for"),
        ({"topic": "a", "topics": ["b"]}, "topics: means nothing where `topic` has no column"),
        ({"topic": "{a}", "topics": ["b c"]}, "topics.0"),
        ({"topic": "a", "positions": "a"}, "positions: expected a topic of its own"),
        ({"topic": "a", "value": "v", "exclude": ["w"]}, "exclude: means nothing with `value`"),
        ({"topic": "a", "timeout": "0.5s"}, "greater than or equal to 1"),
        ({"topic": "a", "brokers": ["no port"]}, "expected host:port"),
        ({"topic": "a", "username": "me"}, "expected both or none"),
        ({"topic": "a", "options": {"acks": 1}}, "options: 'acks' cannot be set"),
        (
            {"topic": "a", "options": {"transactional.id": "x"}},
            "cannot be set; there is the setting `positions`",
        ),
        ({"topic": "a", "options": {"compression.type": "x"}}, "there is the setting `compression`"),
        ({"topic": "a", "options": {"dr_cb": "x"}}, "options: 'dr_cb' cannot be set"),
        (
            {"topic": "a", "username": "u", "password": "SECRET", "mechanism": "PLAIN"},
            "PLAIN sends the password as it is",
        ),
    ],
)
def test_settings_that_do_not_fit(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        registry.create("backend", "kafka", {"brokers": ["kafka.example:9092"]} | given)
    assert "SECRET" not in str(raised.value).partition("input_value")[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"topic": "ordres"}, "topic: there is no topic 'ordres', did you mean 'orders'"),
        ({"topic": "{t}", "topics": ["orders", "ordres"]}, "topics: there is no topic 'ordres', did you"),
        (
            {"topic": "orders", "options": {"no.such": 1}},
            'options: No such configuration property: "no.such"',
        ),
        ({"topic": "orders", "tls": {"ca": "/nowhere"}}, "tls.ca: there is no file '/nowhere'"),
    ],
)
def test_what_is_not_there_is_told_at_the_start(
    topics: Topics, settings: dict[str, Any], message: str
) -> None:
    if "orders" not in topics.admin.list_topics(timeout=10).topics:
        topics.make(name="orders")
    with pytest.raises(ConfigurationError, match=message):
        run(topics, settings.pop("topic"), None, **settings)  # type: ignore[arg-type]


def test_brokers_that_are_away_may_come_back(topics: Topics) -> None:
    with pytest.raises(TransientError, match=r"brokers 127\.0\.0\.1:1: cannot be reached"):
        run(topics, "any", None, brokers=["127.0.0.1:1"], timeout="1s")  # type: ignore[arg-type]


def test_what_is_said_of_it() -> None:
    settings = {"brokers": ["b:2", "a:1"], "topic": "orders", "username": "me", "password": "canary"}
    backend = registry.create("backend", "kafka", settings)
    assert backend.describe() == "topic orders at b:2, a:1"
    assert backend.place("source") == "kafka a:1,b:2 orders"
    assert "canary" not in repr(backend.config) + backend.describe()
    table = pa.table({"n": [1], "text": ["x"]})
    assert backend.preview(table, FLOW) == ["n: int64", "text: string"]
    settings |= {"key": "id", "headers": {"t": "trace"}, "exclude": ["n"]}
    assert registry.create("backend", "kafka", settings).preview(table, FLOW) == [
        "~ there is no column 'id', which `key` names",
        "~ there is no column 'trace', which `headers` names",
        "text: string",
    ]
    settings = {"brokers": ["a:1"], "topic": "{t}", "topics": ["a"], "value": "v"}
    assert registry.create("backend", "kafka", settings).preview(table, FLOW) == [
        "~ there is no column 't', which `topic` names",
        "~ there is no column 'v', which `value` names",
        "payload: v",
    ]


def test_what_librdkafka_is_told() -> None:
    given = {"partitioner": "random", "message.max.bytes": 5_000_000, "linger.ms": 50}
    config = registry.create("backend", "kafka", {"brokers": ["a:1"], "topic": "t", "options": given}).config
    told = _kafka_sending._options(config, "s", "id", careful=True)
    expected = {
        "acks": "all",
        "enable.idempotence": True,
        "message.timeout.ms": 300_000,
        "transaction.timeout.ms": 330_000,
        "transactional.id": "id",
        "compression.type": "lz4",
        "batch.num.messages": 1,
        "partitioner": "random",
        "message.max.bytes": "5000000",
        "linger.ms": "50",
        "queue.buffering.max.kbytes": 65536,
    }
    assert {name: told[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("timeout", "seconds"), [("1s", 10), ("30s", 300), ("2m", 870), ("870s", 870), ("20m", 1200)]
)
def test_no_transaction_is_longer_than_brokers_allow(timeout: str, seconds: int) -> None:
    """15 minutes, if not told otherwise; messages that go one by one may take ten times as long, up to that."""
    config = registry.create(
        "backend", "kafka", {"brokers": ["a:1"], "topic": "t", "timeout": timeout}
    ).config
    told = _kafka_sending._options(config, "s", "id", careful=True)
    assert told["message.timeout.ms"] == seconds * 1000
    assert told["transaction.timeout.ms"] == (seconds + 30) * 1000


def test_a_message_that_is_larger_than_the_buffer_finds_room() -> None:
    given = {"brokers": ["a:1"], "topic": "t", "options": {"message.max.bytes": 140_000_000}}
    config = registry.create("backend", "kafka", given).config
    options = _kafka_sending._options(config, "s", None, careful=False)
    producer = Producer({name: value for name, value in options.items() if name != "logger"})
    producer.produce("t", b"x" * 70_000_000)
    producer.purge()


# What is not acknowledged.


class Refusing(Producer):
    """A producer at brokers whose limit is small: they refuse batches, and single messages, that are larger."""

    LIMIT = 1000
    made: list[str] = []

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        self._alone = options.get("batch.num.messages") == 1
        self._batch: list[tuple[Any, Any, Any, dict[str, Any]]] = []
        Refusing.made.append("careful" if self._alone else "normal")

    def produce(self, topic: Any, value: Any, key: Any, **more: Any) -> None:  # type: ignore[override]
        if "partition" in more:
            super().produce(topic, value, key, **more)
        else:
            self._batch.append((topic, value, key, more))

    def flush(self, timeout: float = -1) -> int:  # type: ignore[override]
        batch, self._batch = self._batch, []
        size = sum(len(value) for _, value, _, _ in batch)
        for topic, value, key, more in batch:
            if (len(value) if self._alone else size) > self.LIMIT:
                more["on_delivery"](KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), None)
            else:
                super().produce(topic, value, key, **more)
        return super().flush(timeout)


@pytest.mark.parametrize("positions", [None, "refusing-positions"])
def test_batches_that_are_refused_are_sent_one_by_one(
    topics: Topics, monkeypatch: pytest.MonkeyPatch, positions: str | None
) -> None:
    """And only messages that are too large by themselves are refused; the others are there once."""
    topic = topics.make()
    monkeypatch.setattr(_kafka_sending, "Producer", Refusing)
    Refusing.made.clear()
    table = pa.table({"n": range(30), "text": ["x" * (2000 if n in {7, 20} else 50) for n in range(30)]})

    async def scenario(backend: Any) -> None:
        what = replace(delivery(1, 1, letters=0), table=table)
        if positions:
            assert (await backend.call(backend.claim, FLOW)).epoch == 1
            store: Callable[[Any], Any] = lambda each: backend.call(backend.commit, each)  # noqa: E731
        else:
            store = lambda each: backend.call(backend.write, each.table, each.key)  # noqa: E731
        with pytest.raises(DataError) as raised:
            await store(what)
        assert sorted(raised.value.rows) == [7, 20]
        assert "does not take it, 2,0" in raised.value.rows[7]
        await store(replace(what, table=without(table, {7, 20})))
        if positions:
            assert (await backend.call(backend.stored, FLOW)).seq == 1

    run(topics, topic, scenario, positions=positions)
    assert numbers(topics.options, topic) == [n for n in range(30) if n not in {7, 20}]
    assert "careful" in Refusing.made


def test_what_the_client_refuses_itself_is_set_aside(topics: Topics) -> None:
    topic = topics.make()

    async def scenario(backend: Any) -> None:
        rows = pa.table({"n": [0, 1, 2], "text": ["x", "y" * 5000, "z"]})
        key = ChunkKey(FLOW, 1, 1)
        with pytest.raises(DataError) as raised:
            await backend.call(backend.write, rows, key)
        assert list(raised.value.rows) == [1]
        assert await backend.call(backend.write, without(rows, {1}), key) == 0

    run(topics, topic, scenario, options={"message.max.bytes": 2000})
    assert numbers(topics.options, topic) == [0, 2]


def test_what_was_acknowledged_is_not_sent_again(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some messages time out: the next try sends those alone; a key of another epoch is another delivery."""
    topic = topics.make()
    failing = {3, 4}

    class TimingOut(Producer):
        def produce(self, topic: Any, value: Any, key: Any, **more: Any) -> None:  # type: ignore[override]
            if json.loads(value)["n"] in failing:
                more["on_delivery"](KafkaError(KafkaError._MSG_TIMED_OUT), None)
                more["on_delivery"] = lambda *_: None
            else:
                super().produce(topic, value, key, **more)

    monkeypatch.setattr(_kafka_sending, "Producer", TimingOut)

    async def scenario(backend: Any) -> None:
        table = pa.table({"n": range(10)})
        with pytest.raises(TransientError, match=f"topic '{topic}': .*timed out"):
            await backend.call(backend.write, table, ChunkKey(FLOW, 1, 2))
        failing.clear()
        assert await backend.call(backend.write, table, ChunkKey(FLOW, 1, 2)) == 2
        assert await backend.call(backend.write, table, ChunkKey(FLOW, 1, 2)) == 0
        assert await backend.call(backend.write, table, ChunkKey(FLOW, 1, 1)) == 0
        assert await backend.call(backend.write, table, ChunkKey("other", 1, 1)) == 10
        assert await backend.call(backend.write, table, ChunkKey(FLOW, 2, 1)) == 10

    run(topics, topic, scenario)
    assert numbers(topics.options, topic) == sorted([*range(10)] * 3)


@pytest.mark.parametrize(
    ("code", "fatal", "kind", "message"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, False, FatalError, "this user may not write"),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, True, FatalError, "this user may not write"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, False, FatalError, "it is not there any more"),
        (KafkaError._UNSUPPORTED_FEATURE, True, FatalError, "about"),
        (KafkaError._FENCED, True, TransientError, "about"),
        (KafkaError.NOT_ENOUGH_REPLICAS, False, TransientError, "about"),
        (KafkaError.SASL_AUTHENTICATION_FAILED, False, FatalError, "the login failed"),
    ],
)
def test_what_errors_mean(code: int, fatal: bool, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        raise _kafka_sending.meaning(KafkaError(code, fatal=fatal), "about")
    worst = _kafka_sending.worst({"a": KafkaError(KafkaError._MSG_TIMED_OUT), "b": KafkaError(code)})
    assert f"topic '{'a' if kind is TransientError else 'b'}'" in str(worst)


def test_a_login_that_fails_while_one_waits_is_told_at_once(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch("brokers x")
    watch.note(KafkaError(KafkaError._AUTHENTICATION, "no"))
    with pytest.raises(FatalError, match="the login failed"):
        watch.check()
    watch.note(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert watch.check()
    assert not watch.check()


# Transactions.


def positions_of(topics: Topics, name: str) -> dict[str, Any]:
    return {"positions": f"{name}-positions"}


def test_only_with_positions_it_keeps_them(topics: Topics) -> None:
    settings = {"brokers": ["a:1"], "topic": "t"}
    assert not isinstance(registry.create("backend", "kafka", settings), KeepsPosition)
    keeping = registry.create("backend", "kafka", settings | {"positions": "p"})
    assert isinstance(keeping, KeepsPosition)
    assert isinstance(keeping, KafkaBackend)
    assert keeping.get_backend_id() == "kafka"
    assert isinstance(KafkaBackend(keeping.config), KeepsPosition)


def test_the_topic_for_positions_is_compacted(topics: Topics) -> None:
    topic = topics.make()

    async def scenario(backend: Any) -> None:
        assert await backend.call(backend.stored, FLOW) == Checkpoint(0)
        assert f"{topic}-positions" not in topics.admin.list_topics(timeout=10).topics
        await backend.call(backend.claim, FLOW)

    run(topics, topic, scenario, **positions_of(topics, topic))
    resource = ConfigResource(ResourceType.TOPIC, f"{topic}-positions")
    (asked,) = topics.admin.describe_configs([resource]).values()
    assert asked.result(10)["cleanup.policy"].value == "compact"

    async def refused(backend: Any) -> None:
        with pytest.raises(ConfigurationError, match="expected cleanup.policy=compact, it has 'delete'"):
            await backend.call(backend.claim, FLOW)

    run(topics, topic, refused, positions=topics.make())


def test_who_may_not_make_the_topic_is_told(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden(AdminClient):
        def create_topics(self, *_: Any, **__: Any) -> Any:
            class Failed:
                def result(self, _: float) -> None:
                    raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

            return {"topic": Failed()}

    monkeypatch.setattr(_kafka_positions, "AdminClient", Forbidden)
    topic, made = topics.make(), topics.make()
    (done,) = topics.admin.create_topics(
        [NewTopic(f"{made}-p", 1, 1, config={"cleanup.policy": "compact"})]
    ).values()
    done.result(10)

    async def refused(backend: Any) -> None:
        with pytest.raises(ConfigurationError, match="may not make it; have it made with one partition"):
            await backend.call(backend.claim, FLOW)

    run(topics, topic, refused, **positions_of(topics, topic))

    async def fine(backend: Any) -> None:
        assert (await backend.call(backend.claim, FLOW)).epoch == 1

    run(topics, topic, fine, positions=f"{made}-p")


def test_who_may_use_no_group_reads_positions(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told by the client, which looks for the coordinator of a group that nobody joins."""

    class Refused:
        def error(self) -> KafkaError:
            return KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)

        def offset(self) -> int:
            return -1001

    class Telling(Consumer):
        def consume(self, *args: Any) -> Any:
            return [Refused(), *super().consume(*args)]

    monkeypatch.setattr(_kafka_positions, "Consumer", Telling)
    topic = topics.make()

    async def scenario(backend: Any) -> None:
        await backend.call(backend.claim, FLOW)
        assert (await backend.call(backend.stored, FLOW)).epoch == 1

    run(topics, topic, scenario, **positions_of(topics, topic))


def test_a_row_that_cannot_be_sent_leaves_nothing_behind(topics: Topics) -> None:
    topic = topics.make()

    async def scenario(backend: Any) -> None:
        await backend.call(backend.claim, FLOW)
        table = pa.table({"n": range(5), "text": ["x" * (5000 if n == 3 else 10) for n in range(5)]})
        what = replace(delivery(1, 1, letters=0), table=table)
        with pytest.raises(DataError) as raised:
            await backend.call(backend.commit, what)
        assert list(raised.value.rows) == [3]
        assert (await backend.call(backend.stored, FLOW)).seq == 0
        await backend.call(backend.commit, replace(what, table=without(table, {3})))

    run(topics, topic, scenario, options={"message.max.bytes": 2000}, **positions_of(topics, topic))
    assert numbers(topics.options, topic) == [0, 1, 2, 4]


def test_a_position_that_is_too_large_is_told(topics: Topics) -> None:
    """Its schema has very many columns; to try again would never help."""
    topic = topics.make()

    async def scenario(backend: Any) -> None:
        await backend.call(backend.claim, FLOW)
        with pytest.raises(
            FatalError, match="a position with its columns has 2,.* bytes, which is more than the option"
        ):
            await backend.call(backend.commit, replace(delivery(1, 1), schema=b"x" * 2_000_000))
        assert (await backend.call(backend.stored, FLOW)).seq == 0

    run(topics, topic, scenario, **positions_of(topics, topic))
    assert numbers(topics.options, topic) == []


@pytest.mark.parametrize("moment", ["before", "behind"])
def test_a_commit_whose_outcome_is_unknown_is_decided_first(
    topics: Topics, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The answer to it is lost, or it never arrived: what was stored is known only when nothing is open any more."""
    topic = topics.make()
    monkeypatch.setattr(kafka, "MOMENT", 0.1)
    real = _kafka_sending.Sender.commit
    failing = [True]

    def commit(self: Any) -> None:
        fails = failing and failing.pop()
        if not fails or moment == "behind":
            real(self)
        else:
            self._producer.flush(10)  # all of it is there, and open
        if fails:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    async def scenario(backend: Any) -> None:
        await backend.call(backend.claim, FLOW)
        monkeypatch.setattr(_kafka_sending.Sender, "commit", commit)
        monkeypatch.setattr(_kafka_sending.Sender, "close", lambda self: None)  # as one that cannot abort
        with pytest.raises(TransientError):
            await backend.call(backend.commit, delivery(1, 1))
        assert (await backend.call(backend.stored, FLOW)).seq == (1 if moment == "behind" else 0)
        await backend.call(backend.commit, delivery(1, 1))
        await backend.call(backend.commit, delivery(2, 2))

    run(topics, topic, scenario, **positions_of(topics, topic))
    assert numbers(topics.options, topic) == list(range(6))


def test_owners_that_do_not_know_of_another(topics: Topics) -> None:
    """The first one has sent rows and not committed them when the second one claims; it is fenced, and goes on asking."""
    topic = topics.make()
    place = positions_of(topics, topic)

    async def scenario(first: Any) -> None:
        await first.call(first.claim, FLOW)
        await first.call(first.commit, delivery(1, 1, letters=0))
        session = first._sessions[FLOW]
        session.sender.begin()
        assert session.sender.send(first._messages(delivery(2, 2).table), bytearray(3)) == {}

        async def other(second: Any) -> None:
            assert await second.call(second.claim, FLOW) == Checkpoint(
                2, 1, {"offset": 100}, b"\x00schema\xff"
            )
            with pytest.raises(TransientError), first._meant():
                session.sender.commit()
            first._give_up(session)
            assert (await first.call(first.stored, FLOW)).epoch == 2
            with pytest.raises(FencedError, match="epoch 2, ours is 1"):
                await first.call(first.commit, delivery(2, 2))
            await second.call(second.commit, delivery(2, 2, 2))
            with pytest.raises(FencedError):  # its session is from before
                await first.call(first.commit, delivery(2, 2))
            assert (await second.call(second.stored, FLOW)).seq == 2

        async with beside(first) as second:
            await other(second)

    run(topics, topic, scenario, **place)
    assert numbers(topics.options, topic) == list(range(6))


def test_what_is_committed_while_another_owner_takes_over_is_seen(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first owner commits just before the brokers end its session: to have asked before that would be too early."""
    topic = topics.make()
    place = positions_of(topics, topic)
    take_over = _kafka_sending.Sender.take_over

    async def scenario(first: Any) -> None:
        await first.call(first.claim, FLOW)

        def late(self: Any) -> None:
            monkeypatch.undo()
            first.commit(delivery(1, 1))
            take_over(self)

        async with beside(first) as second:
            monkeypatch.setattr(_kafka_sending.Sender, "take_over", late)
            assert (await second.call(second.claim, FLOW)).seq == 1

    run(topics, topic, scenario, **place)
    assert numbers(topics.options, topic) == [0, 1, 2]


@pytest.mark.parametrize("value", [b"x", b"{}", b'{"epoch":1,"position":3}', b"\xff"])
def test_what_is_no_position_is_told(topics: Topics, value: bytes) -> None:
    """And keys that are no flow's are nobody's."""
    topic = topics.make()

    async def scenario(backend: Any) -> None:
        await backend.call(backend.claim, FLOW)
        await backend.call(backend.commit, delivery(1, 1))
        for key in (None, b"", b"x", b'["a"]', b'["a","b","c"]', b'["a",1]', b"{}", b"\xff"):
            topics.send(f"{topic}-positions", [value], key=key)
        assert await backend.call(backend.flows, FLOW) == [FLOW]
        topics.send(f"{topic}-positions", [value], key=f'["{FLOW}","{topic}"]')
        for ask in (backend.stored, backend.flows, backend.claim):
            with pytest.raises(FatalError, match=rf"as the position of {FLOW} is none .*with the key \["):
                await backend.call(ask, FLOW)

    run(topics, topic, scenario, **positions_of(topics, topic))


def test_a_producer_that_is_told_to_be_fenced_while_it_waits(topics: Topics) -> None:
    """It is told as an error of the producer before any message has one; a new session goes on."""
    topic = topics.make()

    async def scenario(backend: Any) -> None:
        await backend.call(backend.claim, FLOW)
        session = backend._sessions[FLOW]
        session.sender._watch.note(KafkaError(KafkaError._FENCED, "fenced", fatal=True))
        await backend.call(backend.commit, delivery(1, 1))
        assert backend._sessions[FLOW] is not session

    run(topics, topic, scenario, **positions_of(topics, topic))
    assert numbers(topics.options, topic) == [0, 1, 2]


def test_who_is_fenced_again_and_again_says_so(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    """By brokers that abort what takes too long: the runtime waits, and says why."""
    topic = topics.make()
    fenced: list[int] = []

    def commit(_: Any) -> None:
        fenced.append(1)
        assert len(fenced) < 10
        raise KafkaException(KafkaError(KafkaError._FENCED))

    async def scenario(backend: Any) -> None:
        await backend.call(backend.claim, FLOW)
        monkeypatch.setattr(_kafka_sending.Sender, "commit", commit)
        with pytest.raises(TransientError, match="fenced by a newer instance"):
            await backend.call(backend.commit, delivery(1, 1))

    run(topics, topic, scenario, **positions_of(topics, topic))
    assert len(fenced) == 2


# Transactions that stay open.


def left_open(backend: Any, what: Any) -> None:
    """Leave a delivery as a process does that dies before its commit: all of it is there, and open."""
    session = backend._session(what.key.flow)
    session.sender.begin()
    assert session.sender.send(backend._messages(what.table), bytearray(what.table.num_rows)) == {}
    record = {"epoch": what.key.epoch, "seq": what.key.seq, "position": what.position}
    session.sender.produce(
        backend.config.positions,
        _kafka_positions._key(backend.config, what.key.flow),
        msgspec.json.encode(record),
    )
    session.sender._producer.flush(10)


def test_a_start_ends_what_a_dead_process_has_left_open(
    topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for the brokers to do that, which takes them as long as a transaction may be open."""
    monkeypatch.setattr(kafka, "MOMENT", 0.1)
    topic = topics.make()
    settings = {"brokers": [topics.address], "topic": topic, "timeout": "20s", **positions_of(topics, topic)}
    for name, first in (("s", 0), ("t", 5)):
        lines = (f'{{"n": {n}}}\n' for n in range(first, first + 5))
        (tmp_path / f"{name}.ndjson").write_text("".join(lines))
    pipeline = {
        "name": "p",
        "sources": [{"type": "file", "id": name, "path": f"{name}.ndjson"} for name in ("s", "t")],
        "storage": [{"type": "kafka", **settings}],
    }

    async def scenario(dead: Any) -> None:
        for flow in ("p/s", "p/t"):
            await dead.call(dead.claim, flow)
        for flow in ("p/s", "p/t"):
            left_open(dead, delivery(1, 1, flow=flow))
        async with asyncio.timeout(10):
            report = await Engine(from_mapping(pipeline, folder=tmp_path)).run()
        assert [flow.error for flow in report.flows] == [None, None]

    run(topics, topic, scenario, **positions_of(topics, topic))
    assert numbers(topics.options, topic) == list(range(10))


def test_who_only_asks_disturbs_no_transaction(topics: Topics) -> None:
    topic = topics.make()

    async def scenario(first: Any) -> None:
        await first.call(first.claim, FLOW)
        session = first._sessions[FLOW]
        left_open(first, delivery(1, 1))
        async with beside(first, timeout="1s") as second:
            for ask in (second.stored, second.flows):
                with pytest.raises(
                    TransientError,
                    match="not readable to its end within 1 s; a transaction may be open, which the brokers abort after 31 s",
                ):
                    await second.call(ask, FLOW)
            assert second._sessions == {}
        session.sender.commit()
        assert (await first.call(first.stored, FLOW)).seq == 1

    run(topics, topic, scenario, **positions_of(topics, topic))
    assert numbers(topics.options, topic) == [0, 1, 2]


def test_who_starts_lets_a_commit_that_is_under_way_be_made(topics: Topics) -> None:
    topic = topics.make()

    async def scenario(first: Any) -> None:
        await first.call(first.claim, FLOW)
        session = first._sessions[FLOW]
        left_open(first, delivery(1, 1))
        async with beside(first) as second:
            starting = asyncio.ensure_future(second.call(second.recover, FLOW))
            done, _ = await asyncio.wait([starting], timeout=0.3)
            assert not done
            session.sender.commit()
            assert (await starting).seq == 1
        session.checkpoint = replace(session.checkpoint, seq=1)
        await first.call(first.commit, delivery(2, 2))  # nobody has fenced it

    run(topics, topic, scenario, **positions_of(topics, topic))
    assert numbers(topics.options, topic) == list(range(6))


def test_an_owner_from_before_does_not_disturb_the_one_of_now(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told that it is fenced, and only looks then; the transaction of the other one goes on."""
    topic = topics.make()

    async def scenario(first: Any) -> None:
        await first.call(first.claim, FLOW)
        async with beside(first) as second:
            assert (await second.call(second.claim, FLOW)).epoch == 2
            session = second._sessions[FLOW]
            session.sender.begin()
            table = delivery(1, 1, 2).table
            assert session.sender.send(second._messages(table), bytearray(table.num_rows)) == {}
            with pytest.raises(FencedError, match="epoch 2, ours is 1"):
                await first.call(first.commit, delivery(1, 1))
            assert (await first.call(first.stored, FLOW)).epoch == 2
            session.sender.commit()

    run(topics, topic, scenario, **positions_of(topics, topic))
    assert numbers(topics.options, topic) == [0, 1, 2]


def test_an_open_transaction_of_another_flow_hides_nothing(topics: Topics) -> None:
    """A record behind it cannot be read yet: to believe the one before it would send rows again."""
    topic = topics.make()

    async def scenario(backend: Any) -> None:
        for flow in (FLOW, "contract/other"):
            await backend.call(backend.claim, flow)
        other = backend._sessions["contract/other"].sender
        other.begin()
        other.produce(f"{topic}-positions", b'["contract/other"]', b'{"epoch":7}')
        other._producer.flush(10)
        await backend.call(backend.commit, delivery(1, 1))
        reading = asyncio.ensure_future(backend.call(backend.stored, FLOW))
        done, _ = await asyncio.wait([reading], timeout=0.5)
        assert not done
        other._producer.abort_transaction(10)
        assert (await reading).seq == 1
        assert (await backend.call(backend.stored, "contract/other")).epoch == 1

    run(topics, topic, scenario, **positions_of(topics, topic))


def test_the_position_of_a_flow_that_rests_is_found(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kafka_positions, "TAIL", 10)
    topic = topics.make()

    async def scenario(backend: Any) -> None:
        for flow in (FLOW, "contract/other"):
            await backend.call(backend.claim, flow)
        await backend.call(backend.commit, delivery(1, 1))
        for seq in range(1, 20):
            await backend.call(backend.commit, delivery(seq, seq, flow="contract/other"))
        assert (await backend.call(backend.stored, FLOW)).seq == 1
        assert sorted(await backend.call(backend.flows, "contract/source")) == [FLOW]

    run(topics, topic, scenario, **positions_of(topics, topic))


def test_a_flow_has_a_position_for_each_topic(topics: Topics) -> None:
    """Two storages of a pipeline, which keep their positions in one topic, know nothing of each other."""
    one, two = topics.make(), topics.make()

    async def scenario(first: Any) -> None:
        async with beside(first, topic=two) as second:
            for backend, last in ((first, 2), (second, 1)):
                assert await backend.call(backend.claim, FLOW) == Checkpoint(1)
                for seq in range(1, last + 1):
                    await backend.call(backend.commit, delivery(seq, seq, letters=0))
            for backend, last in ((first, 2), (second, 1)):
                assert (await backend.call(backend.stored, FLOW)).seq == last
                assert await backend.call(backend.flows, FLOW) == [FLOW]
            await first.call(first.commit, delivery(3, 3, letters=0))

    run(topics, one, scenario, **positions_of(topics, one))
    assert numbers(topics.options, one) == list(range(9))
    assert numbers(topics.options, two) == list(range(3))


def test_a_position_may_be_deleted(topics: Topics) -> None:
    """By a record without a value, as compaction has it: the flow begins anew."""
    topic = topics.make()

    async def scenario(backend: Any) -> None:
        await backend.call(backend.claim, FLOW)
        await backend.call(backend.commit, delivery(1, 1))
        topics.producer.produce(f"{topic}-positions", None, f'["{FLOW}","{topic}"]', partition=0)
        assert topics.producer.flush(10) == 0
        assert await backend.call(backend.stored, FLOW) == Checkpoint(0)
        assert await backend.call(backend.flows, FLOW) == []

    run(topics, topic, scenario, **positions_of(topics, topic))


def test_aborted_rows_are_there_only_for_who_wants_them(topics: Topics) -> None:
    topic = topics.make()

    async def scenario(backend: Any) -> None:
        await backend.call(backend.claim, FLOW)
        sender = backend._sessions[FLOW].sender
        sender.begin()
        sender.send(backend._messages(delivery(1, 1).table), bytearray(3))
        sender._producer.abort_transaction(10)
        await backend.call(backend.commit, delivery(1, 1))

    run(topics, topic, scenario, **positions_of(topics, topic))
    assert numbers(topics.options, topic) == [0, 1, 2]
    assert len(in_log(topics.options, topic, "read_uncommitted")) == 6


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    yield
    Refusing.made.clear()
