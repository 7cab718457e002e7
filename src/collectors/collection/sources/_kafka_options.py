"""What librdkafka is told to read: our settings, those that nobody may change, and the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from collectors import kafka_client
from collectors.kafka_client import shared_options

if TYPE_CHECKING:
    from collectors.collection.sources.kafka import KafkaConfig

__all__ = ["OWNED", "client_options"]

OWNED = {
    **kafka_client.OWNED,
    "group.id": "group_id",
    "auto.offset.reset": "out_of_range",
    "queued.max.messages.kbytes": "chunk_size",
    "fetch.max.bytes": "chunk_size",
    **dict.fromkeys(
        (
            "enable.auto.commit",
            "enable.auto.offset.store",
            "auto.commit.interval.ms",
            "enable.partition.eof",
            "group.protocol",
            "partition.assignment.strategy",
            "consume.callback.max.messages",
        ),
        "",
    ),
}
"""Options that are ours → the setting that says it; empty where there is none, since reading depends on its value."""


def client_options(config: KafkaConfig, name: str) -> dict[str, Any]:
    """Return librdkafka's options for a consumer; secrets in clear text. Raises ConfigurationError: no such file."""
    queue = min(max(2 * config.chunk_size, 2**20), 2**26)
    options: dict[str, Any] = {
        "client.id": f"collectors-{name}",
        "isolation.level": "read_committed",
        "fetch.queue.backoff.ms": 5,
        **{key: value.get_secret_value() for key, value in config.options.items()},
        "group.id": config.group_id or f"collectors-{name}",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": not config.follow,
        "queued.max.messages.kbytes": queue // 1024,
        "fetch.max.bytes": queue,
    }
    if config.share:
        options["partition.assignment.strategy"] = "cooperative-sticky"
    return options | shared_options(config)
