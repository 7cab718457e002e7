"""TLS towards a server: whom to trust, and who this program is."""

from __future__ import annotations

import ipaddress
import ssl
from typing import Self

from pydantic import model_validator

from collectors.errors import ConfigurationError
from collectors.settings import LocalPath, Settings

__all__ = ["ClientTls", "client_context", "is_this_machine"]


class ClientTls(Settings):
    """TLS 1.2 or newer; the server's certificate is checked."""

    ca: LocalPath | None = None
    """The authorities that the server's certificate may be from, as PEM; else those of the system."""
    cert: LocalPath | None = None
    """A certificate of this program's own, where the server asks for one, as PEM."""
    key: LocalPath | None = None
    """Its private key, as PEM, without a passphrase."""

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert: expected `cert` and `key` together")
        return self


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """Return a context that checks certificate and name. Raises ConfigurationError when a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as error:
        raise ConfigurationError(f"tls: cannot use the authorities in {tls.ca}: {_reason(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.cert is not None:
        try:
            # A password that is asked for on the terminal would stop the start for ever.
            context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
        except OSError as error:
            raise ConfigurationError(
                f"tls: cannot use the certificate {tls.cert} with the key {tls.key}: {_reason(error)}"
            ) from error
    return context


def is_this_machine(host: str) -> bool:
    """Return whether what is sent to a host does not leave this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(error: OSError) -> str:
    return (
        error.strerror
        if error.errno and error.strerror and not isinstance(error, ssl.SSLError)
        else str(error)
    )
