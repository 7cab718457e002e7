"""HTTP push: other programs and services send records here, and are answered when these are on disk.

    source:
      type: webhook
      listen: 127.0.0.1:8080
      path: /events
      format: ndjson

The body of a POST or PUT is records in `format`, as it is or with `Content-Encoding: gzip`, `zstd` or `deflate`. The
answer is 200 when all of them are durable in the spool, and 503 with `Retry-After` when they could not be kept: the
sender tries again. Any number of requests that wait are answered by one write to the disk. `GET /health` is 204 or 503.

A request that names itself (`Idempotency-Key`, or the header of its service) is stored once however often it is sent,
also over restarts: the second answer has `"duplicate": true`. The same key with another body is 422.

Who may send: those with a `token` (`Authorization: Bearer …`), or whose body is signed (`signature`), or, with neither,
any program of this machine. An address that others can reach needs one of both, and `tls`. Signatures are checked
before a body is expanded or read; with a timestamp in them a request that was kept is not stored again. GitHub signs
no time: who holds a copy of a request can send it again under another `X-GitHub-Delivery`, so use https there.

Delivery: exactly once from the answer on. What was not answered is the sender's to send again; without a key that can
store it twice.
Position: none; the spool has one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from ssl import SSLContext
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, Field, SecretStr, model_validator

from collectors.collection.base import ByteSourceConfig, Source
from collectors.collection.sources._listening import Address, TlsConfig, parse_address, server_context
from collectors.collection.sources._webhook_desk import Body, Desk
from collectors.collection.sources._webhook_keys import Key, Keys
from collectors.collection.sources._webhook_signatures import PRESETS, secret_bytes
from collectors.models import CollectedData, Position
from collectors.settings import ByteSize, Duration, Settings

if TYPE_CHECKING:
    from collectors.collection.sources._webhook_server import PushServer

__all__ = ["COMPONENT", "SignatureConfig", "WebhookConfig", "WebhookSource"]

_SAVE_SECONDS = 1.0
Secrets = SecretStr | list[SecretStr]


def _is_address(text: str) -> str:
    parse_address(text)
    return text


def _is_path(text: str) -> str:
    if not text.startswith("/") or any(sign in text for sign in "?# "):
        raise ValueError("expected a path that begins with a slash, for example /events")
    return text


def _all(secrets: Secrets | None) -> list[SecretStr]:
    return secrets if isinstance(secrets, list) else [secrets] if secrets is not None else []


class SignatureConfig(Settings):
    """How bodies are signed."""

    preset: Literal["generic", "github", "slack", "standard", "stripe"]
    """Whose way: `github`, `stripe`, `slack`, `standard` (standardwebhooks.com), or `generic`: `X-Timestamp: SECONDS`
    and `X-Signature: sha256=HEX`, HMAC-SHA256 over `SECONDS.BODY`."""
    secret: Secrets
    """What both sides know; a list while one is being replaced by another."""
    tolerance: Duration = 300.0
    """How far a timestamp may be from the time here."""

    def all_secrets(self) -> list[str]:
        """Return the secrets in clear text."""
        return [each.get_secret_value() for each in _all(self.secret)]

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not self.all_secrets() or not all(self.all_secrets()):
            raise ValueError("secret: expected one that is not empty")
        for secret in self.all_secrets():
            secret_bytes(self.preset, secret)
        return self


class WebhookConfig(ByteSourceConfig):
    """Settings of the webhook source."""

    listen: Annotated[str, AfterValidator(_is_address)]
    """Address and port, for example `127.0.0.1:8080`, `[::1]:8080`, `0.0.0.0:8443`."""
    path: Annotated[str, AfterValidator(_is_path)] = "/"
    """Where records are sent to."""
    health: Annotated[str, AfterValidator(_is_path)] = "/health"
    """Where GET asks whether records can be kept."""
    token: Secrets | None = None
    """What senders have in `Authorization: Bearer …`; a list while one is being replaced by another."""
    signature: SignatureConfig | None = None
    """How bodies are signed."""
    tls: TlsConfig | None = None
    """Serve https, TLS 1.2 or newer."""
    insecure: bool = False
    """Listen where others can reach it without a token or signature, or without https (behind a proxy that has it)."""
    key_header: str | None = None
    """The header that names a request; else that of the signature's preset, or `Idempotency-Key`."""
    remember: Duration = 86_400.0
    """How long a request that names itself is known again."""
    max_keys: Annotated[int, Field(ge=1)] = 1_000_000
    """Know at most so many requests again, the latest."""
    max_body: ByteSize = 8 * 2**20
    """Refuse a larger body (413), as it is sent or without its `Content-Encoding`."""
    max_waiting: ByteSize = 16 * 2**20
    """When so many bytes of requests have no answer yet, turn others away (503)."""
    max_connections: Annotated[int, Field(ge=1)] = 500
    """Turn further connections away (503)."""
    timeout: Annotated[Duration, Field(gt=0)] = 30.0
    """Close a connection when the head of a request, or its body, takes longer, or when no request comes for so long."""

    def tokens(self) -> list[SecretStr]:
        """Return all tokens."""
        return _all(self.token)

    def usual_key_header(self) -> str:
        """Return the header that names a request where no setting says it."""
        return PRESETS[self.signature.preset if self.signature is not None else "generic"].key_header

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.token is not None and not all(
            token.get_secret_value() for token in self.tokens() or [SecretStr("")]
        ):
            raise ValueError("token: expected one that is not empty")
        if self.max_body > self.max_waiting:
            raise ValueError("max_body: expected at most max_waiting")
        if self.path == self.health:
            raise ValueError("health: expected another path than `path`")
        if parse_address(self.listen).is_local or self.insecure:
            return self
        lacks = []
        if not self.tokens() and self.signature is None:
            lacks.append("`token` or `signature`")
        if self.tls is None:
            lacks.append("`tls`")
        if lacks:
            raise ValueError(
                f"listen: others can reach {self.listen}, so set {' and '.join(lacks)}, or `insecure: true`, "
                "or listen on 127.0.0.1"
            )
        return self


