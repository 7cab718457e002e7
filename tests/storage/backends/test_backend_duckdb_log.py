"""DuckDB's write-ahead log can be lost or unreadable: what was told as durable is there all the same."""

from __future__ import annotations

import asyncio
import shutil

import pytest

duckdb_backend = pytest.importorskip("collectors.storage.backends.duckdb", reason="pip install duckdb")

from collectors.testing.deliveries import delivery  # noqa: E402

FLOW = "contract/source"


def crash_behind(tmp_path, deliveries, flush_behind):
    """Store deliveries, copy the files as a crash would leave them; return the copy and the last seq told as durable."""

    async def main():
        backend = duckdb_backend.DuckdbBackend(path=str(tmp_path / "a.duckdb"), table="readings")
        await backend.connect()
        await backend.call(backend.claim, FLOW)
        told = 0
        for seq in range(1, deliveries + 1):
            told = max(told, await backend.call(backend.commit, delivery(seq, seq, letters=0)))
            if seq == flush_behind:
                await backend.call(backend.flush)
                told = (await backend.call(backend.stored, FLOW)).seq
        left = tmp_path / "left"
        left.mkdir()
        for path in tmp_path.glob("a.duckdb*"):
            shutil.copy(path, left)
        await backend.disconnect()
        return left / "a.duckdb", told

    return asyncio.run(main())


def go_on(path, deliveries, *, ask):
    """Take the flow over, store what is missing, and return how far it was stored, and all rows."""

    async def main():
        backend = duckdb_backend.DuckdbBackend(path=str(path), table="readings")
        await backend.connect()
        asked = await backend.call(backend.stored, FLOW) if ask else None
        checkpoint = await backend.call(backend.claim, FLOW)
        assert asked is None or asked.seq == checkpoint.seq
        for seq in range(checkpoint.seq + 1, deliveries + 1):
            await backend.call(backend.commit, delivery(seq, seq, checkpoint.epoch, letters=0))
        rows = await backend.call(
            lambda: backend._file._open_writer().rows("select n from readings order by n")
        )
        await backend.disconnect()
        return checkpoint.seq, [n for (n,) in rows]

    return asyncio.run(main())


@pytest.mark.parametrize("ask", [False, True], ids=["claimed", "asked and claimed"])
@pytest.mark.parametrize("damage", ["lost", "cut off", "overwritten"])
def test_what_was_told_as_durable_does_not_need_the_log(tmp_path, damage, ask):
    path, told = crash_behind(tmp_path, 5, flush_behind=2)
    assert told >= 2
    log = path.with_name("a.duckdb.wal")
    content = log.read_bytes()
    if damage == "lost":
        log.unlink()
    else:
        half = len(content) // 2
        log.write_bytes(content[:half] + (b"" if damage == "cut off" else b"\xff" * half))
    stored, rows = go_on(path, 5, ask=ask)
    assert stored >= told
    assert rows == list(range(15))
