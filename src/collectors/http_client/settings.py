"""Settings of whoever asks a server over HTTP: where it is, who asks, how fast, what must not be asked or sent."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from collectors.client_tls import ClientTls
from collectors.settings import Settings

__all__ = ["ApiKeyAuth", "Auth", "BasicAuth", "BearerAuth", "OAuth2Auth", "RateLimitConfig", "RemoteConfig"]


class BearerAuth(Settings):
    """`Authorization: Bearer …`."""

    type: Literal["bearer"]
    token: SecretStr
    """The token."""


class BasicAuth(Settings):
    """A name and a password."""

    type: Literal["basic"]
    username: str
    """The name."""
    password: SecretStr
    """The password."""


class ApiKeyAuth(Settings):
    """A key in a header or in the query."""

    type: Literal["api_key"]
    key: SecretStr
    """The key."""
    name: str = "X-API-Key"
    """The name of the header or parameter."""
    location: Literal["header", "query"] = "header"
    """Where it is sent."""


class OAuth2Auth(Settings):
    """OAuth 2.0 client credentials: a token is fetched, and again before it expires or when it is refused."""

    type: Literal["oauth2"]
    token_url: str
    """Where tokens are given."""
    client_id: str
    """Who asks."""
    client_secret: SecretStr
    """Its secret."""
    scope: str | None = None
    """What is asked for, with spaces between."""
    params: dict[str, str] = {}
    """Further parameters of the request for a token, for example `audience`."""
    credentials: Literal["header", "body"] = "header"
    """Where id and secret are sent: as Basic authorization, or in the body."""


Auth = Annotated[BearerAuth | BasicAuth | ApiKeyAuth | OAuth2Auth, Field(discriminator="type")]


class RateLimitConfig(Settings):
    """How fast to ask."""

    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    """At most so many requests in a second; `0.5` is one every two seconds."""
    bytes_per_second: Annotated[float, Field(gt=0)] | None = None
    """Read at most so many bytes of responses in a second."""


class RemoteConfig(Settings):
    """Where a server is, and who asks."""

    schemes: ClassVar[tuple[str, str]] = ("http", "https")
    """What addresses begin with, without TLS and with it."""

    url: str
    """The address."""
    auth: Auth | None = None
    """Who asks."""
    headers: dict[str, SecretStr] = {}
    """Further headers of the requests; they are kept as secrets."""
    tls: ClientTls | None = None
    """With TLS: own authorities, or an own certificate."""
    allow_private: bool = False
    """Ask addresses of this machine and of private networks too."""
    insecure: bool = False
    """Send credentials to another machine without TLS."""

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            text = secret.get_secret_value()
            if not name or any(ord(sign) < 32 or sign == ":" for sign in name) or not text.isprintable():
                raise ValueError(f"{name!r}: expected a header without line breaks")
        return value

    @model_validator(mode="after")
    def _check_addresses(self) -> Self:
        addresses = {"url": (self.url, self.schemes)}
        if isinstance(self.auth, OAuth2Auth):
            addresses["auth.token_url"] = (self.auth.token_url, RemoteConfig.schemes)
        for name, (text, schemes) in addresses.items():
            self._check_address(name, text, schemes)
        if self.tls is not None and not self.url.lower().startswith(f"{self.schemes[1]}:"):
            raise ValueError(f"tls: only with {self.schemes[1]}://")
        return self

    def _check_address(self, name: str, text: str, schemes: tuple[str, str]) -> None:
        from yarl import URL

        try:
            url = URL(text)
        except ValueError:
            url = URL()
        if url.scheme not in schemes or not url.host:
            a = "an" if schemes[0] == "http" else "a"
            raise ValueError(f"{name}: expected {a} {schemes[0]} or {schemes[1]} address")
        if url.user is not None or url.password is not None:
            raise ValueError(f"{name}: put the login into `auth: {{type: basic, …}}`")
        here = url.host.rstrip(".") in {"localhost", "127.0.0.1", "::1"}
        if here and not self.allow_private:
            raise ValueError(f"{name}: {url.host} is this machine; set `allow_private: true` to ask it")
        if self.auth is not None and url.scheme == schemes[0] and not (here or self.insecure):
            raise ValueError(f"{name}: credentials need {schemes[1]}; `insecure: true` sends them without")

    def shown(self) -> str:
        """Return the address for messages: without what may be secret in it."""
        from yarl import URL

        from collectors.http_client.guard import shown

        return shown(URL(self.url))

    def own_headers(self) -> dict[str, str]:
        """Return the further headers in clear text."""
        return {name: each.get_secret_value() for name, each in self.headers.items()}
