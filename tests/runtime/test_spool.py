"""The spool: what is durable is read once, in order, whatever happened to the process, the disk and the files."""

from __future__ import annotations

import errno
import os
import struct
import tempfile
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from collectors.codecs.ndjson import NdjsonCodec
from collectors.collection.base import Source, SourceConfig
from collectors.errors import FatalError, TransientError
from collectors.models import CollectedData
from collectors.runtime import spool as spool_module
from collectors.runtime.intake import SpoolSource
from collectors.runtime.spool import Spool

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def chunk(number, raw=None, **metadata):
    raw = raw if raw is not None else b'{"n": %d}\n' % number
    return CollectedData("in", NOW, "ndjson", "Test", raw, {"n": number, **metadata})


def opened(folder, quota=2**30, told=None):
    spool = Spool(folder, "in", quota, now=lambda: NOW, tell=(told if told is not None else []).append)
    spool.open()
    return spool


def everything(spool, since=None, limit=100):
    chunks = []
    while more := spool.read(since, limit):
        chunks += more
        since = more[-1].position
    return chunks


def numbers(chunks):
    return [data.metadata["n"] for data in chunks]


@pytest.fixture
def small_segments(monkeypatch):
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 600)


def test_what_was_appended_is_read_as_it_was(tmp_path):
    spool = opened(tmp_path / "s")
    sent = [chunk(1, b"", size=3), chunk(2, b"\x00\xff" * 1000), chunk(3, path="/\udcff")]
    spool.append(sent)
    got = everything(opened(tmp_path / "s"))
    for data in got:
        data.position = None
    assert got == sent


@settings(max_examples=100, deadline=None)
@given(
    groups=st.lists(st.lists(st.binary(max_size=400), min_size=1, max_size=5), max_size=12),
    limit=st.integers(1, 2000),
)
def test_reading_goes_on_behind_every_position(tmp_path_factory, groups, limit):
    folder = tmp_path_factory.mktemp("spool") / "s"
    spool = opened(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool_module, "SEGMENT_BYTES", 600)
        for group in groups:
            spool.append([chunk(0, raw) for raw in group])
    sent = [raw for group in groups for raw in group]
    chunks = everything(spool, None, limit)
    assert [data.raw_data for data in chunks] == sent
    again = opened(folder)
    for number, data in enumerate(chunks, 1):
        assert [later.raw_data for later in everything(again, data.position)] == sent[number:]
        assert again.behind(data.position) == spool.behind(data.position)
    assert spool.behind(chunks[-1].position if chunks else None) == 0


def test_trimming_keeps_what_is_behind_the_position_and_the_number(tmp_path, small_segments):
    spool = opened(tmp_path / "s")
    for number in range(1, 101):
        spool.append([chunk(number)])
    chunks = everything(spool)
    spool.trim(chunks[59].position)
    assert numbers(everything(spool, chunks[59].position)) == list(range(61, 101))
    assert len(list((tmp_path / "s").glob("*.spool"))) < 15
    spool.trim(chunks[99].position, ended=True)
    spool.close()
    left = list((tmp_path / "s").glob("*.spool"))
    assert [path.stat().st_size for path in left] == [36]
    again = opened(tmp_path / "s")
    again.append([chunk(101)])
    assert numbers(everything(again, chunks[99].position)) == [101]
    assert numbers(everything(again)) == [101]


def test_a_position_of_another_spool_reads_from_the_beginning(tmp_path):
    old, new = opened(tmp_path / "old"), opened(tmp_path / "new")
    old.append([chunk(1), chunk(2)])
    new.append([chunk(3), chunk(4)])
    position = everything(old)[-1].position
    assert not new.knows(position)
    assert numbers(everything(new, position)) == [3, 4]
    new.trim(position)
    assert numbers(everything(new)) == [3, 4]


def test_the_quota(tmp_path):
    spool = opened(tmp_path / "s", quota=1000)
    spool.append([chunk(1, b"x" * 500)])
    with pytest.raises(TransientError, match="has reached its limit"):
        spool.append([chunk(2, b"x" * 500)])
    spool.append([chunk(3)])
    assert numbers(everything(spool)) == [1, 3]


