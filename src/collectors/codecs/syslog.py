"""Syslog, one message a line: RFC 5424, RFC 3164, and what is on the wire in its name.

    format: {type: syslog, columns: {pid: int}}

Delivery: nothing is lost; a line that does not begin with a priority such as `<13>`, has a time that is none, or is not
UTF-8, is set aside by itself.
Position: chunks are cut behind a line break; the line is the record; an empty line is none.

Columns: `facility` and `severity` by name; `time`, a timestamp; `local_time`, the text of RFC 3164's time, which has
neither year nor zone; `host`, `program`, `pid`; `message_id` and `structured_data`, as written, of RFC 5424; `message`.
What a message does not have, or has empty, is null. After the priority nearly everything is left out by some device: then all the
rest is the message. Written is RFC 5424.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from collectors.codecs._tables import in_order
from collectors.codecs._text_lines import not_utf8, split_lines
from collectors.codecs._text_values import typed
from collectors.codecs._wording import quoted
from collectors.codecs.base import Codec, CodecConfig, Decoded, column_type
from collectors.errors import ConfigurationError, DataError

__all__ = ["SyslogCodec", "SyslogConfig"]

_FACILITIES = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "ntp",
    "audit",
    "alert",
    "clock",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
]
_SEVERITIES = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"]
_MOST_PRIORITY = len(_FACILITIES) * 8 - 1
_PRIORITY = r"^<(?P<priority>0|[1-9][0-9]{0,2})>(?P<rest>.*)$"
# RFC 5424, section 6: VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA [MSG]
_NEW = (
    r"^1 (?P<time>\S+) (?P<host>\S+) (?P<program>\S+) (?P<pid>\S+) (?P<message_id>\S+) "
    r'(?P<structured_data>-|(?:\[(?:[^\]"\\]|"(?:[^"\\]|\\.)*")*\])+)(?: (?P<message>.*))?$'
)
# RFC 3164, section 4.1, also with the time of RFC 3339 as rsyslog sends it, and without a host as local programs do.
_OLD = (
    r"^(?:(?P<local_time>[A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"|(?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2}))) "
    r"(?:(?P<host>[^\s:\[\]]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*[0-9a-fA-F]) )?"
    r"(?:(?P<program>[^\s:\[\]]+)(?:\[(?P<pid>[^\]\s]*)\])?: ?)?(?P<message>.*)$"
)
_COLUMNS = {
    "facility": "string",
    "severity": "string",
    "time": "timestamp",
    "local_time": "string",
    "host": "string",
    "program": "string",
    "pid": "string",
    "message_id": "string",
    "structured_data": "string",
    "message": "string",
}
_TOKENS = {"host": 255, "program": 48, "pid": 128, "message_id": 32}


class SyslogConfig(CodecConfig):
    """Settings of syslog."""


class SyslogCodec(Codec[SyslogConfig]):
    """Reads both kinds of syslog and writes the newer one; see the module."""

    joinable = True

    def __init__(self, config: SyslogConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        strangers = [name for name in self.config.columns if name not in _COLUMNS]
        if strangers:
            raise ConfigurationError(
                f"columns: '{strangers[0]}' is not there; the columns are {', '.join(_COLUMNS)}"
            )
        self._types = {
            name: column_type(text) for name, text in (_COLUMNS | dict(self.config.columns)).items()
        }

    def decode(self, data: bytes, schema: pa.Schema | None = None) -> Decoded:
        """Decode a chunk of messages."""
        lines = split_lines(data)
        reasons: dict[int, str] = {}
        if not data.isascii():
            found = ((number, not_utf8(raw)) for number, raw in enumerate(lines.raw))
            reasons = {number: reason for number, reason in found if reason}
        numbers = [number for number in range(len(lines.raw)) if number not in reasons]
        text = pa.array([lines.raw[number] for number in numbers], pa.binary()).cast(pa.string())
        columns = _columns(*_priorities(text, numbers, reasons))
        columns = typed(columns, self._types, numbers, reasons)
        return Decoded(in_order(columns, schema, len(numbers)), len(lines.raw), lines.rejected(reasons))

    def encode(self, table: pa.Table) -> bytes:
        """Return one message of RFC 5424 a line; a column that is missing is null. Raises DataError."""
        lines: list[str] = []
        rows: dict[int, str] = {}
        for number, row in enumerate(table.to_pylist()):
            try:
                lines.append(_message(row))
            except ValueError as error:
                rows[number] = str(error)
        if rows:
            raise DataError(f"{len(rows)} rows are no syslog messages: {rows[min(rows)]}", rows=rows)
        return "".join(lines).encode()


def _priorities(text: pa.Array, numbers: list[int], reasons: dict[int, str]) -> tuple[pa.Array, pa.Array]:
    """Return the priority of each line and what is behind it; the numbers of lines without one move to the reasons."""
    found = pc.extract_regex(text, _PRIORITY)
    priority = pc.struct_field(found, "priority").cast(pa.int32())
    good = pc.fill_null(pc.less_equal(priority, _MOST_PRIORITY), fill_value=False)
    if not pc.all(good).as_py():
        keep = good.to_pylist()
        bad = [number for number, is_good in zip(numbers, keep, strict=True) if not is_good]
        reasons |= dict.fromkeys(bad, f"expected a priority from <0> to <{_MOST_PRIORITY}> at the beginning")
        numbers[:] = [number for number, is_good in zip(numbers, keep, strict=True) if is_good]
        found, priority = found.filter(good), priority.filter(good)
    return priority, pc.struct_field(found, "rest")


def _columns(priority: pa.Array, rest: pa.Array) -> dict[str, pa.Array]:
    """Return all columns as text."""
    facility = pc.divide(priority, 8)
    columns = {
        "facility": pa.array(_FACILITIES).take(facility),
        "severity": pa.array(_SEVERITIES).take(pc.subtract(priority, pc.multiply(facility, 8))),
    }
    kinds = [pc.extract_regex(rest, _NEW), pc.extract_regex(rest, _OLD)]
    for name in list(_COLUMNS)[2:]:
        parts = [pc.struct_field(kind, name) for kind in kinds if kind.type.get_field_index(name) >= 0]
        columns[name] = pc.coalesce(*parts)
    neither = pc.and_(kinds[0].is_null(), kinds[1].is_null())
    message = pc.if_else(neither, rest, columns["message"])
    columns["message"] = pc.replace_substring_regex(message, "^\ufeff", "")
    for name in list(_COLUMNS)[2:]:
        nothing = pa.array([""] if name == "message" else ["", "-"])
        columns[name] = pc.if_else(pc.is_in(columns[name], nothing), None, columns[name])
    # Finer than a microsecond, as Go writes it.
    columns["time"] = pc.replace_substring_regex(columns["time"], r"(\.[0-9]{6})[0-9]+", r"\1")
    return columns


def _message(row: dict[str, Any]) -> str:
    """Return a row as a message. Raises ValueError."""
    facility, severity = row.get("facility") or "user", row.get("severity") or "notice"
    for name, value, known in (("facility", facility, _FACILITIES), ("severity", severity, _SEVERITIES)):
        if value not in known:
            raise ValueError(f"column '{name}': expected one of {', '.join(known)}, got {quoted(value)}")
    time = row.get("time")
    if time is not None and not isinstance(time, datetime):
        raise ValueError(f"column 'time': expected timestamp, got {quoted(time)}")
    tokens = [_token(name, row.get(name), most) for name, most in _TOKENS.items()]
    message, data = row.get("message"), row.get("structured_data")
    for name, value in (("message", message), ("structured_data", data)):
        if value is not None and (not isinstance(value, str) or "\n" in value or value.endswith("\r")):
            raise ValueError(f"column '{name}': {quoted(value)} is not one line of text")
    priority = _FACILITIES.index(facility) * 8 + _SEVERITIES.index(severity)
    stamp = (
        "-"
        if time is None
        else time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )
    line = f"<{priority}>1 {stamp} {' '.join(tokens)} {data or '-'}"
    return f"{line} {message}\n" if message else f"{line}\n"


def _token(name: str, value: Any, most: int) -> str:
    text = "-" if value is None else str(value)
    if not (0 < len(text) <= most and all("!" <= letter <= "~" for letter in text)):
        raise ValueError(
            f"column '{name}': expected 1 to {most} printable letters of ASCII, got {quoted(value)}"
        )
    return text


COMPONENT = SyslogCodec
