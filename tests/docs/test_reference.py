"""The reference pages say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drift(folder, pages):
    """Return the pages that are missing, outdated, or about something that is gone."""
    there = {path.relative_to(folder): path.read_text(encoding="utf-8") for path in folder.rglob("*.md")}
    return sorted(str(path) for path in {*there, *pages} if there.get(path) != pages.get(path))


def test_pages_are_up_to_date(generate):
    assert drift(generate.REFERENCE, generate.pages()) == [], "run: python docs/generate.py"


def test_drift_is_found(generate, tmp_path):
    pages = {Path("a.md"): "a", Path("sub/b.md"): "b", Path("c.md"): "c"}
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "sub" / "b.md").write_text("old")
    (tmp_path / "gone.md").write_text("x")
    assert drift(tmp_path, pages) == ["c.md", "gone.md", "sub/b.md"]


def test_main_writes_and_removes(generate, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "REFERENCE", tmp_path)
    (tmp_path / "gone.md").write_text("x")
    generate.main()
    assert drift(tmp_path, generate.pages()) == []


def test_page_of_a_component(generate):
    page = generate.pages()[Path("backends/sqlite.md")]
    assert "# sqlite (backend)" in page
    assert "```yaml\nstorage:\n" in page
    assert "**Delivery:** exactly once" in page
    assert "| `path` | path | required | The database file; it is made when it is not there. |" in page
    assert "| `lock_timeout` | duration | `5s` |" in page
