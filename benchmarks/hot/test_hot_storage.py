"""What is written: CPU time, not that of the disk."""

from datetime import UTC, datetime
from itertools import count

import pytest

from collectors.chunks import ChunkKey, Counts, Delivery, Rejected
from collectors.models import CollectedData
from collectors.runtime.preparing import Letters
from collectors.runtime.spool import Spool
from collectors.storage.backends.parquet import ParquetBackend
from collectors.storage.backends.sqlite import SqliteBackend

FLOW = "hot/sensors"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LETTERS = Letters("hot", "sensors", "run", "1", lambda: NOW)


@pytest.fixture
def deliver(schema):
    """Return what makes and commits one delivery after the other."""

    def committing(backend, table, letters=()):
        backend.open()
        epoch, numbers, known = backend.claim(FLOW).epoch, count(1), schema.serialize().to_pybytes()

        def commit():
            seq = next(numbers)
            return backend.commit(
                Delivery(
                    key=ChunkKey(FLOW, epoch, seq),
                    first_seq=seq,
                    table=table,
                    position={"n": seq},
                    schema=known,
                    run="run",
                    counts=Counts(read=table.num_rows, stored=table.num_rows),
                    dead_letters=list(letters),
                )
            )

        return commit

    return committing


@pytest.fixture
def letters():
    """Return what makes a thousand dead letters."""
    refused = [Rejected(b'{"id": broken', "expected a value", n) for n in range(1000)]
    return lambda: LETTERS.make(refused, "decode", 1, lambda item: {"offset": item.record}, whole=True)


def test_sqlite_rows(hot, tmp_path, deliver, table):
    backend = SqliteBackend(path=str(tmp_path / "out.db"), table="sensors")
    assert hot(deliver(backend, table.slice(0, 8_000)))
    backend.close()


def test_sqlite_small(hot, tmp_path, deliver, table):
    """A single row: what a commit costs by itself."""
    backend = SqliteBackend(path=str(tmp_path / "out.db"), table="sensors")
    assert hot(deliver(backend, table.slice(0, 1)), rounds=200)
    backend.close()


def test_sqlite_letters(hot, tmp_path, deliver, table, letters):
    backend = SqliteBackend(path=str(tmp_path / "out.db"), table="sensors")
    assert hot(deliver(backend, table.slice(0, 0), letters()))
    backend.close()


def test_parquet_rows(hot, tmp_path, deliver, table):
    backend = ParquetBackend(path=str(tmp_path / "lake"))
    commit = deliver(backend, table)
    hot(lambda: (commit(), backend.flush()))
    backend.close()


def test_spool(hot, tmp_path, raw):
    spool = Spool(tmp_path / "spool", "sensors", 2**40, now=lambda: NOW, tell=pytest.fail)
    spool.open()
    chunks = [CollectedData("sensors", NOW, "ndjson", "push", raw[:64_000], {}) for _ in range(16)]
    hot(spool.append, chunks)
    assert spool.durable
    spool.close()


def test_letters(hot, letters):
    assert len(hot(letters)) == 1000
