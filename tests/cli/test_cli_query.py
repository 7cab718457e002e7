"""`query`: an empty answer is an answer, not a misunderstanding."""

from __future__ import annotations

import asyncio

import pytest

from collectors.config.load import load
from collectors.runtime.engine import Engine


@pytest.fixture(params=["sqlite", "duckdb", "parquet"])
def pipeline(request, tmp_path):
    """A pipeline that has run; `amount` is a column of text, for one of its values is no number."""
    (tmp_path / "in.ndjson").write_text('{"id": 1, "amount": "abc"}\n{"id": 2, "amount": "200", "more": 1}\n')
    file = tmp_path / "p.yaml"
    file.write_text(
        "sources: [{type: file, id: rows, path: in.ndjson}]\n"
        f"storage: [{{type: {request.param}, path: out}}]\n"
    )
    asyncio.run(Engine(load(file)).run())
    return str(file)


def test_a_number_beside_a_column_of_text(call, pipeline):
    code, out, err = call("query", pipeline, "--where", "amount>100")
    assert (code, out) == (2, "")
    assert "--where 'amount>100': the column 'amount' holds text, for example 'abc'" in err
    assert "--where 'amount>\"100\"'" in err
    assert "{type: cast, columns: {amount: float}}" in err


def test_what_that_message_advises(call, pipeline):
    code, out, _ = call("query", pipeline, "--where", 'amount>"100"', "--limit", "1")
    assert code == 0
    assert "abc" in out


@pytest.mark.parametrize("where", ["id>100", "amount=zzz"])
def test_no_rows_where_there_are_none(call, pipeline, where):
    assert call("query", pipeline, "--where", where) == (0, "no rows\n", "")


def test_a_table_that_is_not_there(call, pipeline):
    code, out, err = call("query", pipeline, "--table", "nosuch")
    assert (code, out) == (2, "")
    if "has no tables" not in err:
        assert "--table nosuch: there is no such table" in err
        assert "there are: rows" in err


def test_a_table_before_the_first_run(call, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("sources: [{type: file, path: a.ndjson}]\nstorage: [{type: sqlite, path: out}]\n")
    code, _, err = call("query", str(file), "--table", "file")
    assert code == 2
    assert "there is none yet: run the pipeline first" in err


def test_how_many_there_are_in_words(call, pipeline):
    _, out, err = call("query", pipeline, "--limit", "1")
    assert out.endswith("1 row; 1 column without values is not shown\n")
    assert err == "there may be more than this row; --limit shows more\n"
    assert call("query", pipeline, "--limit", "0")[2] == ""
