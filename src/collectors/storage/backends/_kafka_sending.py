"""librdkafka's producer: messages are sent, and each is waited for until the brokers have acknowledged or refused it."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer
from msgspec import Struct

from collectors import kafka_client
from collectors.chunks import ChunkKey
from collectors.errors import CollectorsError, FatalError, TransientError
from collectors.kafka_client import LASTING, Watch, explained, shared_options

if TYPE_CHECKING:
    from collectors.storage.backends.kafka import KafkaConfig

__all__ = [
    "FENCED",
    "OWNED",
    "REFUSED",
    "TOO_LARGE",
    "Messages",
    "Progress",
    "Sender",
    "meaning",
    "transaction_seconds",
    "worst",
]

OWNED = {
    **kafka_client.OWNED,
    "acks": "",
    "request.required.acks": "",
    "enable.idempotence": "",
    "enable.gapless.guarantee": "",
    "max.in.flight": "",
    "max.in.flight.requests.per.connection": "",
    "retries": "",
    "message.send.max.retries": "",
    "compression.codec": "compression",
    "compression.type": "compression",
    "delivery.timeout.ms": "timeout",
    "message.timeout.ms": "timeout",
    "transactional.id": "positions",
    "transaction.timeout.ms": "timeout",
    "queue.buffering.max.kbytes": "",
    "queue.buffering.max.messages": "",
}
"""Options that are ours → the setting that says it; empty where there is none, since what is promised depends on it."""
TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE
REFUSED = {TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_MSG_SIZE}
"""What the brokers say of a message that they will never take."""
FENCED = {
    KafkaError._FENCED,  # noqa: SLF001
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}
"""What the brokers say when another producer has the transactional id."""
_BUFFER_KIB = 64 * 1024
_LOOK_SECONDS = 0.5
_CLOSE_SECONDS = 2.0
_PATIENCE_SECONDS = 5.0
"""So much longer than librdkafka itself a message is waited for."""
_CAREFUL = 10
"""So many times longer may messages take that go one by one, up to `_CAREFUL_SECONDS`."""
_CAREFUL_SECONDS = 870.0
"""Brokers allow no transaction that is longer than 15 minutes, if not told otherwise."""
_TRANSACTION_SECONDS = 30.0
"""So much longer than a message a transaction may take before the brokers abort it."""


class Messages(Struct):
    """What is to be sent, column by column."""

    topics: list[str]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[list[tuple[str, str]]] | None

    def __len__(self) -> int:
        return len(self.topics)

    def size(self, row: int) -> int:
        """Return the bytes of key and payload."""
        return len(self.keys[row] or b"") + len(self.values[row] or b"")


class Sender:
    """One producer. Its methods block, and raise KafkaException or what it means.

    With `transaction`, the transactional id, what is sent between `begin` and `commit` is one transaction. One
    that is `careful` sends every message in a batch of its own: what is said of a batch is said of a message then.
    """

    def __init__(
        self, config: KafkaConfig, name: str, *, transaction: str | None = None, careful: bool = False
    ) -> None:
        self.careful = careful
        self._config = config
        self._about = config.about()
        self._patience = _message_seconds(config, careful=careful)
        self._watch = Watch(self._about)
        self._producer = self._watch.made(Producer, _options(config, name, transaction, careful=careful))

    def topics(self) -> set[str]:
        """Return the topics that there are, once the brokers answer."""
        ask = self._producer.list_topics
        self._watch.wait(self._producer, lambda seconds: ask(timeout=seconds), self._config.timeout)
        return set(ask(timeout=self._config.timeout).topics)

    def send(self, messages: Messages, acknowledged: bytearray) -> dict[int, KafkaError]:
        """Send those that are not acknowledged yet, note those that are then, and return why the others are not.

        Raises what keeps all of them from being sent; what was acknowledged by then is noted.
        """
        errors: dict[int, KafkaError] = {}
        left = 0

        def report(row: int, error: KafkaError | None, _: Any) -> None:
            nonlocal left
            left -= 1
            if error is None:
                acknowledged[row] = 1
            else:
                errors[row] = error

        for row in range(len(messages)):
            if not acknowledged[row]:
                refusal = self._produce(messages, row, partial(report, row))
                if refusal is None:
                    left += 1
                else:
                    errors[row] = refusal
        for _ in self._waiting():
            if left <= 0:
                return errors
            with _fatal_as_it_is():
                self._producer.flush(_LOOK_SECONDS)
        raise TransientError(f"{self._about}: no answer within {self._patience:g} s")

    def produce(self, topic: str, key: bytes, value: bytes) -> None:
        """Put one more message, for partition 0, into the transaction. Raises FatalError when it is too large."""
        try:
            self._producer.produce(topic, value, key, partition=0)
        except KafkaException as error:
            if error.args[0].code() != TOO_LARGE:
                raise
            raise FatalError(
                f"positions: topic '{topic}': a position with its columns has {len(value):,} bytes, which is more than the "
                "option message.max.bytes allows; set it higher, for the topic, too"
            ) from None

    def _produce(self, messages: Messages, row: int, report: Any) -> KafkaError | None:
        """Hand a message over, once there is room in the buffer; return why librdkafka itself refuses it."""
        more: dict[str, Any] = {"on_delivery": report}
        if messages.headers is not None:
            more["headers"] = messages.headers[row]
        topic, key, value = messages.topics[row], messages.keys[row], messages.values[row]
        for _ in self._waiting():
            try:
                self._producer.produce(topic, value, key, **more)
            except BufferError:
                with _fatal_as_it_is():
                    self._producer.poll(_LOOK_SECONDS / 10)
                continue
            except KafkaException as error:
                if error.args[0].code() in REFUSED:
                    return error.args[0]  # type: ignore[no-any-return]
                raise
            return None
        raise TransientError(f"{self._about}: no answer within {self._patience:g} s")

    def _waiting(self) -> Iterator[None]:
        """Yield as long as it makes sense to wait. Raises what a problem means that was told meanwhile."""
        deadline = time.monotonic() + self._patience + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            yield
            self._watch.check_alive()

    def take_over(self) -> None:
        """End all other producers of this transactional id, and the transactions that they have left open."""
        self._producer.init_transactions(self._config.timeout)

    def begin(self) -> None:
        """Begin a transaction."""
        self._producer.begin_transaction()

    def commit(self) -> None:
        """Commit it. Raises KafkaException; whether it was committed is unknown then."""
        self._producer.commit_transaction(self._config.timeout)

    def close(self) -> None:
        """End, with what is under way; a transaction is aborted."""
        self._producer.purge()
        for end in (self._producer.abort_transaction, self._producer.flush):
            with suppress(KafkaException, SystemError):  # there is none, or others have ended it
                end(_CLOSE_SECONDS)
        del self._producer


@contextmanager
def _fatal_as_it_is() -> Iterator[None]:
    """Raise the fatal error of a producer that is told while reports come: the library raises a SystemError for it."""
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from None
        raise


class Progress:
    """What of the last delivery of each flow was acknowledged, for when it comes again."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[ChunkKey, bytearray]] = {}

    def of(self, key: ChunkKey, rows: int) -> bytearray:
        """Return a mark for each row of a delivery: 1 when it was acknowledged, also as a part of an earlier one."""
        last = self._last.get(key.flow)
        if last is not None and last[0].epoch == key.epoch:
            if last[0].seq > key.seq:
                return bytearray(b"\1" * rows)
            if last[0].seq == key.seq and len(last[1]) == rows:
                return last[1]
        self._last[key.flow] = key, bytearray(rows)
        return self._last[key.flow][1]

    def leave_out(self, key: ChunkKey, bad: Container[int]) -> None:
        """Forget rows: the delivery comes again without them."""
        last, marks = self._last[key.flow]
        self._last[key.flow] = last, bytearray(mark for row, mark in enumerate(marks) if row not in bad)


