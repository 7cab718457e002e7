"""Which addresses may be asked: every one is checked, and the connection goes to the one that was checked."""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from collectors.errors import FatalError

__all__ = ["Guard", "GuardedResolver", "origin_of", "shown"]

_NAT64 = ip_network("64:ff9b::/96")
_NAT64_LOCAL = ip_network("64:ff9b:1::/48")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)


def origin_of(url: URL) -> tuple[str, str, int | None]:
    """Return scheme, host and port: what credentials are for."""
    return url.scheme, (url.host or "").rstrip(".").lower(), url.port


def shown(url: URL) -> str:
    """Return an address for messages: without query, which may have secrets in it, and without a login."""
    plain = url.with_query(None).with_fragment(None)
    return str(plain.with_user(None) if plain.user is not None or plain.password is not None else plain)


class Guard:
    """Says no, with a FatalError, to what nobody should be led to by an answer from outside."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private

    def check_url(self, url: URL) -> None:
        """Check scheme, login and, where the host is an address, that address."""
        if url.scheme not in {"http", "https"} or not url.host:
            raise FatalError(f"{shown(url) if url.host else url.scheme}: expected an http or https address")
        if url.user is not None or url.password is not None:
            raise FatalError(f"{shown(url)}: a login in the address is not sent; set `auth`")
        host = url.host.rstrip(".")
        if ":" in host:
            self.check_address(host.partition("%")[0], host)
        elif _NUMBER.fullmatch(host.rpartition(".")[2]):
            try:
                address = str(IPv4Address(host))
            except ValueError:
                raise FatalError(f"{host}: expected a name, or an address such as 192.0.2.1") from None
            if host != url.host:
                raise FatalError(f"{url.host}: expected an address without a dot at its end")
            self.check_address(address, host)

    def check_address(self, address: str, host: str) -> None:
        """Check one address of a host."""
        try:
            found = ip_address(address)
        except ValueError:
            raise FatalError(f"{host}: expected a name, or an address such as 192.0.2.1") from None
        for each in _meant(found):
            kind = self._kind(each)
            if kind is not None:
                advice = "" if kind == "reserved" else "; set `allow_private: true` if it may be asked"
                raise FatalError(f"{host} is {address}, a {kind} address, which is not asked{advice}")

    def _kind(self, address: IPv4Address | IPv6Address) -> str | None:
        if address.is_multicast or address.is_unspecified or address.is_link_local:
            return "reserved"
        if address.is_loopback:
            return None if self._allow_private else "loopback"
        if address.is_global and not getattr(address, "is_site_local", False):
            return None
        return None if self._allow_private else "private"


def _meant(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """Return an address, and for one of version 6 that carries one of version 4, that one."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    inner = [address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or address in _NAT64_LOCAL or (int(address) >> 32 == 0 and int(address) > 1):
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(each for each in inner if each is not None)]


class GuardedResolver(AbstractResolver):
    """Resolves names, once for each connection, and lets no answer pass in which any address is not allowed."""

    def __init__(self, inner: AbstractResolver, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises FatalError when one of them must not be asked."""
        found = await self._inner.resolve(host, port, family)
        for each in found:
            self._guard.check_address(each["host"].partition("%")[0], host)
        return found

    async def close(self) -> None:
        """Close the resolver that is asked."""
        await self._inner.close()