def test_a_full_disk_leaves_room_for_the_storage(tmp_path, monkeypatch):
    spool = opened(tmp_path / "s")
    real = os.statvfs(tmp_path)

    class Full:
        f_blocks, f_frsize, f_bavail = real.f_blocks, 4096, 16 * 256

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    with pytest.raises(TransientError, match="disk is full but for 16 MiB"):
        spool.append([chunk(1)])
    Full.f_bavail += 1
    spool.append([chunk(2)])
    assert numbers(everything(spool)) == [2]


@pytest.mark.parametrize("failing", ["writev", "fdatasync", "fsync", "open"])
@pytest.mark.parametrize("reopen", [False, True])
def test_a_failing_disk_keeps_nothing_and_loses_nothing(tmp_path, monkeypatch, failing, reopen):
    spool = opened(tmp_path / "s")
    spool.append([chunk(1)])
    if failing in {"fsync", "open"}:  # those happen when a segment begins
        spool.close()
    with monkeypatch.context() as broken:

        def fail(*args, **kwargs):
            raise OSError(errno.EIO, "Input/output error")

        broken.setattr(os, failing, fail)
        with pytest.raises((TransientError, FatalError)):
            spool.append([chunk(2)])
    if reopen:
        spool = opened(tmp_path / "s")
    spool.append([chunk(3)])
    assert numbers(everything(spool)) == [1, 3]
    assert numbers(everything(opened(tmp_path / "s"))) == [1, 3]


def test_a_file_whose_fsync_failed_is_never_written_again(tmp_path, monkeypatch):
    spool = opened(tmp_path / "s")
    spool.append([chunk(1)])
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
        with pytest.raises(TransientError):
            spool.append([chunk(2)])
    before = (tmp_path / "s" / f"{1:020d}.spool").read_bytes()
    spool.append([chunk(3)])
    assert (tmp_path / "s" / f"{1:020d}.spool").read_bytes() == before
    assert (tmp_path / "s" / f"{2:020d}.spool").exists()


class Pushed(Source[SourceConfig]):
    def read(self, since):
        raise NotImplementedError


def test_what_is_small_and_alike_is_kept_in_one_frame(tmp_path):
    source = Pushed(id="in")
    source.framing = NdjsonCodec()
    spool = opened(tmp_path / "s")
    alike = [CollectedData("in", NOW, "ndjson", "Test", b'{"n": %d}\n' % n, {}) for n in range(9000)]
    other = CollectedData("in", NOW, "rejected", "Test", b"{", {"reason": "torn"})
    SpoolSource(source, spool, None, None).keep([*alike, other, *alike[:5]])
    found = everything(spool)
    assert [data.raw_data.count(b"\n") for data in found[-2:]] == [0, 5]
    assert sum(data.raw_data.count(b"\n") for data in found) == 9005
    assert len(found) == spool.durable == 4
    assert max(len(data.raw_data) for data in found) <= 64 * 1024


def test_chunks_that_say_something_of_their_own_are_kept_apart(tmp_path):
    """What a source has to know again, such as the key of a request, is in their metadata."""
    source = Pushed(id="in")
    source.framing = NdjsonCodec()
    spool = opened(tmp_path / "s")
    handed = [CollectedData("in", NOW, "ndjson", "Test", b'{"n": %d}\n' % n, {"key": n}) for n in range(9)]
    SpoolSource(source, spool, None, None).keep(handed)
    assert [data.metadata["key"] for data in everything(spool)] == list(range(9))


def test_short_writes(tmp_path, monkeypatch):
    spool = opened(tmp_path / "s")
    real = os.writev

    def a_few(descriptor, pieces):
        return real(descriptor, [bytes(pieces[0])[:7]])

    monkeypatch.setattr(os, "writev", a_few)
    spool.append([chunk(1), chunk(2, b"x" * 100)])
    assert numbers(everything(opened(tmp_path / "s"))) == [1, 2]


