"""What librdkafka is told: our settings, those that nobody may change, and the user's own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collectors.errors import ConfigurationError

if TYPE_CHECKING:
    from collectors.collection.sources.kafka import KafkaConfig

__all__ = ["LOCAL", "OWNED", "client_options"]

LOCAL = ("127.0.0.1", "localhost", "[::1]")
logger = logging.getLogger("collectors.kafka")

_OAUTH = "sasl.oauthbearer.method"
OWNED = {
    "bootstrap.servers": "brokers",
    "metadata.broker.list": "brokers",
    "group.id": "group_id",
    "security.protocol": "tls, username",
    "sasl.username": "username",
    "sasl.password": "password",
    "sasl.mechanism": "mechanism",
    "sasl.mechanisms": "mechanism",
    "ssl.ca.location": "tls.ca",
    "ssl.certificate.location": "tls.certificate",
    "ssl.key.location": "tls.key",
    "ssl.key.password": "tls.key_password",
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
            "plugin.library.paths",
            "consume.callback.max.messages",
        ),
        "",
    ),
}
"""Options that are ours → the setting that says it; empty where there is none, since reading depends on its value."""


class _Log:
    """Takes librdkafka's log lines; what matters in them comes as an error too, so they are for those who ask."""

    @staticmethod
    def log(level: int, *args: Any) -> None:
        """Pass a line on."""
        logger.log(min(level, logging.INFO), *args)


def client_options(config: KafkaConfig, name: str) -> dict[str, Any]:
    """Return librdkafka's options for a consumer; secrets in clear text. Raises ConfigurationError: no such file."""
    queue = min(max(2 * config.chunk_size, 2**20), 2**26)
    options: dict[str, Any] = {
        "client.id": f"collectors-{name}",
        "isolation.level": "read_committed",
        "fetch.queue.backoff.ms": 5,
        **{key: value.get_secret_value() for key, value in config.options.items()},
        "bootstrap.servers": ",".join(config.brokers),
        "group.id": config.group_id or f"collectors-{name}",
        "security.protocol": _protocol(config),
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": not config.follow,
        "queued.max.messages.kbytes": queue // 1024,
        "fetch.max.bytes": queue,
        "logger": _Log,
    }
    if config.share:
        options["partition.assignment.strategy"] = "cooperative-sticky"
    if config.username is not None and config.password is not None:
        options["sasl.mechanism"] = config.mechanism
        options["sasl.username"] = config.username
        options["sasl.password"] = config.password.get_secret_value()
    elif _OAUTH in config.options:
        options["sasl.mechanism"] = "OAUTHBEARER"
    return options | _tls_options(config)


def _protocol(config: KafkaConfig) -> str:
    sasl = config.username is not None or _OAUTH in config.options
    return ("SASL_" if sasl else "") + ("SSL" if config.tls else "PLAINTEXT")


def _tls_options(config: KafkaConfig) -> dict[str, Any]:
    tls = config.tls
    if isinstance(tls, bool):
        return {}
    for name, path in (("ca", tls.ca), ("certificate", tls.certificate), ("key", tls.key)):
        if path is not None and not Path(path).is_file():
            raise ConfigurationError(f"tls.{name}: there is no file '{path}'")
    found = {
        "ssl.ca.location": tls.ca,
        "ssl.certificate.location": tls.certificate,
        "ssl.key.location": tls.key,
        "ssl.key.password": tls.key_password.get_secret_value() if tls.key_password else None,
    }
    return {key: value for key, value in found.items() if value is not None}
