"""Lines: patterns with and without a name, and what does not match them."""

from __future__ import annotations

import datetime as dt
import time

import pyarrow as pa
import pytest

from collectors.codecs.lines import LinesCodec
from collectors.errors import ConfigurationError, DataError

ACCESS = (
    rb'127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a?b=\"c\" HTTP/1.0" 200 2326 '
    rb'"http://x/start.html" "Mozilla/4.08 [en] (Win98; \"I\" ;Nav\\)"'
)


def decode(data, schema=None, **settings):
    decoded = LinesCodec(**settings).decode(data, schema)
    assert decoded.read == decoded.table.num_rows + len(decoded.rejected)
    for item in decoded.rejected:
        assert data[item.offset : item.offset + len(item.raw)] == item.raw
    return decoded


def test_without_a_pattern_each_line_is_a_value():
    assert decode(b"\xef\xbb\xbfa\r\n\n  b c \n \t\n\xc3\xa9").table.to_pylist() == [
        {"line": "a"},
        {"line": "  b c "},
        {"line": "é"},
    ]


def test_a_line_that_is_not_utf8_is_refused():
    decoded = decode(b"a\n\xff\nb")
    assert decoded.table.column("line").to_pylist() == ["a", "b"]
    assert [(item.record, item.reason) for item in decoded.rejected] == [
        (1, "not UTF-8: byte 0xff at byte 1 of the record")
    ]


def test_combined():
    table = decode(ACCESS, pattern="combined").table
    assert table.to_pylist() == [
        {
            "host": "127.0.0.1",
            "ident": None,
            "user": "frank",
            "time": dt.datetime(2000, 10, 10, 20, 55, 36, tzinfo=dt.UTC),
            "method": "GET",
            "path": r"/a?b=\"c\"",
            "protocol": "HTTP/1.0",
            "request": None,
            "status": 200,
            "size": 2326,
            "referer": "http://x/start.html",
            "user_agent": r"Mozilla/4.08 [en] (Win98; \"I\" ;Nav\\)",
        }
    ]


@pytest.mark.parametrize(
    "request_line",
    ["-", "", r"\x16\x03\x01", "GET /a b HTTP/1.1", "GET /a", "get /a HTTP/1.1", r"quote \" here"],
)
def test_what_is_no_request_is_kept_as_it_is(request_line):
    data = f'h - - [01/Jan/2026:00:00:00 +0000] "{request_line}" 400 1'.encode()
    (row,) = decode(data, pattern="common").table.to_pylist()
    assert row["request"] == (request_line if request_line not in {"-", ""} else None)
    assert (row["method"], row["path"], row["protocol"]) == (None, None, None)


def test_common():
    data = b'::1 - - [01/Jan/2026:00:00:00 +0000] "-" 408 -'
    (row,) = decode(data, pattern="common").table.to_pylist()
    assert (row["status"], row["size"], row["user"]) == (408, None, None)
    assert row["time"] == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize("month", range(1, 13))
def test_months_are_read_whatever_the_language_of_the_machine(month):
    moment = dt.datetime(2026, month, 28, 1, 2, 3, tzinfo=dt.UTC)
    name = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month - 1]
    data = f'h - - [28/{name}/2026:03:02:03 +0200] "x" 200 1'.encode()
    assert decode(data, pattern="common").table.column("time").to_pylist() == [moment]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b"<34>Oct 11 22:14:15 mymachine su[230]: 'su root' failed",
            (34, "Oct 11 22:14:15", "mymachine", "su", 230, "'su root' failed"),
        ),
        (
            b"Oct  1 22:14:15 host kernel: eth0: up",
            (None, "Oct  1 22:14:15", "host", "kernel", None, "eth0: up"),
        ),
        (b"Oct  1 22:14:15 host no tag here", (None, "Oct  1 22:14:15", "host", None, None, "no tag here")),
        (b"Oct  1 22:14:15 host app:", (None, "Oct  1 22:14:15", "host", "app", None, None)),
    ],
)
def test_syslog(line, expected):
    (row,) = decode(line, pattern="syslog").table.to_pylist()
    assert tuple(row.values()) == expected


