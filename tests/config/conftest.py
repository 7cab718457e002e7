from __future__ import annotations

import pytest

from collectors.config.load import load
from collectors.errors import ConfigurationError

GOOD = """\
sources:
  - {type: file, id: readings, path: data/*.ndjson, format: ndjson}
storage:
  - {type: sqlite, path: readings.db}
"""


@pytest.fixture
def good():
    return GOOD


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a pipeline file; the tests see it under a relative name, as a user who stands in its folder."""
    monkeypatch.chdir(tmp_path)

    def write_file(text, name="pipeline.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return write_file


@pytest.fixture
def problems(write):
    """Load a text that must be refused; returns its problems as (line, column, path, whole text)."""

    def refuse(text):
        name = write(text)
        with pytest.raises(ConfigurationError) as caught:
            load(name)
        assert str(caught.value) == "\n".join(str(problem) for problem in caught.value.problems)
        return caught.value.problems

    return refuse
