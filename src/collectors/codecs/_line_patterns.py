"""The patterns of `lines` that have a name, each with the types of its columns."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct, field

from collectors.codecs._access_log import cut_combined, cut_common

__all__ = ["PATTERNS", "Pattern", "from_apache_time"]

_QUOTED = r'"(?P<{}>(?:[^"\\]|\\.)*)"'
# What a client sends need not be a request: then `request` has it as it is, and method, path and protocol are null.
_REQUEST = r'"(?:(?P<method>[A-Z]+) (?P<path>(?:[^"\\ ]|\\.)+) (?P<protocol>HTTP/[0-9.]+)|(?P<request>(?:[^"\\]|\\.)*))"'
_COMMON = (
    r"(?P<host>\S+) (?P<ident>\S+) (?P<user>.+?) \[(?P<time>[^\]]+)\] "
    + _REQUEST
    + r" (?P<status>[0-9]{3}) (?P<size>[0-9]+|-)"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Pattern(Struct, frozen=True):
    """A regular expression with a named group for each column; where a value is `absent` it is null."""

    regex: str
    types: dict[str, str] = field(default_factory=dict)
    absent: str = ""
    apache_time: bool = False
    cut: Callable[[pa.Array], tuple[pa.Array, list[pa.Array]]] | None = None
    """A faster way to the same fields, for the lines whose numbers it returns."""


_APACHE_TYPES = {"time": "timestamp", "status": "int", "size": "int"}

PATTERNS = {
    # https://httpd.apache.org/docs/2.4/logs.html#accesslog; nginx has `combined` by default.
    "common": Pattern(_COMMON, _APACHE_TYPES, "-", apache_time=True, cut=cut_common),
    "combined": Pattern(
        f"{_COMMON} {_QUOTED.format('referer')} {_QUOTED.format('user_agent')}",
        _APACHE_TYPES,
        "-",
        apache_time=True,
        cut=cut_combined,
    ),
    # RFC 3164, section 4.1; its time has no year, so it stays text.
    "syslog": Pattern(
        r"(?:<(?P<priority>[0-9]{1,3})>)?(?P<time>[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}) (?P<host>\S+) "
        r"(?:(?P<program>[^\s:\[]+)(?:\[(?P<pid>[0-9]+)\])?: ?)?(?P<message>.*)",
        {"priority": "int", "pid": "int"},
    ),
    # /var/log/dpkg.log of Debian; its time is local, without a zone, so it stays text.
    "dpkg": Pattern(r"(?P<time>[0-9-]{10} [0-9:]{8}) (?P<action>\S+) (?P<detail>.*)"),
}


def from_apache_time(text: pa.Array) -> pa.Array:
    """Return `10/Oct/2000:13:55:36 -0700` as `2000-10-10T13:55:36-0700`; anything else as it was.

    Not by strptime: it would read the names of months in the language of the machine. A second has many lines: each
    different text is looked at once.
    """
    encoded = text.dictionary_encode()
    return _from_apache_time(encoded.dictionary).take(encoded.indices)


def _from_apache_time(text: pa.Array) -> pa.Array:
    text = pc.replace_substring_regex(
        text, r"^(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d{4})$", r"\3-\2-\1T\4\5"
    )
    for number, month in enumerate(_MONTHS, 1):
        text = pc.replace_substring(text, f"-{month}-", f"-{number:02d}-", max_replacements=1)
    return text
