"""What the hot functions work on, and the yardstick that is measured around each of them."""

from __future__ import annotations

import json
import time
from itertools import islice

import inputs
import pyarrow as pa
import pyarrow.compute as pc
import pytest

TYPES = {
    "id": pa.int64(),
    "device": pa.string(),
    "ts": pa.string(),
    "temperature": pa.float64(),
    "humidity": pa.float64(),
    "status": pa.string(),
    "seq": pa.int64(),
}
ROWS = 32_000
"""As NDJSON they are 4 MiB: a chunk."""
YARDSTICK_ROUNDS = 25


@pytest.fixture(scope="session")
def raw():
    """Return a chunk of NDJSON."""
    return "".join(islice(inputs.sensors(ROWS), ROWS)).encode()


@pytest.fixture(scope="session")
def schema():
    return pa.schema(list(TYPES.items()))


@pytest.fixture(scope="session")
def table(raw, schema):
    """Return the same records as a table."""
    return pa.Table.from_pylist([json.loads(line) for line in raw.splitlines()], schema)


@pytest.fixture(scope="session")
def work():
    """Return a fixed piece of work that has nothing to do with us: the interpreter, its JSON, and Arrow."""
    lines = list(inputs.sensors(1000))
    values = pa.array(range(200_000), pa.float64())

    def yardstick():
        records = [json.loads(line) for line in lines]
        total = sum(record["temperature"] for record in records if record["status"] != "fail")
        kept = pc.filter(values, pc.greater(values, total))
        return pc.sum(pc.add(pc.multiply(kept, 1.8), 32.0)).as_py()

    return yardstick


@pytest.fixture
def hot(benchmark, work):
    """Return what measures a function; the yardstick is measured in front of it and behind it."""

    def measure(function, *arguments, **more):
        before = least(work)
        result = benchmark.pedantic(function, arguments, **({"rounds": 40, "warmup_rounds": 3} | more))
        benchmark.extra_info["yardstick"] = min(before, least(work))
        return result

    return measure


def least(function):
    """Return the least CPU seconds of some calls."""
    found = []
    for _ in range(YARDSTICK_ROUNDS):
        started = time.process_time()
        function()
        found.append(time.process_time() - started)
    return min(found)
