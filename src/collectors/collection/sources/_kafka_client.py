"""librdkafka's consumer, with its errors and callbacks as a source needs them."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from collectors.collection.sources._kafka_options import client_options
from collectors.errors import CollectorsError, ConfigurationError, FatalError, TransientError

if TYPE_CHECKING:
    from collectors.collection.sources.kafka import KafkaConfig

__all__ = ["Client", "explained"]

Place = tuple[str, int]
ASK_SECONDS = 5.0
_MANY = 10
_DOWN = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001  # librdkafka's own errors begin like that
_TLS = {KafkaError._SSL}  # noqa: SLF001
_LOGIN = {
    KafkaError._AUTHENTICATION,  # noqa: SLF001
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
}
_FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
_GONE = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
}


def explained(error: KafkaError, about: str) -> CollectorsError:
    """Return what to raise for an error of librdkafka; `about` says of what it speaks."""
    code, text = error.code(), error.str()
    if code in _LOGIN:
        return FatalError(f"{about}: the login failed ({text}); check username, password and mechanism")
    if code in _TLS:
        return FatalError(f"{about}: no TLS connection ({text}); check tls and its files")
    if code in _FORBIDDEN:
        return FatalError(f"{about}: this user may not read ({text})")
    if code in _GONE:
        return FatalError(f"{about}: it is not there any more ({text})")
    return FatalError(f"{about}: {text}") if error.fatal() else TransientError(f"{about}: {text}")


class Client:
    """One consumer. Its methods block, and raise KafkaException or what `explained` makes of it."""

    def __init__(
        self, config: KafkaConfig, name: str, on_commit: Callable[[KafkaError | None, list[Place]], None]
    ) -> None:
        self._config = config
        self._about = f"brokers {', '.join(config.brokers)}"
        self._problem: KafkaError | None = None
        self._reason = ""
        self.down = False
        """Whether no broker could be reached the last time."""
        options = client_options(config, name)
        options |= {
            "error_cb": self._note,
            "on_commit": lambda error, places: on_commit(error, _places(places)),
        }
        try:
            self._consumer = Consumer(options)
        except KafkaException as error:
            text = error.args[0].str()
            raise ConfigurationError(f"{'tls' if ' ssl.' in text else 'options'}: {text}") from None

    def explained(self, error: KafkaError, about: str = "") -> CollectorsError:
        """Return what to raise for an error; of the brokers where it speaks of nothing else."""
        return explained(error, about or self._about)

    def check_topics(self, *, known: bool) -> None:
        """See that the brokers answer and have the topics; `known` says that they had them before."""
        self._wait_for_brokers()
        for topic in self._config.topics:
            if not self.partitions(topic):
                if known:
                    raise TransientError(f"topic '{topic}': it is not there at the moment")
                raise ConfigurationError(f"topics: there is no topic '{topic}'{self._near(topic)}")

    def partitions(self, topic: str) -> set[int]:
        """Return the partitions of a topic; none when there is no such topic."""
        found = self._consumer.list_topics(topic, timeout=self._config.timeout).topics[topic]
        if found.error is not None and found.error.code() not in _GONE:
            raise explained(found.error, f"topic '{topic}'")
        return set(found.partitions)

    def messages(self, count: int, seconds: float, *, needed: bool = False) -> list[Any]:
        """Wait so long for a message; return it with those that wait behind it, `count` at most. Raises when no broker can be reached."""
        first = self._consumer.poll(seconds)
        self._check()
        if first is None:
            if needed:
                raise TransientError(f"{self._about}: nothing came within {seconds:g} s")
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
        found = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=self._config.timeout)
        if found is None:
            raise TransientError(f"{self._about}: no answer within {self._config.timeout:g} s")
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

    def _note(self, error: KafkaError) -> None:
        """Keep what librdkafka tells of its connections; called while one waits for messages."""
        code = error.code()
        if code in _LOGIN | _TLS or code == _DOWN or error.fatal():
            self._problem = error
        if code != _DOWN:
            self._reason = error.str()

    def _check(self) -> None:
        problem, self._problem = self._problem, None
        if problem is None:
            return
        if problem.code() != _DOWN:
            raise explained(problem, self._about)
        try:  # connections that were idle are closed too, and nothing is wrong then
            self._consumer.list_topics(self._config.topics[0], timeout=ASK_SECONDS)
        except KafkaException as error:
            raise self._unreachable(error) from None

    def _wait_for_brokers(self) -> None:
        deadline = time.monotonic() + self._config.timeout
        while True:
            try:
                self._consumer.list_topics(self._config.topics[0], timeout=1.0)
                return
            except KafkaException as error:
                self._consumer.poll(0.1)  # has `_note` called: nothing is assigned yet
                if self._problem is not None and self._problem.code() != _DOWN:
                    raise explained(self._problem, self._about) from None
                if time.monotonic() > deadline or self._problem is not None:
                    raise self._unreachable(error) from None

    def _unreachable(self, error: KafkaException) -> TransientError:
        self.down = True
        return TransientError(f"{self._about}: cannot be reached ({self._reason or error.args[0].str()})")

    def _near(self, topic: str) -> str:
        names = [
            name
            for name in self._consumer.list_topics(timeout=self._config.timeout).topics
            if name[:2] != "__"
        ]
        near = difflib.get_close_matches(topic, names, n=1)
        if near:
            return f", did you mean '{near[0]}'?"
        some = ", ".join(sorted(names)[:_MANY]) + (", …" if len(names) > _MANY else "")
        return f"; there are: {some}" if names else "; there are none"


def _places(found: list[TopicPartition]) -> list[Place]:
    return [(each.topic, each.partition) for each in found]
