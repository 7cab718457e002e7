"""`check` says "ready" of what `run` can run, and of nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3

import pytest

from collectors.config.load import from_mapping
from collectors.runtime.engine import Engine
from collectors.runtime.sampling import sample
from collectors.testing.clock import ManualEnv


@pytest.fixture
def check(tmp_path):
    """Return what samples the pipeline of a file with these records; settings are those of the pipeline."""

    def run(lines, *, storage=None, source=None, **settings):
        (tmp_path / "in.ndjson").write_text("".join(f"{line}\n" for line in lines))
        config = from_mapping(
            {
                "sources": [{"type": "file", "id": "in", "path": "in.ndjson", **(source or {})}],
                "storage": [storage or {"type": "sqlite", "path": "out.db", "table": "rows"}],
                **settings,
            },
            folder=tmp_path,
            name="check",
        )
        (found,) = asyncio.run(sample(config, 10.0))
        return found

    return run


ROWS = [json.dumps({"id": f"d-{n}", "n": n}) for n in range(200)]


def test_what_can_run_has_no_problem(check):
    found = check(ROWS)
    assert (found.problem, found.note, found.read) == (None, None, 200)


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_column_of_another_type_is_in_the_way(check, tmp_path, kind):
    if kind == "sqlite":
        database = sqlite3.connect(tmp_path / "out.db")
    else:
        database = pytest.importorskip("duckdb").connect(str(tmp_path / "out.db"))
    database.execute("create table rows (id integer, n integer)")
    database.close()
    found = check(ROWS, storage={"type": kind, "path": "out.db", "table": "rows"})
    assert f"storage '{kind}' cannot take this: id: table has INTEGER, rows bring" in found.problem
    assert "cast the column in a processor" in found.problem


def test_a_name_that_the_storage_cannot_have_costs_records_not_the_run(check):
    found = check(['{"id": 1}', '{"id": 2, "ID": 3}'])
    assert found.problem is None
    (line,) = [line for line in found.previews[0].lines if line.startswith("~")]
    assert "ID: 'id' differs only in upper and lower case" in line
    assert "records that have it are set aside" in line


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "parquet"])
def test_a_place_in_which_nothing_can_be_made(check, tmp_path, kind):
    found = check(ROWS, storage={"type": kind, "path": "in.ndjson/out"})
    assert (
        f"cannot write {tmp_path}/in.ndjson/out: {tmp_path}/in.ndjson is a file, not a folder"
        in found.problem
    )


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "parquet"])
def test_a_folder_without_permission(check, tmp_path, kind, monkeypatch):
    (tmp_path / "locked").mkdir()
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "locked" not in str(path) and allowed(path, mode))
    found = check(ROWS, storage={"type": kind, "path": "locked/new/out"})
    assert (
        f"cannot write {tmp_path}/locked/new/out: no permission to write to {tmp_path}/locked;"
        in found.problem
    )
    assert not list((tmp_path / "locked").iterdir())


def test_a_folder_for_state_that_cannot_be_made(check):
    found = check(ROWS, state="in.ndjson/state")
    assert "in.ndjson is a file, not a folder; set `state:` in the pipeline to a folder" in found.problem


BAD = ["{broken"] * 5


@pytest.mark.parametrize(
    ("settings", "ready"),
    [
        ({"stop_above": "1%"}, False),
        ({"stop_above": "1%", "source": {"stop_above": "50%"}}, True),
        ({"source": {"stop_above": 0}}, False),
        ({}, True),
    ],
)
def test_more_bad_records_than_allowed(check, settings, ready):
    found = check([*ROWS, *BAD], **settings)
    assert len(found.refused) == 5
    assert (found.problem is None) is ready
    if not ready:
        assert "5 of 205 records of the sample would be set aside" in found.problem
        assert "exit code 3" in found.problem


def test_a_source_that_goes_on_is_not_judged_by_a_handful(check):
    """As in a run: a share says something from a hundred records on, or when there are no more."""
    assert check([*ROWS[:20], *BAD], stop_above="1%", source={"follow": True}).problem is None
    assert check([*ROWS[:20], *BAD], stop_above="1%").problem is not None


def test_a_webhook_that_nothing_was_sent_to_is_ready(tmp_path):
    config = from_mapping(
        {
            "sources": [{"type": "webhook", "listen": "127.0.0.1:0"}],
            "storage": [{"type": "sqlite", "path": "o.db"}],
        },
        folder=tmp_path,
        name="check",
    )
    (found,) = asyncio.run(sample(config, 10.0, ManualEnv(hurry=True)))
    assert found.problem is None
    assert "no record came within 10 s; the source is reachable" in found.note
    assert [preview.backend for preview in found.previews] == ["sqlite"]


def test_a_silent_source_does_not_hide_what_is_in_the_way_of_its_storage(check):
    found = check([], storage={"type": "sqlite", "path": "in.ndjson/out.db"})
    assert "there is no record" in found.note
    assert "is a file, not a folder" in found.problem


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "parquet", "stdout"])
def test_a_route_that_has_got_another_name_is_in_the_way(check, tmp_path, kind):
    """As of a run, which would store everything once more; nothing is written to find that out."""
    if kind == "duckdb":
        pytest.importorskip("duckdb")
    storage = {"type": kind} | ({} if kind == "stdout" else {"path": "out"})
    assert check(ROWS, storage=storage, pipelines={"one": {}}).problem is None
    config = from_mapping(
        {
            "sources": [{"type": "file", "id": "in", "path": "in.ndjson"}],
            "storage": [storage],
            "pipelines": {"one": {}},
        },
        folder=tmp_path,
        name="check",
    )
    assert asyncio.run(Engine(config).run()).balanced
    before = contents(tmp_path)
    for routes, now in (({"pipelines": {"two": {}}}, "two"), ({}, "main")):
        found = check(ROWS, storage=storage, **routes)
        assert found.misconfigured
        assert (
            f"storage '{kind}' has rows of source 'in' by the route 'one', and none by the route '{now}'"
            in (found.problem)
        )
    assert check(ROWS, storage=storage, pipelines={"one": {}}).problem is None
    assert contents(tmp_path) == before


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
