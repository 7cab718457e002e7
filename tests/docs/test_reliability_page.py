"""docs/reliability.md says what the museum and the results say, and names tests that exist."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reliability():
    spec = importlib.util.spec_from_file_location("docs_reliability", ROOT / "docs" / "reliability.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def missing(nodes):
    """Return the named tests that do not exist; of a class, only that it exists."""
    found = []
    for node in nodes:
        path, *names = node.split("[")[0].split("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        if names[0] not in {item.name for item in tree.body if hasattr(item, "name")}:
            found.append(node)
    return found


def test_it_is_up_to_date(reliability):
    text = reliability.PAGE.read_text(encoding="utf-8")
    assert reliability.page(text) == text, "run: python docs/generate.py"


def test_the_tests_that_it_names_exist(reliability):
    text = reliability.PAGE.read_text(encoding="utf-8")
    nodes = re.findall(r"`(tests/[\w/]+\.py::[\w:]+)`", text)
    assert len(nodes) > 20
    assert missing(nodes) == []
    assert missing(["tests/docs/test_reliability_page.py::test_of_something_else"])


def test_results_are_read_and_none_is_fine(reliability, tmp_path, monkeypatch):
    monkeypatch.setattr(reliability, "RESULTS", tmp_path)
    assert reliability.figures() == "No full run is recorded yet."
    assert reliability.peers() == "No run is recorded yet."
    about = '"at": "2026-01-01T00:00Z", "commit": "abc", "machine": "2 cores"'
    (tmp_path / "reliability.jsonl").write_text(
        f'{{"figure": "kills", {about}, "stack": "sqlite", "rounds": 1}}\n'
        f'{{"figure": "kills", {about}, "stack": "sqlite", "rounds": 50000, "lost": 0}}\n'
        f'{{"figure": "kills", {about}, "stack": "parquet", "rounds": 7}}\n'
    )
    rows = reliability.figures().splitlines()
    assert rows[2] == "| kills | parquet | rounds 7 | 2026-01-01, abc |"
    assert rows[3] == "| kills | sqlite | rounds 50,000 · lost 0 | 2026-01-01, abc |"
    assert rows[-1] == "Measured on: 2 cores."
