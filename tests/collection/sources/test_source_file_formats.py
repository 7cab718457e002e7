"""Compressed files, sound and damaged, and formats that need the whole file."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import tracemalloc
import zlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.collection.base import LineFraming
from collectors.collection.sources import _whole
from collectors.collection.sources._compressed import BrokenDataError, open_stream
from collectors.collection.sources.file import FileSource
from collectors.errors import ConfigurationError


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def lines(count):
    return b"".join(b'{"id": %d, "text": "%s"}\n' % (n, os.urandom(4).hex().encode()) for n in range(count))


async def read(source, since=None):
    await source.connect()
    try:
        return [chunk async for chunk in source.stream(since)]
    finally:
        await source.disconnect()


def run(since=None, framing=None, **options):
    source = FileSource(**options)
    source.framing = framing or source.framing
    return asyncio.run(read(source, since))


def sound(chunks):
    return b"".join(chunk.raw_data for chunk in chunks if chunk.data_format != "rejected")


def refused(chunks):
    return [chunk for chunk in chunks if chunk.data_format == "rejected"]


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_the_compression_is_seen_in_the_bytes_not_in_the_name(tmp_path, compress):
    data = lines(1000)
    path = tmp_path / "a.ndjson"
    path.write_bytes(compress(data[:700]) + compress(data[700:]))
    chunks = run(path=str(path), chunk_size=1000)
    assert sound(chunks) == data
    assert {"size" in chunk.metadata for chunk in chunks} == {False}


def test_zeros_behind_gzip_members_are_padding(tmp_path):
    path = tmp_path / "a.ndjson.gz"
    path.write_bytes(gzip.compress(b"1\n") + b"\0" * 1000 + gzip.compress(b"2\n") + b"\0" * 7)
    chunks = run(path=str(path))
    assert (sound(chunks), refused(chunks)) == (b"1\n2\n", [])


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_an_empty_file_and_an_empty_stream_hold_nothing(tmp_path, compress):
    (tmp_path / "a.ndjson").write_bytes(b"")
    (tmp_path / "b.ndjson").write_bytes(compress(b""))
    assert run(path=str(tmp_path / "*.ndjson")) == []


DATA = lines(400)
LONG = lines(20_000)
COMPRESSED = {"gzip": gzip.compress(DATA), "zstd": zstd(DATA)}


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(["gzip", "zstd"]), st.data())
def test_cut_short_anywhere_what_is_whole_is_handed_on_and_the_rest_is_refused(kind, data):
    whole = COMPRESSED[kind]
    cut = data.draw(st.integers(4, len(whole) - 1))
    with open_folder() as folder:
        path = Path(folder, "a.ndjson")
        path.write_bytes(whole[:cut])
        chunks = run(path=str(path), chunk_size=data.draw(st.sampled_from([100, 5000])))
    given_out = sound(chunks)
    (torn,) = refused(chunks)
    assert DATA.startswith(given_out)
    assert given_out == b"" or given_out.endswith(b"\n")
    assert (given_out + torn.raw_data)[: len(DATA)] == DATA[: len(given_out) + len(torn.raw_data)]
    assert torn.metadata["reason"] == f"{path}: the {kind} data end early"
    assert torn.metadata["offset"] == len(given_out)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(["gzip", "zstd"]), st.data())
def test_damaged_anywhere_it_is_never_silent_and_never_a_crash(kind, data):
    damaged = bytearray(COMPRESSED[kind])
    place = data.draw(st.integers(4, len(damaged) - 1))
    damaged[place] ^= data.draw(st.integers(1, 255))
    with open_folder() as folder:
        path = Path(folder, "a.ndjson")
        path.write_bytes(damaged)
        chunks = run(path=str(path), chunk_size=1000, compression=kind)
    if kind == "gzip" and sound(chunks) != DATA:
        assert refused(chunks)
    for chunk in refused(chunks):
        assert str(path) in chunk.metadata["reason"]


def open_folder():
    import tempfile

    return tempfile.TemporaryDirectory()


def decompressed(data, kind):
    stream = open_stream(lambda size, offset: data[offset : offset + size], kind)
    out = bytearray()
    try:
        while part := stream.read(10**6):
            out += part
    except BrokenDataError as error:
        return bytes(out), error
    return bytes(out), None


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_nothing_that_can_be_decompressed_is_given_up_with_the_damage(kind):
    whole = gzip.compress(LONG) if kind == "gzip" else zstd(LONG)
    out, error = decompressed(whole[: len(whole) // 2], kind)
    assert error.early
    assert len(out) > len(LONG) // 3
    assert LONG.startswith(out)


def test_damaged_gzip_gives_all_that_zlib_gives_byte_by_byte():
    whole = bytearray(gzip.compress(LONG))
    whole[len(whole) // 2 :] = bytes(reversed(whole[len(whole) // 2 :]))
    possible, member = bytearray(), zlib.decompressobj(wbits=31)
    with suppress(zlib.error):
        for byte in whole:
            possible += member.decompress(bytes([byte]))
    out, error = decompressed(bytes(whole), "gzip")
    assert not error.early
    assert out == bytes(possible)
    assert len(out) > len(LONG) // 4


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_a_bomb_is_read_in_bounded_memory(tmp_path, compress):
    path = tmp_path / "a.ndjson"
    path.write_bytes(compress(b"0" * 200 * 2**20 + b"\n1\n"))
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    chunks = run(path=str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sound(chunks) == b"1\n"
    assert refused(chunks)[0].metadata["reason"].startswith(f"record of {200 * 2**20} bytes")
    assert peak < 64 * 2**20


def test_a_followed_compressed_file_that_ends_early_is_waited_for_a_minute(tmp_path):
    whole = gzip.compress(lines(300))

    async def main():
        source = FileSource(path=str(tmp_path / "*.ndjson.gz"), follow=True)
        await source.connect()

        async def look():
            return [chunk async for chunk in source.collect_stream()]

        path = tmp_path / "a.ndjson.gz"
        path.write_bytes(whole[:-20])
        first = await look()
        assert await look() == []
        path.write_bytes(whole)
        second = await look()
        assert refused(first + second) == []
        assert sound(first + second) == gzip.decompress(whole)

        (tmp_path / "b.ndjson.gz").write_bytes(whole[:-20])
        assert refused(await look()) == []
        source.now = lambda: datetime.now(UTC) + timedelta(minutes=2)
        (late,) = refused(await look())
        assert "end early" in late.metadata["reason"]
        assert await look() == []
        await source.disconnect()

    asyncio.run(main())


class Header(LineFraming):
    """A header line that each chunk needs in front."""

    def preamble(self, head):
        return head.find(b"\n") + 1


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
def test_every_chunk_has_the_header_line_in_front_also_after_a_restart(tmp_path, compress):
    data = b"id,name\n" + b"".join(b"%d,x\n" % n for n in range(100))
    path = tmp_path / "a.csv"
    path.write_bytes(compress(data))
    chunks = run(path=str(path), chunk_size=64, framing=Header())
    assert all(chunk.raw_data.startswith(b"id,name\n") for chunk in chunks)
    assert b"".join(chunk.raw_data[8:] for chunk in chunks) == data[8:]
    rest = run(chunks[2].position, path=str(path), chunk_size=64, framing=Header())
    assert b"".join(chunk.raw_data[8:] for chunk in chunks[:3] + rest) == data[8:]
    for chunk in rest:
        at = chunk.metadata["offset"]
        assert chunk.raw_data[8:] == data[at + 8 : at + len(chunk.raw_data)]


class Slices:
    """What the codecs of Parquet and Arrow have: here the lines of a file, one a slice."""

    def preamble(self, head):
        return 0

    def cut(self, data, *, final):
        raise AssertionError("a whole file is not cut")

    def slices(self, file, start):
        for number, line in enumerate(file.read().splitlines()):
            if line == b"bad":
                raise pa.ArrowInvalid("the footer is damaged")
            if number >= start:
                yield number + 1, line


def test_parquet_is_read_by_slices_and_resumed_between_them(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"one\ntwo\nthree\n")
    (tmp_path / "b.parquet").write_bytes(b"four\n")
    options = {"path": str(tmp_path / "*.parquet"), "framing": Slices()}
    chunks = run(**options)
    assert [(chunk.raw_data, chunk.data_format) for chunk in chunks] == [
        (name, "arrow") for name in (b"one", b"two", b"three", b"four")
    ]
    for number, chunk in enumerate(chunks):
        position = json.loads(json.dumps(chunk.position))
        assert [each.raw_data for each in run(position, **options)] == [
            each.raw_data for each in chunks[number + 1 :]
        ]


def test_a_damaged_parquet_file_is_one_refused_record_and_the_next_file_goes_on(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"one\nbad\n")
    (tmp_path / "b.parquet").write_bytes(b"two\n")
    options = {"path": str(tmp_path / "*.parquet"), "framing": Slices()}
    chunks = run(**options)
    assert sound(chunks) == b"onetwo"
    (bad,) = refused(chunks)
    assert bad.metadata["reason"] == f"{tmp_path}/a.parquet: the footer is damaged"
    assert run(chunks[-1].position, **options) == []


def test_parquet_without_its_codec_says_what_is_missing(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"one\n")
    with pytest.raises(ConfigurationError, match="set the source's `framing`"):
        run(path=str(tmp_path / "a.parquet"))


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
def test_a_json_document_is_one_chunk_and_is_read_again_when_it_changes(tmp_path, compress):
    path = tmp_path / "a.json"
    path.write_bytes(compress(b'[{"id": 1},\n{"id": 2}]'))
    options = {"path": str(path), "every": "1h", "chunk_size": 4, "max_record": 4}
    (chunk,) = run(**options)
    assert (chunk.raw_data, chunk.data_format) == (b'[{"id": 1},\n{"id": 2}]', "json")
    assert run(chunk.position, **options) == []
    path.write_bytes(compress(b'[{"id": 1},\n{"id": 3}]'))
    (again,) = run(chunk.position, **options)
    assert again.raw_data == b'[{"id": 1},\n{"id": 3}]'


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
def test_a_json_document_that_is_too_large_is_refused(tmp_path, monkeypatch, compress):
    monkeypatch.setattr(_whole, "_DOCUMENT_BYTES", 100)
    path = tmp_path / "a.json"
    path.write_bytes(compress(b"[" + b" " * 100 + b"]"))
    (chunk,) = run(path=str(path))
    assert chunk.data_format == "rejected"
    assert "write it as NDJSON" in chunk.metadata["reason"]
    assert run(chunk.position, path=str(path)) == []


def test_a_json_document_whose_compression_is_torn_is_refused(tmp_path):
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b"[1, 2, 3]" * 1000)[:-8])
    (chunk,) = run(path=str(path))
    assert "the gzip data end early" in chunk.metadata["reason"]
