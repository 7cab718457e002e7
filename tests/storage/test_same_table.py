"""A flow goes on in the table that it has, whatever way the settings write its name, and begins anew in another one."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from collectors.config.load import from_mapping
from collectors.runtime.engine import Engine
from collectors.storage.positions import same_table, table_of
from collectors.testing.deliveries import everything


@pytest.fixture(params=["sqlite", "duckdb", "postgres"])
def place(request):
    """Settings of a storage of each kind, without the table."""
    if request.param != "postgres":
        return {"type": request.param, "path": "out.db"}
    server = request.getfixturevalue("postgres_server")
    return {"type": "postgres", "dsn": server.dsn, "in_schema": f"same-{uuid.uuid4().hex[:12]}"}


def run(folder, storage, records):
    (folder / "in.ndjson").write_text("".join(f'{{"n": {n}}}\n' for n in range(records)))
    source = {"type": "file", "id": "numbers", "path": "in.ndjson"}
    config = from_mapping({"sources": [source], "storage": [storage]}, folder=folder, name="test")
    report = asyncio.run(Engine(config).run())
    assert report.balanced
    assert not report.failed
    return report, asyncio.run(stored(config))


async def stored(config):
    (component,) = config.backends.values()
    backend = component.make()
    await backend.connect()
    try:
        return sorted(row["n"] for row in await backend.query(everything()))
    finally:
        await backend.disconnect()


def test_another_way_to_write_the_table_stores_nothing_twice_and_leaves_nothing_out(tmp_path, place):
    ways = ["{source}", "numbers", "{source}", "numbers"]
    for records, table in enumerate(ways, 2):
        report, rows = run(tmp_path, {**place, "table": table}, records)
        assert rows == list(range(records))
        assert report.flows[0].edges[0].ledger == report.flows[0].edges[0].counts
    _, rows = run(tmp_path, {**place, "table": "others"}, 6)
    assert rows == list(range(6))
    _, rows = run(tmp_path, {**place, "table": "numbers"}, 7)
    assert rows == list(range(7))


def test_names_of_tables():
    assert table_of("all_{source}", "pipeline/sensors/route") == "all_sensors"
    assert same_table("{source}", "sensors", "p/sensors")
    assert not same_table("{source}", "sensors", "p/others")
    assert not same_table("A", "a", "p/s")
    assert same_table("A", "a", "p/s", any_case=True)
