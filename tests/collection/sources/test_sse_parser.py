"""Event streams: what the HTML standard says of every line, however the bytes come."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.collection.sources._cutting import SAMPLE_BYTES
from collectors.collection.sources._sse_parser import Parser


def parse(data, limit=10_000, last_id="", cuts=()):
    """Return the events, in a form to compare, the last id and the time to wait."""
    parser, found = Parser(limit, last_id), []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        found += parser.feed(data[start:end])
    return [(each.data, each.name, each.id) for each in found], parser.last_id, parser.retry


def by_the_book(data, last_id=""):
    """The algorithm of the standard, step by step, over text."""
    text = data.decode(errors="replace").removeprefix("\ufeff")
    lines = re.split("\r\n|\n|\r", text)[:-1]
    events, retry, name, buffer, id_buffer = [], None, "", "", last_id
    for line in lines:
        if line == "":
            last_id = id_buffer
            if buffer != "":
                events.append((buffer.removesuffix("\n").encode(), name or "message", last_id))
            name = buffer = ""
            continue
        if line.startswith(":"):
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            buffer += value + "\n"
        elif field == "id" and "\0" not in value:
            id_buffer = value
        elif field == "retry" and re.fullmatch("[0-9]{1,18}", value):
            retry = int(value)
    return events, last_id, retry


LINE = st.one_of(
    st.sampled_from(
        ["data", "data:", "data: ", "data:  x", "id", "id: ", "id: 7", "id: a\0b", "event: e", "event", ": comment", ":", "", "",
         "retry: 10", "retry: 1x", "retry:", "retry: \u0661", "dat: x", "data : x", " data: x", "\ufeffdata: x", "data: \ufeff"]
    ),
    st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8).map("data: {}".format),
    st.text(alphabet="daticvenr:é \0", max_size=6),
)  # fmt: skip
STREAM = st.builds(
    lambda bom, pairs: (bom + "".join(line + end for line, end in pairs)).encode(),
    st.sampled_from(["", "\ufeff", "\ufeff\ufeff"]),
    st.lists(st.tuples(LINE, st.sampled_from(["\n", "\r", "\r\n", "\n\n"])), max_size=30),
)


@settings(max_examples=500, deadline=None)
@given(STREAM, st.lists(st.integers(0, 400), max_size=20))
def test_as_the_standard_has_it_however_the_bytes_come(data, places):
    cuts = sorted(min(each, len(data)) for each in places)
    assert parse(data, cuts=cuts, last_id="before") == by_the_book(data, "before")
    assert parse(data, cuts=range(1, len(data)), last_id="before") == by_the_book(data, "before")


@pytest.mark.parametrize(
    ("data", "events", "last_id"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [(b"YHOO\n+2\n10", "message", "")], ""),
        (b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
         [(b"first event", "message", "1"), (b"second event", "message", "")], ""),
        (b"data\n\ndata\ndata\n\ndata:", [(b"", "message", ""), (b"\n", "message", "")], ""),
        (b"id: 5\nevent: add\ndata: 1\n\ndata: 2\n\n", [(b"1", "add", "5"), (b"2", "message", "5")], "5"),
        (b"id: 6\n\nid: 7\ndata: torn", [], "6"),
        (b"id: 6\ndata: x\n\nid: 7\ndata: torn\n", [(b"x", "message", "6")], "6"),
        (b"id: a\0b\ndata: x\n\n", [(b"x", "message", "")], ""),
        (b"id: \xff\ndata: \xff\n\n", [(b"\xff", "message", "\ufffd")], "\ufffd"),
    ],
)  # fmt: skip
def test_examples(data, events, last_id):
    """Those of the standard; and an event that the stream broke off in leaves the last id as it was."""
    assert parse(data)[:2] == (events, last_id)


@pytest.mark.parametrize("piece", [1, 7, 1000, 10**7])
def test_an_event_that_is_too_long_is_told_and_the_next_one_is_read(piece):
    data = b"id: 1\ndata: " + b"x" * 200_000 + b"\n\nid: 2\ndata: ok\n\n"
    parser, found = Parser(100_000), []
    for start in range(0, len(data), piece) if piece > 1 else [0]:
        found += parser.feed(data[start : start + piece] if piece > 1 else data)
        assert len(parser._line) + len(parser._data) < 300_000
    long, fine = found
    assert long.reason == "the event has 200,000 bytes, more than max_record (100,000)"
    assert (long.data, long.id) == (b"x" * SAMPLE_BYTES, "1")
    assert (fine.data, fine.id, fine.reason) == (b"ok", "2", None)


def test_many_lines_are_too_long_together():
    parser = Parser(1000)
    (found,) = parser.feed(b"data: 12345678\n" * 200 + b"\n")
    assert found.reason == "the event has 1,799 bytes, more than max_record (1,000)"
    (exact,) = parser.feed(b"data: " + b"y" * 1000 + b"\n\n")
    assert (exact.reason, len(exact.data)) == (None, 1000)


def test_a_line_that_nobody_ends_is_not_kept():
    parser = Parser(1000)
    for _ in range(100):
        assert parser.feed(b": " + b"z" * 10_000) == []
        assert len(parser._line) < 10_000
    (found,) = parser.feed(b"\ndata: after\n\n")
    assert found.data == b"after"


@pytest.mark.parametrize(("field", "what"), [(b"id", "id"), (b"event", "name")])
def test_an_id_or_name_that_no_header_can_have_sets_the_event_aside(field, what):
    parser = Parser(100, "before")
    (found,) = parser.feed(field + b": " + b"n" * 9000 + b"\ndata: x\n\n")
    assert found.reason == f"the {what} of the event has 9,000 bytes, more than 8,192"
    assert parser.last_id == found.id == "before"
