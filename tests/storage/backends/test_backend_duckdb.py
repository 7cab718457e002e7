from __future__ import annotations

from pathlib import Path
from typing import Any

from collectors.testing.backend_contract import BackendContract


class TestDuckdb(BackendContract):
    component = "duckdb"

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder / "new" / "test.duckdb"), "table": 'a "strange" table; --'}
