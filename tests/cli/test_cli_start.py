"""A plain run imports what it needs, and nothing else: its start is most of what a small one costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PIPELINE = """
sources: [{type: file, id: readings, path: in.ndjson}]
processors:
  - {type: filter, where: "status <> 'fail' and temperature between -50 and 60"}
  - {type: set, columns: {fahrenheit: temperature * 9 / 5 + 32}}
storage: [STORAGE]
"""
PROGRAM = """
import gc, json, linecache, sys
from collectors.cli.main import main
sys.argv = ["collectors", "run", "p.yaml", "--quiet"]
try:
    main()
except SystemExit as error:
    code = error.code
print(json.dumps([code, gc.isenabled(), gc.get_threshold()[0], list(linecache.cache), list(sys.modules)]))
"""
NOT_NEEDED = {
    *["aiohttp", "cronsim", "duckdb", "numpy", "pandas", "psutil", "psycopg", "rich", "sqlglot", "typer"],
    *[
        "collectors.cli._verbs",
        "collectors.runtime.isolation",
        "collectors.runtime.sandbox",
        "collectors.runtime.spool",
    ],
    *["collectors.terminal", "pyarrow.dataset"],
    *[f"collectors.storage.{part}" for part in ("criteria", "narrowing", "nesting")],
    *[f"collectors.storage.backends.{part}" for part in ("_parquet_query", "_sqlite_query")],
}


@pytest.mark.parametrize("storage", ["{type: parquet, path: out}", "{type: sqlite, path: out/rows.db}"])
def test_what_a_plain_run_imports(tmp_path, storage):
    (tmp_path / "in.ndjson").write_text('{"status": "ok", "temperature": 20.5}\n')
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("STORAGE", storage))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    code, collecting, threshold, sources, modules = json.loads(done.stdout)
    assert (code, done.stderr) == (0, "")
    assert len([*tmp_path.glob("out/**/*.parquet"), *tmp_path.glob("out/rows.db")]) == 1
    assert sorted(NOT_NEEDED.intersection(modules)) == []
    assert [name for name in sources if "collectors" in name] == []  # for the texts under settings
    assert (collecting, threshold) == (True, 50_000)
