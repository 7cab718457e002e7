"""Settings that are handed to a program: what may be a secret in them is hidden, and kept out of what the program says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator, SecretStr

from collectors.censor import Censor

__all__ = ["Hidden", "SettingsCensor", "as_json"]

_SECRET_NAME = re.compile(
    r"pass|secret|token|credential|cookie|private|auth(?!or)|dsn|url|uri|^key$|"
    r"(api|access|account|service|client|consumer|signing|encryption|ssh|aws\w*)[_-]?key",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"//[^/\s@]*@")


def _hide(value: Any, *, secret: bool = False) -> Any:
    """Return settings with each text below a name that sounds like a secret made one."""
    if isinstance(value, Mapping):
        return {
            key: _hide(item, secret=secret or bool(_SECRET_NAME.search(str(key))))
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_hide(item, secret=secret) for item in value]
    return SecretStr(value) if secret and isinstance(value, str) else value


Hidden = Annotated[dict[str, Any], AfterValidator(_hide)]
"""Settings of a program, with secrets hidden."""


def as_json(settings: Mapping[str, Any]) -> bytes:
    """Return hidden settings in clear text, for the program."""
    return msgspec.json.encode(settings, enc_hook=_shown)


class SettingsCensor:
    """Takes the secrets of hidden settings out of texts."""

    def __init__(self, settings: Any) -> None:
        self.secrets = Censor(_secrets(settings))

    def __call__(self, text: str) -> str:
        """Return the text without them, and without logins in addresses."""
        return _LOGIN.sub("//***@", self.secrets(text))


def _shown(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, (Mapping, list)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _secrets(item)
