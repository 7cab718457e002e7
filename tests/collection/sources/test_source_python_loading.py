"""How the python source finds its function, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import json

import pytest

from collectors.collection.sources.python import PythonSource
from collectors.config.load import load
from collectors.errors import ConfigurationError
from collectors.runtime.engine import run


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
    with pytest.raises(ConfigurationError, match=message):
        PythonSource(function=function)


def test_a_module_beside_the_pipeline_file_is_found(tmp_path, tmp_path_factory, monkeypatch):
    """Wherever the command runs; with the names of such modules in no folder of Python's own."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    (tmp_path / "own_stations_beside.py").write_text("def stations():\n    yield {'n': 1}\n")
    file = tmp_path / "p.yaml"
    file.write_text(
        "sources: [{type: python, function: 'own_stations_beside:stations'}]\nstorage: [{type: memory}]\n"
    )
    report = run(file)
    assert (report.status, report.flows[0].read) == ("done", 1)


def test_a_module_that_is_not_there_is_a_mistake_in_the_file(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(
        "sources:\n  - {type: python, function: 'no_such_stations:stations'}\nstorage: [{type: memory}]\n"
    )
    with pytest.raises(ConfigurationError, match=r"p\.yaml:2:5 .* it must lie beside the pipeline file"):
        load(file)


@pytest.mark.parametrize("function", ["stations", "stations:", 5, None])
def test_a_setting_that_names_no_function_is_refused(function):
    with pytest.raises(ValueError, match="module:name"):
        PythonSource(function=function)