def test_an_unfinished_write_is_cut_off_without_a_word(tmp_path):
    folder = tmp_path / "s"
    spool = opened(folder)
    spool.append([chunk(1)])
    path = next(folder.glob("*.spool"))
    whole = path.read_bytes()
    spool.append([chunk(2)])
    longer = path.read_bytes()
    for size in range(len(whole), len(longer)):
        told = []
        path.write_bytes(longer[:size])
        (folder / "marks").unlink()
        again = opened(folder, told=told)
        again.append([chunk(3)])
        assert numbers(everything(again)) == [1, 3]
        assert not told
        again.close()
        for segment in folder.glob("*.spool"):
            segment.unlink()
        path.write_bytes(whole)


def test_what_was_acknowledged_and_is_gone_is_told(tmp_path):
    folder = tmp_path / "s"
    spool = opened(folder)
    spool.append([chunk(1), chunk(2), chunk(3)])
    path = next(folder.glob("*.spool"))
    second = everything(spool)[1].position
    with path.open("r+b") as file:
        file.truncate(second["offset"])
    told = []
    again = opened(folder, told=told)
    again.append([chunk(4)])
    chunks = everything(again)
    assert [data.metadata["n"] for data in chunks if data.data_format != "rejected"] == [1, 2, 4]
    assert [data.metadata["reason"] for data in chunks if data.data_format == "rejected"] == [
        "the spool is damaged: chunk 3 cannot be read"
    ]
    assert len(told) == 1


def test_damaged_frames_are_counted_kept_and_told(tmp_path):
    folder = tmp_path / "s"
    spool = opened(folder)
    for number in range(1, 6):
        spool.append([chunk(number, b"payload %d" % number)])
    path = next(folder.glob("*.spool"))
    data = bytearray(path.read_bytes())
    data[data.index(b"payload 2")] ^= 1
    data[data.index(b"payload 3")] ^= 1
    path.write_bytes(data)
    told = []
    again = opened(folder, told=told)
    chunks = everything(again)
    good = [data.raw_data for data in chunks if data.data_format == "ndjson"]
    assert good == [b"payload 1", b"payload 4", b"payload 5"]
    [bad] = [data for data in chunks if data.data_format == "rejected"]
    assert (bad.metadata["first"], bad.metadata["last"]) == (2, 3)
    assert "2 chunks, 2 to 3," in bad.metadata["reason"]
    kept = next((folder / "quarantine").iterdir()).read_bytes()
    assert kept in bytes(data)
    assert b"ayload 3" in kept
    assert everything(again, bad.position)[0].raw_data == b"payload 4"


def test_a_newer_version_is_not_touched(tmp_path):
    folder = tmp_path / "s"
    opened(folder).append([chunk(1)])
    path = next(folder.glob("*.spool"))
    data = bytearray(path.read_bytes())
    data[6] = 9
    path.write_bytes(bytes(data[:32]) + struct.pack("<I", zlib.crc32(data[:32])) + bytes(data[36:]))
    with pytest.raises(FatalError, match="version is 9"):
        opened(folder)


