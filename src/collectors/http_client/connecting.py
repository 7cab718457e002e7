"""From settings to a client: the one place where they are made, so that all are guarded alike."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from time import monotonic

import aiohttp
from aiohttp.abc import AbstractResolver

from collectors.client_tls import client_context
from collectors.http_client.client import Client, only_upgraded
from collectors.http_client.guard import Guard, GuardedResolver
from collectors.http_client.limits import Pace
from collectors.http_client.login import Login
from collectors.http_client.settings import RateLimitConfig, RemoteConfig

__all__ = ["connected"]

_LONGEST_HEADER = 2**16


@asynccontextmanager
async def connected(
    config: RemoteConfig,
    *,
    resolver: AbstractResolver | None,
    now: Callable[[], datetime],
    patience: float,
    most: int,
    silence: float | None = None,
    limit: RateLimitConfig | None = None,
    before: Client | None = None,
) -> AsyncIterator[Client]:
    """Yield a client for the server of the settings, whose connections end with it.

    A server may say nothing for `silence`, if that is given, else for `patience`; 0: for ever. `most` is how large a
    response may be, `limit` how fast to ask; the token and the pace of the client `before` go on. Names are resolved by
    `resolver`, that of the system when there is none. Raises ConfigurationError when files of `tls` cannot be used.
    """
    guard = Guard(config.allow_private)
    context = client_context(config.tls) if config.tls is not None else None
    reading = (patience if silence is None else silence) or None
    limits = aiohttp.ClientTimeout(total=None, sock_connect=patience, sock_read=reading)
    async with _session(guard, resolver, limits, context) as session:
        yield Client(
            session,
            guard=guard,
            pace=Pace(limit, monotonic) if before is None else before.pace,
            login=Login(config.auth, monotonic) if before is None else before.login,
            headers=config.own_headers(),
            most=most,
            now=now,
        )


@asynccontextmanager
async def _session(
    guard: Guard,
    resolver: AbstractResolver | None,
    limits: aiohttp.ClientTimeout,
    context: ssl.SSLContext | None,
) -> AsyncIterator[aiohttp.ClientSession]:
    """Make a session whose connections go only to addresses that the guard has seen; no cookies, no proxies.

    The library follows no redirect: requests are made without, and handshakes of WebSockets pass `only_upgraded`.
    """
    names = GuardedResolver(resolver or aiohttp.ThreadedResolver(), guard)
    connector = aiohttp.TCPConnector(resolver=names, use_dns_cache=False, ssl=context or True)
    try:
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=limits,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_field_size=_LONGEST_HEADER,
            max_line_size=_LONGEST_HEADER,
            middlewares=[only_upgraded],
        ) as made:
            yield made
    finally:
        await names.close()
