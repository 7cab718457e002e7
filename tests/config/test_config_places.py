"""Two storages that are the same place are a mistake in the file; two tables of one file are not."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys

import duckdb
import pytest

from collectors.config.load import from_mapping, load
from collectors.errors import ConfigurationError
from collectors.runtime.engine import run
from collectors.storage.backends.sqlite import SqliteBackend
from collectors.testing.deliveries import everything

SOURCES = """\
sources:
  - {type: file, id: a, path: a.ndjson}
  - {type: file, id: b, path: b.ndjson}
storage:
"""
SERVER = "type: postgres, in_schema: s, table: t"
SAME = {
    "relative": ("type: sqlite, path: out.db", "type: sqlite, path: ./sub/../out.db"),
    "link to the folder": ("type: sqlite, path: out.db", "type: sqlite, path: link/out.db"),
    "link to the file": ("type: duckdb, path: real.db", "type: duckdb, path: to-real.db"),
    "table by its source": ("type: sqlite, path: out.db", "type: sqlite, path: out.db, table: b"),
    "case": ("type: duckdb, path: x, table: Rows", "type: duckdb, path: x, table: rows"),
    "folder": ("type: parquet, path: lake", "type: parquet, path: lake/, max_rows: 5"),
    "link to a folder": ("type: parquet, path: lake, partition_by: [day]", "type: parquet, path: link/lake"),
    "dsn": (
        f'{SERVER}, dsn: "postgresql://me:one@db.example/d"',
        f"{SERVER}, host: db.example, port: 5432, user: me, password: two, database: d",
    ),
}
DIFFERENT = {
    "file": ("type: sqlite, path: out.db", "type: sqlite, path: other.db"),
    "table": ("type: sqlite, path: out.db, table: s", "type: sqlite, path: out.db, table: t"),
    "tables by source": ("type: duckdb, path: x", 'type: duckdb, path: x, table: "{source}_too"'),
    "folder": ("type: parquet, path: lake", "type: parquet, path: lake2"),
    "type": ("type: parquet, path: x", "type: sqlite, path: x"),
    "stdout": ("type: stdout", "type: stdout, format: table"),
    "memory": ("type: memory", "type: memory"),
    "schema": (f"{SERVER}, host: h", "type: postgres, in_schema: r, table: t, host: h"),
    "user": ("type: postgres, table: t, user: u", "type: postgres, table: t, user: v"),
}


def storage(settings):
    return "".join(f"  - {{{each}, id: {name}}}\n" for name, each in zip(("x", "y"), settings, strict=True))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "to-real.db").symlink_to("real.db")
    return tmp_path


@pytest.mark.parametrize("what", SAME)
def test_the_same_place(folder, problems, what):
    (found,) = problems(SOURCES + storage(SAME[what]))
    assert (found.line, found.path) == (6, "storage[1]")
    assert found.message.startswith("the storages 'x' and 'y' are the same place: ")
    assert found.hint == "leave one of the two out, or give it a place of its own"


def test_the_place_is_named_without_secrets(folder, problems):
    (found,) = problems(SOURCES + storage(SAME["link to a folder"]))
    assert found.message.endswith(f": {folder.resolve()}/lake")
    (found,) = problems(SOURCES + storage(SAME["dsn"]))
    assert found.message.endswith(": PostgreSQL host=db.example port=5432 dbname=d user=me, table s.t")


@pytest.mark.parametrize("what", DIFFERENT)
def test_different_places(folder, write, what):
    assert len(load(write(SOURCES + storage(DIFFERENT[what]))).backends) == 2


def test_it_counts_where_a_route_has_both(write, problems):
    """Rows of two routes have positions of their own, so they may go to one place."""
    text = SOURCES + storage(SAME["relative"])
    assert load(write(f"{text}pipelines:\n  one: {{to: x}}\n  two: {{to: y}}\n"))
    (found,) = problems(f"{text}pipelines:\n  one: {{to: x}}\n  two: {{from: a, to: [x, y]}}\n")
    assert found.path == "storage[1]"


def test_what_is_wrong_otherwise_is_told_too(problems):
    """An id that is not there, a storage that cannot be made: no place is asked for."""
    text = f"{SOURCES}  - {{type: sqlite, id: x}}\n  - {{type: sqlite, id: y, path: y.db}}\n"
    found = problems(f"{text}pipelines: {{one: {{to: [x, y, z]}}}}\n")
    assert [problem.path for problem in found] == ["storage[0].path", "pipelines.one.to[2]"]


def test_objects_of_python(tmp_path):
    stores = [SqliteBackend(id=name, path=str(tmp_path / "out.db")) for name in "xy"]
    with pytest.raises(ConfigurationError, match="'x' and 'y' are the same place"):
        from_mapping({"sources": [{"type": "stdin"}], "storage": stores})


@pytest.mark.parametrize("command", ["run", "check"])
def test_the_command_ends_with_two(folder, write, command):
    write(SOURCES + storage(SAME["relative"]))
    for name in "ab":
        (folder / f"{name}.ndjson").write_text('{"n": 1}\n')
    done = subprocess.run(
        [sys.executable, "-m", "collectors", command, "pipeline.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "'x' and 'y' are the same place" in done.stderr
    assert not (folder / "out.db").exists()


def in_sqlite(path, table):
    with sqlite3.connect(path) as database:
        return database.execute(f'select n from "{table}" order by n').fetchall()


def in_duckdb(path, table):
    with duckdb.connect(path, read_only=True) as database:
        return database.execute(f'select n from "{table}" order by n').fetchall()


@pytest.mark.parametrize(("kind", "rows"), [("sqlite", in_sqlite), ("duckdb", in_duckdb)])
def test_two_tables_of_one_file_get_everything_each(folder, write, kind, rows):
    settings = [f"type: {kind}, path: out.db, table: {table}" for table in ("s", "t")]
    write(SOURCES + storage(settings))
    for turn in range(2):
        for source, name in enumerate("ab"):
            with (folder / f"{name}.ndjson").open("a") as file:
                file.writelines(json.dumps({"n": 10 * turn + 5 * source + n}) + "\n" for n in range(5))
        report = run("pipeline.yaml")
        assert report.status == "done", report.reason
    expected = [(n,) for n in range(20)]
    assert rows("out.db", "s") == rows("out.db", "t") == expected


def test_two_tables_of_one_database_get_everything_each(folder, postgres_server):
    (folder / "a.ndjson").write_text("".join(f'{{"n": {n}}}\n' for n in range(5)))
    common = {"type": "postgres", "dsn": postgres_server.dsn, "in_schema": "two_tables"}
    pipeline = {
        "sources": [{"type": "file", "path": "a.ndjson"}],
        "storage": [common | {"id": table, "table": table} for table in ("s", "t")],
    }
    config = from_mapping(pipeline, folder=folder)
    assert run(config).status == "done"
    for component in config.backends.values():
        backend = component.make()
        backend.open()
        assert [row["n"] for row in backend.select(everything())] == list(range(5))
        backend.close()
