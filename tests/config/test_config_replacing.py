"""`write: replace` is for one source to a table, whose every reading is of everything; all else is told at its line."""

from __future__ import annotations

import pytest

from collectors.config.load import load

SQL = "{type: sql, id: a, url: 'sqlite:///in.db', table: things}"
TO = "  - {type: sqlite, path: out.db, write: replace}\n"


def pipeline(*sources, storage=TO, more=""):
    lines = "".join(f"  - {source}\n" for source in sources)
    return f"name: p\nsources:\n{lines}storage:\n{storage}{more}"


@pytest.mark.parametrize(
    "kind", ["path: out.db, type: sqlite", "path: out.db, type: duckdb", "type: postgres"]
)
def test_what_can_be_replaced(write, kind):
    http = "{type: http, id: b, url: 'https://api.example.com/things'}"
    storage = f"  - {{{kind}, write: replace}}\n"
    assert load(write(pipeline(SQL, http, storage=storage))).backends


@pytest.mark.parametrize(
    "source",
    [
        "{type: sql, id: a, url: 'sqlite:///in.db', table: things, key: id}",
        "{type: http, id: a, url: 'https://a.example/x', incremental: {cursor: at, param: since}}",
        "{type: http, id: a, url: 'https://a.example', endpoints: [{name: x, path: x, incremental: {cursor: at, param: since}}]}",
        "{type: file, id: a, path: in.ndjson}",
        "{type: sql, id: x, group: a, every: 1s, url: 'sqlite:///in.db', table: things}",
    ],
)
def test_a_source_that_goes_on(problems, source):
    (found,) = problems(pipeline(source))
    assert (found.line, found.path) == (5, "storage[0].write")
    assert (
        found.message
        == "the source 'a' does not read everything again and again, so nothing would be replaced"
    )


def test_two_sources_in_one_table(write, problems):
    other = SQL.replace("id: a", "id: b")
    (found,) = problems(pipeline(SQL, other, storage=TO.replace("write:", "table: one, write:")))
    assert found.message == "the source 'a' and the source 'b' would replace each other's rows in one table"
    assert load(write(pipeline(SQL, other)))


def test_two_pipelines_of_one_source(problems):
    routes = "pipelines:\n  one: {processors: []}\n  two: {processors: [{type: filter, where: id > 1}]}\n"
    (found,) = problems(pipeline(SQL, more=routes))
    assert found.message == (
        "the source 'a' in the pipeline 'one' and the source 'a' in the pipeline 'two' would replace each other's rows "
        "in one table"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("key: id", "a `key` (id) is for `write: upsert`"),
        ("nested: tables", "cannot be together with `write: replace`"),
    ],
)
def test_settings_that_do_not_go_together(problems, settings, message):
    (found,) = problems(pipeline(SQL, storage=TO.replace("write:", f"{settings}, write:")))
    assert message in found.message
