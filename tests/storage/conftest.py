"""Tables in every backend that has some."""

from __future__ import annotations

import uuid

import pytest


@pytest.fixture(params=["sqlite", "duckdb", "postgres"])
def where(request, tmp_path):
    """Return a function that gives the settings of an empty table."""
    if request.param == "postgres":
        server = request.getfixturevalue("postgres_server")
        return lambda: {"type": "postgres", "dsn": server.dsn, "table": f"rows-{uuid.uuid4().hex[:12]}"}
    path = str(tmp_path / "rows.db")
    return lambda: {"type": request.param, "path": path, "table": f"rows-{uuid.uuid4().hex[:12]}"}
