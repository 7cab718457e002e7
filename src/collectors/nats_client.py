"""Where NATS is and who asks, a connection, and what its errors mean: what the source and the storage `nats` share.

Trying again is the runtime's: the library does not reconnect.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from ssl import SSLContext, SSLError
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import msgspec
import nats.errors
from nats.aio.client import Client
from pydantic import AfterValidator, Field, SecretStr, model_validator

from collectors.client_tls import ClientTls, is_this_machine
from collectors.errors import CollectorsError, ConfigurationError, FatalError, TransientError
from collectors.settings import Duration, LocalPath, Settings

__all__ = ["Connection", "NatsSettings", "StreamName"]

_API = "$JS.API"
_CLOSE_SECONDS = 2.0
_PING_SECONDS = 10
_LOOK_SECONDS = 0.5
_REFUSED = re.compile(
    r"authori[sz]ation|authentication|account|permission|credentials|nkey|jwt", re.IGNORECASE
)


def _is_server(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"nats", "tls"} or not parts.hostname or parts.path.strip("/"):
        raise ValueError("expected nats://host:port or tls://host:port, for example nats://127.0.0.1:4222")
    if parts.username is not None or parts.password is not None:
        raise ValueError("expected no password in the address; set `user` and `password`, or `token`")
    return text


def _is_name(text: str) -> str:
    if not text or any(sign.isspace() or sign in ".*>/\\" for sign in text):
        raise ValueError("expected a name without spaces and without any of . * > / \\")
    return text


Server = Annotated[str, AfterValidator(_is_server)]
StreamName = Annotated[str, AfterValidator(_is_name)]


class NatsSettings(Settings):
    """Settings of where the servers are, and who asks."""

    servers: Server | list[Server] = "nats://127.0.0.1:4222"
    """Where the servers of the cluster are; the first that answers is taken."""
    user: str | None = None
    """Who to log in as."""
    password: SecretStr | None = None
    """The password of that user."""
    token: SecretStr | None = None
    """The token, where the server has one for all."""
    nkey: SecretStr | None = None
    """The seed of an NKey, `SU…`; it never leaves this machine."""
    credentials: LocalPath | None = None
    """A credentials file with JWT and seed (`nsc`, `nats context`)."""
    tls: ClientTls | None = None
    """TLS with own authorities or an own certificate; `tls://` is TLS with those of the system."""
    insecure: bool = False
    """Send `password` or `token` to another machine without TLS."""
    timeout: Annotated[Duration, Field(ge=0.1, le=600)] = 10.0
    """How long the server may take for an answer."""

    def all_servers(self) -> list[str]:
        """Return the addresses."""
        return self.servers if isinstance(self.servers, list) else [self.servers]

    def wants_tls(self) -> bool:
        """Return whether nothing may be sent without TLS."""
        return self.tls is not None or any(urlsplit(each).scheme == "tls" for each in self.all_servers())

    def secrets(self) -> dict[str, str]:
        """Return what is sent to the server as it is, in clear text."""
        given = {"password": self.password, "token": self.token}
        found = {name: secret.get_secret_value() for name, secret in given.items() if secret is not None}
        return found | ({"user": self.user} if self.user is not None else {})

    def keys(self) -> dict[str, str]:
        """Return what signs the server's challenge."""
        found = {"nkeys_seed_str": self.nkey.get_secret_value()} if self.nkey is not None else {}
        return found | ({"user_credentials": self.credentials} if self.credentials is not None else {})

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if not self.all_servers():
            raise ValueError("servers: expected at least one")
        ways = [self.user or self.password, self.token, self.nkey, self.credentials]
        if sum(way is not None for way in ways) > 1:
            raise ValueError(
                "expected one way to log in: `user` and `password`, `token`, `nkey` or `credentials`"
            )
        if (self.user is None) != (self.password is None):
            raise ValueError("expected `user` and `password` together")
        far = [each for each in self.all_servers() if not is_this_machine(urlsplit(each).hostname or "")]
        if far and (self.password or self.token) and not self.wants_tls() and not self.insecure:
            raise ValueError(
                f"servers: {far[0]} is another machine, and a password or token would go there in clear text; use "
                "tls://, or set `insecure: true`"
            )
        return self


