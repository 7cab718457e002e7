"""Who has signed a request: HMAC-SHA256 over the raw body, as some well-known senders make it.

github    https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
stripe    https://docs.stripe.com/webhooks/signatures
slack     https://api.slack.com/authentication/verifying-requests-from-slack
standard  https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
generic   `X-Timestamp: SECONDS`, `X-Signature: sha256=HEX` over `SECONDS.BODY`
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

__all__ = ["PRESETS", "ForgedError", "Preset", "secret_bytes", "verify"]

Headers = Mapping[str, str]


class ForgedError(Exception):
    """The request is not signed by anyone who has a secret, or is not a new one."""


class Signed(Struct, frozen=True):
    """What a request claims: the time (None: it has none), what was signed before the body, and the signatures."""

    timestamp: str | None
    prefix: str
    signatures: list[bytes]


class Preset(Struct, frozen=True):
    """How a sender signs, and the header in which it names each request, if it does."""

    read: Callable[[Headers], Signed]
    key_header: str = "Idempotency-Key"


def _needed(headers: Headers, name: str) -> str:
    value = headers.get(name)
    if value is None:
        raise ForgedError(f"the header {name} is missing")
    return value


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ForgedError("the signature is not hexadecimal") from None


def _github(headers: Headers) -> Signed:
    text = _needed(headers, "X-Hub-Signature-256")
    return Signed(None, "", [_hex(text.removeprefix("sha256="))])


def _stripe(headers: Headers) -> Signed:
    pairs = [part.strip().partition("=") for part in _needed(headers, "Stripe-Signature").split(",")]
    timestamp = next((value for name, _, value in pairs if name == "t"), "")
    return Signed(timestamp, f"{timestamp}.", [_hex(value) for name, _, value in pairs if name == "v1"])


def _slack(headers: Headers) -> Signed:
    timestamp = _needed(headers, "X-Slack-Request-Timestamp")
    text = _needed(headers, "X-Slack-Signature")
    return Signed(timestamp, f"v0:{timestamp}:", [_hex(text.removeprefix("v0="))])


def _standard(headers: Headers) -> Signed:
    timestamp = _needed(headers, "webhook-timestamp")
    found = [part.partition(",") for part in _needed(headers, "webhook-signature").split()]
    try:
        signatures = [
            base64.b64decode(value, validate=True) for version, _, value in found if version == "v1"
        ]
    except binascii.Error:
        raise ForgedError("the signature is not base64") from None
    return Signed(timestamp, f"{_needed(headers, 'webhook-id')}.{timestamp}.", signatures)


def _generic(headers: Headers) -> Signed:
    timestamp = _needed(headers, "X-Timestamp")
    text = _needed(headers, "X-Signature")
    return Signed(timestamp, f"{timestamp}.", [_hex(text.removeprefix("sha256="))])


PRESETS = {
    "generic": Preset(_generic),
    "github": Preset(_github, "X-GitHub-Delivery"),
    "slack": Preset(_slack),
    "standard": Preset(_standard, "webhook-id"),
    "stripe": Preset(_stripe),
}
_MOST_SIGNATURES = 8


def secret_bytes(preset: str, secret: str) -> bytes:
    """Return the key of a secret as the sender shows it. Raises ValueError."""
    if preset == "standard" and secret.startswith("whsec_"):
        try:
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise ValueError("expected base64 behind whsec_") from None
    return secret.encode()


def verify(
    preset: Preset, headers: Headers, body: bytes, secrets: Sequence[bytes], now: float, tolerance: float
) -> bytes | None:
    """Check who signed a body, in a time that does not depend on the secrets.

    Returns what names this very request, where its signature does so, having a timestamp in it. Raises ForgedError.
    """
    claimed = preset.read(headers)
    if claimed.timestamp is not None:
        if not (claimed.timestamp.isascii() and claimed.timestamp.isdigit() and len(claimed.timestamp) < 16):
            raise ForgedError("the timestamp is not a number of seconds")
        if abs(now - int(claimed.timestamp)) > tolerance:
            raise ForgedError(f"the timestamp is more than {tolerance:g} s away from the time here")
    genuine = None
    for secret in secrets:
        made = hmac.new(secret, claimed.prefix.encode("utf-8", "surrogateescape"), "sha256")
        made.update(body)
        for signature in claimed.signatures[:_MOST_SIGNATURES]:
            if hmac.compare_digest(made.digest(), signature):
                genuine = made.digest()
    if genuine is None:
        raise ForgedError("the signature does not fit the body")
    return None if claimed.timestamp is None else genuine
