"""The topic with the position of each flow, and the transactions in which it goes on together with rows.

Who owns a flow is what this topic says, by the epoch of the last record. A session may commit only what follows the record
that it has read behind `init_transactions`. Whoever claims the flow later calls that too, with the same transactional id:
the brokers refuse the older session from then on, and a newer one of the same process reads the epoch of the other.

An owner that dies between the record and the end of its transaction leaves it open, and what is behind it cannot be read
until the brokers abort it, or `init_transactions` does. That is for owners, and for who is about to claim the flow: all
others only read, and disturb no transaction.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType
from msgspec import Struct

from collectors.chunks import Checkpoint
from collectors.errors import ConfigurationError, FatalError, TransientError
from collectors.kafka_client import Watch, explained, shared_options
from collectors.models import Position
from collectors.storage.backends._kafka_sending import FENCED, Messages, Sender, transaction_seconds

if TYPE_CHECKING:
    from collectors.storage.backends.kafka import KafkaConfig

__all__ = ["MOMENT", "OpenTransactionError", "Positions", "Session"]

MOMENT = 2.0
"""So many seconds an owner has between the record of a position and the end of its transaction, before it is thought dead."""

TAIL = 2000
"""A flow that goes on has its last record among so many; for one that rests all are read."""
_LOOK_SECONDS = 0.2
_MANY = 1000
_END = KafkaError._PARTITION_EOF  # noqa: SLF001
_TOPIC = {"cleanup.policy": "compact", "segment.bytes": str(16 * 2**20), "segment.ms": str(24 * 3600 * 1000)}


def _key(config: KafkaConfig, flow: str) -> bytes:
    """Return the key of a flow's records: it has a position for each topic that it goes to."""
    return msgspec.json.encode([flow, config.topic])


class OpenTransactionError(TransientError):
    """A transaction is open that hides how far flows are stored."""


class _Record(Struct, omit_defaults=True):
    """The value of a record."""

    epoch: int
    seq: int = 0
    position: Position | None = None
    schema: bytes | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Record).decode
_decode_key = msgspec.json.Decoder(tuple[str, str]).decode


class Session:
    """A producer that has ended all others of its flow, and the checkpoint that it goes on from."""

    def __init__(self, config: KafkaConfig, name: str, flow: str, *, careful: bool) -> None:
        self.flow = flow
        self.checkpoint = Checkpoint(0)
        self._topic = str(config.positions)
        self._key = _key(config, flow)
        transaction = f"{self._topic}/{flow}/{config.topic}"
        self.sender = Sender(config, name, transaction=transaction, careful=careful)

    def begin(self, positions: Positions, patience: float | None = None) -> None:
        """End the other producers; then read how far the flow is stored, which nobody else can change any more."""
        self.sender.take_over()
        self.checkpoint = positions.stored(self.flow, patience)

    def commit(self, messages: Messages, behind: Checkpoint) -> dict[int, KafkaError]:
        """Commit the messages and the checkpoint behind them, unless there are errors of messages, which are returned."""
        self.sender.begin()
        errors = self.sender.send(messages, bytearray(len(messages)))
        for error in errors.values():
            if error.code() in FENCED:
                raise KafkaException(error)
        if not errors:
            record = _Record(behind.epoch, behind.seq, behind.position, behind.schema)
            self.sender.produce(self._topic, self._key, _encode(record))
            self.sender.commit()
            self.checkpoint = behind
        return errors


