"""librdkafka's consumer, with its errors and callbacks as a source needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from collectors.collection.sources._kafka_options import client_options
from collectors.errors import CollectorsError, ConfigurationError, TransientError
from collectors.kafka_client import GONE, Watch, explained
from collectors.settings import meant

if TYPE_CHECKING:
    from collectors.collection.sources.kafka import KafkaConfig

__all__ = ["Client"]

Place = tuple[str, int]
ASK_SECONDS = 5.0


class Client:
    """One consumer. Its methods block, and raise KafkaException or what `explained` makes of it."""

    def __init__(
        self, config: KafkaConfig, name: str, on_commit: Callable[[KafkaError | None, list[Place]], None]
    ) -> None:
        self._config = config
        self.watch = Watch(config.about())
        options = client_options(config, name)
        options["on_commit"] = lambda error, places: on_commit(error, _places(places))
        self._consumer = self.watch.made(Consumer, options)

    def explained(self, error: KafkaError, about: str = "") -> CollectorsError:
        """Return what to raise for an error; of the brokers where it speaks of nothing else."""
        return explained(error, about or self._config.about())

    def check_topics(self, *, known: bool) -> None:
        """See that the brokers answer and have the topics; `known` says that they had them before."""
        topics, ask = self._config.topics, self._consumer.list_topics
        self.watch.wait(self._consumer, lambda seconds: ask(topics[0], timeout=seconds), self._config.timeout)
        for topic in self._config.topics:
            if not self.partitions(topic):
                if known:
                    raise TransientError(f"topic '{topic}': it is not there at the moment")
                there = [name for name in ask(timeout=self._config.timeout).topics if name[:2] != "__"]
                raise ConfigurationError(f"topics: there is no topic '{topic}'{meant(topic, there)}")

    def partitions(self, topic: str) -> set[int]:
        """Return the partitions of a topic; none when there is no such topic."""
        found = self._consumer.list_topics(topic, timeout=self._config.timeout).topics[topic]
        if found.error is not None and found.error.code() not in GONE:
            raise explained(found.error, f"topic '{topic}'")
        return set(found.partitions)

    def messages(self, count: int, seconds: float, *, needed: bool = False) -> list[Any]:
        """Wait so long for a message; return it with those that wait behind it, `count` at most. Raises when no broker can be reached."""
        first = self._consumer.poll(seconds)
        self._check()
        if first is None:
            if needed:
                raise TransientError(f"{self._config.about()}: nothing came within {seconds:g} s")
            return []
        return [first, *self._consumer.consume(count - 1, 0)] if count > 1 else [first]

    def subscribe(
        self,
        on_assign: Callable[[list[Place]], None],
        on_revoke: Callable[[list[Place]], None],
        on_lost: Callable[[list[Place]], None],
    ) -> None:
        """Join the group; the callbacks are called while one waits for messages, and assign and unassign."""
        self._consumer.subscribe(
            self._config.topics,
            on_assign=lambda _, places: on_assign(_places(places)),
            on_revoke=lambda _, places: on_revoke(_places(places)),
            on_lost=lambda _, places: on_lost(_places(places)),
        )

    def assign(self, begins: Mapping[Place, int]) -> None:
        """Read these partitions too, from these offsets."""
        self._consumer.incremental_assign(
            [TopicPartition(*place, offset) for place, offset in begins.items()]
        )

    def unassign(self, places: Iterable[Place]) -> None:
        """Read these no more."""
        gone = [TopicPartition(*place) for place in places]
        if gone:
            self._consumer.incremental_unassign(gone)

    def committed(self, topics: Iterable[str]) -> dict[Place, int]:
        """Return what the group has committed for the partitions of these topics."""
        asked = [TopicPartition(topic, number) for topic in topics for number in self.partitions(topic)]
        found = self._consumer.committed(asked, timeout=self._config.timeout)
        return {(each.topic, each.partition): each.offset for each in found if each.offset >= 0}

    def commit(self, offsets: Mapping[Place, int], *, wait: bool) -> None:
        """Commit these offsets to the group."""
        places = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        if wait:
            self._consumer.commit(offsets=places, asynchronous=False)
        else:
            self._consumer.commit(offsets=places, asynchronous=True)

    def bounds(self, place: Place) -> tuple[int, int]:
        """Return the first offset of a partition that there is, and the next one that there will be."""
        found: tuple[int, int] | None = self._consumer.get_watermark_offsets(
            TopicPartition(*place), timeout=self._config.timeout
        )
        if found is None:
            raise TransientError(f"{self._config.about()}: no answer within {self._config.timeout:g} s")
        return found

    def offset_at(self, place: Place, moment: datetime) -> int | None:
        """Return the offset of the first message of this time or later; None when there is none."""
        asked = [TopicPartition(*place, int(moment.timestamp() * 1000))]
        (found,) = self._consumer.offsets_for_times(asked, timeout=self._config.timeout)
        if found.error is not None:
            raise explained(found.error, f"topic '{place[0]}'")
        return found.offset if found.offset >= 0 else None

    def close(self) -> None:
        """Leave the group and close all connections."""
        self._consumer.close()

    def _check(self) -> None:
        if not self.watch.check():
            return
        try:  # connections that were idle are closed too, and nothing is wrong then
            self._consumer.list_topics(self._config.topics[0], timeout=ASK_SECONDS)
        except KafkaException as error:
            raise self.watch.unreachable(error) from None


def _places(found: list[TopicPartition]) -> list[Place]:
    return [(each.topic, each.partition) for each in found]
