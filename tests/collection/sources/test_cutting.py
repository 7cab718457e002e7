"""Streams cut into whole records: for any bytes, any blocks and any limit."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from collectors.collection.base import LineFraming
from collectors.collection.sources._cutting import SAMPLE_BYTES, Cutter


class Header(LineFraming):
    def preamble(self, head):
        return head.find(b"\n") + 1


def pieces(data, block, limit, framing=None):
    cutter = Cutter(framing or LineFraming(), limit)
    found = []
    for start in range(0, len(data), block):
        cutter.feed(data[start : start + block])
        while (piece := cutter.take()) is not None:
            found.append(piece)
    cutter.finish()
    while (piece := cutter.take()) is not None:
        found.append(piece)
    return found


lines = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=20)


@settings(max_examples=500)
@given(lines, st.booleans(), st.integers(1, 20), st.data())
@example([b"x" * 10, b"y" * 11], True, 10, None)
def test_every_line_comes_once_or_is_refused_exactly_when_it_is_too_long(records, ends, limit, data):
    block = limit if data is None else data.draw(st.integers(1, limit))
    stream = b"\n".join(records) + (b"\n" if ends and records else b"")
    whole = stream.split(b"\n")
    if not whole[-1]:
        whole.pop()
    found = pieces(stream, block, limit)
    assert [piece.start for piece in found] == [0, *[piece.end for piece in found]][: len(found)]
    assert not found or found[-1].end == len(stream)
    kept, refused = [], []
    for piece in found:
        if piece.reason is None:
            assert piece.raw == stream[piece.start : piece.end]
            kept += piece.raw.removesuffix(b"\n").split(b"\n")
        else:
            record = stream[piece.start : piece.end].removesuffix(b"\n")
            assert piece.raw == record
            assert piece.reason == f"record of {len(record)} bytes is longer than max_record ({limit} bytes)"
            refused.append(record)
    assert kept == [line for line in whole if len(line) <= limit]
    assert refused == [line for line in whole if len(line) > limit]


@given(
    lines,
    st.binary(min_size=1, max_size=20).map(lambda line: line.replace(b"\n", b"x")),
    st.binary(max_size=40),
    st.integers(1, 20),
    st.booleans(),
)
@settings(max_examples=300)
@example([], b"2,25", b"0\n3,4\n", 9, True)
@example([], b"2,25", b"\n3,4\n", 9, True)
@example([], b"2,25", b"\r\n3,4\n", 9, False)
def test_the_rest_of_a_line_that_was_taken_for_whole_is_refused(records, last, more, block, anew):
    before = b"".join(line + b"\n" for line in records) + last
    cutter = Cutter(LineFraming(), 10**6)
    cutter.feed(before)
    cutter.finish()
    while cutter.take() is not None:
        pass
    assert cutter.offset == len(before)
    if anew:
        cutter = Cutter(LineFraming(), 10**6, cutter.offset, cutter.last, before)
    found = []
    for start in range(0, len(more), block):
        cutter.feed(more[start : start + block])
        while (piece := cutter.take()) is not None:
            found.append(piece)
    cutter.finish()
    while (piece := cutter.take()) is not None:
        found.append(piece)
    assert b"".join(more[piece.start - len(before) : piece.end - len(before)] for piece in found) == more
    goes_on = bool(more) and not more.startswith((b"\n", b"\r")) and not last.endswith(b"\r")
    assert [piece.reason is not None for piece in found] == [goes_on, *[False] * (len(found) - 1)][
        : len(found)
    ]
    if goes_on:
        assert found[0].raw == more.partition(b"\n")[0]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50), st.integers(8, 64))
def test_every_piece_begins_with_the_head_of_the_stream(numbers, block):
    stream = b"number\n" + b"".join(b"%d\n" % number for number in numbers)
    found = pieces(stream, block, 1000, Header())
    assert all(piece.raw.startswith(b"number\n") for piece in found)
    assert all(stream[piece.start : piece.end] == piece.raw[piece.lead :] for piece in found)
    assert b"".join(piece.raw[7:] for piece in found) == stream[7:]


def test_a_line_without_end_is_skipped_in_bounded_memory():
    cutter = Cutter(LineFraming(), 2**20)
    for _ in range(200):
        cutter.feed(b"x" * 2**20)
        assert cutter.take() is None
        assert len(cutter._held) <= 2**20
    cutter.feed(b"\nshort\n")
    refused, short = cutter.take(), cutter.take()
    assert len(refused.raw) == SAMPLE_BYTES
    assert refused.reason == f"record of {200 * 2**20} bytes is longer than max_record (1 MiB)"
    assert (short.raw, short.start) == (b"short\n", 200 * 2**20 + 1)
