"""What a look at a chunk finds, format by format, and what it says of chunks that cannot be read."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from collectors.collection.metadata import SAMPLE_BYTES, SAMPLE_RECORDS, MetadataParser
from collectors.models import CollectedData, ParsedMetadata


def parsed(raw, data_format="ndjson", parser=None, **metadata):
    chunk = CollectedData("s", datetime.now(UTC), data_format, "test", raw, metadata)
    return asyncio.run((parser or MetadataParser()).parse(chunk))


@pytest.mark.parametrize(
    ("data_format", "raw", "schema"),
    [
        (
            "ndjson",
            b'{"a": 1, "b": "x"}\n{"a": 2.5, "c": null}\n',
            {"a": "float", "b": "string", "c": "null"},
        ),
        ("ndjson", b'\xef\xbb\xbf{"a": true}\r\n\r\n{"a": {"b": 1}}', {"a": "bool | struct"}),
        ("json", b'[{"a": 1}, {"a": [1]}]', {"a": "int | list"}),
        ("json", b'{"a": null}', {"a": "null"}),
        ("csv", b'a,b\n1,"x\ny"\n', {"a": "string", "b": "string"}),
        ("lines", b"one\ntwo", {"line": "string"}),
        ("ndjson", b"", {}),
        ("parquet", b"PAR1\xff", {}),
    ],
)
def test_schema(data_format, raw, schema):
    found = parsed(raw, data_format)
    assert (found.schema, found.is_valid, found.validation_errors) == (schema, True, [])
    assert asyncio.run(MetadataParser().validate(found))


@pytest.mark.parametrize(
    ("data_format", "raw", "quality"),
    [
        ("ndjson", b'{"a": 1}\n{"a": 1}\n{"a": null}\n{"b": ""}', (1.0, 2 / 8, 3 / 4)),
        ("ndjson", b'{"a": 1}\nnot json\n[1]\n{"a": 2}', (0.5, 1.0, 1.0)),
        ("ndjson", b"not json", (0.0, 1.0, 1.0)),
        ("csv", b"a,b\n1,2\n3\n,4\n", (1.0, 4 / 6, 1.0)),
        ("csv", b"a,b\n1,2\n1,2,3\n", (0.5, 1.0, 1.0)),
        ("csv", b"a,b\n1,2\n3,\xff\n", (0.5, 1.0, 1.0)),
        ("csv", b'a\n1\n"x', (0.5, 1.0, 1.0)),
        ("lines", b"one\n\xff\ntwo", (2 / 3, 1.0, 1.0)),
        ("lines", b"", (1.0, 1.0, 1.0)),
        ("unknown", b"\0", (1.0, 1.0, 1.0)),
    ],
)
def test_quality(data_format, raw, quality):
    found = parsed(raw, data_format).quality_indicators
    assert (found["validity"], found["completeness"], found["uniqueness"]) == pytest.approx(quality)


@pytest.mark.parametrize(
    ("data_format", "raw", "message"),
    [
        ("ndjson", b'{"a": 1}\n{"a": }', "record 2: "),
        ("ndjson", b"7", "record 1: expected an object, got int"),
        ("ndjson", b'{"a": "\xff"}', "record 1: "),
        ("ndjson", b"[" * 200_000, "record 1: "),
        ("json", b"{", "json: "),
        ("json", b"[1, {}]", "1 elements are not objects"),
        ("csv", b"a,b\n1,2,3\n", "record 1: more fields than the header has, from '3' on"),
        ("csv", b'a\n1\n"x', "record 2: unexpected end of data"),
        ("csv", b"a,b\n1,2\n3,\xff\n", "record 2: bytes that are not UTF-8"),
        ("lines", b"one\n\xff", "record 2: 'utf-8'"),
    ],
)
def test_what_cannot_be_read_is_told(data_format, raw, message):
    found = parsed(raw, data_format)
    assert not found.is_valid
    assert any(message in error for error in found.validation_errors), found.validation_errors
    assert not asyncio.run(MetadataParser().validate(found))


def test_attributes_say_where_it_is_from():
    found = parsed(b'{"a": 1}', path="x.ndjson", source_id="a liar")
    assert found.source_attributes == {
        "source_id": "s",
        "data_format": "ndjson",
        "collection_method": "test",
        "bytes": 8,
        "sampled_records": 1,
        "path": "x.ndjson",
    }


@pytest.mark.parametrize("name", ["source_id", "data_format", "timestamp"])
def test_a_label_that_is_missing_is_told(name):
    chunk = CollectedData("s", datetime.now(UTC), "lines", "test", b"", {})
    setattr(chunk, name, "" if name != "timestamp" else None)
    assert asyncio.run(MetadataParser().parse(chunk)).validation_errors == [f"{name} is missing"]


@pytest.mark.parametrize("raw", [b'{"a": 1}\n' * (SAMPLE_RECORDS + 1), b'{"a": 1}\n' * (SAMPLE_BYTES // 4)])
def test_no_more_than_a_sample_is_looked_at(raw):
    found = parsed(raw + b"not json")
    assert found.is_valid
    assert found.source_attributes["sampled_records"] == SAMPLE_RECORDS
    assert found.source_attributes["bytes"] == len(raw) + 8


def test_a_record_that_the_sample_cuts_is_left_out():
    record = b'{"a": "' + b"x" * 1000 + b'"}\n'
    found = parsed(record * 1000)
    assert found.is_valid
    assert found.source_attributes["sampled_records"] == SAMPLE_BYTES // len(record)


@pytest.mark.parametrize("between", [b",", b" ,\n "])
def test_a_long_json_document_is_read_as_far_as_its_elements_are_whole(between):
    element = b'{"a": 1, "b": "' + b"x" * 1000 + b'"}'
    found = parsed(b"\xef\xbb\xbf [" + between.join([element] * 1000) + b"]", "json")
    assert (found.is_valid, found.schema) == (True, {"a": "int", "b": "string"})
    assert found.source_attributes["sampled_records"] == SAMPLE_BYTES // len(element + between)


@pytest.mark.parametrize("raw", [b'{"a": "' + b"x" * SAMPLE_BYTES + b'"}', b"[" * SAMPLE_BYTES + b"]"])
def test_a_json_document_without_a_whole_element_in_the_sample_is_told(raw):
    assert "no element of an array ends" in parsed(raw, "json").validation_errors[0]


def test_a_sample_of_csv_may_end_within_quotes():
    row = b'1,"' + b"x" * 1000 + b"\n" + b"y" * 1000 + b'"\n'
    found = parsed(b"a,b\n" + row * 1000, "csv")
    assert found.is_valid, found.validation_errors
    assert found.source_attributes["sampled_records"] == SAMPLE_BYTES // len(row)


def test_a_decoder_may_raise_anything():
    def decode(data_format, raw):
        raise KeyError("no decoder")

    found = parsed(b"x", "parquet", MetadataParser(decode))
    assert (found.is_valid, found.validation_errors) == (False, ["parquet: 'no decoder'"])


def test_a_decoder_can_be_handed_in():
    def decode(data_format, raw):
        if raw == b"bad":
            raise ValueError("not for this decoder")
        return pa.table({"n": [1, None], "t": [data_format, data_format]})

    parser = MetadataParser(decode)
    found = parsed(b"", "parquet", parser)
    assert found.schema == {"n": "int", "t": "string"}
    assert found.quality_indicators["completeness"] == 0.75
    assert parsed(b"bad", "parquet", parser).validation_errors == ["parquet: not for this decoder"]


@pytest.mark.parametrize(
    "bad", [None, b"{}", CollectedData("s", datetime.now(UTC), "json", "test", "text", {})]
)
def test_what_is_no_chunk_is_refused(bad):
    with pytest.raises(ValueError, match="expected CollectedData with bytes"):
        asyncio.run(MetadataParser().parse(bad))


@pytest.mark.parametrize(
    ("metadata", "valid"),
    [
        (ParsedMetadata({}, {"validity": 1.0}, {"source_id": "s"}, True, []), True),
        (ParsedMetadata({}, {"validity": 1.5}, {"source_id": "s"}, True, []), False),
        (ParsedMetadata({}, {"validity": float("nan")}, {"source_id": "s"}, True, []), False),
        (ParsedMetadata({}, {}, {}, True, []), False),
        (ParsedMetadata({}, {}, {"source_id": "s"}, True, ["record 1"]), False),
        (ParsedMetadata({}, {}, {"source_id": "s"}, False, []), False),
    ],
)
def test_validate(metadata, valid):
    assert asyncio.run(MetadataParser().validate(metadata)) is valid
