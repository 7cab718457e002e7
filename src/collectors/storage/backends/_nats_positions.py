"""The position of each flow, in a bucket of JetStream's key-value store: changed only by who has seen the last change."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from typing import Any

import msgspec
from msgspec import Struct

from collectors.chunks import Checkpoint
from collectors.errors import CollectorsError, ConfigurationError, FatalError, TransientError
from collectors.models import Position
from collectors.nats_client import Connection

__all__ = ["Place", "Positions"]

_NOT_FOUND = 404
_NO_MESSAGE = 10037
_WRONG_REVISION = 10071
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/")
_TRY_LATER = {408, 423, 429, 500, 503, 504}


class _Record(Struct, omit_defaults=True):
    """The value of a key."""

    life: str
    epoch: int
    seq: int = 0
    rows: int = 0
    position: Position | None = None
    schema: bytes | None = None


class Place(Struct, frozen=True):
    """Where a flow is: its checkpoint, how many of its rows there are, and the revision that says so.

    `life` is another one where a flow begins anew: what it publishes then is new too.
    """

    checkpoint: Checkpoint
    rows: int = 0
    life: str = ""
    revision: int = 0

    @classmethod
    def new(cls) -> Place:
        """Return that of a flow which nobody knows."""
        return cls(Checkpoint(0), life=secrets.token_hex(6))


class Positions:
    """Those of the flows that go to one place, a stream and a subject of it, in a bucket for many."""

    def __init__(self, connection: Connection, bucket: str, *place: str) -> None:
        self._connection = connection
        self._bucket = bucket
        self._prefix = f"$KV.{bucket}.{''.join(f'{_token(part)}.' for part in place)}"

    async def make(self, replicas: int) -> None:
        """Make the bucket if it is not there."""
        info = await self._connection.api(f"STREAM.INFO.KV_{self._bucket}")
        if info.get("error", {}).get("code") != _NOT_FOUND:
            self._check(info)
            seconds = info["config"].get("max_age", 0) / 1e9
            if seconds:
                raise ConfigurationError(
                    f"positions: bucket '{self._bucket}': expected no time to live, it has {seconds:g} s, after which positions "
                    "are forgotten; take another bucket"
                )
            return
        config = {
            "name": f"KV_{self._bucket}",
            "subjects": [f"$KV.{self._bucket}.>"],
            "max_msgs_per_subject": 1,
            "discard": "new",
            "storage": "file",
            "num_replicas": replicas,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "allow_direct": True,
        }
        self._check(await self._connection.api(f"STREAM.CREATE.KV_{self._bucket}", config))

    async def read(self, flow: str) -> Place:
        """Return where a flow is; the answer is that of the stream's leader."""
        subject = self._prefix + _token(flow)
        answer = await self._connection.api(f"STREAM.MSG.GET.KV_{self._bucket}", {"last_by_subj": subject})
        error = answer.get("error", {})
        if error.get("err_code") == _NO_MESSAGE or error.get("code") == _NOT_FOUND:
            return Place.new()
        self._check(answer)
        try:
            return _place(answer["message"])
        except (msgspec.DecodeError, binascii.Error) as error:
            raise FatalError(
                f"positions: bucket '{self._bucket}': what it has as the position of {flow} is none ({error}); delete the key "
                f"'{subject.split('.', 2)[2]}' to begin anew, or take another bucket"
            ) from error

    async def write(self, flow: str, place: Place, checkpoint: Checkpoint, rows: int) -> Place | None:
        """Note where a flow is now; None: it is not where it was thought to be."""
        record = _Record(
            place.life, checkpoint.epoch, checkpoint.seq, rows, checkpoint.position, checkpoint.schema
        )
        headers = {"Nats-Expected-Last-Subject-Sequence": str(place.revision)}
        subject, raw = self._prefix + _token(flow), msgspec.json.encode(record)
        answer: dict[str, Any] = msgspec.json.decode(await self._connection.request(subject, raw, headers))
        if answer.get("error", {}).get("err_code") == _WRONG_REVISION:
            return None
        self._check(answer)
        return Place(checkpoint, rows, place.life, int(answer["seq"]))

    async def flows(self) -> list[str]:
        """Return the flows of which anything is stored."""
        keys: list[str] = []
        while True:
            answer = await self._connection.api(
                f"STREAM.INFO.KV_{self._bucket}",
                {"subjects_filter": f"{self._prefix}*", "offset": len(keys)},
            )
            if answer.get("error", {}).get("code") == _NOT_FOUND:
                return []
            self._check(answer)
            page = (answer["state"].get("subjects") or {}).keys()
            keys += page
            if not page or len(keys) >= answer.get("total", 0):
                break
        names = [key.removeprefix(self._prefix) for key in keys]
        flows = [flow for name in names if _token(flow := _text(name)) == name]
        return [flow for flow in flows if (await self.read(flow)).checkpoint.seq]

    def _check(self, answer: dict[str, Any]) -> None:
        error = answer.get("error")
        if error is not None:
            later = int(error.get("code", 0)) in _TRY_LATER
            kind: type[CollectorsError] = TransientError if later else FatalError
            raise kind(f"positions: bucket '{self._bucket}': {error.get('description', 'unknown error')}")


def _place(message: dict[str, Any]) -> Place:
    if not message.get("data"):  # deleted: its revision is that of the mark
        return msgspec.structs.replace(Place.new(), revision=int(message["seq"]))
    record = msgspec.json.decode(base64.b64decode(message["data"]), type=_Record)
    checkpoint = Checkpoint(record.epoch, record.seq, record.position, record.schema)
    return Place(checkpoint, record.rows, record.life, int(message["seq"]))


def _token(text: str) -> str:
    """Return a text as a part of a key: what that may not have is written as `=` and its bytes in hexadecimal."""
    return "".join(
        sign if sign in _SAFE else "".join(f"={byte:02x}" for byte in sign.encode()) for sign in text
    )


def _text(token: str) -> str:
    """Return what `_token` was made of; something else for what is none."""
    code = re.compile(rb"=([0-9a-f]{2})")
    return code.sub(lambda found: bytes.fromhex(found[1].decode()), token.encode()).decode(errors="replace")