def test_dpkg():
    rows = decode(b"2026-01-02 10:11:12 status installed foo:amd64 1.2", pattern="dpkg").table.to_pylist()
    assert rows == [{"time": "2026-01-02 10:11:12", "action": "status", "detail": "installed foo:amd64 1.2"}]


def test_a_pattern_of_ones_own():
    pattern = r"(?P<level>[A-Z]+) (?:(?P<took>\S+)ms )?(?P<message>.*)"
    data = b"INFO 12ms done\nWARN slow\ninfo no\nINFO soonms x\n\nINFO 7ms \n"
    decoded = decode(data, pattern=pattern, columns={"took": "int"}, keep_line="raw")
    assert decoded.table.to_pylist() == [
        {"level": "INFO", "took": 12, "message": "done", "raw": "INFO 12ms done"},
        {"level": "WARN", "took": None, "message": "slow", "raw": "WARN slow"},
        {"level": "INFO", "took": 7, "message": None, "raw": "INFO 7ms "},
    ]
    assert [(item.record, item.reason) for item in decoded.rejected] == [
        (2, "the line does not match the pattern"),
        (3, """column 'took': expected int, got "soon" (string)"""),
    ]


def test_a_pattern_matches_the_whole_line():
    """What it left out would be lost without a word."""
    assert len(decode(b"ab", pattern="(?P<a>a)").rejected) == 1
    assert len(decode(b"ab", pattern="(?P<a>b)").rejected) == 1
    assert decode(b"ab", pattern="(?P<a>a|ab)").table.to_pylist() == [{"a": "ab"}]


def test_no_pattern_takes_time_for_ever():
    data = b"a" * 30_000 + b"!\n"
    started = time.process_time()
    assert len(decode(data, pattern="(?P<x>(?:a+)+)b").rejected) == 1
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "(?P<a>x"}, r"missing \): \(\?P<a>x; it is run by RE2"),
        ({"pattern": "(?=x)(?P<a>x)"}, "no lookaheads"),
        ({"pattern": r"(?P<a>x)\1"}, "no backreferences"),
        ({"pattern": "combnied"}, "must have groups .* or be one of common, combined, syslog, dpkg"),
        ({"pattern": "(x)"}, "unnamed groups"),
        ({"pattern": "(?P<a>x)(?P<a>y)"}, "names of their own"),
        ({"pattern": "(?P<a>x)", "columns": {"b": "int"}}, "columns: 'b' is not there; the columns are a"),
        ({"pattern": "(?P<a>x)", "keep_line": "a"}, "a group 'a' already"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        LinesCodec(**settings)


def test_columns_may_change_the_types_of_a_named_pattern():
    table = decode(ACCESS, pattern="combined", columns={"status": "string"}).table
    assert table.column("status").to_pylist() == ["200"]


def test_one_bad_line_of_a_hundred_thousand_costs_that_line():
    lines = [ACCESS] * 100_000
    lines[3] = lines[99_999] = b"torn"
    decoded = decode(b"\n".join(lines), pattern="combined")
    assert [item.record for item in decoded.rejected] == [3, 99_999]


class TestEncode:
    def test_the_line_as_it_was(self):
        codec = LinesCodec(pattern="combined", keep_line="raw")
        assert codec.encode(codec.decode(ACCESS).table) == ACCESS + b"\n"

    @pytest.mark.parametrize("value", ["two\nlines", "", None, 5, "cr\r"])
    def test_what_is_not_a_line(self, value):
        with pytest.raises(DataError, match="not lines") as caught:
            LinesCodec().encode(pa.table({"line": pa.array([value])}))
        assert list(caught.value.rows) == [0]

    def test_no_such_column(self):
        with pytest.raises(DataError, match="the column 'line', which is not there"):
            LinesCodec().encode(pa.table({"a": ["x"]}))
