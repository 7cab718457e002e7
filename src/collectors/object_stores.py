"""Where objects are kept and who asks for them: what the source and the storage of the type `object_store` share."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

from msgspec import Struct
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store
from pydantic import ConfigDict, SecretStr

from collectors.settings import LocalPath, Settings

__all__ = ["MAY_PASS", "Place", "StoreSettings", "open_store", "said", "status_of"]

_SCHEMES = {"s3": "bucket", "gs": "bucket", "az": "container", "file": ""}
_ONLY = {
    "s3": ("region", "access_key_id", "secret_access_key", "session_token"),
    "az": ("account", "account_key"),
    "gs": ("service_account",),
}
_CONNECT_SECONDS = 5
_SILENT_SECONDS = 15
"""A connection on which nothing comes for so long is given up."""
_REQUEST_SECONDS = 60
_AT_ONCE_AGAIN = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=100)},
}
"""For single requests that a store refuses in passing; all else is the runtime's to try again."""
_METADATA = "169.254.169.254"
"""Where a machine in a cloud asks for its credentials, when there are no others."""
MAY_PASS = {408, 425, 429}
"""Answers of 400 to 499 that may be others in a while."""


class Place(Struct, frozen=True):
    """Where the objects are: `scheme://bucket/folder`; for `file` the bucket is a folder of this machine."""

    scheme: str
    bucket: str
    folder: str

    @classmethod
    def parse(cls, url: str) -> Place:
        """Return the place that a URL names. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise ValueError(
                "expected s3://bucket/folder/, gs://bucket/folder/, az://container/folder/ or file:///folder/"
            )
        if "@" in parts.netloc:
            raise ValueError(
                "credentials do not belong into the URL, where they would be shown; set them by name"
            )
        if parts.query or parts.fragment:
            raise ValueError("write ? and # as %3F and %23")
        path = unquote(parts.path).strip("/")
        if any(part in {"", ".", ".."} for part in path.split("/")) and path:
            raise ValueError("a folder's name may not be empty, '.' or '..'")
        if parts.scheme == "file":
            if parts.netloc:
                raise ValueError("expected three slashes and a path on this machine: file:///folder/")
            return cls("file", f"/{path}", "")
        if not parts.netloc or ":" in parts.netloc:
            raise ValueError(f"expected the name of a {_SCHEMES[parts.scheme]} behind {parts.scheme}://")
        return cls(parts.scheme, parts.netloc, path)

    def url(self, key: str) -> str:
        """Return what an object is called."""
        inside = f"{self.bucket.rstrip('/')}/{key}"
        return f"{self.scheme}://{inside}"


class StoreSettings(Settings):
    """Settings of where a store is, and who asks; what is left out is as the environment says it."""

    model_config = ConfigDict(hide_input_in_errors=True)

    endpoint: str | None = None
    """Address of a compatible store, for example `https://minio.example:9000`."""
    region: str | None = None
    """Region of the bucket, for `s3://`."""
    access_key_id: SecretStr | None = None
    """Who asks, for `s3://`."""
    secret_access_key: SecretStr | None = None
    """The key that belongs to `access_key_id`."""
    session_token: SecretStr | None = None
    """The token of keys that are valid for some time."""
    account: str | None = None
    """Name of the storage account, for `az://`."""
    account_key: SecretStr | None = None
    """The key of the storage account."""
    service_account: LocalPath | None = None
    """File with the key of a service account, for `gs://`."""
    anonymous: bool = False
    """Ask without credentials, for what everybody may read."""

    def check_for(self, scheme: str) -> None:
        """Raise ValueError when they do not fit together, or a place of this scheme."""
        for other, names in _ONLY.items():
            for name in names if other != scheme else ():
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: is for {other}:// and means nothing for {scheme}://")
        if scheme == "file" and (self.endpoint is not None or self.anonymous):
            raise ValueError("endpoint, anonymous: mean nothing for file://")
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id, secret_access_key: set both or none")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token: belongs to an access_key_id, which is not set")
        if self.anonymous and (self.access_key_id or self.account_key or self.service_account):
            raise ValueError("anonymous: leave the keys out, or this")
        if self.endpoint is not None and not re.fullmatch(r"https?://[^@?#]+", self.endpoint):
            raise ValueError("endpoint: expected https://host:port or http://host:port, without credentials")


def open_store(place: Place, given: StoreSettings) -> Any:
    """Return the store of obstore. Raises its errors, ValueError and OSError."""
    if place.scheme == "file":
        return LocalStore(place.bucket)
    endpoint = given.endpoint
    client: dict[str, Any] = {
        "connect_timeout": f"{_CONNECT_SECONDS}s",
        "read_timeout": f"{_SILENT_SECONDS}s",
        "timeout": f"{_REQUEST_SECONDS}s",
    }
    if endpoint is not None and endpoint.startswith("http://"):
        client["allow_http"] = True
    settings: dict[str, Any] = {"client_options": client, "retry_config": _AT_ONCE_AGAIN}
    if given.anonymous:
        settings["skip_signature"] = True
    if place.scheme == "gs":
        named = {"base_url": endpoint, "service_account": given.service_account}
        return GCSStore(place.bucket, **settings, **_set(named))
    if place.scheme == "az":
        named = {
            "endpoint": endpoint,
            "account_name": given.account,
            "account_key": _secret(given.account_key),
        }
        return AzureStore(place.bucket, **settings, **_set(named))
    settings["disable_bulk_delete"] = True  # not every compatible store has it
    if given.access_key_id:
        settings["credential_provider"] = _keys(given)
    return S3Store(place.bucket, **settings, **_set({"endpoint": endpoint, "region": given.region}))


def _set(values: dict[str, str | None]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _secret(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _keys(given: StoreSettings) -> Callable[[], Any]:
    """Return what gives the keys of the settings alone: a token of the environment would belong to other ones."""
    keys = {
        "access_key_id": _secret(given.access_key_id),
        "secret_access_key": _secret(given.secret_access_key),
        "token": _secret(given.session_token),
        "expires_at": None,
    }
    return lambda: keys


def status_of(error: Exception) -> int | None:
    """Return the status with which a store answered, where it did."""
    match = re.search(r"status code: (\d{3})", str(error))
    return int(match[1]) if match else None


def said(error: Exception) -> str:
    """Return what a store says, in one line: no queries, which may be signed, and no echo of the request."""
    text = str(error).partition("\n\nDebug source")[0]
    if _METADATA in text:
        return "there are no credentials in the settings or the environment"
    status = re.search(r"status code: (\d{3}[ \w]*)", text)
    if status is None:
        return re.sub(r"\s+", " ", re.sub(r"\?\S*", "", text))[:300]
    parts = [re.search(rf"<{name}>([^<]{{1,200}})</{name}>", text) for name in ("Code", "Message")]
    said = ": ".join(part[1].strip() for part in parts if part)
    return f"{status[1].strip()} ({said})" if said else status[1].strip()
