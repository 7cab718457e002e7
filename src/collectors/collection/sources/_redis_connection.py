"""A connection to Redis or Valkey, and what its errors mean. Trying again is the runtime's: the library does not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from collectors.errors import CollectorsError, FatalError, TransientError

__all__ = ["Connection"]

_CLOSE_SECONDS = 2.0
_REFUSED = re.compile(
    r"^(NOAUTH|WRONGPASS|NOPERM|DENIED)|invalid (username|password)|authentication", re.IGNORECASE
)
_LATER = re.compile(
    r"^(LOADING|READONLY|UNBLOCKED|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|BUSY|OOM|MISCONF)\b", re.IGNORECASE
)


class Connection:
    """Calls commands; one that blocks does not hold up others."""

    def __init__(self, where: str, patience: float, longest_block: float, **options: Any) -> None:
        self._where = where
        self._client = redis.asyncio.Redis(
            **options,
            socket_connect_timeout=patience,
            socket_timeout=patience + longest_block,
            retry=Retry(NoBackoff(), 0),
        )
        for command in ("XREAD", "XREADGROUP", "XAUTOCLAIM", "XINFO STREAM", "XINFO GROUPS", "XPENDING"):
            self._client.set_response_callback(command, _as_it_is)  # type: ignore[arg-type]

    async def call(self, *command: Any) -> Any:
        """Return the answer to a command. Raises TransientError, FatalError, or ResponseError for what only the caller knows."""
        with self._translated():
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Close it; a server that hangs is not waited for."""
        with suppress(TimeoutError, OSError, RedisError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._client.aclose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            meaning = self._meaning(error)
            if meaning is None:
                raise
            raise meaning from error

    def _meaning(self, error: Exception) -> CollectorsError | None:
        """Return what an error means; None: the caller knows."""
        said = f"{self._where}: {error}"
        if isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError)) or _REFUSED.search(
            str(error)
        ):
            return FatalError(f"{said}; look at `username`, `password` and what that user may do")
        if "CERTIFICATE_VERIFY_FAILED" in said or "certificate" in said.lower():
            return FatalError(f"{self._where}: the certificate is not accepted: {error}")
        if isinstance(error, ResponseError) and not isinstance(error, BusyLoadingError):
            return TransientError(said) if _LATER.search(str(error)) else None
        return TransientError(said)


def _as_it_is(answer: Any, **_options: Any) -> Any:
    return answer
