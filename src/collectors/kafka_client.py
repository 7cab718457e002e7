"""Where Kafka is and who asks: settings, options and errors that the source and the storage of the type `kafka` share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from confluent_kafka import KafkaError, KafkaException
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from collectors.errors import CollectorsError, ConfigurationError, FatalError, TransientError
from collectors.settings import Duration, LocalPath, Settings

__all__ = [
    "GONE",
    "LASTING",
    "OWNED",
    "Broker",
    "KafkaSettings",
    "KafkaTlsConfig",
    "Topic",
    "Watch",
    "explained",
    "shared_options",
]

_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_OAUTH = "sasl.oauthbearer.method"
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
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
GONE = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
}
LASTING = {
    *_LOGIN,
    *_TLS,
    *_FORBIDDEN,
    *GONE,
    KafkaError._UNSUPPORTED_FEATURE,  # noqa: SLF001
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
}
"""Errors that stay, however often one tries."""
OWNED = {
    "bootstrap.servers": "brokers",
    "metadata.broker.list": "brokers",
    "security.protocol": "tls, username",
    "sasl.username": "username",
    "sasl.password": "password",
    "sasl.mechanism": "mechanism",
    "sasl.mechanisms": "mechanism",
    "ssl.ca.location": "tls.ca",
    "ssl.certificate.location": "tls.certificate",
    "ssl.key.location": "tls.key",
    "ssl.key.password": "tls.key_password",
    "plugin.library.paths": "",
}
"""Options that are ours → the setting that says it; empty where there is none."""
logger = logging.getLogger("collectors.kafka")


def _is_broker(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 2**16 or set(text) & set(" ,/@"):
        raise ValueError("expected host:port, for example kafka.example:9092 or [::1]:9092")
    return text


def _text_of(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Broker = Annotated[str, AfterValidator(_is_broker)]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Option = Annotated[SecretStr, BeforeValidator(_text_of, json_schema_input_type=str | int | float | bool)]


class KafkaTlsConfig(Settings):
    """How the brokers are known, and we to them."""

    ca: LocalPath | None = None
    """A file with the certificates to trust, in PEM; those of the system when left out."""
    certificate: LocalPath | None = None
    """Our certificate, in PEM, where the brokers ask for one."""
    key: LocalPath | None = None
    """The key of our certificate, in PEM."""
    key_password: SecretStr | None = None
    """The password of the key."""


class KafkaSettings(Settings):
    """Settings of where the brokers are, and who asks."""

    brokers: Annotated[list[Broker], Field(min_length=1)]
    """Some of the brokers, as `host:port`; the others are learned from them."""
    tls: bool | KafkaTlsConfig = False
    """Connect by TLS; `true`, or with files."""
    username: str | None = None
    """Log in (SASL) as this user. By OAuth: `options: {sasl.oauthbearer.method: oidc, …}`, as librdkafka has them."""
    password: SecretStr | None = None
    """The password of the user."""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """How to log in."""
    insecure: bool = False
    """Send a password by `PLAIN` without TLS to brokers on other machines."""
    timeout: Annotated[Duration, Field(ge=1)] = 10.0
    """How long to wait for an answer of the brokers."""
    options: dict[str, Option] = {}
    """Further options of librdkafka, for example `{client.rack: eu-1}`."""

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username, password: expected both or none of them")
        local = all(broker.rpartition(":")[0] in _LOCAL for broker in self.brokers)
        if (
            self.username is not None
            and self.mechanism == "PLAIN"
            and not (self.tls or local or self.insecure)
        ):
            raise ValueError(
                "mechanism: PLAIN sends the password as it is, so set `tls: true`, or take SCRAM-SHA-512, or set "
                "`insecure: true`"
            )
        return self

    def check_options(self, owned: Mapping[str, str]) -> None:
        """Raise ValueError for an option that is not the user's to set."""
        for name in self.options:
            if name in owned or name.endswith("_cb"):
                instead = f"; there is the setting `{owned[name]}`" if owned.get(name) else ""
                raise ValueError(f"options: '{name}' cannot be set{instead}")

    def about(self) -> str:
        """Return of whom an error speaks."""
        return f"brokers {', '.join(self.brokers)}"


