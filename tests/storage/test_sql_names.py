"""Names of tables and columns in SQL."""

from __future__ import annotations

import sqlite3
import time

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import FatalError
from collectors.storage.sql_names import folded, quote, unfit_columns

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(one=NAMES, other=NAMES)
def test_names_are_compared_as_the_databases_do(one, other):
    same = folded(one) == folded(other)
    with sqlite3.connect(":memory:") as connection:
        ((found,),) = connection.execute("select ? = ? collate nocase", (one, other))
    connection.close()
    assert bool(found) == same


@given(name=NAMES)
def test_a_quoted_name_is_one_name(name):
    with duckdb.connect() as connection:
        assert connection.execute(f"select 1 as {quote(name)}").description[0][0] == name


def test_what_a_table_cannot_have():
    def unfit(name):
        return "no" if name == "bad" else None

    assert unfit_columns("t", ["a", "A", "bad", "É", "é"], unfit) == {"bad": "no"}
    found = unfit_columns("t", ["A", "bad", "É", "é", "b", "B"], unfit, ["a"], without_case="X")
    assert found == {
        "A": "'a' differs only in upper and lower case, which X does not tell apart",
        "bad": "no",
        "B": "'b' differs only in upper and lower case, which X does not tell apart",
    }
    with pytest.raises(FatalError, match="'t': the column 'b' is there twice"):
        unfit_columns("t", ["b", "a", "b"], unfit)


def test_many_columns_are_looked_at_once():
    names = [f"column_{number}" for number in range(20_000)]
    began = time.process_time()
    assert unfit_columns("t", names, lambda _: None, names, without_case="X") == {}
    assert time.process_time() - began < 2  # each beside all before it would be 200 million
