"""SQL is offered in place of a function only where both gave the same on the sample."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest

from collectors.processing.processors.python import Python
from collectors.processing.translating import NotSimpleError
from collectors.runtime import measuring, replacing
from collectors.runtime.replacing import replacement

TABLE = pa.table(
    {
        "name": [f"n-{n}" for n in range(500)],
        "n": list(range(500)),
        "x": [n / 4 for n in range(500)],
    }
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(measuring, "LEAST_SECONDS", 0.0)


def replaced(function, table=TABLE, seconds=1.0):
    return replacement(Python(function=function), table, seconds, time.perf_counter)


def half(record):
    if record["n"] > 400:
        return None
    record["half"] = record["n"] / 2
    return record


def test_steps_that_do_the_same():
    found = replaced(half)
    assert found.steps == [
        {"type": "filter", "where": "not (n > 400)"},
        {"type": "set", "columns": {"half": "n / 2"}},
    ]
    assert found.factor > 1
    assert found.differs == ["n = null (left out, not set aside)"]


def inverse(record):
    return {**record, "y": 1 / record["n"]}


def test_what_fails_on_the_sample_is_not_replaced():
    with pytest.raises(NotSimpleError, match="it refuses records of the sample: ZeroDivisionError"):
        replaced(inverse)


def test_where_they_would_differ_is_said():
    found = replaced(inverse, TABLE.slice(1))
    assert found.differs == [
        "`record['n']` = 0 (null, not set aside)",
        "n = null (kept, not set aside)",
        "n = 0 (kept, not set aside)",
        f"n = {2**53 + 1} (another result)",
    ]


def hidden_zeros(record):
    record["y"] = record["x"] / (record["n"] - 1000) / -4
    record["y"] /= record["x"] + 1000 if record["n"] > 400 else 2.0
    return record


def test_a_divisor_that_no_edge_makes_zero_is_said():
    """It is no column, or it is one only where others have values that the sample has not."""
    assert replaced(hidden_zeros).differs[:2] == [
        "`record['x'] + 1000 if record['n'] > 400 else 2.0` = 0 (null, not set aside)",
        "`record['n'] - 1000` = 0 (null, not set aside)",
    ]


def test_results_beyond_64_bits_on_the_way_are_said():
    def back(record):
        return {**record, "m": record["n"] + 1 - 1, "o": record["n"] - 2 + 2}

    assert replaced(back).differs == [
        "n = null (kept, not set aside)",
        f"n = {2**63 - 1} (set aside, not kept)",
        f"n = {1 - 2**63} (set aside, not kept)",
    ]


def loud(record):
    record["name"] = record["name"].upper()
    return record


def test_letters_that_become_two_are_found():
    assert replaced(loud).differs == [
        "name = null (kept, not set aside)",
        "name = '\\tStraße ' (another result)",
    ]


@pytest.mark.parametrize("odd", ["Straße", None])
def test_sql_that_gives_something_else_is_not_offered(odd):
    table = TABLE.set_column(0, "name", pa.array([odd, *TABLE["name"].to_pylist()[1:]]))
    with pytest.raises(NotSimpleError):
        replaced(loud, table)


def test_another_type_is_another_result():
    narrow = TABLE.set_column(1, "n", TABLE["n"].cast(pa.int16()))

    def more(record):
        record["n"] = record["n"] + 1
        return record

    assert replaced(more).steps
    with pytest.raises(NotSimpleError, match="SQL would make something else"):
        replaced(more, narrow)


def test_nothing_can_be_said_where_nothing_is_left():
    def none(record):
        return record if record["n"] < 0 else None

    with pytest.raises(NotSimpleError, match="leaves out the whole sample"):
        replaced(none)


def test_a_function_that_changes_nothing():
    def same(record):
        return record

    with pytest.raises(NotSimpleError, match="changes nothing"):
        replaced(same)


def test_a_wrong_translation_is_not_offered(monkeypatch):
    """Whatever the translation says: it was tried."""
    monkeypatch.setattr(
        replacing, "translate", lambda *_: [{"type": "set", "columns": {"half": "n / 2 + 0.001"}}]
    )
    with pytest.raises(NotSimpleError, match="SQL would make something else"):
        replaced(half, TABLE.slice(0, 100))
    monkeypatch.setattr(replacing, "translate", lambda *_: [{"type": "filter", "where": "nowhere > 3"}])
    with pytest.raises(NotSimpleError, match="no column 'nowhere'"):
        replaced(half)
