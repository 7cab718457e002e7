"""The name of a file that a killed process has made is durable before anything in that file is told as kept.

An fsync of the file does not promise that (POSIX): the folder's is needed, also where the file is there already.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from collectors.models import CollectedData
from collectors.runtime._spool_frames import HEADER_SIZE
from collectors.runtime.spool import Spool
from collectors.storage.sqlite_store import open_database
from collectors.testing.deliveries import delivery

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def synced(monkeypatch):
    """The paths that were synced, in their order."""
    paths = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def noted(descriptor, real=real):
            real(descriptor)
            paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())

        monkeypatch.setattr(os, name, noted)
    return paths


def spool(folder):
    made = Spool(folder, "in", 2**30, now=lambda: NOW, tell=print)
    made.open()
    made.append([CollectedData("in", NOW, "ndjson", "Test", b"{}\n", {})])
    made.close()


def sqlite(folder):
    database = open_database(folder / "a.db")
    with database.transaction():
        database.execute("create table if not exists t (n)")
    database.close()


def duckdb(folder):
    backend = pytest.importorskip("collectors.storage.backends.duckdb").DuckdbBackend(
        path=str(folder / "a.duckdb"), table="readings"
    )

    async def store():
        await backend.connect()
        checkpoint = await backend.call(backend.claim, "contract/source")
        await backend.call(backend.commit, delivery(checkpoint.seq + 1, 1, checkpoint.epoch, letters=0))
        await backend.disconnect()

    asyncio.run(store())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
@pytest.mark.parametrize("store", [spool, sqlite, duckdb])
def test_a_file_that_was_there_has_its_name_synced(tmp_path, synced, store):
    folder = tmp_path / "here"
    store(folder)
    for path in folder.glob("*.spool"):
        os.truncate(
            path, HEADER_SIZE
        )  # as one who was killed behind making it leaves it, to be used by the next
    del synced[:]
    store(folder)
    assert folder in synced
