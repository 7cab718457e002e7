"""Rows to an API over HTTP: many in one request, or one.

    storage:
      type: http
      url: https://api.example.com/v1/orders
      auth: {type: bearer, token: "not this one"}
      body: json
      max_rows: 500

A request has a JSON array, with `body: ndjson` an object a line, with `body: record` one object; `envelope` puts them
into an object. `{column}` in the path of the `url` is that column of each row, for `body: record`. In JSON times are
ISO 8601, decimals exact text, bytes base64.

Status 2xx means that the API keeps what it was sent; its answer is not looked into, and 207 stops the flow. Rows that it
refuses with 400, 413 or 422 (`refused`) become dead letters: of a request that is refused the parts are sent, down to the
single row. 408, 409, 425, 429 and 5xx are sent again, when `Retry-After` says; any other status, and a redirect, stops the
flow. Requests go one after the other, in the order of the rows, unless `concurrency` is raised. Only addresses of the
public internet are asked, unless `allow_private` is set, each checked where the connection goes. Nothing can be queried or
deleted.

Each request has an `Idempotency-Key`, the same for the same rows of the same delivery. After a crash the rows that were
on their way come again, cut into the same requests, as long as the source gives the same again and the settings stay.

Delivery: at least once: a request whose answer was lost is sent again, and after a crash all that was sent and not yet
remembered. With an API that takes a request with a known key only once: exactly once.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from uuid import NAMESPACE_URL, uuid5

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from collectors.chunks import Attempt, ChunkKey
from collectors.enums import ErrorType
from collectors.errors import DataError, FatalError, TransientError
from collectors.http_client.settings import RateLimitConfig, RemoteConfig
from collectors.settings import ByteSize, Duration
from collectors.storage.backends._http_requests import (
    RECORDS,
    Address,
    Body,
    Form,
    Part,
    columns_of,
    cut,
    key_of,
)
from collectors.storage.backends._http_sending import Progress, Sender
from collectors.storage.backends._text_file import check_lines
from collectors.storage.base import Backend, BackendConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp.abc import AbstractResolver

    from collectors.http_client.client import Client

__all__ = ["COMPONENT", "HttpBackend", "HttpConfig"]

_TOKEN_BYTES = 64 * 1024
"""The largest response of `token_url`."""
_NEVER_REFUSED = {401, 407, 408, 425, 429}
_COLUMN = "column"
_MOST_FLOWS = 10_000
"""So many calls of `store` are remembered."""


class HttpConfig(RemoteConfig, BackendConfig):
    """Settings of the `http` backend."""

    url: str
    """The address, http or https; `{column}` in its path is the value of that column, percent-encoded."""
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    """The method of the requests."""
    body: Form = "json"
    """What a request has: `json`, an array of objects; `ndjson`, an object a line; `record`, one object."""
    envelope: dict[str, Any] | None = None
    """An object around the records, in which the text `{records}` stands for them: `{source: shop, items: "{records}"}`."""
    compression: Literal["none", "gzip"] = "none"
    """How bodies are compressed, for an API that takes that."""
    max_rows: Annotated[int, Field(ge=1)] = 1000
    """At most so many rows go into one request; 1 with `body: record`."""
    max_bytes: ByteSize = 2**20
    """At most so much JSON goes into one request, before it is compressed; a row that is larger goes alone."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 1
    """So many requests are under way at a time; with more than one they may arrive in another order."""
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    """At most so many requests in a second."""
    refused: list[int] = [400, 413, 422]
    """Statuses that mean that rows are bad: they become dead letters, the others are stored."""
    idempotency_header: str | None = "Idempotency-Key"
    """The header with the key of a request; null: none is sent."""
    timeout: Annotated[Duration, Field(gt=0)] = 60.0
    """Give up, and send again later, when the server says nothing for so long."""

    @field_validator("refused")
    @classmethod
    def _check_refused(cls, value: list[int]) -> list[int]:
        for status in value:
            if not 400 <= status <= 499 or status in _NEVER_REFUSED:
                raise ValueError(
                    f"{status}: expected statuses from 400 to 499 that are about the rows; those that are not are "
                    f"{', '.join(map(str, sorted(_NEVER_REFUSED)))}"
                )
        return value

    @field_validator("envelope")
    @classmethod
    def _check_envelope(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and _places(value) != 1:
            raise ValueError(
                f'expected the text "{RECORDS}" once, as the value that the records take the place of'
            )
        return value

    @field_validator("idempotency_header")
    @classmethod
    def _check_header(cls, value: str | None) -> str | None:
        if value is not None and not (value and value.isascii() and value.replace("-", "").isalnum()):
            raise ValueError("expected the name of a header, of letters, digits and '-'")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        columns = columns_of(self.url)
        if columns and self.body != "record":
            raise ValueError(
                f"url: {{{columns[0]}}} is another address for each row; set `body: record`, or leave it out"
            )
        if self.envelope is not None and self.body == "ndjson":
            raise ValueError("envelope: lines have none; set `body: json`")
        if self.body == "record" and "max_rows" in self.model_fields_set and self.max_rows != 1:
            raise ValueError("max_rows: with `body: record` a request has one row; leave it out")
        names = {name.lower() for name in self.headers}
        if self.idempotency_header is not None and self.idempotency_header.lower() in names:
            raise ValueError(
                f"headers: {self.idempotency_header} has another value for each request; leave it out, or set "
                "`idempotency_header: null`"
            )
        return self

    def _check_address(self, name: str, text: str, schemes: tuple[str, str]) -> None:
        if name == "url":
            path = text.partition("://")[2].partition("/")[2].partition("?")[0].partition("#")[0]
            if columns_of(text) != columns_of(path):
                raise ValueError("url: a column can stand in the path only, not in the host or the query")
            for column in columns_of(text):
                text = text.replace(f"{{{column}}}", _COLUMN)
            if "{" in text or "}" in text:
                raise ValueError("url: expected a column in braces, for example https://host/orders/{id}")
        super()._check_address(name, text, schemes)


class HttpBackend(Backend[HttpConfig]):
    """Sends rows; remembers the last delivery of each flow, so that one that is repeated is not sent again."""

    def __init__(self, config: HttpConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self.commit_rows = self.config.max_rows if self.config.body != "record" else 0
        self.resolver: AbstractResolver | None = None
        """Resolves names; that of the system when there is none."""
        self._client: Client | None = None
        self._stack: AsyncExitStack | None = None

    async def open(self) -> None:
        """Make the session; nothing is asked yet."""
        from collectors.http_client.connecting import connected

        config = self.config
        self._flows: dict[str, Progress] = {}
        self._stores: dict[str, Progress] = {}
        self._attempts: dict[str, Attempt] = {}
        self._address = Address(config.url)
        self._body = Body(config.body, config.envelope, config.compression)
        self._stack = AsyncExitStack()
        self._client = await self._stack.enter_async_context(
            connected(
                config,
                resolver=self.resolver,
                now=partial(datetime.now, UTC),
                patience=config.timeout,
                most=_TOKEN_BYTES,
                limit=RateLimitConfig(requests_per_second=config.requests_per_second),
            )
        )

    async def close(self) -> None:
        """End the connections."""
        stack, self._stack, self._client = self._stack, None, None
        if stack is not None:
            await stack.aclose()

    def expect(self, key: ChunkKey, attempt: Attempt) -> None:
        """Take what the keys of the next delivery are made from, and where its requests have to end."""
        self._attempts[key.flow] = attempt

    async def write(self, table: pa.Table, key: ChunkKey) -> int:
        """Send the rows and return their number. Raises DataError for those that are refused; the others are stored then."""
        progress = self._flows.get(key.flow) or self._stores.get(key.flow)
        if progress is None or (progress.key.epoch, progress.key.seq) < (key.epoch, key.seq):
            progress = self._note(Progress(key))
        if progress.stored:
            return 0
        attempt = self._attempts.get(key.flow) or _attempt_of(key)
        parts, addresses = await self.call(self._requests, table, attempt, progress)

        async def next_part() -> Part | None:
            part: Part | None = await self.call(next, parts, None)
            return part

        sender = Sender(partial(self._send, addresses, attempt.token), self.config.concurrency)
        await sender.send_all(next_part, progress)
        self._note(Progress(key, stored=True))
        if progress.refused:
            row, reason = min(progress.refused.items())
            raise DataError(
                f"{len(progress.refused)} rows are refused; the first is row {row}: {reason}",
                rows=progress.refused,
                error_type=ErrorType.STORAGE,
            )
        return int(table.num_rows)

    def _note(self, progress: Progress) -> Progress:
        """Remember a delivery as the last one of its flow.

        A pipeline has only so many flows, and each may come back to its last delivery; `store` has one for each call.
        """
        flow = progress.key.flow
        if progress.key.epoch:
            self._flows[flow] = progress
            return progress
        self._stores.pop(flow, None)
        self._stores[flow] = progress
        if len(self._stores) > _MOST_FLOWS:
            del self._stores[next(iter(self._stores))]
        return progress

    def _requests(
        self, table: pa.Table, attempt: Attempt, progress: Progress
    ) -> tuple[Iterator[Part], list[list[Any]]]:
        """Return the requests for the rows that can be sent, and the values in their addresses; others are refused."""
        unfit: dict[int, str] = {}
        try:
            check_lines(table, "ndjson")
        except DataError as error:
            unfit = error.rows
        addresses, lost = self._address.values(table)
        unfit = lost | unfit
        progress.refused.update(unfit)
        rows: Any = range(table.num_rows)
        if unfit:
            rows = [row for row in rows if row not in unfit]
            table = table.take(pa.array(rows, pa.int64()))
        most = 1 if self.config.body == "record" else self.config.max_rows
        parts = cut(table, rows, attempt.ends, most_rows=most, most_bytes=self.config.max_bytes)
        return parts, addresses

    async def _send(self, addresses: list[list[Any]], token: str, part: Part) -> str | None:
        """Send one request; return why the API refuses it, None when it does not."""
        client, config = self._client, self.config
        if client is None:
            raise TransientError(f"{self.get_backend_id()}: not connected; call connect() first")
        from collectors.http_client.answers import Call, seconds_to_wait

        body = self._body.plain(part.lines)
        headers = dict(self._body.headers)
        passing = {HTTPStatus.MULTI_STATUS, *config.refused}
        if config.idempotency_header is not None:
            headers[config.idempotency_header] = key_of(token, part, body)
            passing.add(HTTPStatus.CONFLICT)
        if config.compression != "none":
            body = await self.call(self._body.packed, body)
        url = self._address.of(addresses, part.rows[0])
        answer = await client.send(Call(config.method, url, body), headers, passing)
        if answer.status in config.refused:
            return client.told(answer)
        if answer.status == HTTPStatus.CONFLICT:  # it is still at work on the same request
            wait = seconds_to_wait(answer.headers, datetime.now(UTC))
            raise TransientError(client.told(answer), retry_after=wait)
        if answer.status == HTTPStatus.MULTI_STATUS:
            raise FatalError(
                f"{client.told(answer)}; which of the rows it took is not looked into; set `body: record`, if it takes rows "
                "one by one",
                error_type=ErrorType.STORAGE,
            )
        return None

    def preview(self, table: pa.Table, flow: str) -> list[str]:
        """Return what would be sent."""
        lines = [f"+ {self.config.method} {self.describe()}", *super().preview(table, flow)]
        return lines + [
            f"! {name}: rows have no such column, and the `url` has it"
            for name in columns_of(self.config.url)
            if name not in table.column_names
        ]

    def describe(self) -> str:
        """Return the address, without its query."""
        return self.config.url.partition("#")[0].partition("?")[0]


def _places(value: Any) -> int:
    """Return how often the place of the records stands in an envelope; a name is none."""
    if isinstance(value, dict):
        return sum(map(_places, value.values())) + 2 * (RECORDS in value)
    return sum(map(_places, value)) if isinstance(value, list) else int(value == RECORDS)


def _attempt_of(key: ChunkKey) -> Attempt:
    """Return what keys are made from where nobody has said so: outside of a pipeline."""
    return Attempt(str(uuid5(NAMESPACE_URL, f"collectors:{key.flow}:{key.epoch}:{key.seq}")), [])


COMPONENT = HttpBackend
