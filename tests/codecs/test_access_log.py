"""The fast paths of access logs give what the regular expression gives, for whatever stands in the lines."""

from __future__ import annotations

import os
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from collectors.codecs import _access_native as native
from collectors.codecs._line_patterns import PATTERNS
from collectors.codecs.lines import LinesCodec, _groups_of

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
TOKEN = st.one_of(
    st.sampled_from(
        [
            "-",
            "a",
            "b.example",
            "[x",
            "x]",
            "",
            " ",
            "a b",
            '"',
            "\\",
            '\\"',
            "é",
            "\t",
            "\r",
            "\x0b",
            "[",
            "] [",
        ]
    ),
    st.text(st.sampled_from('ab-[]" \\\t é'), max_size=4),
)
TIME = st.one_of(
    st.just("10/Oct/2000:13:55:36 -0700"),
    st.sampled_from(
        [
            "1/Oct/2000",
            "29/Feb/2000:23:59:59 +2359",
            "29/Feb/1900:00:00:00 +0000",
            "29/Feb/2024:24:00:00 +0000",
            "31/Apr/2026:12:00:60 +0000",
            "00/Jan/2026:12:60:00 +0000",
            "01/jan/2026:12:00:00 +0000",
            "01/Okt/2026:12:00:00 +0000",
            "01/Jan/0000:00:00:00 +0000",
            "01/Jan/0001:00:00:00 +0100",
            "31/Dec/9999:23:59:59 -1200",
            "01/Jan/2026:12:00:00 +2400",
            "01/Jan/2026:12:00:00 +0060",
            "01/Jan/2026:12:00:00  0000",
        ]
    ),
    st.datetimes().map(
        lambda time: f"{time.day:02}/{MONTHS[time.month - 1]}/{time:%Y:%H:%M:%S}".rjust(20, "0") + " +0130"
    ),
    TOKEN,
)
ASKED = st.one_of(
    st.just("GET / HTTP/1.1"),
    st.sampled_from(
        [
            "",
            "-",
            "GET /",
            "get / HTTP/1.1",
            "GET  HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET / HTTP/x",
            "\\x16\\x03",
        ]
    ),
    TOKEN,
)
STATUS = st.one_of(st.just("200"), st.sampled_from(["20", "2000", "abc", ""]))
SIZE = st.one_of(
    st.just("12"), st.sampled_from(["-", "", "--", "1-", "x", "007", "9" * 18, "9" * 19, "9" * 20])
)


REST = st.one_of(
    st.sampled_from(["", ' "a"b "c"', '  "a" "b"', ' "a" "b" ', ' "a"  "b"', ' "a" "b" "c"', " "]),
    st.builds(lambda referer, agent: f' "{referer}" "{agent}"', TOKEN, TOKEN),
)
FIELDS = {
    "host": (TOKEN, "::1"),
    "ident": (TOKEN, "-"),
    "user": (TOKEN, "bob"),
    "time": (TIME, "10/Oct/2000:13:55:36 -0700"),
    "asked": (ASKED, "GET / HTTP/1.1"),
    "status": (STATUS, "200"),
    "size": (SIZE, "12"),
    "rest": (REST, ' "-" "agent"'),
}


@st.composite
def lines(draw):
    """A good line in which one or two fields are anything."""
    odd = draw(st.sets(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=2))
    part = {name: draw(anything) if name in odd else good for name, (anything, good) in FIELDS.items()}
    return (
        f'{part["host"]} {part["ident"]} {part["user"]} [{part["time"]}] "{part["asked"]}" '
        f"{part['status']} {part['size']}{part['rest']}"
    )


PIECES = [
    *(bytes([code]) for code in b' "[]-:/\\\n\r\xff'),
    *(b"::1 - - [", b"10/Oct/2000:13:55:36 -0700", b'] "GET / HTTP/1.1" ', b"200 12", b' "-" "agent"', b"\n"),
    *(b'1.2.3.4 - bob [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 304 - "http://x/" "Mozilla/5.0 (X11)"\n',)
    * 3,
]
GOOD = st.sampled_from(
    [
        '::1 - - [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326',
        '1.2.3.4 - bob [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 304 - "http://x/" "Mozilla/5.0 (X11)"',
    ]
)


def decoded(name, data, schema=None, *, compiled, cut):
    codec = LinesCodec(pattern=name)
    if not cut:
        codec._pattern = replace(codec._pattern, cut=None)
    with patch.object(native, "_functions", native._functions if compiled else lambda: None):
        return codec.decode(data, schema)


def same(found, expected):
    found.table.validate(full=True)
    assert found.table.equals(expected.table)
    assert found.table.schema == expected.table.schema
    assert found.rejected == expected.rejected
    assert found.read == expected.read


@pytest.mark.parametrize("name", ["common", "combined"])
@settings(max_examples=120, deadline=None)
@given(
    chosen=st.lists(st.one_of(GOOD, lines(), st.sampled_from(["", " ", "\ufeff"])), max_size=8),
    begin=st.sampled_from(["", "", "\ufeff", "\ufeff\ufeff", "\n"]),
    end=st.sampled_from(["\n", "\r\n", "\r\r\n"]),
    last=st.booleans(),
)
def test_the_fields_are_the_same(name, chosen, begin, end, last):
    data = (begin + end.join(chosen) + end * last).encode()
    expected = decoded(name, data, compiled=False, cut=False)
    same(decoded(name, data, compiled=False, cut=True), expected)
    same(decoded(name, data, compiled=True, cut=True), expected)


@settings(max_examples=120, deadline=None)
@given(data=st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join))
def test_damaged_lines_are_the_same(data):
    expected = decoded("combined", data, compiled=False, cut=False)
    same(decoded("combined", data, compiled=True, cut=True), expected)


def test_a_column_that_is_known_already_stays():
    schema = pa.schema([("old", pa.string()), ("size", pa.int64())])
    data = f"{GOOD.elements[1]}\nno log\n{GOOD.elements[1]}\n".encode()
    found = decoded("combined", data, schema, compiled=True, cut=True)
    same(found, decoded("combined", data, schema, compiled=False, cut=False))
    assert [item.record for item in found.rejected] == [1]


@pytest.mark.skipif(
    os.environ.get("COLLECTORS_NATIVE") == "0" or not native._LIBRARY.exists(),
    reason="there is no C compiler, or it is switched off",
)
@pytest.mark.parametrize(("name", "line"), [("common", 0), ("combined", 1)])
def test_an_ordinary_line_is_taken(name, line):
    taken = native.read(GOOD.elements[line].encode(), combined=name == "combined")
    assert (taken.count, taken.others) == (1, [])


@pytest.mark.parametrize(("name", "line"), [("common", 0), ("combined", 1)])
def test_an_ordinary_line_is_cut(name, line):
    text = pa.array([GOOD.elements[line]])
    numbers, groups = PATTERNS[name].cut(text)
    assert numbers.to_pylist() == [0]
    assert groups == _groups_of(replace(PATTERNS[name], cut=None), text)[1]
