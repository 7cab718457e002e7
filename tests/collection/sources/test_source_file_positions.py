"""What the position of the file source remembers: growth, copies, renames, many files, and reading once more."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from collectors.collection.base import LineFraming
from collectors.collection.sources import _bookmarks
from collectors.collection.sources.file import FileSource
from collectors.errors import ConfigurationError, FatalError


def lines(start, stop):
    return b"".join(b"line-%06d\n" % n for n in range(start, stop))


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


def content(chunks):
    return b"".join(chunk.raw_data for chunk in chunks if chunk.data_format != "rejected")


def behind(chunks):
    return json.loads(json.dumps(chunks[-1].position))


def test_a_file_that_has_grown_is_read_on(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(lines(0, 10))
    since = behind(run(path=str(path)))
    assert run(since, path=str(path)) == []
    with path.open("ab") as file:
        file.write(lines(10, 12))
    chunks = run(since, path=str(path))
    assert content(chunks) == lines(10, 12)
    assert chunks[0].metadata["offset"] == 120


@pytest.mark.parametrize("first", [1, 10, 1000])
def test_a_file_that_was_replaced_by_a_longer_copy_is_read_on(tmp_path, first):
    path = tmp_path / "a.log"
    path.write_bytes(lines(0, first))
    since = behind(run(path=str(path)))
    (tmp_path / "new").write_bytes(lines(0, first + 5))
    (tmp_path / "new").rename(path)
    assert content(run(since, path=str(path))) == lines(first, first + 5)


@pytest.mark.parametrize("first", [1, 10, 1000])
def test_a_file_with_other_content_is_new_whatever_its_inode(tmp_path, first):
    path = tmp_path / "a.log"
    path.write_bytes(lines(0, first))
    since = behind(run(path=str(path)))
    path.write_bytes(lines(5000, 5000 + 2 * first))
    assert content(run(since, path=str(path))) == lines(5000, 5000 + 2 * first)


def test_a_file_with_the_same_beginning_but_other_content_before_the_offset_is_new(tmp_path):
    banner = b"# the same banner\n" * 100
    path = tmp_path / "a.log"
    path.write_bytes(banner + lines(0, 10))
    since = behind(run(path=str(path)))
    path.write_bytes(banner + lines(50, 70))
    assert content(run(since, path=str(path))) == banner + lines(50, 70)


def test_a_longer_name_for_another_file_is_no_copy(tmp_path):
    """A last line without its newline must not be found again inside a longer one."""
    path = tmp_path / "a.log"
    path.write_bytes(b"line-1")
    since = behind(run(path=str(path)))
    with path.open():  # so that its inode is not given away
        path.unlink()
        path.write_bytes(b"line-10\n")
    assert content(run(since, path=str(path))) == b"line-10\n"


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_a_log_that_was_rotated_while_nobody_looked_is_read_to_its_end_first(tmp_path, pattern):
    log = tmp_path / "app.log"
    log.write_bytes(lines(0, 10))
    options = {"path": str(tmp_path / pattern), "format": "lines", "follow": True, "chunk_size": 50}
    since = behind(run(**options))
    with log.open("ab") as file:
        file.write(lines(10, 20))
    log.rename(tmp_path / "app.log.1")
    log.write_bytes(lines(20, 30))
    assert content(run(since, **options)) == lines(10, 30)


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_a_log_that_was_rotated_and_compressed_is_known_again(tmp_path, pattern):
    log = tmp_path / "app.log"
    log.write_bytes(lines(0, 100))
    options = {"path": str(tmp_path / pattern), "format": "lines", "follow": True, "chunk_size": 500}
    since = behind(run(**options))
    with log.open("ab") as file:
        file.write(lines(100, 120))
    (tmp_path / "app.log.1.gz").write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()
    log.write_bytes(lines(120, 130))
    assert content(run(since, **options)) == lines(100, 130)


def test_a_log_that_was_copied_and_truncated_is_read_on_in_the_copy(tmp_path):
    log = tmp_path / "app.log"
    log.write_bytes(lines(0, 10))
    options = {"path": str(log), "follow": True}
    since = behind(run(**options))
    with log.open("ab") as file:
        file.write(lines(10, 20))
    shutil.copyfile(log, tmp_path / "app.log.1")
    os.truncate(log, 0)
    with log.open("ab") as file:
        file.write(lines(20, 50))
    assert content(run(since, **options)) == lines(10, 50)


def test_a_finished_compressed_file_is_not_decompressed_again(tmp_path, monkeypatch):
    (tmp_path / "a.log.gz").write_bytes(gzip.compress(lines(0, 1000)))
    options = {"path": str(tmp_path / "*.log.gz"), "chunk_size": 5000}
    since = behind(run(**options))
    monkeypatch.setattr(FileSource, "_behind", None)
    assert run(since, **options) == []
    (mark,) = since["files"]
    assert mark[5] == (tmp_path / "a.log.gz").stat().st_size


def follow(path, steps, **options):
    """Follow a file, looking once before and three times after each step; return the content."""

    async def main():
        source = FileSource(path=str(path), format="lines", follow=True, **options)
        source.now = lambda: datetime.now(UTC) + timedelta(hours=1)  # nothing was written just now
        await source.connect()
        found = [chunk async for chunk in source.collect_stream()]
        for step in steps:
            step()
            for _ in range(3):
                found += [chunk async for chunk in source.collect_stream()]
        await source.disconnect()
        return found

    return content(asyncio.run(main()))


def test_a_line_that_is_finished_late_in_a_rotated_file_stays_whole(tmp_path):
    """A daemon writes into the renamed file until it is told to open the new one."""
    log = tmp_path / "app.log"
    log.write_bytes(b"begun")

    async def main():
        source = FileSource(path=str(log), follow=True)
        await source.connect()
        found = [chunk async for chunk in source.collect_stream()]
        with log.open("ab") as daemon:
            log.rename(tmp_path / "app.log.1")
            log.touch()
            found += [chunk async for chunk in source.collect_stream()]
            daemon.write(b" and finished\nand one more\n")
        found += [chunk async for chunk in source.collect_stream()]
        await source.disconnect()
        return found

    assert [chunk.raw_data for chunk in asyncio.run(main())] == [b"begun and finished\nand one more\n"]


def test_the_last_line_of_a_quiet_rotated_file_comes_although_nothing_of_it_changes(tmp_path):
    log = tmp_path / "app.log"
    log.write_bytes(b"one\ntwo")

    def rotate():
        log.rename(tmp_path / "app.log.1")
        log.write_bytes(b"three\n")

    assert sorted(
        follow(tmp_path / "app.log*", [lambda: None, rotate]).replace(b"two", b"two\n").split()
    ) == [
        b"one",
        b"three",
        b"two",
    ]


def test_a_file_is_no_copy_of_another_that_has_a_bookmark_of_its_own(tmp_path):
    (tmp_path / "app.log").write_bytes(lines(0, 5))
    (tmp_path / "app.log.1").write_bytes(lines(0, 10))
    options = {"path": str(tmp_path / "app.log*")}
    since = behind(run(**options))
    (tmp_path / "app.log").unlink()
    assert run(since, **options) == []


def test_a_change_that_the_time_stamp_does_not_show_is_seen(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(b"line-1\n")
    before = path.stat()

    async def main():
        source = FileSource(path=str(path), every="1s")
        await source.connect()
        found = [chunk async for chunk in source.collect_stream()]
        path.write_bytes(b"line-2\n")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        found += [chunk async for chunk in source.collect_stream()]
        await source.disconnect()
        return found

    assert content(asyncio.run(main())) == b"line-1\nline-2\n"


@pytest.mark.parametrize("count", range(15, 45, 3))
def test_new_files_among_many_are_resumed_from_everywhere(tmp_path, remembered, count):
    many(tmp_path, [f"{n:05}" for n in range(count)])
    options = {"path": str(tmp_path / "*.log"), "every": "1m", "chunk_size": 8}
    since = behind(run(**options))
    for name in ("00000-a", "00000-b", "00000-c", "00009-a", "00050"):
        (tmp_path / f"{name}.log").write_bytes(f"{name}\n{name}\n".encode())

    async def main():
        source = FileSource(**options)
        await source.connect()
        chunks = [chunk async for chunk in source.stream(since)]
        await source.disconnect()
        return chunks

    if "folded" in since:
        with pytest.raises(FatalError):
            asyncio.run(main())
        return
    chunks = asyncio.run(main())
    assert len(chunks) == 10
    for number, chunk in enumerate(chunks):
        position = json.loads(json.dumps(chunk.position))
        assert content(run(position, **options)) == content(chunks[number + 1 :])


def test_a_file_that_was_cut_off_behind_its_head_begins_again(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(lines(0, 500))
    assert follow(path, [lambda: os.truncate(path, 2400)]) == lines(0, 500) + lines(0, 200)


@pytest.fixture
def remembered(monkeypatch):
    monkeypatch.setattr(_bookmarks, "REMEMBERED", 20)
    return 20


def many(folder, names):
    for name in names:
        (folder / f"{name}.log").write_bytes(b"%s\n" % name.encode())


def test_the_position_stays_small_with_many_files_and_all_are_known_again(tmp_path, remembered):
    count = 3 * remembered
    names = [f"{n:05}" for n in range(count)]
    many(tmp_path, names)
    options = {"path": str(tmp_path / "*.log")}
    chunks = run(**options)
    assert content(chunks) == b"".join(b"%s\n" % name.encode() for name in names)
    assert max(len(json.dumps(chunk.position)) for chunk in chunks) < remembered * 250
    for number in (0, remembered - 1, remembered, remembered + 1, count - 2, count - 1):
        position = json.loads(json.dumps(chunks[number].position))
        assert content(run(position, **options)) == content(chunks[number + 1 :])


def test_new_files_are_found_among_many_while_the_source_runs_and_not_missed_silently_after_it(
    tmp_path, remembered
):
    names = [f"{n:05}" for n in range(2 * remembered)]
    many(tmp_path, names)
    options = {"path": str(tmp_path / "*.log"), "every": "1m"}

    async def main():
        source = FileSource(**options)
        await source.connect()
        first = [chunk async for chunk in source.collect_stream()]
        many(tmp_path, ["00000-a", "99999"])
        second = [chunk async for chunk in source.collect_stream()]
        third = [chunk async for chunk in source.collect_stream()]
        await source.disconnect()
        return first, second, third

    _, second, third = asyncio.run(main())
    assert content(second) == b"00000-a\n99999\n"
    assert third == []
    assert run(behind(second), **options) == []
    many(tmp_path, ["00000-b"])
    with pytest.raises(FatalError, match="some are new or have grown"):
        run(behind(second), **options)


def test_many_new_files_that_sort_first_are_resumed_from_everywhere(tmp_path, remembered):
    many(tmp_path, [f"5{n:04}" for n in range(15)])
    options = {"path": str(tmp_path / "*.log"), "every": "1m"}
    since = behind(run(**options))
    many(tmp_path, [f"0{n:04}" for n in range(30)])
    chunks = run(since, **options)
    assert len(chunks) == 30
    assert "folded" in behind(chunks)
    for number, chunk in enumerate(chunks):
        position = json.loads(json.dumps(chunk.position))
        assert content(run(position, **options)) == content(chunks[number + 1 :])


def test_files_that_are_gone_are_forgotten_unless_their_folder_is(tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    many(folder, ["a", "b"])
    options = {"path": str(folder / "*.log"), "every": "1m"}
    since = behind(run(**options))
    folder.rename(tmp_path / "unmounted")
    assert run(since, **options) == []
    (tmp_path / "unmounted").rename(folder)
    many(folder, ["c"])
    (folder / "a.log").unlink()
    chunks = run(since, **options)
    assert content(chunks) == b"c\n"
    assert sorted(Path(mark[0]).name for mark in behind(chunks)["files"]) == ["b.log", "c.log"]


def test_more_files_than_can_be_followed_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("collectors.collection.sources._tracking.FOLLOWED", 3)
    many(tmp_path, "abcd")
    with pytest.raises(ConfigurationError, match="at most 3 can be followed"):
        run(path=str(tmp_path / "*.log"), follow=True)


class Header(LineFraming):
    """A header line that each chunk needs in front."""

    def preamble(self, head):
        return head.find(b"\n") + 1


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
def test_every_chunk_can_be_read_once_more_also_after_its_file_was_renamed(tmp_path, compress):
    data = lines(0, 50) + b"x" * 500 + b"\n" + lines(50, 100)
    (tmp_path / "a.log").write_bytes(compress(data))
    (tmp_path / "b.log").write_bytes(compress(data)[:-7])
    options = {"path": str(tmp_path / "*.log"), "chunk_size": 100, "max_record": 200}
    chunks = run(framing=Header(), **options)
    assert {chunk.data_format for chunk in chunks} == {"lines", "rejected"}
    (tmp_path / "a.log").rename(tmp_path / "a.log.old")
    source = FileSource(**options)
    source.framing = Header()
    since = None
    for chunk in chunks:
        again = source.replay(since, json.loads(json.dumps(chunk.position)))
        since = chunk.position
        assert (again.raw_data, again.data_format) == (chunk.raw_data, chunk.data_format)
        assert again.metadata.get("reason") == chunk.metadata.get("reason")
        assert again.metadata["offset"] == chunk.metadata["offset"]
        assert again.position == chunk.position


def test_what_is_gone_cannot_be_read_once_more(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(lines(0, 10))
    (chunk,) = run(path=str(path))
    path.write_bytes(lines(50, 70))
    with pytest.raises(FatalError, match="it is gone, or its content has changed"):
        FileSource(path=str(path)).replay(None, chunk.position)