class Positions:
    """Reads the topic. Its methods block, and raise KafkaException or what it means."""

    def __init__(self, config: KafkaConfig, name: str) -> None:
        self._config = config
        self._about = f"positions: topic '{config.positions}'"
        self._place = TopicPartition(str(config.positions), 0)
        self._is_there = False
        watch = Watch(config.about())
        options = {"client.id": f"collectors-{name}", **_set_by_user(config), **shared_options(config)}
        self._admin = watch.made(AdminClient, options)
        reading = {
            "group.id": f"collectors-{name}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 5,
        }
        self._consumer = watch.made(Consumer, options | reading)

    def make(self) -> None:
        """Make the topic if it is not there. Raises ConfigurationError when it is, and would forget positions."""
        new = NewTopic(self._place.topic, 1, -1, config=_TOPIC)
        (made,) = self._admin.create_topics([new], request_timeout=self._config.timeout).values()
        try:
            made.result(self._config.timeout)
        except KafkaException as error:
            code = error.args[0].code()
            if code in {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}:
                if self._end() is not None:
                    self._check_policy()
                    return
                raise ConfigurationError(
                    f"{self._about}: there is none, and this user may not make it; have it made with one partition and "
                    "cleanup.policy=compact"
                ) from None
            if code != KafkaError.TOPIC_ALREADY_EXISTS:
                raise explained(error.args[0], self._about, doing="make it") from None
            self._check_policy()

    def _check_policy(self) -> None:
        with suppress(KafkaException):  # who may not ask relies on who has made it
            resource = ConfigResource(ResourceType.TOPIC, self._place.topic)
            (asked,) = self._admin.describe_configs([resource]).values()
            policy = asked.result(self._config.timeout)["cleanup.policy"].value
            if policy != "compact":
                raise ConfigurationError(
                    f"{self._about}: expected cleanup.policy=compact, it has '{policy}', by which positions are forgotten"
                )

    def stored(self, flow: str, patience: float | None = None) -> Checkpoint:
        """Return how far a flow is stored. Raises OpenTransactionError when that is hidden for longer than `patience`."""
        end = self._end()
        if not end:
            return Checkpoint(0)
        key = _key(self._config, flow)
        for begin in dict.fromkeys((max(0, end - TAIL), 0)):
            found = [value for each, value in self._records(begin, end, patience) if each == key]
            if found:
                return self._checkpoint(flow, found[-1])
        return Checkpoint(0)

    def flows(self) -> list[str]:
        """Return the flows of which anything is stored."""
        last = dict(self._records(0, end)) if (end := self._end()) else {}
        found: list[str] = []
        for key, value in last.items():
            try:
                flow, topic = _decode_key(key)
            except msgspec.DecodeError:
                continue  # of somebody else
            if topic == self._config.topic and self._checkpoint(flow, value).seq:
                found.append(flow)
        return found

    def _checkpoint(self, flow: str, value: bytes | None) -> Checkpoint:
        """Return what a record says. Raises FatalError for one that is none of ours."""
        if value is None:
            return Checkpoint(0)
        try:
            record = _decode(value)
        except msgspec.DecodeError as error:
            raise FatalError(
                f"{self._about}: what it has as the position of {flow} is none ({error}); send a message without a value and "
                f"with the key {_key(self._config, flow).decode()} to begin anew, or take another topic"
            ) from error
        return Checkpoint(record.epoch, record.seq, record.position, record.schema)

    def _end(self) -> int | None:
        """Return the offset behind the last record, also of transactions that are not over; None: no topic."""
        if not self._is_there:  # asked for by its name it would be made, with the policy of any topic
            self._is_there = self._place.topic in self._admin.list_topics(timeout=self._config.timeout).topics
        if not self._is_there:
            return None
        asked = {self._place: OffsetSpec.latest()}  # type: ignore[no-untyped-call]
        level = IsolationLevel.READ_UNCOMMITTED
        (found,) = self._admin.list_offsets(
            asked, isolation_level=level, request_timeout=self._config.timeout
        ).values()
        try:
            return int(found.result(self._config.timeout).offset)
        except KafkaException as error:
            raise explained(error.args[0], self._about) from None

    def _records(
        self, begin: int, end: int, patience: float | None = None
    ) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield key and value of the committed records of these offsets, once no transaction is open there.

        Without a value it says that everything before it is to be forgotten.
        """
        patience = min(patience or self._config.timeout, self._config.timeout)
        deadline = time.monotonic() + patience
        self._consumer.assign([TopicPartition(self._place.topic, 0, begin)])
        try:
            while True:
                for message in self._consumer.consume(_MANY, _LOOK_SECONDS):
                    error = message.error()
                    if message.offset() >= end and (error is None or error.code() == _END):
                        return
                    if error is None:
                        deadline = time.monotonic() + patience
                        yield message.key() or b"", message.value()
                    elif error.code() not in {
                        _END,
                        KafkaError.GROUP_AUTHORIZATION_FAILED,
                    }:  # there is no group
                        raise explained(error, self._about)
                if time.monotonic() > deadline:
                    raise OpenTransactionError(
                        f"{self._about}: not readable to its end within {patience:g} s; a transaction may be open, which the "
                        f"brokers abort after {transaction_seconds(self._config):g} s"
                    )
        finally:
            self._consumer.unassign()

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()
        del self._admin


def _set_by_user(config: KafkaConfig) -> dict[str, Any]:
    """Return the options of the user that are for connections; what is for producers would be told to be useless."""
    connecting = ("sasl.", "ssl.", "socket.", "broker.", "client.", "security.", "https.", "enable.ssl")
    return {
        name: value.get_secret_value()
        for name, value in config.options.items()
        if name.startswith(connecting)
    }
