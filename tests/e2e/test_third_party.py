"""A source in a package of somebody else: found, listed, run, and held to the contract, without a change here.

The source and its test are the ones that CONTRIBUTING.md shows, so that page is run too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PIPELINE = """
name: theirs
sources: [{type: numbers, limit: 250}]
storage: [{type: sqlite, path: out.db}]
"""


@pytest.fixture
def package(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    source, test = blocks[0], blocks[1]
    site = tmp_path / "site"
    (site / "my_package").mkdir(parents=True)
    (site / "my_package" / "__init__.py").write_text("")
    (site / "my_package" / "numbers.py").write_text(source)
    info = site / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[collectors.sources]\nnumbers = my_package.numbers:NumbersSource\n"
    )
    (tmp_path / "test_theirs.py").write_text(test)
    (tmp_path / "p.yaml").write_text(PIPELINE)
    return tmp_path


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": str(folder / "site"), "COLUMNS": "200"},
    )


def test_it_is_listed(package):
    done = call(package, "collectors", "list")
    assert "numbers" in done.stdout
    assert "my-package" in done.stdout


def test_it_runs(package):
    done = call(package, "collectors", "run", "p.yaml")
    assert done.returncode == 0, done.stderr
    assert "read 250 = stored 250" in done.stderr
    found = call(package, "collectors", "query", "p.yaml", "--where", "n=250", "--json")
    assert found.stdout.strip() == '{"n":250}'


def test_it_passes_the_contract(package):
    done = call(package, "pytest", "-q", "-p", "no:cacheprovider", "test_theirs.py")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_a_source_that_repeats_itself_fails_the_contract(package):
    module = package / "site" / "my_package" / "numbers.py"
    module.write_text(module.read_text().replace('since["n"] + 1', 'since["n"]'))
    done = call(package, "pytest", "-q", "-p", "no:cacheprovider", "test_theirs.py")
    assert done.returncode == 1, done.stdout