class WebhookSource(Source[WebhookConfig]):
    """Gives one chunk of each body, or of several that wait, and answers them when the runtime has made them durable."""

    endless = True

    def __init__(self, config: WebhookConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        spec = self.format()
        self.data_format = spec if isinstance(spec, str) else str(spec.get("type"))
        self.addresses: list[Address] = []
        self._desk = Desk(self.config.max_waiting)
        self._keys = Keys(self.config.remember, self.config.max_keys)
        self._index: Path | None = None
        self._reading = False

    def needs_spool(self) -> bool:
        """Return True: nobody sends again what was answered."""
        return True

    def format(self) -> str | dict[str, Any]:
        """Return the codec of the settings, else one JSON object a line."""
        return self.config.format or "ndjson"

    def remember(self, folder: Path, kept: Iterable[CollectedData]) -> None:
        """Know again which requests were kept, from the index in the folder and the chunks that the spool still has."""
        self._index = folder / "keys.db"
        self._open_index()
        known = ((_unpacked(chunk.metadata.get("keys", [])), chunk.timestamp.timestamp()) for chunk in kept)
        self._keys.learn(known)

    async def open(self) -> None:
        """Listen."""
        from collectors.collection.sources._webhook_requests import Requests
        from collectors.collection.sources._webhook_server import PushServer

        context = server_context(self.config.tls) if self.config.tls is not None else None
        lines = getattr(self.framing, "joinable", True)
        requests = Requests(self.config, self._desk, self._keys, self.now, self._problem, lines=lines)
        server = PushServer(
            requests.handle, most_connections=self.config.max_connections, timeout=self.config.timeout
        )
        await self.enter(self._serving(server, context))

    @asynccontextmanager
    async def _serving(self, server: PushServer, context: SSLContext | None) -> AsyncIterator[None]:
        if self._index is not None:
            self._open_index()
        self._desk.refusing = None
        await server.start(parse_address(self.config.listen), context)
        self.addresses = server.addresses
        try:
            yield
        finally:
            self._desk.close("the receiver is stopping")
            await server.stop()
            await self._save(0.0)
            self._keys.close()
            if server.refused:
                counts = (f"{count:,} with {status}" for status, count in sorted(server.refused.items()))
                self.tell(f"requests that were refused: {', '.join(counts)}")

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData]:
        """Yield what is sent, as it comes."""
        self._desk.open(since["request"] if since is not None else 0)
        self._reading = True
        joins = getattr(self.framing, "joinable", True)
        try:
            while True:
                bodies = await self._desk.take(self.config.chunk_size)
                for group in [bodies] if joins else [[body] for body in bodies]:
                    yield self._chunk(group)
        finally:
            self._reading = False

    async def commit(self, position: Position) -> None:
        """Answer 200 to the requests up to the position, and know them again."""
        now = self.now().timestamp()

        def know(bodies: list[Body]) -> None:
            self._keys.add((key for body in bodies for key in body.keys), now)

        self._desk.settle(position["request"], None, know)
        await self._save(_SAVE_SECONDS if self._reading else 0.0)

    def turn_away(self, position: Position, reason: str) -> None:
        """Answer 503 to the requests up to the position that have no answer."""
        self._desk.settle(position["request"], "the records could not be kept", lambda _: None)

    def _problem(self) -> str | None:
        """Return why the health is bad; None when it is not."""
        return self._desk.refusing or self.cannot_keep()

    def _chunk(self, bodies: list[Body]) -> CollectedData:
        raw = bodies[0].raw
        if len(bodies) > 1:
            raw = b"".join(each.raw if each.raw.endswith(b"\n") else each.raw + b"\n" for each in bodies)
        keys = [f"{digest.hex()}{checksum:08x}" for body in bodies for digest, checksum in body.keys]
        about: dict[str, Any] = {"keys": keys} if keys else {}
        return self.chunk(raw, {"request": bodies[-1].number}, requests=len(bodies), **about)

    def _open_index(self) -> None:
        """Open the index of keys, or go on without it."""
        try:
            self._keys.open(cast("Path", self._index))
        except (sqlite3.Error, OSError) as error:
            self.tell(f"{self._index}: {error}; after a restart requests are not known again")

    async def _save(self, every: float) -> None:
        try:
            await self._keys.save(self.now().timestamp(), every=every)
        except sqlite3.Error as error:
            self.tell(
                f"cannot note which requests were kept ({error}); after a crash some may be stored twice"
            )


def _unpacked(keys: list[str]) -> list[Key]:
    return [(bytes.fromhex(key[:-8]), int(key[-8:], 16)) for key in keys]


COMPONENT = WebhookSource
