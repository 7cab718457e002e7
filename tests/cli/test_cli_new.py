"""`new`: a file to start from, which loads and runs as it is."""

from __future__ import annotations

import asyncio
from typing import get_args

import pytest

from collectors.cli.new import TEMPLATES, Template
from collectors.config.load import load
from collectors.runtime.engine import Engine

NAMES = get_args(Template)


def test_every_template_is_offered(call):
    assert sorted(path.name for path in TEMPLATES.iterdir() if path.is_dir()) == sorted(NAMES)
    code, out, _ = call("new")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_template_loads_and_runs(call, tmp_path, name):
    file = tmp_path / "made" / "my pipeline.yaml"
    code, out, _ = call("new", str(file), "--template", name)
    assert code == 0
    assert f"wrote {file}" in out
    assert "collectors run 'my pipeline.yaml'" in file.read_text()
    report = asyncio.run(Engine(load(file), limit=1.0).run())
    assert not report.failed
    assert report.balanced
    assert sum(flow.read for flow in report.flows) > 0


def test_the_pipeline_is_named_after_the_file(call, tmp_path):
    """Two pipelines of one name in one folder would wait for each other, and share their positions."""
    call("new", str(tmp_path / "readings.yaml"))
    assert load(tmp_path / "readings.yaml").name == "readings"
    line = next(line for line in (tmp_path / "readings.yaml").read_text().splitlines() if "name:" in line)
    assert line == "name: readings                    # positions, runs and dead letters hang on this name"


def test_what_is_there_is_not_overwritten(call, tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("mine")
    code, out, err = call("new", str(file), "--template", "python")
    assert (code, out) == (2, "")
    assert f"{file}: is there already" in err
    assert file.read_text() == "mine"
    assert not (tmp_path / "my_functions.py").exists()
    assert call("new", str(file), "--template", "python", "--force")[0] == 0
    assert "my_functions" in file.read_text()


def test_again_with_the_same_content(call, tmp_path):
    assert call("new", str(tmp_path / "p.yaml"))[0] == 0
    assert call("new", str(tmp_path / "p.yaml"))[0] == 0


def test_folder_that_cannot_be_made(call, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = call("new", str(tmp_path / "file" / "p.yaml"))
    assert code == 2
    assert "cannot be written" in err
