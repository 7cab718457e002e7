"""Syslog: both RFCs, and what devices make of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.codecs.syslog import SyslogCodec
from collectors.errors import ConfigurationError, DataError
from collectors.testing.codec_contract import CodecContract

SCHEMA = pa.schema(
    [
        (name, pa.timestamp("us", tz="UTC") if name == "time" else pa.string())
        for name in (
            "facility",
            "severity",
            "time",
            "local_time",
            "host",
            "program",
            "pid",
            "message_id",
            "structured_data",
            "message",
        )
    ]
)
AT = datetime(2026, 11, 23, 8, 0, 0, 123456, tzinfo=UTC)


def row(**values):
    return {name: values.get(name) for name in SCHEMA.names}


class TestSyslog(CodecContract):
    component = "syslog"

    def sample(self):
        rows = [
            row(facility="auth", severity="crit", time=AT, host="h", program="su", pid="7", message="it's"),
            row(facility="local7", severity="debug", message="äöü ∞ <13>1 - \ttabs  and spaces"),
            row(
                facility="kern",
                severity="emerg",
                time=AT,
                message_id="ID47",
                structured_data=r'[a@1 k="v \" \] w"][b]',
                message="[looks like data]",
            ),
            row(facility="user", severity="notice", host="::1"),
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)


def decode(line, **settings):
    decoded = SyslogCodec(**settings).decode(line)
    assert decoded.rejected == [], decoded.rejected
    (found,) = decoded.table.to_pylist()
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (  # RFC 5424, section 6.5, example 1
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \ufeff'su root' failed for lonvick on /dev/pts/8",
            {
                "facility": "auth",
                "severity": "crit",
                "time": datetime(2003, 10, 11, 22, 14, 15, 3000, tzinfo=UTC),
                "host": "mymachine.example.com",
                "program": "su",
                "message_id": "ID47",
                "message": "'su root' failed for lonvick on /dev/pts/8",
            },
        ),
        (  # example 4, with structured data alone
            '<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"][examplePriority@32473 class="high"]',
            {
                "facility": "local4",
                "severity": "notice",
                "time": datetime(2003, 10, 11, 22, 14, 15, 3000, tzinfo=UTC),
                "host": "mymachine.example.com",
                "program": "evntslog",
                "message_id": "ID47",
                "structured_data": '[exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"][examplePriority@32473 class="high"]',
            },
        ),
        (
            "<13>1 2026-11-23T09:00:00.123456789+01:00 h p 7 - - x",
            {
                "facility": "user",
                "severity": "notice",
                "time": AT,
                "host": "h",
                "program": "p",
                "pid": "7",
                "message": "x",
            },
        ),
        (  # RFC 3164, section 5.4, example 1
            "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            {
                "facility": "auth",
                "severity": "crit",
                "local_time": "Oct 11 22:14:15",
                "host": "mymachine",
                "program": "su",
                "message": "'su root' failed for lonvick on /dev/pts/8",
            },
        ),
        (
            "<86>Feb  5 17:32:18 10.0.0.99 sshd[4123]: Accepted publickey",
            {
                "facility": "authpriv",
                "severity": "info",
                "local_time": "Feb  5 17:32:18",
                "host": "10.0.0.99",
                "program": "sshd",
                "pid": "4123",
                "message": "Accepted publickey",
            },
        ),
        (
            "<13>2026-11-23T08:00:00.123456+00:00 web-1 app[7]: said",
            {
                "facility": "user",
                "severity": "notice",
                "time": AT,
                "host": "web-1",
                "program": "app",
                "pid": "7",
                "message": "said",
            },
        ),
        (  # no host, as programs write to /dev/log
            "<30>Nov 23 08:00:00 systemd[1]: Started.",
            {
                "facility": "daemon",
                "severity": "info",
                "local_time": "Nov 23 08:00:00",
                "program": "systemd",
                "pid": "1",
                "message": "Started.",
            },
        ),
        (
            "<30>Nov 23 08:00:00 fe80::1 app: six",
            {
                "facility": "daemon",
                "severity": "info",
                "local_time": "Nov 23 08:00:00",
                "host": "fe80::1",
                "program": "app",
                "message": "six",
            },
        ),
        ("<0>", {"facility": "kern", "severity": "emerg"}),
        (
            "<191>%SYS-5-CONFIG: from a router",
            {"facility": "local7", "severity": "debug", "message": "%SYS-5-CONFIG: from a router"},
        ),
        ("<13>1 broken", {"facility": "user", "severity": "notice", "message": "1 broken"}),
    ],
)
def test_messages(line, expected):
    assert decode(line.encode()) == expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"no priority", "expected a priority from <0> to <191>"),
        (b"<192>x", "expected a priority from <0> to <191>"),
        (b"<013>x", "expected a priority from <0> to <191>"),
        (b"<>x", "expected a priority from <0> to <191>"),
        (b"<13>1 yesterday h p - - - x", "column 'time': expected timestamp, got \"yesterday\""),
        (b"<13>1 2026-13-01T00:00:00Z h p - - - x", "column 'time': expected timestamp"),
        (b"<13>\xff", "not UTF-8"),
    ],
)
def test_what_is_no_message_costs_itself_alone(line, reason):
    decoded = SyslogCodec().decode(b"<13>one\n" + line + b"\n<13>two\n")
    assert decoded.table.column("message").to_pylist() == ["one", "two"]
    (refused,) = decoded.rejected
    assert refused.raw == line
    assert reason in refused.reason


def test_declared_columns():
    assert decode(b"<13>Nov 23 08:00:00 h p[42]: x", columns={"pid": "int"})["pid"] == 42
    refused = SyslogCodec(columns={"pid": "int"}).decode(b"<13>Nov 23 08:00:00 h p[x]: x").rejected
    assert "column 'pid': expected int" in refused[0].reason
    with pytest.raises(ConfigurationError, match="'prgram' is not there; the columns are facility"):
        SyslogCodec(columns={"prgram": "string"})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"facility": "nobody"}, "column 'facility': expected one of kern"),
        ({"host": "two words"}, "column 'host': expected 1 to 255 printable"),
        ({"program": "x" * 49}, "column 'program': expected 1 to 48"),
        ({"message": "two\nlines"}, "is not one line of text"),
    ],
)
def test_what_cannot_be_written(values, reason):
    table = pa.Table.from_pylist([row(message="good"), row(**values)], schema=SCHEMA)
    with pytest.raises(DataError) as error:
        SyslogCodec().encode(table)
    assert list(error.value.rows) == [1]
    assert reason in error.value.rows[1]


TOKEN = st.none() | st.text(
    st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30
).filter(lambda text: text != "-")
TEXT = st.none() | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\ufeff"), min_size=1, max_size=40
)
ROWS = st.fixed_dictionaries(
    {
        "facility": st.sampled_from(["kern", "local7"]),
        "severity": st.sampled_from(["emerg", "debug"]),
        "time": st.none() | st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
        "host": TOKEN,
        "program": TOKEN,
        "pid": TOKEN,
        "message_id": TOKEN,
        "message": TEXT,
    }
)


@settings(max_examples=200, deadline=None)
@given(st.lists(ROWS, max_size=5))
def test_whatever_can_be_written_comes_back(rows):
    table = pa.Table.from_pylist([row(**each) for each in rows], schema=SCHEMA)
    codec = SyslogCodec()
    assert codec.decode(codec.encode(table), SCHEMA).table.equals(table)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.integers(0, 191))
def test_whatever_is_behind_the_priority_is_a_row(text, priority):
    line = "".join(letter for letter in text if letter not in "\n\r")
    decoded = SyslogCodec().decode(f"<{priority}>{line}".encode("utf-8", "surrogatepass"))
    assert decoded.read == 1
