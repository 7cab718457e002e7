"""JSON documents: what their records are, and what becomes of broken ones."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.codecs.json import JsonCodec
from collectors.codecs.ndjson import NdjsonCodec
from collectors.testing import hostile


def decode(data, schema=None, **settings_):
    decoded = JsonCodec(**settings_).decode(data, schema)
    assert decoded.read == decoded.table.num_rows + len(decoded.rejected)
    return decoded


@pytest.mark.parametrize("data", [b'[{"a":1},{"a":2}]', b'\xef\xbb\xbf [\n {"a":\n 1},\r\n {"a": 2}\n]\n'])
def test_an_array_of_objects(data):
    assert decode(data).table.to_pylist() == [{"a": 1}, {"a": 2}]


def test_one_object_is_one_record():
    assert decode(b'{"a":\n {"b": [1, 2]}}').table.to_pylist() == [{"a": {"b": [1, 2]}}]


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b'{"data":{"items":[{"a":1},{"a":2}]},"next":null}', [{"a": 1}, {"a": 2}]),
        (b'{"data":{"items":{"a":1}}}', [{"a": 1}]),
        (b'{"data":{"items":[]}}', []),
    ],
)
def test_records_inside_of_a_document(data, rows):
    assert decode(data, records="data.items").table.to_pylist() == rows


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"data":{}}', "there is no 'data.items' in the document"),
        (b'{"data":[]}', "there is no 'data.items' in the document"),
        (b"[1]", "there is no 'data' in the document"),
        (b'{"data":{"items":[{"a":1}],"items":[{"a":2}]}}', 'the key "items" is there twice'),
        (b'{"data":{"items":[{"a":1}],"items":[{"a":1}]}}', 'the key "items" is there twice'),
        (
            b'{"data":{"items":[{"a":1}]}',
            "the document is not JSON: Expecting ',' delimiter at line 1, column 28",
        ),
    ],
)
def test_records_that_are_not_where_they_should_be(data, reason):
    decoded = decode(data, records="data.items")
    assert [(item.raw, item.reason) for item in decoded.rejected] == [(data, reason)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'[{"a":1},\n {"a":2},]', "the document is not JSON: Expecting value at line 2, column 10"),
        (b'[{"a":1}', "the document is not JSON: Expecting ',' delimiter at line 1, column 9"),
        (b'{"a":1}{"a":2}', "the document is not JSON: Extra data at line 1, column 8"),
        (b"[" * 100_000, "the document is nested deeper than 100 levels"),
        (b"[" * 100_000 + b"]" * 100_000, "the document is nested deeper than 100 levels"),
    ],
)
def test_a_broken_document_is_one_record(data, reason):
    decoded = decode(data)
    assert [(item.raw, item.reason) for item in decoded.rejected] == [(data, reason)]


def test_a_bad_element_costs_that_element_alone():
    elements = [
        b'{"a":1}',
        b"null",
        b'{"a":"x"}',
        b'{"a":NaN}',
        b'{"a":1,"a":2}',
        b'{"b":"\\ud800,]"}',
        b'{"b":"\xff"}',
        b'{"a":2}',
    ]
    decoded = decode(b"[" + b" , ".join(elements) + b"]")
    assert decoded.table.column("a").to_pylist() == [1, 2]
    assert [item.raw for item in decoded.rejected] == elements[1:-1]
    assert [item.record for item in decoded.rejected] == [1, 2, 3, 4, 5, 6]


def test_an_element_that_is_nested_too_deep_costs_that_element_alone():
    deep = b'{"a":' + b"[" * 200 + b"]" * 200 + b"}"
    decoded = decode(b'[{"a":[]},' + deep + b"]")
    assert decoded.table.num_rows == 1
    assert [(item.raw, item.reason) for item in decoded.rejected] == [(deep, "nested deeper than 100 levels")]


def test_a_deep_element_behind_a_bad_scalar():
    decoded = decode(b'[{"a":NaN},' + b"[" * 5000 + b"]" * 5000 + b"]")
    assert decoded.read == len(decoded.rejected) == 1


def test_values_follow_the_rules_of_ndjson():
    decoded = decode(b'[{"a":9007199254740993},{"a":1.5}]', pa.schema([("a", pa.int64())]))
    assert decoded.table.to_pylist() == [{"a": 9007199254740993}]
    assert decode(b'[{"a":1.10}]', columns={"a": "string"}).table.to_pylist() == [{"a": "1.10"}]


@given(
    records=st.lists(
        st.dictionaries(st.sampled_from("abc"), st.integers(-5, 5) | st.text(max_size=4) | st.none())
    ),
    indent=st.none() | st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_the_layout_of_a_document_makes_no_difference(records, indent):
    decoded = decode(json.dumps(records, indent=indent).encode())
    lines = NdjsonCodec().decode("\n".join(map(json.dumps, records)).encode())
    assert decoded.table.equals(lines.table)
    assert [(item.record, item.reason) for item in decoded.rejected] == [
        (item.record, item.reason) for item in lines.rejected
    ]


@given(
    data=st.lists(
        st.sampled_from(
            [b"[", b"]", b"{", b"}", b'"a"', b":", b",", b"1", b"NaN", b'"\\ud800"', b"\xff", b"\n"]
        )
    ).map(b"".join)
)
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_it_raise_or_lose_count(data):
    for records in ("", "a"):
        decode(data, records=records)
        decode(b"[" + data + b"]", records=records)


def test_a_document_is_not_cut():
    codec = JsonCodec()
    assert codec.cut(b"[{}]\n", final=False) == 0
    assert codec.cut(b"[{}]\n", final=True) == 5
    assert not codec.joinable


def test_encode_writes_an_array():
    assert JsonCodec().encode(pa.table({"a": [1, 2]})) == b'[{"a":1},\n{"a":2}]\n'
    assert json.loads(JsonCodec().encode(hostile.plain_table())) == hostile.plain_table().to_pylist()
