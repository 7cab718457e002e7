"""Lines as an array are the lines that there are, wherever there is such an array."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.codecs._text_lines import plain_lines, split_lines

PIECES = st.sampled_from(
    [b"a", b"bc", b"", b" ", b"\t", b"\r", b" a ", b"\xef\xbb\xbf", b"\xc3\xa9", b"\xff", b"\x0b", b"\x00"]
)


@settings(max_examples=200)
@given(st.lists(st.lists(PIECES, max_size=3).map(b"".join), max_size=6).map(b"\n".join))
def test_the_array_has_the_same_lines(data):
    lines = plain_lines(data)
    if lines is not None:
        assert [line.encode() for line in lines.to_pylist()] == split_lines(data).raw


def test_ordinary_lines_are_an_array():
    assert plain_lines(b"a\n b\n\xc3\xa9 c").to_pylist() == ["a", " b", "é c"]
    assert plain_lines(b"a\n").to_pylist() == ["a"]
    assert [plain_lines(data) for data in (b"", b"\n", b"a\n\nb", b"\na", b"a\n \n", b"a\r\nb", b"\xff")] == [
        None
    ] * 7
