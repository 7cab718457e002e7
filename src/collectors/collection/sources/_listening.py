"""Where a source listens: addresses, TLS, and the rule about who may reach it."""

from __future__ import annotations

import ipaddress
import ssl

from msgspec import Struct

from collectors.errors import ConfigurationError
from collectors.settings import LocalPath, Settings

__all__ = ["Address", "TlsConfig", "parse_address", "server_context"]


class TlsConfig(Settings):
    """The server's certificate."""

    cert: LocalPath
    """The certificate with those that lead up to its authority, as PEM."""
    key: LocalPath
    """Its private key, as PEM, without a passphrase."""


class Address(Struct, frozen=True):
    """A host, as a name or an address, and a port; port 0 lets the system choose."""

    host: str
    port: int

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return the address in `host:port` or `[::1]:port`. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise ValueError("expected host:port, for example 127.0.0.1:8080 or [::1]:8080")
    return Address(host, int(port))


def server_context(tls: TlsConfig) -> ssl.SSLContext:
    """Return a context for TLS 1.2 or newer. Raises ConfigurationError when the files do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        # A password that is asked for on the terminal would stop the start for ever.
        context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror if error.errno and not isinstance(error, ssl.SSLError) else str(error)
        raise ConfigurationError(
            f"tls: cannot use the certificate {tls.cert} with the key {tls.key}: {reason}"
        ) from error
    return context