class _Log:
    """Takes librdkafka's log lines; what matters in them comes as an error too, so they are for those who ask."""

    @staticmethod
    def log(level: int, *args: Any) -> None:
        """Pass a line on."""
        logger.log(min(level, logging.INFO), *args)


def shared_options(config: KafkaSettings) -> dict[str, Any]:
    """Return librdkafka's options for the brokers and the login; secrets in clear text. Raises ConfigurationError."""
    sasl = config.username is not None or _OAUTH in config.options
    options: dict[str, Any] = {
        "bootstrap.servers": ",".join(config.brokers),
        "security.protocol": ("SASL_" if sasl else "") + ("SSL" if config.tls else "PLAINTEXT"),
        "logger": _Log,
    }
    if config.username is not None and config.password is not None:
        options["sasl.mechanism"] = config.mechanism
        options["sasl.username"] = config.username
        options["sasl.password"] = config.password.get_secret_value()
    elif sasl:
        options["sasl.mechanism"] = "OAUTHBEARER"
    return options | _tls_options(config)


def _tls_options(config: KafkaSettings) -> dict[str, Any]:
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


def explained(error: KafkaError, about: str, *, doing: str = "read") -> CollectorsError:
    """Return what to raise for an error of librdkafka; `about` says of what it speaks."""
    code, text = error.code(), error.str()
    if code in _LOGIN:
        return FatalError(f"{about}: the login failed ({text}); check username, password and mechanism")
    if code in _TLS:
        return FatalError(f"{about}: no TLS connection ({text}); check tls and its files")
    if code in _FORBIDDEN:
        return FatalError(f"{about}: this user may not {doing} ({text})")
    if code in GONE:
        return FatalError(f"{about}: it is not there any more ({text})")
    return FatalError(f"{about}: {text}") if error.fatal() else TransientError(f"{about}: {text}")


class Watch:
    """What librdkafka tells of its connections; `made` makes a client that is told to tell this."""

    def __init__(self, about: str) -> None:
        self._about = about
        self._problem: KafkaError | None = None
        self._reason = ""
        self.down = False
        """Whether no broker could be reached the last time."""

    def note(self, error: KafkaError) -> None:
        """Keep an error; called, as `error_cb`, while one waits for messages or reports."""
        code = error.code()
        if code in _LOGIN | _TLS or code == _DOWN or error.fatal():
            self._problem = error
        if code != _DOWN:
            self._reason = error.str()

    def made(self, kind: Callable[[dict[str, Any]], Any], options: dict[str, Any]) -> Any:
        """Return a client with these options. Raises ConfigurationError."""
        try:
            return kind(options | {"error_cb": self.note})
        except KafkaException as error:
            text = error.args[0].str()
            raise ConfigurationError(f"{'tls' if ' ssl.' in text else 'options'}: {text}") from None

    def check(self) -> bool:
        """Return whether no broker seems to be reachable. Raises what another problem means that was told since the last time."""
        problem, self._problem = self._problem, None
        if problem is None:
            return False
        if problem.code() != _DOWN:
            raise explained(problem, self._about)
        return True

    def check_alive(self) -> None:
        """Do what `check` does; for a client that has broken for good, raise its KafkaException: another one may do."""
        if self._problem is not None and self._problem.fatal():
            problem, self._problem = self._problem, None
            raise KafkaException(problem)
        self.check()

    def wait(self, client: Any, ask: Callable[[float], Any], patience: float) -> None:
        """Wait until the brokers answer. Raises TransientError, or what `explained` makes of a problem."""
        deadline = time.monotonic() + patience
        while True:
            try:
                ask(1.0)
                return
            except KafkaException as error:
                client.poll(0.1)  # has `note` called
                if self.check() or time.monotonic() > deadline:
                    raise self.unreachable(error) from None

    def unreachable(self, error: KafkaException) -> TransientError:
        """Return the error that no broker can be reached."""
        self.down = True
        return TransientError(f"{self._about}: cannot be reached ({self._reason or error.args[0].str()})")
