"""The file source read once: formats, compression, positions, and what is wrong with files."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.collection.sources import _handle
from collectors.collection.sources._cutting import Cutter
from collectors.collection.sources.file import FileSource
from collectors.errors import ConfigurationError, FatalError
from collectors.testing.source_contract import SourceContract


def lines(ids):
    return b"".join(b'{"id": %d}\n' % each for each in ids)


class TestOneFile(SourceContract):
    component = "file"

    @asynccontextmanager
    async def rig(self, ids):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "records.ndjson")
            path.write_bytes(lines(ids))
            yield {"path": str(path), "chunk_size": 64}


class TestManyFiles(SourceContract):
    component = "file"

    @asynccontextmanager
    async def rig(self, ids):
        with tempfile.TemporaryDirectory() as folder:
            for number, start in enumerate(range(0, len(ids), 7)):
                Path(folder, f"{number:03}.ndjson").write_bytes(lines(ids[start : start + 7]))
            yield {"path": f"{folder}/*.ndjson", "chunk_size": 32}


class TestGzip(SourceContract):
    component = "file"

    @asynccontextmanager
    async def rig(self, ids):
        half = len(ids) // 2
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "records.ndjson.gz")
            path.write_bytes(gzip.compress(lines(ids[:half])) + gzip.compress(lines(ids[half:])))
            yield {"path": str(path), "chunk_size": 64}


class TestZstd(SourceContract):
    component = "file"

    @asynccontextmanager
    async def rig(self, ids):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "records.ndjson.zst")
            path.write_bytes(zstd(lines(ids)))
            yield {"path": str(path), "chunk_size": 64}


class TestFollowed(SourceContract):
    component = "file"

    @asynccontextmanager
    async def rig(self, ids):
        half = len(ids) // 2
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "app.log.1").write_bytes(lines(ids[:half]))
            Path(folder, "app.log.2").write_bytes(lines(ids[half:]) + b'{"id": unfinished')
            yield {"path": f"{folder}/app.log*", "format": "ndjson", "follow": True, "chunk_size": 64}


class TestCsv(SourceContract):
    component = "file"

    @asynccontextmanager
    async def rig(self, ids):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "records.csv")
            path.write_bytes(b"id,text\n" + b"".join(b'%d,"two\nlines"\n' % each for each in ids))
            yield {"path": str(path), "chunk_size": 64}


class TestParquet(SourceContract):
    component = "file"

    @asynccontextmanager
    async def rig(self, ids):
        with tempfile.TemporaryDirectory() as folder:
            half = len(ids) // 2
            for name, part in (("a", ids[:half]), ("b", ids[half:])):
                pq.write_table(pa.table({"id": part}), Path(folder, f"{name}.parquet"), row_group_size=7)
            yield {"path": f"{folder}/*.parquet"}


class TestArrow(SourceContract):
    component = "file"

    @asynccontextmanager
    async def rig(self, ids):
        with tempfile.TemporaryDirectory() as folder:
            table = pa.table({"id": ids})
            with pa.ipc.new_file(f"{folder}/a.arrow", table.schema) as writer:
                writer.write_table(table, max_chunksize=7)
            yield {"path": f"{folder}/a.arrow"}


class TestJson(SourceContract):
    component = "file"

    @asynccontextmanager
    async def rig(self, ids):
        with tempfile.TemporaryDirectory() as folder:
            half = len(ids) // 2
            for name, part in (("a", ids[:half]), ("b", ids[half:])):
                Path(folder, f"{name}.json").write_text(json.dumps([{"id": each} for each in part], indent=1))
            yield {"path": f"{folder}/*.json"}


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


async def read(source, since=None):
    await source.connect()
    try:
        return [chunk async for chunk in source.stream(since)]
    finally:
        await source.disconnect()


def run(since=None, **settings):
    return asyncio.run(read(FileSource(**settings), since))


def content(chunks):
    return b"".join(chunk.raw_data for chunk in chunks if chunk.data_format != "rejected")


@pytest.mark.parametrize(
    ("path", "codec"),
    [
        ("a.ndjson", "ndjson"),
        ("a.JSONL", "ndjson"),
        ("a.json", "json"),
        ("data/*.csv", "csv"),
        ("a.tsv.gz", {"type": "csv", "delimiter": "\t"}),
        ("a.parquet", "parquet"),
        ("a.feather", "arrow"),
        ("**/*.arrow", "arrow"),
        ("app.log*", "lines"),
        ("app.log.[0-9]", "lines"),
        ("app.log.1.zst", "lines"),
        ("notes.txt", "lines"),
    ],
)
def test_the_format_follows_from_the_name(path, codec):
    assert FileSource(path=path).format() == codec


@pytest.mark.parametrize("path", ["data", "data/*", "a.dat", "a.gz", ".csv.d/*", ["a.csv", "b.json"]])
def test_where_the_name_does_not_say_it_the_format_is_asked_for(path):
    with pytest.raises(ValueError, match="set `format`"):
        FileSource(path=path)
    assert FileSource(path=path, format="ndjson").format() == "ndjson"


def test_the_chunks_are_labelled_with_the_format_and_their_place(tmp_path):
    (tmp_path / "app.log").write_bytes(b"one\ntwo\n")
    chunks = run(path=str(tmp_path / "*.log"), chunk_size=4)
    assert [chunk.data_format for chunk in chunks] == ["lines", "lines"]
    assert [chunk.metadata for chunk in chunks] == [
        {"path": str(tmp_path / "app.log"), "offset": 0, "size": 8},
        {"path": str(tmp_path / "app.log"), "offset": 4, "size": 8},
    ]


def test_blocks_end_where_lines_end_so_that_nothing_is_copied(tmp_path, monkeypatch):
    short = b"".join(b"%d" % n * (n % 500) + b"\n" for n in range(400))
    path = tmp_path / "app.log"
    path.write_bytes(short + b"x" * 50_000 + b"\n" + short + b"no end")
    fed, feed = [], Cutter.feed

    def noting(cutter, data):
        fed.append((len(cutter._held), data))
        feed(cutter, data)

    monkeypatch.setattr(Cutter, "feed", noting)
    chunks = run(path=str(path), chunk_size=32 * 1024)
    assert b"".join(chunk.raw_data for chunk in chunks) == path.read_bytes()
    copied = [data for held, data in fed if held]
    assert all(
        b"xxx" in data for data in copied
    )  # of a line that is longer than what is looked through, only
    assert len(fed) - len(copied) > 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "a.json", "follow": True}, "follow: a json file is one document"),
        ({"path": "a.ndjson", "start": "end"}, "set `follow: true`"),
        ({"path": []}, "expected a path or a pattern"),
        ({"path": "a.ndjson", "chunk_size": 0}, "more than 0 bytes"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FileSource(**settings)


def refusal(**settings):
    with pytest.raises(ConfigurationError) as caught:
        run(**settings)
    return str(caught.value)


def test_a_missing_file_is_named_with_the_nearest_that_is_there(tmp_path, monkeypatch):
    (tmp_path / "readings.ndjson").touch()
    monkeypatch.chdir(tmp_path)
    assert refusal(path="reading.ndjson") == (
        f"no file matches 'reading.ndjson' (looked in {tmp_path}); did you mean 'readings.ndjson'?"
    )
    assert "there is no such folder" in refusal(path="nowhere/*.ndjson")


def test_a_folder_or_a_pipe_is_not_a_file(tmp_path):
    (tmp_path / "data.ndjson").mkdir()
    os.mkfifo(tmp_path / "pipe.ndjson")
    assert "is a folder; to read the files in it write" in refusal(path=str(tmp_path / "data.ndjson"))
    assert "is not a regular file" in refusal(path=str(tmp_path / "pipe.ndjson"))


def test_folders_and_pipes_among_the_matches_are_left_out(tmp_path):
    (tmp_path / "a.ndjson").mkdir()
    os.mkfifo(tmp_path / "b.ndjson")
    (tmp_path / "c.ndjson").write_bytes(b"{}\n")
    assert content(run(path=str(tmp_path / "*.ndjson"))) == b"{}\n"


def test_a_file_that_may_not_be_read_stops_the_source(tmp_path, monkeypatch):
    (tmp_path / "a.ndjson").write_bytes(b"{}\n")

    def refuse(name, *_args, **_options):
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(_handle, "open", refuse, raising=False)
    with pytest.raises(FatalError, match=r"cannot read '.*a.ndjson': Permission denied"):
        run(path=str(tmp_path / "a.ndjson"))


def test_patterns_reach_into_folders_and_each_file_is_read_once(tmp_path):
    deep = tmp_path / "b" / "c"
    deep.mkdir(parents=True)
    (tmp_path / "a.ndjson").write_bytes(b"1\n")
    (deep / "d.ndjson").write_bytes(b"2\n")
    (deep / "e.ndjson").hardlink_to(deep / "d.ndjson")
    (tmp_path / "f.ndjson").symlink_to(tmp_path / "a.ndjson")
    chunks = run(path=[str(tmp_path / "**" / "*.ndjson"), str(tmp_path / "a.ndjson")])
    assert content(chunks) == b"1\n2\n"


def test_a_name_with_the_characters_of_patterns_is_read_if_it_is_there(tmp_path):
    (tmp_path / "a[1].ndjson").write_bytes(b"1\n")
    assert content(run(path=str(tmp_path / "a[1].ndjson"))) == b"1\n"


def test_the_last_line_may_lack_its_newline(tmp_path):
    (tmp_path / "a.log").write_bytes(b"one\ntwo")
    assert content(run(path=str(tmp_path / "a.log"))) == b"one\ntwo"


def test_a_line_that_is_too_long_is_refused_with_its_beginning_and_the_rest_goes_on(tmp_path):
    long = bytes(range(65, 91)) * 10_000
    (tmp_path / "a.log").write_bytes(b"one\n" + long + b"\n" + b"x" * 1024 + b"\ntwo\n")
    chunks = run(path=str(tmp_path / "a.log"), max_record=1024)
    (refused,) = (chunk for chunk in chunks if chunk.data_format == "rejected")
    assert refused.metadata["reason"] == "record of 260000 bytes is longer than max_record (1 KiB)"
    assert refused.metadata["offset"] == 4
    assert long.startswith(refused.raw_data)
    assert content(chunks) == b"one\n" + b"x" * 1024 + b"\ntwo\n"


def test_followed_files_may_come_later(tmp_path):
    async def main():
        source = FileSource(path=str(tmp_path / "*.log"), follow=True)
        assert source.poll_interval() == 0.5
        await source.connect()
        assert [chunk async for chunk in source.collect_stream()] == []
        (tmp_path / "a.log").write_bytes(b"one\n")
        assert (await source.collect()).raw_data == b"one\n"
        await source.disconnect()

    asyncio.run(main())


def test_following_may_begin_at_the_end(tmp_path):
    (tmp_path / "a.log").write_bytes(b"one\ntwo\nthr")
    (tmp_path / "b.log").write_bytes(b"no newline at all")
    (tmp_path / "c.log").touch()

    async def main():
        source = FileSource(path=str(tmp_path / "*.log"), follow=True, start="end")
        await source.connect()
        assert [chunk async for chunk in source.collect_stream()] == []
        for name in "abcd":
            with (tmp_path / f"{name}.log").open("ab") as file:
                file.write(b"ee\n")
        found = [chunk async for chunk in source.collect_stream()]
        await source.disconnect()
        return found

    chunks = asyncio.run(main())
    assert [chunk.raw_data for chunk in chunks] == [b"three\n", b"no newline at allee\n", b"ee\n", b"ee\n"]
