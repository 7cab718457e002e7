"""What a topic has, read by a bare consumer that sees committed transactions alone."""

from __future__ import annotations

import json
import time
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, TopicPartition

Read = list[tuple[bytes | None, bytes | None, dict[str, bytes], int]]


def in_log(options: dict[str, Any], topic: str, level: str = "read_committed") -> Read:
    """Return key, payload, headers and partition of every message."""
    consumer = Consumer(
        options | {"group.id": "oracle", "enable.partition.eof": True, "isolation.level": level}
    )
    try:
        partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        found: Read = []
        ends: set[int] = set()
        deadline = time.monotonic() + 30
        while ends != set(partitions):
            assert time.monotonic() < deadline
            for message in consumer.consume(1000, 0.2):
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    ends.add(message.partition())
                else:
                    headers = dict(message.headers() or [])
                    found.append((message.key(), message.value(), headers, message.partition()))
        return found
    finally:
        consumer.close()


class Following:
    """Counts the messages of a topic as they come, without those of transactions that are not committed."""

    def __init__(self, options: dict[str, Any], topic: str) -> None:
        self._consumer = Consumer(options | {"group.id": "oracle", "isolation.level": "read_committed"})
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def count(self) -> int:
        self._count += sum(message.error() is None for message in self._consumer.consume(10_000, 0.05))
        return self._count


def numbers(options: dict[str, Any], topic: str, name: str = "n") -> list[int]:
    """Return a column of the messages, sorted."""
    return sorted(json.loads(value or b"")[name] for _, value, _, _ in in_log(options, topic))
