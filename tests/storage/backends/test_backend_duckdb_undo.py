"""A checkpoint of DuckDB that a power cut ends half-way: the file opens again, and what was told as durable is there."""

from __future__ import annotations

import asyncio
import shutil

import pytest

duckdb_backend = pytest.importorskip("collectors.storage.backends.duckdb", reason="pip install duckdb")

from collectors.errors import FatalError  # noqa: E402
from collectors.storage.backends import _duckdb_file  # noqa: E402
from collectors.storage.backends._duckdb_undo import HEADERS, Undo  # noqa: E402
from collectors.testing.deliveries import delivery  # noqa: E402

FLOW = "contract/source"
BLOCK = 262_144


def in_the_middle(tmp_path, monkeypatch, moment):
    """Store two deliveries behind a checkpoint and one that is not; return the files as they are in the next one."""
    left = tmp_path / "left"
    left.mkdir()

    def copy():
        for path in tmp_path.glob("*a.duckdb*"):
            shutil.copy(path, left)

    def kept(undo, descriptor, ranges):
        keep(undo, descriptor, ranges)
        if moment == "before":
            copy()

    def forgotten(undo):
        if moment == "behind":
            copy()
        forget(undo)

    async def main():
        backend = duckdb_backend.DuckdbBackend(path=str(tmp_path / "a.duckdb"), table="readings")
        await backend.connect()
        await backend.call(backend.claim, FLOW)
        for seq in (1, 2):
            await backend.call(backend.commit, delivery(seq, seq, letters=0))
        await backend.call(backend.flush)
        await backend.call(backend.commit, delivery(3, 3, letters=0))
        monkeypatch.setattr(Undo, "keep", kept)
        monkeypatch.setattr(Undo, "forget", forgotten)
        await backend.call(backend.flush)
        monkeypatch.undo()
        await backend.disconnect()

    keep, forget = Undo.keep, Undo.forget
    asyncio.run(main())
    return left / "a.duckdb"


def look(path):
    async def main():
        backend = duckdb_backend.DuckdbBackend(path=str(path), table="readings")
        await backend.connect()
        checkpoint = await backend.call(backend.claim, FLOW)
        rows = await backend.call(
            lambda: backend._file._open_writer().rows("select n from readings order by n")
        )
        await backend.disconnect()
        return checkpoint.seq, [n for (n,) in rows]

    return asyncio.run(main())


def tear(path, at, size=4096):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xee" * size)


@pytest.mark.parametrize("at", [HEADERS, HEADERS + 4096, HEADERS + BLOCK - 4096])
def test_a_torn_block_of_metadata(tmp_path, monkeypatch, at):
    path = in_the_middle(tmp_path, monkeypatch, "before")
    tear(path, at)
    assert look(path) == (3, list(range(9)))
    assert not Undo(path).exists()


def test_a_torn_block_cannot_be_opened_without_what_was_kept(tmp_path, monkeypatch):
    path = in_the_middle(tmp_path, monkeypatch, "before")
    tear(path, HEADERS)
    Undo(path).forget()
    with pytest.raises(FatalError, match="is damaged"):
        look(path)


@pytest.mark.parametrize("header", [4096, 8192])
def test_a_torn_header(tmp_path, monkeypatch, header):
    path = in_the_middle(tmp_path, monkeypatch, "behind")
    before = in_the_middle_headers(path)
    if before[header // 4096] == in_file(path, header):
        pytest.skip("the checkpoint wrote the other header")
    tear(path, header, 512)
    assert look(path)[1][:6] == list(range(6))


def in_the_middle_headers(path):
    kept = dict(Undo(path)._pieces())[0]
    return [kept[at : at + 4096] for at in range(0, HEADERS, 4096)]


def in_file(path, at):
    return path.read_bytes()[at : at + 4096]


def test_a_checkpoint_that_had_come_to_its_end_is_not_taken_back(tmp_path, monkeypatch):
    path = in_the_middle(tmp_path, monkeypatch, "behind")
    path.with_name("a.duckdb.wal").unlink(missing_ok=True)
    assert look(path) == (3, list(range(9)))
    assert not Undo(path).exists()


def test_a_copy_that_was_cut_off_is_not_used(tmp_path, monkeypatch):
    path = in_the_middle(tmp_path, monkeypatch, "before")
    undo = path.with_name(".a.duckdb.undo")
    undo.write_bytes(undo.read_bytes()[:-7])
    assert look(path) == (3, list(range(9)))
    assert not undo.exists()


def test_who_only_reads_takes_it_back_too(tmp_path, monkeypatch):
    path = in_the_middle(tmp_path, monkeypatch, "before")
    tear(path, HEADERS)
    file = _duckdb_file.shared(str(path), memory=2**26, threads=1, prepare=lambda _: None)
    with file.reading() as connection:
        assert connection.rows("select count(*) from readings") == [(9,)]
    assert not Undo(path).exists()
