"""Bytes to tables: a chunk of 4 MiB, or what has as many records."""

import csv
import io

import pytest

from collectors.codecs.csv import CsvCodec
from collectors.codecs.lines import LinesCodec
from collectors.codecs.ndjson import NdjsonCodec


@pytest.fixture(scope="module")
def comma_separated(table):
    file = io.StringIO()
    writer = csv.DictWriter(file, table.column_names)
    writer.writeheader()
    writer.writerows(table.to_pylist())
    return file.getvalue().encode()


def test_ndjson(hot, raw, schema, table):
    codec = NdjsonCodec()
    assert hot(codec.decode, raw, schema).table.num_rows == table.num_rows


def test_ndjson_with_bad_lines(hot, raw, schema):
    lines = raw.splitlines(keepends=True)[:8_000]
    lines[::100] = [b'{"id": broken\n'] * len(lines[::100])
    codec = NdjsonCodec()
    assert len(hot(codec.decode, b"".join(lines), schema).rejected) == 80


def test_ndjson_written(hot, table):
    codec = NdjsonCodec()
    few = table.slice(0, 8_000)
    assert hot(codec.encode, few).count(b"\n") == few.num_rows


def test_csv(hot, comma_separated, schema, table):
    codec = CsvCodec()
    assert hot(codec.decode, comma_separated, schema).table.num_rows == table.num_rows


def test_lines(hot, raw, table):
    codec = LinesCodec()
    assert hot(codec.decode, raw).table.num_rows == table.num_rows
