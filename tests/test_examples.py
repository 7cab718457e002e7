"""The eight examples run, alone and all together, and say what their docstrings promise."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from collectors import examples

SAYS = {
    "example_basic_collection": "humidity=61 (mock)",
    "example_stream_collection": "chunk 2: 11 bytes",
    "example_processing_pipeline": "failed at 'publish': the mock processor 'publish' failed",
    "example_data_storage": "[{'plant': 'mint', 'cm': 35}]\n1 left",
    "example_error_handling": "handled by 1: no route",
    "example_event_system": "sqlite: 42 rows stored",
    "example_complete_pipeline": "stopped: [{'humidity': 61, 'processed_by_seen': True}]\n3 stored",
    "example_custom_data_source": "['2', '1', '0']",
}


@pytest.mark.parametrize("name", SAYS)
def test_example(name, capsys):
    asyncio.run(getattr(examples, name)())
    assert SAYS[name] in capsys.readouterr().out


def test_there_are_eight_and_all_can_be_run_at_once(capsys):
    assert {*SAYS, "run_all_examples"} == set(examples.__all__)
    assert len(SAYS) == 8
    asyncio.run(examples.run_all_examples())
    out = capsys.readouterr().out
    positions = [out.index(name.removeprefix("example_").replace("_", " ")) for name in SAYS]
    assert len(set(positions)) == 8
    assert all(text in out for text in SAYS.values())


def test_the_module_runs_them_and_ends_well():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "collectors.examples"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(text in done.stdout for text in SAYS.values())