class Model(RuleBasedStateMachine):
    """Appends that work and fail, crashes that keep some of what was not synced, trims; against a plain list."""

    @initialize()
    def begin(self):
        self.home = tempfile.TemporaryDirectory()
        self.folder = Path(self.home.name) / "s"
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(spool_module, "SEGMENT_BYTES", 400)
        self.spool = opened(self.folder)
        self.kept = []
        self.read = 0
        self.since = None
        self.next = 0

    def teardown(self):
        self.patch.undo()
        self.home.cleanup()

    def group(self, sizes):
        group = [chunk(self.next + i, b"z" * size) for i, size in enumerate(sizes)]
        self.next += len(sizes)
        return group

    @rule(sizes=st.lists(st.integers(0, 150), min_size=1, max_size=4))
    def append(self, sizes):
        group = self.group(sizes)
        self.spool.append(group)
        self.kept += numbers(group)

    @rule(sizes=st.lists(st.integers(0, 150), min_size=1, max_size=4), part=st.integers(0, 300))
    def disk_full(self, sizes, part):
        real = os.writev

        def until_full(descriptor, pieces):
            written = real(descriptor, [b"".join(pieces)[:part]]) if part else 0
            if written < sum(map(len, pieces)):
                raise OSError(errno.ENOSPC, "No space left on device")
            return written

        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(os, "writev", until_full)
            group = self.group(sizes)
            try:
                self.spool.append(group)
            except TransientError:
                return
            self.kept += numbers(group)

    @rule(sizes=st.lists(st.integers(0, 150), min_size=1, max_size=4), cut=st.booleans())
    def fsync_fails(self, sizes, cut):
        def fail(*args):
            raise OSError(errno.EIO, "Input/output error")

        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(os, "fdatasync", fail)
            if not cut:
                broken.setattr(os, "ftruncate", fail)
            with pytest.raises(TransientError):
                self.spool.append(self.group(sizes))
        self.append([1])  # what was not cut off stays void only once something is written behind it

    @rule(sizes=st.lists(st.integers(0, 150), min_size=1, max_size=4), keep=st.integers(0, 900))
    def crash_before_fsync(self, sizes, keep):
        """Kill or power cut: of what was written and not acknowledged, any first part may be there."""
        group = self.group(sizes)

        def stop(descriptor):
            os.ftruncate(descriptor, min(os.fstat(descriptor).st_size, self.spool._segments[-1].end + keep))
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(os, "fdatasync", stop)
            with pytest.raises(KeyboardInterrupt):
                self.spool.append(group)
        self.reopen()
        there = self.spool.durable - self.total
        assert 0 <= there <= len(group)
        self.total += there
        self.kept += numbers(group)[:there]

    @rule()
    def crash(self):
        self.reopen()

    def reopen(self):
        told = []
        self.total = self.spool.durable
        self.spool = opened(self.folder, told=told)
        assert not told

    @rule(limit=st.integers(1, 500))
    def read_some(self, limit):
        chunks = self.spool.read(self.since, limit)
        assert numbers(chunks) == self.kept[self.read : self.read + len(chunks)]
        assert chunks or self.read == len(self.kept)
        self.read += len(chunks)
        self.since = chunks[-1].position if chunks else self.since

    @precondition(lambda self: self.since is not None)
    @rule()
    def trim(self):
        self.spool.trim(self.since)

    @invariant()
    def all_that_was_kept_is_there(self):
        if hasattr(self, "spool"):
            assert numbers(everything(self.spool, self.since)) == self.kept[self.read :]


Model.TestCase.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
TestModel = Model.TestCase


class Listed(Source[SourceConfig]):
    framing = NdjsonCodec()

    def read(self, since):
        return iter(())


@settings(max_examples=200, deadline=None)
@given(
    groups=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8),
    apart=st.sets(st.integers(0, 30)),
    odd=st.sets(st.integers(0, 30)),
)
def test_small_chunks_are_read_as_one_and_again_the_same(tmp_path_factory, groups, apart, odd):
    """Whatever lies beside them, in another process; not beyond where a storage ends, nor beside what is unlike them."""
    folder = tmp_path_factory.mktemp("spool") / "s"
    spool, number = opened(folder), 0
    for group in groups:
        made = [chunk(number + n, kind=kind) for n, kind in enumerate(group)]
        for data in made:
            del data.metadata["n"]
            if number in odd:
                data.data_format = "csv"
            number += 1
        spool.append(made)
    source = SpoolSource(Listed(id="in"), opened(folder), None, None)
    ends = [data.position for data in everything(spool) if data.position["frame"] in apart]
    source.keep_apart(ends)
    chunks, since = [], None
    while found := source._read(since):
        chunks += found
        since = found[-1].position
    frames = everything(spool)
    assert b"".join(data.raw_data for data in chunks) == b"".join(data.raw_data for data in frames)
    assert {data.position["frame"] for data in chunks} >= {end["frame"] for end in ends}
    since = None
    for data in chunks:
        inside = [
            each
            for each in frames
            if (since or {"frame": 0})["frame"] < each.position["frame"] <= data.position["frame"]
        ]
        assert len({(each.data_format, each.metadata["kind"]) for each in inside}) == 1
        assert SpoolSource(Listed(id="in"), opened(folder), None, None).replay(since, data.position) == data
        since = data.position
