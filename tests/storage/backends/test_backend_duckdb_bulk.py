"""Many rows in a commit: past DuckDB's log, and text that hardly repeats as zstd."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from msgspec.structs import replace

from collectors.storage.backends.duckdb import DuckdbBackend
from collectors.testing.deliveries import delivery

FLOW = "contract/source"


def store(folder: Path, tables: list[pa.Table]) -> list[int]:
    """Store each with a commit; returns the bytes of the log behind each."""
    sizes = []

    async def main() -> None:
        backend = DuckdbBackend(path=str(folder / "test.duckdb"), table="rows")
        await backend.connect()
        try:
            await backend.call(backend.claim, FLOW)
            for seq, table in enumerate(tables, 1):
                await backend.call(backend.commit, replace(delivery(seq, seq), table=table))
                sizes.append(backend._file.log_size())
        finally:
            await backend.disconnect()

    asyncio.run(main())
    return sizes


def rows(folder: Path, statement: str) -> list[Any]:
    with duckdb.connect(str(folder / "test.duckdb"), read_only=True) as connection:
        return connection.execute(statement).fetchall()


def compressions(folder: Path, column: str) -> set[str]:
    found = rows(
        folder,
        "select distinct compression from pragma_storage_info('rows') "
        f"where column_name = '{column}' and segment_type = 'VARCHAR'",
    )
    return {name for (name,) in found}


def test_a_commit_of_as_many_rows_as_are_wished_for_goes_past_the_log(tmp_path: Path) -> None:
    count = DuckdbBackend.commit_rows
    words = pa.array([f"word {number * 7919 % 999983:09}" for number in range(count)])
    table = pa.table({"n": pa.arange(0, count), "word": words})
    few, many = store(tmp_path, [table.slice(0, 1), table.slice(0, 60_000), table])[1:]
    assert few > 60_000 * 20
    assert many - few < count
    assert rows(tmp_path, "select count(*), count(distinct n) from rows") == [(count + 60_001, count)]
    groups = rows(tmp_path, "select count(distinct row_group_id) from pragma_storage_info('rows')")
    assert groups == [(3,)], "a checkpoint has merged what it need not"


def test_text_that_hardly_repeats_is_kept_as_zstd(tmp_path: Path) -> None:
    chance = random.Random(7)
    kinds = [
        lambda: None,
        lambda: "",
        lambda: "ü" * 40,
        lambda: "x" * 300_000,
        lambda: chance.randbytes(9).hex(),
    ]
    ids = [chance.choices(kinds, (1, 1, 1, 0.003, 40))[0]() for _ in range(10_000)]
    table = pa.table({"id": ids, "state": [chance.choice(("ok", "fail")) for _ in ids]})
    store(tmp_path, [table, table.slice(0, 10), table.slice(5000, 3000)])
    assert compressions(tmp_path, "id") == {"ZSTD"}
    assert "ZSTD" not in compressions(tmp_path, "state")
    found = [value for (value,) in rows(tmp_path, "select id from rows order by _collectors_row")]
    assert found == ids + ids[:10] + ids[5000:8000]


def test_a_new_column_is_looked_at_and_a_few_rows_say_nothing(tmp_path: Path) -> None:
    few = pa.table({"a": [str(number) for number in range(100)]})
    many = pa.table({"a": [str(number) for number in range(5000)]})
    store(tmp_path, [few, many.append_column("b", many["a"])])
    assert "ZSTD" not in compressions(tmp_path, "a")
    assert "ZSTD" in compressions(tmp_path, "b")
    assert rows(tmp_path, "select count(b), min(b) from rows") == [(5000, "0")]
