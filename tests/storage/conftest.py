"""Tables in every backend that has some."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from collectors import registry


@pytest.fixture(params=["sqlite", "duckdb", "postgres"])
def where(request, tmp_path):
    """Return a function that gives the settings of an empty table."""
    if request.param == "postgres":
        server = request.getfixturevalue("postgres_server")
        yield lambda: {"type": "postgres", "dsn": server.dsn, "table": f"rows-{uuid.uuid4().hex[:12]}"}
        return
    path = str(tmp_path / "rows.db")
    with asyncio.Runner() as runner:
        keeper = registry.create("backend", request.param, {"path": path})
        runner.run(keeper.connect())  # opening a DuckDB file anew for each example takes long
        yield lambda: {"type": request.param, "path": path, "table": f"rows-{uuid.uuid4().hex[:12]}"}
        runner.run(keeper.disconnect())
