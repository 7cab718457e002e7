"""Binds sockets, and says who may send to them."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from collectors.errors import ConfigurationError

__all__ = ["Guests", "inet_socket", "unix_socket"]

_MOST_HOSTS = 10_000


class Guests:
    """Who may send: everybody, or hosts of these networks. `refused` counts what others sent."""

    def __init__(self, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> None:
        self.refused = 0
        self._networks = networks
        self._known: dict[str, bool] = {}

    def welcome(self, host: str) -> bool:
        """Return whether the host may send; count it if it may not."""
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= _MOST_HOSTS:
                self._known.clear()
            known = self._known[host] = self._may(host)
        self.refused += not known
        return known

    def _may(self, host: str) -> bool:
        if not self._networks:
            return True
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._networks)


@contextmanager
def inet_socket(kind: socket.SocketKind, host: str, port: int) -> Iterator[socket.socket]:
    """Give a bound socket. Raises ConfigurationError when the address cannot be had."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as made:
        try:
            if kind == socket.SOCK_STREAM:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setblocking(False)
            made.bind((host, port))
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        yield made


@contextmanager
def unix_socket(kind: socket.SocketKind, path: Path, mode: int) -> Iterator[socket.socket]:
    """Give a socket bound to a path, with these permissions from the beginning on; remove it at the end.

    A socket at which nobody listens, left by a process that was killed, is replaced. Raises ConfigurationError.
    """
    with socket.socket(socket.AF_UNIX, kind) as made:
        try:
            _remove_stale(path, kind)
            made.setblocking(False)
            os.fchmod(
                made.fileno(), mode
            )  # Linux: the file gets the permissions that the socket has when it is bound
            made.bind(str(path))
            path.chmod(mode)
            ours = path.stat().st_ino
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {path}: {error.strerror or error}") from error
        try:
            yield made
        finally:
            with suppress(OSError):
                if path.stat().st_ino == ours:
                    path.unlink()


def _remove_stale(path: Path, kind: socket.SocketKind) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigurationError(f"{path} is there and is no socket; remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, kind) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise ConfigurationError(
                    f"cannot tell whether {path} is in use: {error.strerror}; remove it if it is not"
                ) from error
            path.unlink()
        else:
            raise ConfigurationError(f"{path}: another process listens there")
