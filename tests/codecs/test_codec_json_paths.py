"""The fast and the slow path of JSON agree with each other and with the standard library, whatever the bytes."""

from __future__ import annotations

import json
from unittest.mock import patch

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collectors.codecs import _json_native
from collectors.codecs._json_slow import SlowPath
from collectors.codecs._text_lines import split_lines
from collectors.codecs.ndjson import NdjsonCodec
from collectors.testing import hostile

KEYS = st.sampled_from(["a", "b", "c", "", "ключ", 'q"x', "nul\0l"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([*hostile.INTEGERS, 2**63, 2**64, 10**30])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["x", "", "2020-01-01", "😀", "a\nb", '":', "[{"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=5,
)
RECORDS = st.dictionaries(KEYS, VALUES, max_size=4)
SIMPLE = st.fixed_dictionaries(
    {},
    optional={
        "a": st.integers(-9, 9),
        "b": st.text(max_size=3),
        "c": st.floats(-9, 9),
        "d": st.lists(st.integers(0, 9), max_size=2),
    },
)


@st.composite
def lines(draw):
    """Return the line of a record, sometimes damaged, sometimes no record at all."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.sampled_from([line for line in hostile.JSON_LINES if len(line) < 100]))
    record = draw(SIMPLE if kind < 6 else RECORDS)
    ascii_only = draw(st.booleans())
    line = json.dumps(
        record, ensure_ascii=ascii_only, separators=draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    ).encode()
    if kind == 9:
        place = draw(st.integers(0, len(line) - 1))
        line = (
            line[:place]
            + draw(st.sampled_from([b"", b"\xff", b"{", b"NaN", b'"', b"\\", b"\n", b" ", b"0", b"}{"]))
            + line[place + 1 :]
        )
    return line


@st.composite
def chunks(draw):
    separator = draw(st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\n\n"]))
    return separator.join(draw(st.lists(lines(), min_size=1, max_size=8))) + draw(
        st.sampled_from([b"", b"\n"])
    )


def slowly(codec, data, schema):
    """Return what comes out line by line, without compiled code."""
    known = codec._lines.known(schema)
    with patch.object(_json_native, "_functions", lambda: None):
        return SlowPath(split_lines(data), known, codec._lines._as_text()).decode_all()


@given(
    before=st.none() | chunks(),
    data=chunks(),
    declared=st.sampled_from([{}, {"a": "string"}, {"a": "float"}]),
)
@settings(max_examples=200, deadline=None)
@example(before=None, data=b'{"a":{}}{"a":{}}\n{"a":\n{}}\n', declared={})
@example(before=b'{"a":1}', data=b'{"a":9007199254740993}\n{"a":1.5}\n{"b":1}', declared={})
def test_both_paths_agree(before, data, declared):
    codec = NdjsonCodec(columns=declared)
    schema = None if before is None else codec.decode(before).table.schema
    decoded = codec.decode(data, schema)
    assert decoded.read == decoded.table.num_rows + len(decoded.rejected) == len(split_lines(data).raw)
    slow = slowly(codec, data, schema)
    assert decoded.table.schema == slow.table.schema
    assert decoded.rejected == slow.rejected
    assert str(decoded.table.to_pylist()) == str(slow.table.to_pylist())
    if schema is not None:
        assert decoded.table.schema.names[: len(schema)] == schema.names


@given(records=st.lists(RECORDS | SIMPLE, min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_values_are_those_of_the_standard_library(records):
    data = "\n".join(map(json.dumps, records)).encode()
    decoded = NdjsonCodec().decode(data)
    refused = {item.record for item in decoded.rejected}
    good = [record for number, record in enumerate(records) if number not in refused]
    for row, record in zip(decoded.table.to_pylist(), good, strict=True):
        assert same(row, record), (row, record)


def same(got, wanted):
    """Return whether a value is the one that was written; what an object lacks is null, an empty one may be null."""
    if isinstance(wanted, dict):
        return (got is None and not wanted) or (
            isinstance(got, dict)
            and all(same(value, wanted.get(key)) for key, value in got.items())
            and set(wanted) <= set(got)
        )
    if isinstance(wanted, list):
        return isinstance(got, list) and len(got) == len(wanted) and all(map(same, got, wanted))
    return got == wanted and (type(got) is type(wanted) or (type(got) is float and type(wanted) is int))


@given(
    data=st.binary(max_size=60)
    | st.lists(
        st.sampled_from(
            [b"{", b"}", b'"a"', b":", b"1", b"[", b"]", b",", b"null", b"\n", b" ", b"NaN", b"\\", b"\xff"]
        ),
        max_size=20,
    ).map(b"".join)
)
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_it_raise_or_lose_count(data):
    for schema in (None, pa.schema([("a", pa.int64())])):
        decoded = NdjsonCodec().decode(data, schema)
        assert decoded.read == decoded.table.num_rows + len(decoded.rejected) == len(split_lines(data).raw)
        decoded.table.validate(full=True)


@given(records=st.lists(SIMPLE, max_size=12), steps=st.lists(st.integers(1, 40), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_where_a_stream_is_cut_makes_no_difference(records, steps):
    codec = NdjsonCodec()
    schema = pa.schema(
        [("a", pa.int64()), ("b", pa.string()), ("c", pa.float64()), ("d", pa.list_(pa.int64()))]
    )
    data = "\n".join(map(json.dumps, records)).encode()
    whole = codec.decode(data, schema)
    tables, held, place = [schema.empty_table()], b"", 0
    while place < len(data) or held:
        size = steps[len(tables) % len(steps)]
        held += data[place : place + size]
        place += size
        end = codec.cut(held, final=place >= len(data))
        decoded = codec.decode(held[:end], tables[-1].schema)
        assert decoded.rejected == []
        tables.append(decoded.table)
        held = held[end:]
    assert pa.concat_tables(tables).equals(whole.table)
