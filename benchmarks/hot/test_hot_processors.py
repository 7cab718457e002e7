"""Tables to tables."""

from collectors.processing.processors.filter import Filter
from collectors.processing.processors.python import Python
from collectors.processing.processors.set import Set


def clean(record):
    if record["status"] == "fail":
        return None
    record["temperature_f"] = record["temperature"] * 9 / 5 + 32
    return record


def test_filter_and_set(hot, table):
    keeps = Filter(where="status <> 'fail' and temperature between -50 and 60")
    adds = Set(columns={"temperature_f": "temperature * 9 / 5 + 32"})
    assert 0 < hot(lambda: adds.transform(keeps.transform(table))).num_rows < table.num_rows


def test_python_function(hot, table):
    calls = Python(function=clean)
    assert 0 < hot(calls.apply, table.slice(0, 8_000)).table.num_rows < 8_000
