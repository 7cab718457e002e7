"""Each pipeline in examples/ runs, balances, and sets aside exactly what its comments say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SET_ASIDE = {"readings": 2, "access-log": 1, "disk-usage": 1}
STDIN = {"stdin": "data/readings.ndjson"}
POSTGRES = {"orders-to-postgres"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples") / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("out", ".collectors"))
    subprocess.run([sys.executable, "make_lake.py"], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.yaml")))
def test_example(folder, name, request):
    server = request.getfixturevalue("postgres_server").dsn if name in POSTGRES else ""
    done = subprocess.run(
        [sys.executable, "-m", "collectors", "run", f"{name}.yaml", "--for", "2s", "--json"],
        cwd=folder,
        input=(folder / STDIN[name]).read_text() if name in STDIN else "",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"POSTGRES_DSN": server},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["balanced"]
    assert all(flow["read"] for flow in report["flows"])
    edges = [edge for flow in report["flows"] for edge in flow["storage"]]
    assert all(edge["stored"] for edge in edges)
    if name not in STDIN:
        assert {edge["set_aside"] for edge in edges} == {SET_ASIDE.get(name, 0)}
