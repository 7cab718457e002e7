"""How the python source finds its function, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import json

import pytest

from collectors.collection.sources.python import PythonSource
from collectors.errors import ConfigurationError


@pytest.fixture
def stations(tmp_path, monkeypatch):
    (tmp_path / "my_stations.py").write_text(
        "def stations():\n    yield {'n': 1}\n\ndef needs(url):\n    pass\n\nnumber = 5\n"
    )
    (tmp_path / "my_broken.py").write_text("import no_such_module_here\n")
    (tmp_path / "my_failing.py").write_text("\n1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_function_is_found_by_module_and_name(stations):
    async def main():
        source = PythonSource(function="my_stations:stations")
        await source.connect()
        chunk = await source.collect()
        await source.disconnect()
        return json.loads(chunk.raw_data)

    assert asyncio.run(main()) == {"n": 1}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("my_stations:station", "'my_stations' has no function 'station'; did you mean 'stations'"),
        ("my_stations:number", "has no function 'number'"),
        ("my_stations:needs", "it needs url"),
        ("no_such_stations:stations", "there is no module 'no_such_stations' to import"),
        ("my_broken:stations", "there is no module 'no_such_module_here' to import"),
        ("my_failing:stations", r"ZeroDivisionError: division by zero \(.*my_failing.py:2\)"),
    ],
)
def test_what_cannot_be_loaded_is_said_before_the_start(stations, function, message):
    async def main():
        with pytest.raises(ConfigurationError, match=message):
            await PythonSource(function=function).connect()

    asyncio.run(main())


@pytest.mark.parametrize("function", ["stations", "stations:", 5, None])
def test_a_setting_that_names_no_function_is_refused(function):
    with pytest.raises(ValueError, match="module:name"):
        PythonSource(function=function)
