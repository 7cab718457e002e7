"""What becomes of a request: who sends it is checked before anything is read, made or kept of it."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from collectors.collection.sources._webhook_bodies import ENCODINGS, BodyError, expand
from collectors.collection.sources._webhook_desk import Desk
from collectors.collection.sources._webhook_keys import Key, Keys, name_key
from collectors.collection.sources._webhook_server import Refused, read_body
from collectors.collection.sources._webhook_signatures import PRESETS, ForgedError, secret_bytes, verify

if TYPE_CHECKING:
    from collectors.collection.sources.webhook import WebhookConfig

__all__ = ["Requests"]

_METHODS = ("POST", "PUT")
_LONGEST_KEY = 255


class Requests:
    """Takes one request after the other from its head to its answer.

    `well` says why health is bad, None if it is not; with `lines` each line of a body is a record.
    """

    def __init__(
        self,
        config: WebhookConfig,
        desk: Desk,
        keys: Keys,
        now: Callable[[], datetime],
        well: Callable[[], str | None],
        *,
        lines: bool,
    ) -> None:
        self._config = config
        self._desk = desk
        self._keys = keys
        self._now = now
        self._well = well
        self._lines = lines
        self._tokens = [token.get_secret_value().encode() for token in config.tokens()]
        self._secrets: list[bytes] = []
        if config.signature is not None:
            preset = config.signature.preset
            self._secrets = [secret_bytes(preset, each) for each in config.signature.all_secrets()]
        self._expanding = asyncio.Lock()

    async def handle(self, request: web.BaseRequest) -> dict[str, Any] | str | None:
        """Return the answer. Raises Refused."""
        if request.path == self._config.health and request.method in {"GET", "HEAD"}:
            if (problem := self._well()) is not None:
                raise Refused.later(problem)
            return None
        encoding = self._admit(request)
        charged = 0

        def charge(size: int) -> None:
            nonlocal charged
            if not self._desk.has_room(size):
                raise Refused.later("too much is waiting to be kept")
            self._desk.waiting += size
            charged += size

        try:
            config = self._config
            raw = await read_body(request, limit=config.max_body, seconds=config.timeout, charge=charge)
            signature = self._verify(request, raw)
            if (challenge := self._challenge(raw)) is not None:
                return challenge
            body = await self._expanded(raw, encoding, charge)
            self._check_lines(body)
            return await self._keep(body, self._name(request, body, signature))
        finally:
            self._desk.waiting -= charged

    def _admit(self, request: web.BaseRequest) -> str:
        """Look at the head alone; return the encoding of the body, "" for none. Raises Refused."""
        if request.path != self._config.path:
            raise Refused(404, f"there is nothing here; records go to {self._config.path}")
        if request.method not in _METHODS:
            raise Refused(405, "expected POST", Allow=", ".join(_METHODS))
        self._authorize(request)
        encoding = request.headers.get("Content-Encoding", "").strip().lower().replace("identity", "")
        encoding = "gzip" if encoding == "x-gzip" else encoding
        if encoding and encoding not in ENCODINGS:
            offer = ", ".join(ENCODINGS)
            raise Refused(415, f"Content-Encoding: expected one of {offer}", **{"Accept-Encoding": offer})
        size = request.content_length or 0
        if size > self._config.max_body:
            raise Refused(413, f"a body may have {self._config.max_body:,} bytes, this one has {size:,}")
        if self._desk.refusing is not None:
            raise Refused.later(self._desk.refusing)
        if not self._desk.has_room(size):
            raise Refused.later("too much is waiting to be kept")
        return encoding

    def _authorize(self, request: web.BaseRequest) -> None:
        if self._tokens:
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            token = given.strip().encode("utf-8", "surrogateescape")
            # All are compared, so that the time does not tell which one was nearly right.
            fits = [hmac.compare_digest(token, each) for each in self._tokens]
            if scheme.lower() != "bearer" or not any(fits):
                raise Refused(401, "the token is missing or wrong", **{"WWW-Authenticate": "Bearer"})
        elif not self._secrets and "Origin" in request.headers:
            raise Refused(403, "requests of web pages are not taken in without a token")

    def _verify(self, request: web.BaseRequest, raw: bytes) -> bytes | None:
        """Return what the signature names the request by, if it does. Raises Refused."""
        signature = self._config.signature
        if signature is None:
            return None
        now = self._now().timestamp()
        try:
            return verify(
                PRESETS[signature.preset], request.headers, raw, self._secrets, now, signature.tolerance
            )
        except ForgedError as error:
            raise Refused(401, str(error)) from None

    def _challenge(self, raw: bytes) -> str | None:
        """Return what Slack wants to hear when the address is entered there; None for any other request."""
        if self._config.signature is None or self._config.signature.preset != "slack":
            return None
        if len(raw) > 4096 or b'"url_verification"' not in raw:
            return None
        try:
            asked = json.loads(raw)
        except ValueError:
            return None
        is_one = isinstance(asked, dict) and asked.get("type") == "url_verification"
        return str(asked.get("challenge", "")) if is_one else None

    async def _expanded(self, raw: bytes, encoding: str, charge: Callable[[int], None]) -> bytes:
        if not encoding:
            return raw
        async with self._expanding:  # one at a time: only so much memory is ever taken beyond what is charged
            try:
                body = await asyncio.to_thread(expand, raw, encoding, self._config.max_body)
            except BodyError as error:
                raise Refused(413 if error.too_large else 400, str(error)) from None
            charge(len(body))
        return body

    def _check_lines(self, body: bytes) -> None:
        most = self._config.max_record
        if self._lines and len(body) > most and (longest := max(map(len, body.split(b"\n")))) > most:
            raise Refused(413, f"a record may have {most:,} bytes, the longest one here has {longest:,}")

    def _name(self, request: web.BaseRequest, body: bytes, signature: bytes | None) -> list[Key]:
        """Return what the request is known by when it comes again."""
        keys = []
        name = self._config.key_header or self._config.usual_key_header()
        given = request.headers.get(name)
        if given is not None:
            if not 0 < len(given) <= _LONGEST_KEY:
                raise Refused(400, f"{name}: expected 1 to {_LONGEST_KEY} characters")
            keys.append(name_key("header", given.encode("utf-8", "surrogateescape"), body))
        if signature is not None:
            keys.append(name_key("signature", signature, body))
        return keys

    async def _keep(self, body: bytes, keys: list[Key]) -> dict[str, Any]:
        """Hand the body over and wait until it is durable; one that was kept before is not stored again."""
        if not body:
            return {"kept": True, "bytes": 0}
        await self._desk.opened.wait()
        now = self._now().timestamp()
        for digest, checksum in keys:
            under_way = self._desk.under_way(digest)
            known = under_way.checksum(digest) if under_way is not None else self._keys.find(digest, now)
            if known is None:
                continue
            if known != checksum:
                raise Refused(422, "another body was sent with this key before; a key names one request")
            if under_way is not None:
                await self._answered(under_way.answer)
            return {"kept": True, "bytes": 0, "duplicate": True}
        await self._answered(self._desk.hand_in(body, keys))
        return {"kept": True, "bytes": len(body)}

    async def _answered(self, answer: asyncio.Future[str | None]) -> None:
        reason = await asyncio.shield(answer)
        if reason is not None:
            raise Refused.later(reason)