def transaction_seconds(config: KafkaConfig, *, careful: bool = False) -> float:
    """Return how long a transaction may be open before the brokers abort it."""
    return _message_seconds(config, careful=careful) + _TRANSACTION_SECONDS


def _message_seconds(config: KafkaConfig, *, careful: bool) -> float:
    """Return how long a message may wait for its acknowledgement."""
    return (
        max(config.timeout, min(config.timeout * _CAREFUL, _CAREFUL_SECONDS)) if careful else config.timeout
    )


def meaning(error: KafkaError, about: str) -> CollectorsError:
    """Return what to raise for an error: where only the producer is broken, a new one is worth a try."""
    found = explained(error, about, doing="write")
    kind = FatalError if error.code() in LASTING else TransientError
    return found if isinstance(found, kind) else kind(str(found))


def worst(errors: Mapping[str, KafkaError]) -> CollectorsError:
    """Return what to raise for errors of topics: what cannot become better, before what can."""
    found = [meaning(error, f"topic '{topic}'") for topic, error in errors.items()]
    return next((each for each in found if not isinstance(each, TransientError)), found[0])


def _buffer_kib(config: KafkaConfig) -> int:
    """Return the size of the buffer: no less than the largest message, which else would never find room in it."""
    largest = config.options.get("message.max.bytes")
    given = largest.get_secret_value() if largest is not None else ""
    return max(_BUFFER_KIB, 2 * int(given) // 1024 if given.isdecimal() else 0)


def _options(config: KafkaConfig, name: str, transaction: str | None, *, careful: bool) -> dict[str, Any]:
    """Return librdkafka's options for a producer; secrets in clear text. Raises ConfigurationError: no such file."""
    options: dict[str, Any] = {
        "client.id": f"collectors-{name}",
        "linger.ms": 5,
        "partitioner": "murmur2_random",  # that of Kafka's own clients
        **{key: value.get_secret_value() for key, value in config.options.items()},
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": config.compression,
        "message.timeout.ms": int(_message_seconds(config, careful=careful) * 1000),
        "queue.buffering.max.kbytes": _buffer_kib(config),
    }
    if careful:
        options["batch.num.messages"] = 1
    if transaction is not None:
        options["transactional.id"] = transaction
        options["transaction.timeout.ms"] = int(transaction_seconds(config, careful=careful) * 1000)
    return options | shared_options(config)
