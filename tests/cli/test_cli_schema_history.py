"""`schema-history`: versions of tables, on paper and as JSON."""

from __future__ import annotations

import asyncio
import json

import pytest

from collectors.config.load import load
from collectors.runtime.engine import Engine


@pytest.fixture(params=["sqlite", "duckdb", "parquet"])
def pipeline(request, tmp_path):
    """A pipeline that has run twice; the second rows bring a column."""
    file = tmp_path / "p.yaml"
    file.write_text(
        "name: p\nsources: [{type: file, id: rows, path: '*.ndjson'}]\n"
        f"storage: [{{type: {request.param}, path: out}}]\n"
    )
    for number, line in enumerate(['{"id": 1}', '{"id": 2, "note": "[x]"}']):
        (tmp_path / f"{number}.ndjson").write_text(line + "\n")
        asyncio.run(Engine(load(file)).run())
    return file


def test_each_commit_that_changes_a_table_is_a_version_of_it(call, pipeline):
    code, out, err = call("schema-history", str(pipeline), "--json")
    assert (code, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert [(line["version"], line["column"], line["action"], line["rows"]) for line in found] == [
        (1, "id", "made", 0),
        (2, "note", "added", 1),
    ]
    code, out, _ = call("schema-history", str(pipeline))
    assert code == 0
    assert 'note, first with: {"id":2,"note":"[x]"}' in out.replace("\n", "")


def test_what_another_pipeline_has_made_is_not_shown(call, pipeline):
    pipeline.write_text(pipeline.read_text().replace("name: p", "name: q"))
    code, out, _ = call("schema-history", str(pipeline))
    assert code == 0
    assert "no table was made and no column has changed yet" in out
    assert call("schema-history", str(pipeline), "--json") == (0, "", "")


def test_a_storage_that_keeps_no_columns(call, pipeline):
    pipeline.write_text(pipeline.read_text().replace("storage: [", "storage: [{type: stdout}] #"))
    assert call("schema-history", str(pipeline)) == (
        0,
        "no storage of this pipeline keeps the columns of its tables\n",
        "",
    )
