"""Lines of JSON by compiled code are, byte for byte, those that msgspec writes of the values."""

from __future__ import annotations

import math
import os
import struct
from unittest.mock import patch

import msgspec
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collectors import json_rows
from collectors.codecs._json_write import to_text
from collectors.json_rows import written
from collectors.storage.records import to_json_lines

pytestmark = pytest.mark.skipif(
    os.environ.get("COLLECTORS_NATIVE") == "0" or not json_rows._LIBRARY.exists(),
    reason="there is no C compiler, or it is switched off",
)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
BITS = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])
DECIMALS = st.builds(
    lambda digits, places, way: (
        math.nextafter(digits / 10**places, way) if way is not None else digits / 10**places
    ),
    st.integers(10**14, 10**17) | st.integers(-(10**6), 10**6),
    st.integers(0, 6),
    st.sampled_from([None, -math.inf, math.inf]),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    st.characters(max_codepoint=127), max_size=30
)
COLUMNS = [
    (pa.null(), st.none()),
    (pa.bool_(), st.booleans()),
    (pa.int64(), INTEGERS),
    (pa.float64(), st.floats() | BITS | DECIMALS),
    (pa.string(), TEXTS),
    (pa.timestamp("us", "UTC"), INTEGERS | st.integers(-(10**17), 3 * 10**17)),
    (pa.timestamp("us"), st.integers(-62135596800 * 10**6, 253402300800 * 10**6 - 1)),
    (pa.timestamp("s", "Europe/Berlin"), st.integers(-62135596800, 253402300799)),
    (pa.timestamp("ns"), INTEGERS),
    (pa.date32(), st.integers(0, 20_000)),
    (pa.int16(), st.integers(-5, 5)),
    (pa.list_(pa.float64()), st.lists(st.none() | st.floats(), max_size=3)),
    (
        pa.struct([("x", pa.int64()), ("é", pa.list_(pa.struct([("t", pa.string())])))]),
        st.fixed_dictionaries(
            {"x": INTEGERS, "é": st.lists(st.fixed_dictionaries({"t": TEXTS}), max_size=2)}
        ),
    ),
]


def times(values, data_type):
    return (
        pa.array(values, pa.int64()).cast(data_type)
        if pa.types.is_timestamp(data_type)
        else pa.array(values, data_type)
    )


@st.composite
def tables(draw):
    """Return tables in some chunks, of which each begins somewhere in a larger one."""
    chosen = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=4))
    names = draw(st.lists(TEXTS, min_size=len(chosen), max_size=len(chosen)))
    parts = []
    for _ in range(draw(st.integers(1, 2))):
        count = draw(st.integers(0, 12))
        columns = [
            times(draw(st.lists(st.none() | value, min_size=count, max_size=count)), kind)
            for kind, value in chosen
        ]
        parts.append(pa.table(columns, names=names).slice(draw(st.integers(0, 3)), draw(st.integers(0, 12))))
    return pa.concat_tables(parts)


def slowly(write, table):
    with patch.object(json_rows, "_functions", lambda: None):
        return write(table)


def test_it_was_built():
    assert json_rows._functions() is not None


@given(tables())
@settings(max_examples=400, deadline=None)
def test_lines_are_the_same(table):
    assert to_json_lines(table) == slowly(to_json_lines, table)


@given(tables())
@settings(max_examples=200, deadline=None)
def test_lines_of_the_codec_are_the_same(table):
    try:
        expected = slowly(to_text, table)
    except Exception as error:
        with pytest.raises(type(error), match="same name|no form in JSON"):
            to_text(table)
    else:
        assert to_text(table) == expected


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | BITS | DECIMALS, min_size=1, max_size=50))
@settings(max_examples=500, deadline=None)
@example(
    [0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 9007199254740993.0, 1e15, 1e16, 1e17]
)
@example([1e-4, 1e-5, 1e-6, 0.3, 2 / 3, 123456.789e3, 1e22, 1e23, -1e21, 4.35, 2.0**-1074, 8.41e21, 2.0**60])
@example([5000000000000.123, 64086553222808.5, 90326962178735.9, 99999999999.9999, 999999999999999.9])
@example([2.0**power for power in range(-1074, 1024)])
@example([float(f"1e{power}") for power in range(-323, 309)])
def test_floats_are_the_shortest(values):
    text = written(pa.table({"f": pa.array(values, pa.float64())}))
    assert text == b"".join(msgspec.json.encode({"f": value}) + b"\n" for value in values)


def test_what_it_takes():
    table = pa.table({"i": [1, None], "t": pa.array([0, 1], pa.timestamp("us", "UTC")), "l": [[1.5], []]})
    assert written(table) == (
        b'{"i":1,"t":"1970-01-01T00:00:00Z","l":[1.5]}\n{"i":null,"t":"1970-01-01T00:00:00.000001Z","l":[]}\n'
    )
    assert written(pa.table({"d": pa.array([1], pa.date32())})) is None
    assert written(pa.table({"t": pa.array([2**60], pa.timestamp("us"))})) is None
    assert written(table.slice(0, 0)) == b""
