"""Credentials of requests; tokens of OAuth 2.0 are kept until they expire or are refused."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote_plus, urlencode

import msgspec
from pydantic import SecretStr
from yarl import URL

from collectors.errors import FatalError
from collectors.http_client.settings import ApiKeyAuth, Auth, BasicAuth, BearerAuth, OAuth2Auth

__all__ = ["Login", "TokenCall"]

TokenCall = Callable[[URL, dict[str, str], bytes], Awaitable[bytes]]
"""Sends a POST and returns the body of the response, checked."""

_EARLY_SECONDS = 60.0
_FORM = "application/x-www-form-urlencoded"


class Login:
    """What a request to the origin of the settings has beside its headers."""

    def __init__(self, auth: Auth | None, clock: Callable[[], float]) -> None:
        self._auth = auth
        self._clock = clock
        self._token: str | None = None
        self._until: float | None = None

    def secrets(self) -> list[str]:
        """Return what no message may have in it."""
        auth = self._auth
        values = [getattr(auth, name) for name in type(auth).model_fields] if auth else []
        found = [each.get_secret_value() for each in values if isinstance(each, SecretStr)]
        if isinstance(auth, BasicAuth):
            found.append(_pair(auth.username, auth.password.get_secret_value()))
        elif isinstance(auth, OAuth2Auth):
            found.append(_client(auth))
        return [*found, *([self._token] if self._token else [])]

    def signed(self, url: URL) -> URL:
        """Return the address with the key, where it is sent there."""
        auth = self._auth
        if isinstance(auth, ApiKeyAuth) and auth.location == "query":
            return url.update_query({auth.name: auth.key.get_secret_value()})
        return url

    def unsigned(self, url: URL) -> URL:
        """Return an address that came back, without the key: it may go into a position."""
        auth = self._auth
        if isinstance(auth, ApiKeyAuth) and auth.location == "query":
            return url.without_query_params(auth.name)
        return url

    async def headers(self, call: TokenCall) -> dict[str, str]:
        """Return the headers; a token is fetched where there is none."""
        auth = self._auth
        if isinstance(auth, BearerAuth):
            return {"Authorization": f"Bearer {auth.token.get_secret_value()}"}
        if isinstance(auth, BasicAuth):
            return {"Authorization": f"Basic {_pair(auth.username, auth.password.get_secret_value())}"}
        if isinstance(auth, ApiKeyAuth) and auth.location == "header":
            return {auth.name: auth.key.get_secret_value()}
        if isinstance(auth, OAuth2Auth):
            if self._token is None or (self._until is not None and self._clock() >= self._until):
                await self._fetch(auth, call)
            return {"Authorization": f"Bearer {self._token}"}
        return {}

    def forget(self) -> bool:
        """Give up a token that was refused; return whether another can be had."""
        had, self._token = self._token, None
        return had is not None

    async def _fetch(self, auth: OAuth2Auth, call: TokenCall) -> None:
        secret = auth.client_secret.get_secret_value()
        form = {"grant_type": "client_credentials", **auth.params}
        if auth.scope is not None:
            form["scope"] = auth.scope
        headers = {"Content-Type": _FORM, "Accept": "application/json"}
        if auth.credentials == "body":
            form |= {"client_id": auth.client_id, "client_secret": secret}
        else:
            headers["Authorization"] = f"Basic {_client(auth)}"
        raw = await call(URL(auth.token_url), headers, urlencode(form).encode())
        try:
            answer: Any = msgspec.json.decode(raw)
            token, seconds = answer["access_token"], answer.get("expires_in")
        except (msgspec.DecodeError, RecursionError, TypeError, KeyError):
            raise FatalError("auth: the response of `token_url` has no `access_token`") from None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise FatalError("auth: the `access_token` of `token_url` is not text that a header can have")
        self._token, self._until = token, None
        if isinstance(seconds, (int, float)) and seconds > 0:
            self._until = self._clock() + max(seconds - _EARLY_SECONDS, seconds / 2)


def _client(auth: OAuth2Auth) -> str:
    return _pair(quote_plus(auth.client_id), quote_plus(auth.client_secret.get_secret_value()))


def _pair(name: str, password: str) -> str:
    return b64encode(f"{name}:{password}".encode()).decode()
