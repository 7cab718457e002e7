from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from collectors.testing.backend_contract import BackendContract
from collectors.testing.postgres_server import PostgresServer


@pytest.mark.timeout(400)  # a schema and its tables for each of hundred examples
class TestPostgres(BackendContract):
    component = "postgres"
    cannot_store = "\0"

    @pytest.fixture(autouse=True)
    def _server(self, postgres_server: PostgresServer) -> None:
        self.dsn = postgres_server.dsn

    def settings(self, folder: Path) -> dict[str, Any]:
        schema = "crash-{moment}" if str(folder) == "{folder}" else f"test-{hash(str(folder))}"
        return {"dsn": self.dsn, "in_schema": schema, "table": 'a "strange" table; --%s'}

    @pytest.mark.slow
    def test_dying_at_any_moment_loses_and_doubles_nothing(self, tmp_path: Path) -> None:
        super().test_dying_at_any_moment_loses_and_doubles_nothing(tmp_path)