class Connection:
    """One connection; `lost` is called, once, when it is no more, with the reason."""

    def __init__(self, patience: float, lost: Callable[[CollectorsError], None]) -> None:
        self.client = Client()
        self.dropped = 0
        """How many messages did not fit the buffer of their subscription."""
        self._patience = patience
        self._lost = lost
        self._ended = asyncio.Event()
        self._watching: asyncio.Future[None] | None = None
        self._said = ""

    @classmethod
    async def open(
        cls,
        servers: Sequence[str],
        patience: float,
        context: SSLContext | None,
        lost: Callable[[CollectorsError], None],
        secrets: dict[str, str],
        **options: Any,
    ) -> Connection:
        """Connect to the first server that answers. Raises TransientError, FatalError or ConfigurationError.

        `secrets` are what is sent to the server as it is, by the library's names for it.
        """
        errors: list[CollectorsError] = []
        for server in servers:
            connection = cls(patience, lost)
            try:
                await connection._connect(server, context, secrets, options)
            except CollectorsError as error:
                errors.append(error)
            else:
                return connection
        raise next((error for error in errors if not isinstance(error, TransientError)), errors[-1])

    async def _connect(
        self, server: str, context: SSLContext | None, secrets: dict[str, str], options: dict[str, Any]
    ) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self.client.connect(
                    server, tls=context, **self._options(server, context, secrets), **options
                )
            self._check_tls(server, context)
            self._watching = asyncio.ensure_future(self._watch(server))
        except BaseException as error:
            meaning = self._meaning(server, error)
            await self.close()
            if meaning is None:
                raise
            raise meaning from error

    def _options(self, server: str, context: SSLContext | None, secrets: dict[str, str]) -> dict[str, Any]:
        async def on_error(error: Exception) -> None:
            if isinstance(error, nats.errors.SlowConsumerError):
                self.dropped += 1
            elif not (
                self._said and isinstance(error, OSError)
            ):  # a refusal is followed by the end of the connection
                self._said = str(error).removeprefix("nats: ").strip("'")

        async def on_closed() -> None:
            self._tell_lost(server)

        def sent(secret: str) -> Callable[[], str]:
            """Return what the library calls for the secret, when it is about to send it."""

            def give() -> str:
                self._check_tls(server, context)
                return secret

            return give

        return {
            "name": "collectors",
            "allow_reconnect": False,
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0,
            "connect_timeout": max(1, int(self._patience)),
            "ping_interval": _PING_SECONDS,
            "error_cb": on_error,
            "closed_cb": on_closed,
            **{name: sent(secret) for name, secret in secrets.items()},
        }

    def _meaning(self, server: str, error: BaseException) -> CollectorsError | None:
        """Return what an error in connecting means; None: it is to be raised as it is."""
        if isinstance(error, ModuleNotFoundError):
            return ConfigurationError("`nkey` and `credentials` need 'nkeys': pip install 'nats-py[nkeys]'")
        if type(error).__module__.startswith("nkeys") or isinstance(error, binascii.Error):
            return ConfigurationError(
                "`nkey`, `credentials`: expected the seed of an NKey, 58 characters, SU…"
            )
        if isinstance(error, SSLError):
            return FatalError(f"{server}: the certificate is not accepted: {error.reason or error}")
        if isinstance(error, TimeoutError):
            return TransientError(f"{server}: no answer within {self._patience:g} s")
        if isinstance(error, (OSError, ValueError, nats.errors.Error)) and not isinstance(
            error, CollectorsError
        ):
            return self._explained(server, self._said or str(error) or type(error).__name__)
        return None

    async def close(self) -> None:
        """Close it; a server that hangs is not waited for."""
        self._ended.set()
        if self._watching is not None:
            await asyncio.wait([self._watching])
        with suppress(
            TimeoutError, OSError, nats.errors.Error, AssertionError
        ):  # the last of one that never began
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.client.close()

    async def _watch(self, server: str) -> None:
        """Look whether the connection is still there: the library does not call back when its last writing fails."""
        while not (self.client.is_closed or self._ended.is_set()):
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._ended.wait()
        self._tell_lost(server)

    def _tell_lost(self, server: str) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._lost(self._explained(server, self._said or "the connection was ended"))

    async def api(self, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what JetStream answers; its error, if it is one, is in `error`. Raises TransientError."""
        raw = msgspec.json.encode(body) if body is not None else b""
        answer = await self.request(f"{_API}.{call}", raw)
        return dict(msgspec.json.decode(answer))

    async def request(self, subject: str, raw: bytes, headers: dict[str, str] | None = None) -> bytes:
        """Return the answer to a request. Raises TransientError, FatalError when it is not permitted or too large."""
        self._said = ""
        try:
            answer = await self.client.request(subject, raw, timeout=self._patience, headers=headers)
            return bytes(answer.data)
        except nats.errors.MaxPayloadError as error:
            raise self._too_large(subject, raw) from error
        except nats.errors.NoRespondersError as error:
            raise TransientError(
                "JetStream does not answer: it is not enabled on the server, or still starting"
            ) from error
        except nats.errors.TimeoutError as error:
            raise self.silence() from error
        except nats.errors.Error as error:
            raise TransientError(f"the connection is lost: {self._said or error}") from error

    def _too_large(self, subject: str, raw: bytes) -> CollectorsError:
        most = self.client.max_payload
        return FatalError(f"{subject}: {len(raw):,} bytes are more than the server takes, which is {most:,}")

    def silence(self) -> CollectorsError:
        """Return the error that nothing is answered: what the server has said instead, if anything."""
        said, self._said = self._said, ""
        if said:
            return self._explained("JetStream", said)
        return TransientError(f"JetStream: no answer within {self._patience:g} s")

    async def publish(
        self, subject: str, raw: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send. Raises TransientError, FatalError when it is too large."""
        try:
            await self.client.publish(subject, raw, reply, headers=headers)
        except nats.errors.MaxPayloadError as error:
            raise self._too_large(subject, raw) from error
        except nats.errors.Error as error:
            raise TransientError(f"the connection is lost: {self._said or error}") from error

    def _check_tls(self, server: str, context: SSLContext | None) -> None:
        """Raise FatalError when TLS is wanted and the server has not asked for it: the library goes on without it then."""
        told = self.client._server_info  # noqa: SLF001  # it has no other way to say so
        if context is not None and not told.get("tls_required"):
            raise FatalError(f"{server}: the server does not offer TLS; nothing is sent to it without")

    def _explained(self, what: str, reason: str) -> CollectorsError:
        """Return the error that a reason means: credentials that are not accepted do not become so later."""
        if _REFUSED.search(reason) and not re.search("timeout|expired", reason, re.IGNORECASE):
            return FatalError(
                f"{what}: {reason}; look at token, user and password, nkey or credentials, and permissions"
            )
        return TransientError(f"{what}: {reason}")
