"""The fast path of access logs gives what the regular expression gives, for whatever stands in the lines."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.codecs._line_patterns import PATTERNS
from collectors.codecs.lines import LinesCodec, _groups_of

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
TIME = st.one_of(st.just("10/Oct/2000:13:55:36 -0700"), st.just("1/Oct/2000"), TOKEN)
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
SIZE = st.one_of(st.just("12"), st.sampled_from(["-", "", "--", "1-", "x"]))


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


GOOD = st.sampled_from(
    [
        '::1 - - [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326',
        '1.2.3.4 - bob [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 304 - "http://x/" "Mozilla/5.0 (X11)"',
    ]
)


@pytest.mark.parametrize("name", ["common", "combined"])
@settings(max_examples=200)
@given(chosen=st.lists(st.one_of(GOOD, lines()), min_size=1, max_size=8))
def test_the_fields_are_the_same(name, chosen):
    data = "\n".join(chosen).encode()
    slow = LinesCodec(pattern=name)
    slow._pattern = replace(slow._pattern, cut=None)
    fast, expected = LinesCodec(pattern=name).decode(data), slow.decode(data)
    assert fast.table.equals(expected.table)
    assert fast.rejected == expected.rejected
    assert fast.read == expected.read


@pytest.mark.parametrize(("name", "line"), [("common", 0), ("combined", 1)])
def test_an_ordinary_line_is_cut(name, line):
    text = pa.array([GOOD.elements[line]])
    numbers, groups = PATTERNS[name].cut(text)
    assert numbers.to_pylist() == [0]
    assert groups == _groups_of(replace(PATTERNS[name], cut=None), text)[1]
