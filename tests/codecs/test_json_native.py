"""The compiled reader of JSON: what it takes is what pyarrow and the standard library read, and it takes no more."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collectors.codecs import _json_native as native
from collectors.codecs.ndjson import NdjsonCodec
from collectors.testing import hostile

pytestmark = pytest.mark.skipif(
    os.environ.get("COLLECTORS_NATIVE") == "0" or not any(map(shutil.which, ("cc", "gcc", "clang"))),
    reason="there is no C compiler, or it is switched off: JSON is read by pyarrow",
)

FLAT = pa.schema(
    [("i", pa.int64()), ("f", pa.float64()), ("s", pa.string()), ("b", pa.bool_()), ("n", pa.null())]
)
NESTED = pa.schema(
    [
        ("o", pa.struct([("x", pa.int64()), ("y", pa.struct([("z", pa.string())]))])),
        ("l", pa.list_(pa.int64())),
        ("lo", pa.list_(pa.struct([("k", pa.string()), ("v", pa.list_(pa.float64()))]))),
        ("i", pa.int64()),
    ]
)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=30)
FLAT_RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "i": st.none() | INTEGERS,
        "f": st.none() | FLOATS | st.integers(-9, 9),
        "s": st.none() | TEXTS,
        "b": st.none() | st.booleans(),
        "n": st.none(),
    },
)
NESTED_RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "o": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "x": INTEGERS,
                "y": st.none() | st.fixed_dictionaries({}, optional={"z": TEXTS}),
            },
        ),
        "l": st.none() | st.lists(st.none() | INTEGERS, max_size=4),
        "lo": st.lists(
            st.none() | st.fixed_dictionaries({}, optional={"k": TEXTS, "v": st.lists(FLOATS, max_size=3)}),
            max_size=3,
        ),
        "i": INTEGERS,
    },
)


@st.composite
def texts(draw, records):
    """Return records as a writer with its own idea of spaces, escapes and line ends would write them."""
    ascii_only = draw(st.booleans())
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " : ")]))
    end = draw(st.sampled_from(["\n", "\r\n", " \n"]))
    lines = [json.dumps(each, ensure_ascii=ascii_only, separators=separators) for each in records]
    return (end.join(lines) + draw(st.sampled_from(["", end]))).encode()


def of_schema(value, data_type):
    """Return what a column of this type holds for a value of JSON."""
    if value is None or pa.types.is_null(data_type):
        return None
    if pa.types.is_struct(data_type):
        return {field.name: of_schema(value.get(field.name), field.type) for field in data_type}
    if pa.types.is_list(data_type):
        return [of_schema(item, data_type.value_type) for item in value]
    return float(value) if pa.types.is_floating(data_type) else value


def bits(value):
    """Return a value in which floats are their bits, so that -0.0 is not 0.0."""
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, list):
        return [bits(item) for item in value]
    return struct.pack("<d", value) if isinstance(value, float) else value


def test_it_was_built():
    assert native._functions() is not None


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_values_are_those_of_the_standard_library(data):
    schema, kind = data.draw(st.sampled_from([(FLAT, FLAT_RECORDS), (NESTED, NESTED_RECORDS)]))
    records = data.draw(st.lists(kind, min_size=1, max_size=20))
    table = native.read(data.draw(texts(records)), schema)
    if table is None:  # a half of a character, which UTF-8 has no bytes for
        assert any("\\ud" in json.dumps(record) for record in records)
        return
    table.validate(full=True)
    assert table.schema == schema
    wanted = [of_schema(record, pa.struct(list(schema))) for record in records]
    assert bits(table.to_pylist()) == bits(wanted)


@given(value=FLOATS, form=st.sampled_from(["{!r}", "{:.3f}", "{:.17e}", "{:.25e}", "{:E}", "{:.1f}"]))
@settings(max_examples=500, deadline=None)
@example(value=5e-324, form="{!r}")
@example(value=2.2250738585072011e-308, form="{:.25e}")
@example(value=9007199254740993.0, form="{:.1f}")
@example(value=1.7976931348623157e308, form="{!r}")
@example(value=-0.0, form="{!r}")
def test_floats_are_rounded_once(value, form):
    text = form.format(value)
    if "." not in text and "e" not in text.lower():
        text += ".0"
    table = native.read(f'{{"f":{text}}}'.encode(), FLAT)
    if table is None:  # a nought in many digits is left to others, and what is next to nothing
        assert not value
        return
    assert bits(table["f"].to_pylist()) == bits([float(text)])


@pytest.mark.parametrize(
    "line",
    [
        b'{"i":1.0}',
        b'{"i":1e3}',
        b'{"i":9223372036854775808}',
        b'{"i":-9223372036854775809}',
        b'{"i":99999999999999999999999}',
        b'{"i":18446744073709551617}',
        b'{"f":9007199254740993}',
        b'{"f":1e999}',
        b'{"f":NaN}',
        b'{"f":-Infinity}',
        b'{"f":0x10}',
        b'{"i":01}',
        b'{"i":-}',
        b'{"i":+1}',
        b'{"f":1.}',
        b'{"f":.5}',
        b'{"f":1e}',
        b'{"f":1,5}',
        b'{"i":"1"}',
        b'{"s":1}',
        b'{"b":1}',
        b'{"b":truth}',
        b'{"b":tru',
        b'{"n":1}',
        b'{"n":{"a":1}}',
        b'{"x":1}',
        b'{"i":1,"i":1}',
        b'{"i":1,"s":"","i":2}',
        b'{"i":1}{"i":2}',
        b'{"i":1} x',
        b'{"i":1,}',
        b'{,"i":1}',
        b'{"i" 1}',
        b'{"i":1 "s":""}',
        b'{"i":\n1}',
        b'{"s":"a\nb"}',
        b'{"s":"\x00"}',
        b'{"s":"\\x"}',
        b'{"s":"\\ud800"}',
        b'{"s":"\\udc00\\ud800"}',
        b'{"s":"\\ud800\\u0041"}',
        b'{"s":"\\u12"}',
        b'{"s":"',
        b'{"s":"\\',
        b'{"s":"\\u',
        b'{"i":1',
        b'{"i":',
        b'{"i"',
        b'{"',
        b"{",
        b"[]",
        b"null",
        b"1",
        b"\x00",
        b'{"i":1}\x00',
        b'{"i":1}\n\x00\n{"i":2}',
        b'{"\\u0069":1}',
    ],
    ids=repr,
)
def test_what_is_in_doubt_is_left_to_others(line):
    assert native.read(line, FLAT) is None
    assert native.read(b'{"i":1}\n' + line + b'\n{"i":2}', FLAT) is None


@pytest.mark.parametrize("line", [line for line in hostile.JSON_LINES if len(line) < 10_000], ids=repr)
def test_hostile_lines_are_refused_as_without_it(line, monkeypatch):
    data = b'{"a":1}\n' + line + b'\n{"a":2}\n'
    schema = pa.schema([("a", pa.int64())])
    with_it = NdjsonCodec().decode(data, schema)
    monkeypatch.setattr(native, "_functions", lambda: None)
    without = NdjsonCodec().decode(data, schema)
    assert (with_it.table.to_pylist(), with_it.rejected) == (without.table.to_pylist(), without.rejected)


def test_columns_that_json_writes_otherwise_are_left_to_others():
    for name in ('q"x', "back\\slash", "nul\0l", "\ud800"):
        assert native._plan_of(pa.schema([("a", pa.int64())])) is not None
        try:
            schema = pa.schema([(name, pa.int64())])
        except UnicodeEncodeError:
            continue
        assert native.read(b'{"a":1}', schema) is None
    assert native.read(b'{"q"x":1}', pa.schema([('q"x', pa.int64())])) is None


@pytest.mark.parametrize("levels", [30, 59, 60, 61, 62, 63, 64, 65, 99, 100])
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"b":', b"}")], ids=["lists", "objects"])
def test_deep_nesting_makes_no_difference(levels, begin, end, monkeypatch):
    """Arrow takes over 64 levels, and records may have 100."""
    data = b'{"a":' + levels * begin + b"1" + levels * end + b"}\n"
    decoded = NdjsonCodec().decode(data)
    again = NdjsonCodec().decode(data, decoded.table.schema)
    monkeypatch.setattr(native, "_functions", lambda: None)
    without = NdjsonCodec().decode(data)
    assert (decoded.table, decoded.rejected) == (without.table, without.rejected)
    assert again.table == without.table


def test_two_members_of_one_name_are_left_to_others():
    schema = pa.schema([("o", pa.struct([pa.field("a", pa.int64()), pa.field("a", pa.int64())]))])
    assert native.read(b'{"o":{"a":1,"a":2}}', schema) is None


@pytest.mark.parametrize("text", ["0e309", "-0e999", "0.0e310", "0." + 200_000 * "0" + "e-9999999"], ids=len)
def test_a_nought_with_a_large_exponent_is_read_as_without_it(text, monkeypatch):
    data = b'{"f":1.5}\n{"f":' + text.encode() + b"}\n"
    decoded = NdjsonCodec().decode(data)
    monkeypatch.setattr(native, "_functions", lambda: None)
    without = NdjsonCodec().decode(data)
    assert (decoded.table, decoded.rejected) == (without.table, without.rejected)


def test_types_that_json_does_not_have_are_left_to_others():
    for data_type in (pa.int32(), pa.date32(), pa.decimal128(9, 2), pa.list_(pa.int32()), pa.large_string()):
        assert native.read(b"{}", pa.schema([("a", data_type)])) is None


def test_times_are_read_from_its_text():
    codec = NdjsonCodec(columns={"at": "timestamp"})
    data = b'{"at":"2026-01-02T03:04:05Z","i":1}\n' * 3
    assert native.read(data, pa.schema([("at", pa.string()), ("i", pa.int64())])) is not None
    decoded = codec.decode(data)
    assert decoded.table.schema.field("at").type == pa.timestamp("us", tz="UTC")
    assert decoded.rejected == []


def test_many_rows_and_long_texts():
    text = "x" * 100_000 + "😀\n" + '"' * 1000
    records = [{"i": n, "s": text[n % 50 :] if n % 100 == 0 else str(n), "f": n / 7} for n in range(20_000)]
    table = native.read("\n".join(map(json.dumps, records)).encode(), FLAT)
    table.validate(full=True)
    assert table.select(["i", "s", "f"]).to_pylist() == records


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("COLLECTORS_NATIVE", "0")
    native._functions.cache_clear()
    try:
        assert native.read(b'{"i":1}', FLAT) is None
        assert NdjsonCodec().decode(b'{"i":1}').table.to_pylist() == [{"i": 1}]
    finally:
        monkeypatch.undo()
        native._functions.cache_clear()


@given(st.binary(max_size=400))
def test_lines_are_counted(text):
    assert native.count_lines(text) == (text.count(b"\n"), text.isascii())


@pytest.mark.parametrize("size", [127, 128, 129, 256, 100_000])
def test_more_lines_than_a_byte_counts(size):
    assert native.count_lines(b"\n" * size) == (size, True)
    assert native.count_lines(b"\n" * size + b"\xff") == (size, False)


LARGE_BEHIND_SMALL = """
import resource
import pyarrow as pa
from collectors.codecs import _json_native as native

text = b'{"l":[1]}\\n' * 8000 + b'{"l":[' + b"1," * (4 << 20) + b'1]}\\n'
schema = pa.schema([("l", pa.list_(pa.int64()))])
assert native.read(b'{"l":[1]}', schema) is not None
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (512 << 20), resource.RLIM_INFINITY))
table = native.read(text, schema)
assert table is not None, "it asks for more memory than there is"
assert table["l"].chunk(0).values.to_pylist()[-3:] == [1, 1, 1]
assert len(table["l"].chunk(0).values) == 8000 + (4 << 20) + 1
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured as Linux does")
def test_a_large_record_behind_small_ones_takes_memory_for_what_there_is():
    """How much a buffer needs in the end was told from what was read before the record, with what it has from it."""
    subprocess.run([sys.executable, "-c", LARGE_BEHIND_SMALL], check=True)
